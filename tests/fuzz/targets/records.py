"""Records: what lies below a records path, as whoever may write there leaves it to a task or a command.

Three tasks have been there: one stored its image, one waits for its prediction, one was killed before it read
the answer to its purchase. Their files are made once by today's code; a case changes some of them.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from airflow_provider_bitdance.__main__ import NOT_RUN, main
from airflow_provider_bitdance.clock import Clock
from airflow_provider_bitdance.exceptions import BitDanceError, RecordError
from airflow_provider_bitdance.hooks.bitdance import BitDanceHook
from airflow_provider_bitdance.operators.bitdance import BitDanceTextToImageOperator
from airflow_provider_bitdance.records import Job, Journal
from airflow_provider_bitdance.records.receipts import Receipts
from airflow_provider_bitdance.records.reservations import Reservations
from airflow_provider_bitdance.storage import LocalFolder
from airflow_provider_bitdance.storage.naming import Destination, parse_destination
from tests.builders import context
from tests.fuzz.cases import Case
from tests.fuzz.mutation import mutated_json
from tests.fuzz.sandbox import Sandbox
from tests.fuzz.target import Target, expect, expect_fit_for_people
from tests.unit.support import API_URL, START, Busy, Crash, FakeAPI, FakeClock, FakePrediction, Step, a_writer

TASKS = {"cover": "", "poster": "before poll", "logo": "after POST"}
"""The tasks, each named as its image, and where its process was killed."""
TIMEOUT = 600.0
NEIGHBOUR = b"An image of somebody else."
ROOT, RECORD = b"@ROOT@", "@RECORD-%s@"
HOSTILE = (
    *(
        "../outside/gone.txt",
        "@ROOT@/outside/gone.txt",
        "../neighbour.png",
        "neighbour.png",
        "../../outside/x",
    ),
    *(
        "file://@ROOT@/outside",
        "file://@ROOT@/outside/gone.txt",
        "file://@ROOT@/out/../outside",
        "s3://id@b/x",
    ),
    *(0.0, 1e-9, -1.0, 4_000_000_000.0, 10**9, "2096-01-01T00:00:00Z", "https://evil.example/outputs/x.png"),
)


class Scene:
    """A disk, an account and a clock, in which tasks and commands run.

    :ivar made: The predictions of the account before the case begins.
    """

    def __init__(self, folder: Path, made: dict[str, FakePrediction] | None = None) -> None:
        self.folder, self.out = folder, folder / "out"
        self.clock = FakeClock()
        self.api = FakeAPI(self.clock)
        self.api.made.update(made or {})
        for name in ("out", "outside"):
            (folder / name).mkdir(exist_ok=True)
        (folder / "outside" / "gone.txt").write_bytes(b"to be left alone")
        (self.out / "neighbour.png").write_bytes(NEIGHBOUR)

    @contextlib.contextmanager
    def played(self, step: Step = lambda _: None) -> Iterator[None]:
        """Let operators and commands meet this account and this clock."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(
                "AIRFLOW_CONN_BITDANCE_DEFAULT",
                f'{{"conn_type":"bitdance","host":"{API_URL}","password":"k"}}',
            )
            patch.setattr(Clock, "time", lambda _: self.clock.time())
            patch.setattr(Clock, "sleep", lambda _, seconds: self.clock.sleep(seconds))
            patch.setattr("airflow_provider_bitdance.operators.engine_operator.ThreadPoolExecutor", Busy)
            patch.setattr(BitDanceHook, "new_async_client", lambda *_, **__: self.api.client(step))
            yield

    def operator(self, task: str, **given: Any) -> BitDanceTextToImageOperator:
        path = f"{self.out}/{task}"
        return BitDanceTextToImageOperator(
            **{
                "task_id": "image",
                "prompt": f"A {task}",
                "output_path": path,
                "timeout": TIMEOUT,
                "retries": 2,
            }
            | given
        )

    def destination(self, task: str) -> Destination:
        return parse_destination(f"{self.out}/{task}", default_stem="")

    def named(self, data: bytes) -> bytes:
        """Put placeholders for what differs from folder to folder."""
        for task in TASKS:
            data = data.replace(self.destination(task).record_name.encode(), (RECORD % task).encode())
        return data.replace(str(self.folder).encode(), ROOT)

    def placed(self, data: bytes) -> bytes:
        """Put this folder's own for the placeholders."""
        for task in TASKS:
            data = data.replace((RECORD % task).encode(), self.destination(task).record_name.encode())
        return data.replace(ROOT, str(self.folder).encode())


@functools.cache
def snapshot() -> tuple[dict[str, bytes], dict[str, FakePrediction]]:
    """Return what the three tasks have left, by name below the output folder, and what they have bought."""
    with tempfile.TemporaryDirectory() as folder:
        scene = Scene(Path(folder))
        for task, killed_at in TASKS.items():

            def step(now: str, last: str = killed_at) -> None:
                if now == last:
                    raise Crash(now)

            with scene.played(step), contextlib.suppress(Crash):
                scene.operator(task).execute(context(run_id=task))
        files = {
            scene.named(path.relative_to(scene.out).as_posix().encode()).decode(): scene.named(
                path.read_bytes()
            )
            for path in sorted(scene.out.rglob("*"))
            if path.is_file() and path.name != "neighbour.png"
        }
        return files, dict(scene.api.made)


@st.composite
def _changed_files(draw: DrawFn) -> dict[str, Any]:
    """Draw what some of the records are now: other bytes, or no file at all."""
    files, _ = snapshot()
    records = sorted(name for name in files if name.endswith(".json"))
    others = tuple(files[name] for name in records)
    changed: dict[str, Any] = {}
    for _ in range(draw(st.integers(1, 2))):
        name = draw(st.sampled_from(records))
        own = mutated_json((files[name],), more=HOSTILE)
        kinds = st.sampled_from(("gone", "fifo", "link", "folder", "empty", "zeros"))
        changed[name] = draw(st.one_of(own, own, own, own, own, own, st.sampled_from(others), kinds))
    return changed


def _lay_out(case: Case, folder: Path) -> Scene:
    files, made = snapshot()
    scene = Scene(folder, made)
    for name, content in (files | case["files"]).items():
        path = scene.out / scene.placed(name.encode()).decode()
        path.parent.mkdir(parents=True, exist_ok=True)
        match content:
            case bytes():
                path.write_bytes(scene.placed(content))
            case "fifo":
                os.mkfifo(path)
            case "link":
                path.symlink_to(folder / "outside" / "gone.txt")
            case "folder":
                path.mkdir()
            case "empty":
                path.touch()
            case "zeros":
                with path.open("wb") as file:
                    file.truncate(200 * 2**20)
    return scene


def job_cases() -> SearchStrategy[Case]:
    return st.fixed_dictionaries(
        {
            "files": _changed_files(),
            "task": st.sampled_from(tuple(TASKS)),
            "run": st.sampled_from(("same", "same", "cleared", "other")),
            "budget": st.sampled_from((None, None, 0.005)),
            "if_exists": st.sampled_from(("reuse", "reuse", "regenerate")),
        }
    )


def check_job(case: Case, folder: Path, sandbox: Sandbox) -> None:
    """Run a task again, or clear it, or let another run want the same image."""
    scene, task = _lay_out(case, folder), case["task"]
    sandbox.allow(writable=[scene.out])
    given = {"same": {"try_number": 2}, "cleared": {"try_number": 4, "max_tries": 5}, "other": {}}[
        case["run"]
    ]
    run_id = "another" if case["run"] == "other" else task
    operator = scene.operator(task, max_cost_usd=case["budget"], if_exists=case["if_exists"])
    result = None
    with scene.played():
        try:
            result = operator.execute(context(run_id=run_id, **given))
        except (BitDanceError, AirflowFailException) as error:
            expect_fit_for_people(str(error), "a task's error")
            cause = error.__cause__ if isinstance(error, AirflowFailException) else error
            expect(isinstance(cause, BitDanceError | None), "a task ends in another's error", error)
    posts = len(scene.api.posts)
    expect(posts <= 1, "an image is bought twice", posts)
    expect(case["budget"] is None or posts == 0, "more is spent than max_cost_usd")
    expect((scene.out / "neighbour.png").read_bytes() == NEIGHBOUR, "an image of somebody else is changed")
    expect(
        scene.clock.now - START <= 2 * TIMEOUT,
        "a task waits for longer than its timeout",
        scene.clock.now - START,
    )
    if result is not None:
        _expect_true(result, scene, task)


def _expect_true(result: dict[str, Any], scene: Scene, task: str) -> None:
    expect(result["uri"] == f"file://{scene.out}/{task}.png", "a result has another's address", result["uri"])
    data = (scene.out / f"{task}.png").read_bytes()
    expect(hashlib.sha256(data).hexdigest() == result["sha256"], "a result's file is another one", result)
    expect(len(data) == result["bytes"], "a result's file has another size", result)
    expect(
        result["receipt"].startswith(f"file://{scene.out}/.bitdance/receipts/"),
        "a receipt is elsewhere",
        result,
    )


COMMANDS = (
    ("records", "show"),
    ("records", "verify"),
    ("reconcile", "--dry-run"),
    ("reconcile",),
    ("reconcile", "--all"),
)


def command_cases() -> SearchStrategy[Case]:
    return st.fixed_dictionaries({"files": _changed_files(), "command": st.sampled_from(COMMANDS).map(list)})


def check_command(case: Case, folder: Path, sandbox: Sandbox) -> None:
    """Run a command of maintenance: what is damaged is a finding, and it buys nothing."""
    scene = _lay_out(case, folder)
    scene.clock.now = START + 3600
    is_reader = case["command"] not in (["reconcile"], ["reconcile", "--all"])
    sandbox.allow(writable=[] if is_reader else [scene.out], readable=[scene.out])
    out, err = io.StringIO(), io.StringIO()
    with scene.played(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        output = ["--output", str(scene.out)] if case["command"][0] == "reconcile" else []
        code = main([*case["command"], *output, "--records-path", f"{scene.out}/.bitdance"])
    expect(code != NOT_RUN, "one damaged record stops a command", err.getvalue())
    expect_fit_for_people(out.getvalue(), "what a command prints")
    expect_fit_for_people(err.getvalue(), "what a command complains of")
    expect(not scene.api.posts, "a command buys")
    expect((scene.out / "neighbour.png").read_bytes() == NEIGHBOUR, "an image of somebody else is changed")


KINDS = {
    "receipt": ".bitdance/receipts/" + RECORD % "cover" + ".json",
    "reservation": ".bitdance/addresses/" + RECORD % "cover" + "/000001.json",
    "entry": ".bitdance/jobs/dag/cover/image/map=-1/generation=2/000001.json",
    "note": ".bitdance/jobs/dag/logo/image/map=-1/generation=2/notes/pred-9.json",
}


def record_cases() -> SearchStrategy[Case]:
    def of(kind: str) -> SearchStrategy[Case]:
        seed = snapshot()[0].get(KINDS[kind], b'{"format": 2}')
        return mutated_json((seed,), more=HOSTILE).map(lambda data: {"kind": kind, "data": data})

    return st.deferred(lambda: st.one_of(*map(of, KINDS)))


def check_record(case: Case, folder: Path, sandbox: Sandbox) -> None:
    """Read one record, as all readers do."""
    scene = Scene(folder)
    destination = scene.destination("cover")
    path = scene.out / scene.placed(KINDS[case["kind"]].encode()).decode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(scene.placed(case["data"]))
    sandbox.allow(readable=[scene.out])
    records = LocalFolder(scene.out / ".bitdance")
    job = Job(dag_id="dag", run_id="cover", task_id="image", map_index=-1, generation=2)
    try:
        receipt = Receipts(records).find(destination)
        Reservations(records).last(destination)
        Journal(records, a_writer(job=job)).load()
    except RecordError as error:
        expect_fit_for_people(str(error), "an error about a record")
        return
    if receipt is not None:
        expect(
            receipt.file == f"cover{receipt.file[5:]}" and "/" not in receipt.file,
            "a receipt's file is elsewhere",
            receipt,
        )
        expect(
            receipt.uri == f"{destination.folder}/{receipt.file}",
            "a receipt's address is elsewhere",
            receipt.uri,
        )


def normal_record() -> Case:
    return {"kind": "entry", "data": snapshot()[0][KINDS["entry"]]}


def normal_job() -> Case:
    return {"files": {}, "task": "cover", "run": "other", "budget": None, "if_exists": "regenerate"}


TARGETS = (
    Target("records", record_cases(), check_record, normal_record, times=50, most_mib=48),
    Target("tasks", job_cases(), check_job, normal_job, most_mib=96),
    Target(
        "commands",
        command_cases(),
        check_command,
        lambda: {"files": {}, "command": ["reconcile"]},
        most_mib=96,
    ),
)
