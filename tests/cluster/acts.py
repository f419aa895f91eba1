"""The acts on a cluster: the images that are asked for, the part that dies, and that the others went on."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

from tests.chaos.acts import BATCH
from tests.chaos.scene import Run, Scene
from tests.chaos.stage import PATIENCE
from tests.cluster.cluster import WORKERS
from tests.cluster.scene import ClusterScene

MAPPED = 3
"""Mapped tasks of a run, each with one image."""
AWAY = 15.0
"""Seconds for which a service is away."""
GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL: less than what a batch still needs."""
VISIBILITY = 8
"""Seconds after which the broker hands an unfinished task out again."""
SCHEDULERS = ("scheduler-1", "scheduler-2")
TRIGGERERS = ("triggerer-1", "triggerer-2")
BATCHES, SMALL_BATCH = 10, 20
RETRIES = 3
"""Of each task, as its Dag file says."""

Act = Callable[[ClusterScene], None]


def act(function: Act) -> Callable[[Scene], None]:
    """Let an act on a cluster be played by the rows of `make chaos`."""

    def played(scene: Scene) -> None:
        assert isinstance(scene, ClusterScene)
        function(scene)

    return played


def _ask_mix(scene: ClusterScene) -> Run:
    """Ask for an image in the worker, one deferred, mapped ones, and a batch; return the batch's run."""
    [batch] = scene.ask(1, images=BATCH)
    scene.ask(1)
    scene.ask(1, deferrable=True)
    scene.ask(1, images=MAPPED, mapped=True)
    return batch


def _ask_mix_and_wait(scene: ClusterScene) -> Run:
    """Ask for the mix, and wait until the batch is in the middle of it."""
    batch = _ask_mix(scene)
    scene.until_stored(BATCH // 4)
    task = scene.task(batch)
    assert (task["state"], task["try_number"]) == ("running", 1), f"the batch was {task['state']} too soon"
    return batch


def nothing_happens(scene: ClusterScene) -> None:
    _ask_mix(scene)
    scene.finish()


def worker_dies(scene: ClusterScene) -> None:
    batch = _ask_mix_and_wait(scene)
    with _without(scene, scene.worker_of(batch)) as victim:
        scene.cluster.kill_tree(victim)
        _note_takeover(scene, batch)
        scene.finish()


def worker_freezes(scene: ClusterScene) -> None:
    batch = _ask_mix_and_wait(scene)
    with _without(scene, scene.worker_of(batch)) as victim:
        frozen = scene.cluster.processes_of(victim)
        tasks = {task.pid for task in scene.cluster.task_processes()} & set(frozen)
        _signal(frozen, signal.SIGSTOP)
        try:
            _note_takeover(scene, batch)
            scene.finish()
            stored = scene.files()
        finally:
            _signal(reversed(frozen), signal.SIGCONT)
        scene.until(
            lambda: not {task.pid for task in scene.cluster.task_processes()} & tasks, "the sleepers to end"
        )
        now = scene.files()
        changed = [name for name, data in stored.items() if now.get(name) != data]
        changed += [name for name in now.keys() - stored.keys() if not _may_leave(name, now[name])]
        assert not changed, f"a sleeper that came back changed {sorted(changed)}"


def _may_leave(name: str, data: bytes) -> bool:
    """Say whether a sleeper may leave a new file: it does nothing more, but it says what it did.

    A note of what it bought while it slept; or a claim, where it had slept before it read the journal, and
    finds that nothing is left to do.
    """
    if "/notes/" in name:
        return True
    return "/jobs/" in name and {event["event"] for event in json.loads(data)["events"]} == {"claimed"}


def worker_ends(scene: ClusterScene) -> None:
    """It is told to end, and has the time: it takes no new task, and finishes those that it has."""
    batch = _ask_mix_and_wait(scene)
    with _without(scene, scene.worker_of(batch)) as victim:
        scene.cluster.end(victim, grace=120)
        assert scene.task(batch)["state"] == "success", "the worker did not finish what it had"
        scene.finish()
        assert scene.task(batch)["try_number"] == 1


def worker_ends_too_slowly(scene: ClusterScene) -> None:
    batch = _ask_mix_and_wait(scene)
    with _without(scene, scene.worker_of(batch)) as victim:
        scene.cluster.kill(victim, signal.SIGTERM)
        time.sleep(GRACE)
        scene.cluster.kill_tree(victim)
        _note_takeover(scene, batch)
        scene.finish()


def worker_quits(scene: ClusterScene) -> None:
    """SIGQUIT, Celery's cold shutdown."""
    batch = _ask_mix_and_wait(scene)
    with _without(scene, scene.worker_of(batch)) as victim:
        scene.cluster.kill(victim, signal.SIGQUIT)
        _note_takeover(scene, batch)
        scene.finish()


def redelivered(scene: ClusterScene) -> None:
    """The broker hands each task out again while it still runs: Airflow refuses the second start."""
    # Kombu looks every 100 s for what has become visible; here every 2 s.
    options = {"VISIBILITY_TIMEOUT": VISIBILITY, "UNACKED_RESTORE_INTERVAL": 2, "UNACKED_RESTORE_THROTTLE": 1}
    prefix = "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__"
    env = {f"{prefix}{name}": str(value) for name, value in options.items()}
    try:
        for worker in WORKERS:
            scene.cluster.start_worker(worker, env)
        _ask_mix(scene)
        scene.finish()
        scene.until(lambda: _times_refused(scene), "a task to be handed out again")
        scene.notes.append(f"{_times_refused(scene)} starts refused as already running")
    finally:
        for worker in WORKERS:
            scene.cluster.start_worker(worker)


def _times_refused(scene: ClusterScene) -> int:
    said = "Task already running elsewhere, ignoring redelivered message"
    return sum(scene.cluster.log_of(worker).count(said) for worker in WORKERS)


def broker_away(sig: signal.Signals) -> Act:
    """Redis ends in the middle, and others ask for images while it is away."""

    def played(scene: ClusterScene) -> None:
        _ask_mix_and_wait(scene)
        with _supervised(scene):
            scene.cluster.broker.stop(sig)
            scene.ask(2)
            time.sleep(AWAY)
            scene.cluster.broker.start()
            scene.finish()

    return played


def store_is_killed(scene: ClusterScene) -> None:
    _ask_mix_and_wait(scene)
    with _supervised(scene):
        scene.cluster.s3.process.kill(signal.SIGKILL)
        time.sleep(AWAY)
        scene.cluster.s3.start()
        scene.finish()


def store_stops(scene: ClusterScene) -> None:
    """It takes connections and answers nothing."""
    _ask_mix_and_wait(scene)
    process = scene.cluster.s3.process
    process.kill(signal.SIGSTOP)
    try:
        time.sleep(AWAY)
    finally:
        process.kill(signal.SIGCONT)
    scene.finish()


def database_restarts(scene: ClusterScene) -> None:
    _ask_mix_and_wait(scene)
    with _supervised(scene):
        scene.cluster.database_server.stop()
        time.sleep(GRACE)
        scene.cluster.database_server.start()
        scene.finish()


def triggerer_dies(scene: ClusterScene) -> None:
    runs = scene.ask(4, deferrable=True) + scene.ask(1, images=BATCH, deferrable=True)
    scene.until_deferred(runs)
    held: dict[str, list[Run]] = {}

    def are_held() -> bool:
        held.clear()
        for run in runs:
            held.setdefault(_triggerer(scene, run), []).append(run)
        held.pop("", None)
        return bool(held)

    scene.until(are_held, "a trigger to have a triggerer")
    victim, its_runs = max(held.items(), key=lambda each: len(each[1]))
    with _without(scene, victim):
        killed_at = time.monotonic()
        scene.cluster.kill_tree(victim)
        scene.until(lambda: all(_has_left(scene, run, victim) for run in its_runs), "the other to take over")
        scene.notes.append(f"taken over after {time.monotonic() - killed_at:.0f} s")
        scene.finish()


def _triggerer(scene: ClusterScene, run: Run) -> str:
    job = scene.task(run)["triggerer_job"]
    return str(job["hostname"]) if job else ""


def _has_left(scene: ClusterScene, run: Run, victim: str) -> bool:
    """Say whether another triggerer waits for a task, or none has to any more."""
    return scene.task(run)["state"] != "deferred" or _triggerer(scene, run) not in ("", victim)


def scheduler_dies(scene: ClusterScene) -> None:
    """One of two, with what it has just handed to Celery; the other one adopts it."""
    _ask_mix_and_wait(scene)
    victim = SCHEDULERS[0]
    with _without(scene, victim):
        scene.ask(4)
        scene.cluster.kill_tree(victim)
        scene.finish()


def same_items(scene: ClusterScene) -> None:
    """Two Dags buy the same items at the same places; the second one waits for what the first one makes."""
    first, second = scene.ask_twice(BATCH)
    scene.finish()
    results = [scene.result(run) for run in (first, second)]
    scene.notes.append(" and ".join(f"{result['reused']} reused" for result in results))


def same_items_and_a_worker_dies(scene: ClusterScene) -> None:
    """The first one is not retried: the second one adopts what it bought, when its lease has ended."""
    first, second = scene.ask_twice(BATCH, timeout=30)
    scene.until_stored(BATCH // 4)
    with _without(scene, scene.worker_of(first)) as victim:
        scene.cluster.kill_tree(victim)
        assert scene.airflow.wait_for_run(first.dag_id, first.run_id, timeout=PATIENCE) == "failed"
        scene.finish([second])


def ten_batches(scene: ClusterScene) -> None:
    scene.ask(BATCHES, images=SMALL_BATCH)
    scene.finish()
    refused = scene.bill()["refused"]
    share = refused / (refused + BATCHES * SMALL_BATCH)
    scene.notes.append(f"{100 * share:.0f} % of the submissions refused")


@contextmanager
def _without(scene: ClusterScene, victim: str) -> Iterator[str]:
    """Play with a component that is about to die, and have it back afterwards."""
    assert victim, "the task has no worker"
    try:
        yield victim
    finally:
        if victim in WORKERS:
            scene.cluster.start_worker(victim)
        else:
            scene.cluster.restart(victim)


@contextmanager
def _supervised(scene: ClusterScene) -> Iterator[None]:
    """Play with an init system that starts again what ends by itself, and note what it started."""
    with scene.cluster.supervised() as revived:
        yield
        scene.notes += [f"{name} ended by itself and was started again" for name in revived]


def _note_takeover(scene: ClusterScene, run: Run) -> None:
    """Wait until a task that has lost its worker runs again, and note how long that took."""
    killed_at = time.monotonic()
    scene.until(lambda: scene.try_number(run) > 1, "the other worker to take over")
    scene.notes.append(f"the batch taken over after {time.monotonic() - killed_at:.0f} s")


def _signal(pids: Iterable[int], sig: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, sig)
