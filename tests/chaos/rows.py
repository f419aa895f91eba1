"""The table of faults: what happens to the images of each row, and what its rules are."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass
from pathlib import Path

from airflow_provider_bitdance.engine.policy import MAX_UNANSWERED
from demo.real_airflow import RealAirflow
from tests.chaos.acts import (
    BATCH,
    Act,
    api_server_restarts,
    clear_after_success,
    clear_while_deferred,
    deferral_times_out,
    delete_and_reconcile,
    delete_and_run_again,
    killed,
    mark_failed,
    scheduler_dies,
    service_dies,
    service_dies_within_a_batch,
    task_sleeps,
    the_same_batch_twice,
    the_same_batch_twice_and_the_first_dies,
    triggerer_ends,
    triggerer_sleeps,
)
from tests.chaos.scene import Outcome, Scene


@dataclass(frozen=True, slots=True)
class Row:
    """One fault.

    :ivar act: Asks for images, lets the fault happen to each, makes sure that it did, and waits for the end.
    :ivar asked: How many images, and how.
    :ivar latency: Seconds that an image takes.
    :ivar echo: Whether the account's history shows what was asked.
    :ivar lost: So many purchases may be lost here: no echo.
    :ivar alone: It kills what the other rows need.
    :ivar limit: So many images at once the account makes; it refuses more.
    """

    name: str
    act: Act
    asked: str
    latency: float = 1.0
    echo: bool = False
    lost: int = 0
    killable: bool = False
    alone: bool = False
    limit: int | None = None

    def play(self, airflow: RealAirflow, folder: Path, scene_type: type[Scene] = Scene) -> Outcome:
        """Play it, and count what came of it."""
        scene = scene_type.of(
            airflow,
            self.name,
            folder,
            latency=self.latency,
            echo=self.echo,
            killable=self.killable,
            max_in_flight=self.limit,
        )
        started = time.monotonic()
        try:
            self.act(scene)
            return scene.outcome(time.monotonic() - started)
        finally:
            scene.service.stop()

    def broken_rules(self, outcome: Outcome) -> list[str]:
        """Say which rules do not hold."""
        rules = {
            "stored = asked": outcome.stored == outcome.asked,
            "no wrong picture": outcome.wrong == 0,
            "billed <= asked + possibly paid": outcome.billed <= outcome.asked + outcome.possibly_paid,
            f"possibly paid {'<=' if self.lost else '='} {self.lost}": outcome.possibly_paid <= self.lost,
        }
        return [rule for rule, holds in rules.items() if not holds]


NAMED = "2 in the worker, each under a name of the user's: there the claim is an entry of its own"
WORKER = "2 in the worker"
BOTH = "2 in the worker, 2 deferred"
SHOWN = "the account's history shows inputs"
SENT = "request sent, response not read"
STYLE = "photographic"
PROMPTS = "each with a prompt to enhance, which is counted like an image"
IN_BATCH = f"a batch of {BATCH} in the worker"
BATCH_DEFERRED = f"a batch of {BATCH}, deferred when half of it is stored"
TWICE = f"two batches of the same {BATCH} items, each in a Dag of its own"
UNREAD = "8 responses not read"

ROWS = [
    Row("claim written", killed("claim written", named=True), NAMED),
    Row("intent written · echo", killed("intent written"), f"{WORKER}; {SHOWN}", echo=True, lost=2),
    Row(
        "intent written · no echo",
        killed("intent written", worker=1),
        "1 in the worker: nobody else buys with this account meanwhile",
        lost=1,
    ),
    Row(f"{SENT} · echo", killed(SENT), f"{WORKER}; {SHOWN}", echo=True),
    Row(f"{SENT} · no echo", killed(SENT), f"{WORKER}; the history shows no inputs", lost=2),
    Row(
        "response read, not recorded",
        killed("response read, not recorded"),
        f"{WORKER}; {SHOWN}",
        echo=True,
    ),
    Row("submitted", killed("submitted", deferred=2), BOTH),
    Row("deferred", killed("deferred", worker=0, deferred=3), "3 deferred", latency=8.0),
    Row("event received", killed("event received", worker=0, deferred=3), "3 deferred"),
    Row("half a download", killed("half a download", deferred=2), BOTH),
    Row("file written, receipt not", killed("file written, receipt not", deferred=2), BOTH),
    Row(
        "receipt written, journal entry missing",
        killed("receipt written, journal entry missing", deferred=2),
        BOTH,
    ),
    Row("journal complete, XCom not pushed", killed("journal complete, XCom not pushed", deferred=2), BOTH),
    Row(
        "prompt enhanced, image not bought",
        killed("prompt enhanced, image not bought", deferred=2, style=STYLE),
        f"{BOTH}; {PROMPTS}",
    ),
    Row(
        f"prompt: {SENT} · echo",
        killed("prompt sent, response not read", style=STYLE),
        f"{WORKER}; {PROMPTS}; {SHOWN}",
        echo=True,
        lost=2,
    ),
    Row(
        f"prompt: {SENT} · no echo",
        killed("prompt sent, response not read", style=STYLE),
        f"{WORKER}; {PROMPTS}",
        lost=2,
    ),
    Row("clear while deferred", clear_while_deferred(), "3 deferred, each cleared once", latency=20.0),
    Row("clear after success", clear_after_success, "3, each cleared once: reused, nothing is bought"),
    Row("mark failed while deferred, then clear", mark_failed, "3 deferred", latency=20.0),
    Row("Dag run deleted, made again with its id", delete_and_run_again, "3 deferred", latency=20.0),
    Row(
        "Dag run deleted, another run, reconcile",
        delete_and_reconcile,
        "2 deferred and deleted, which `reconcile` collects, and 2 of other runs",
        latency=15.0,
    ),
    Row("deferral time-out", deferral_times_out, "2 deferred, for 12 s at most", latency=40.0),
    Row("task SIGSTOP past its heartbeat, SIGCONT", task_sleeps, "2 in the worker", latency=15.0),
    Row("service SIGKILL, restarted", service_dies, BOTH, latency=20.0, killable=True),
    Row(
        "batch: killed at 10 %, 50 %, 90 % stored",
        killed("10 % stored", "50 % stored", "90 % stored", worker=1, images=BATCH),
        f"{IN_BATCH}; {SHOWN}",
        echo=True,
        lost=3 * MAX_UNANSWERED,
    ),
    Row(f"batch: {UNREAD} · echo", killed(UNREAD, worker=1, images=BATCH), f"{IN_BATCH}; {SHOWN}", echo=True),
    Row(
        f"batch: {UNREAD} · no echo",
        killed(UNREAD, worker=1, images=BATCH),
        f"{IN_BATCH}; the history shows no inputs",
        lost=8,
    ),
    Row("batch: the same items twice at once", the_same_batch_twice, TWICE, latency=3.0),
    Row(
        "batch: the same items twice, the first killed",
        the_same_batch_twice_and_the_first_dies,
        f"{TWICE}; the first has no retries, and a timeout of 30 s",
        latency=3.0,
    ),
    Row("batch: clear while deferred", clear_while_deferred(1, BATCH), BATCH_DEFERRED, latency=12.0),
    Row(
        "batch: service SIGKILL, restarted",
        service_dies_within_a_batch,
        f"{IN_BATCH}, with 10 stored; {SHOWN}",
        latency=3.0,
        echo=True,
        lost=MAX_UNANSWERED,
        killable=True,
    ),
    Row("triggerer SIGTERM", triggerer_ends(signal.SIGTERM), "3 deferred", latency=20.0, alone=True),
    Row("triggerer SIGKILL", triggerer_ends(signal.SIGKILL), "3 deferred", latency=20.0, alone=True),
    Row(
        "batch: triggerer SIGKILL",
        triggerer_ends(signal.SIGKILL, 1, BATCH),
        BATCH_DEFERRED,
        latency=12.0,
        alone=True,
    ),
    Row("triggerer SIGSTOP, take-over, SIGCONT", triggerer_sleeps, "3 deferred", latency=60.0, alone=True),
    Row("scheduler SIGKILL, restarted", scheduler_dies, BOTH, latency=20.0, alone=True),
    Row("api-server restarted", api_server_restarts, BOTH, latency=20.0, alone=True),
]
