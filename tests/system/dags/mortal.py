"""One image, or a batch of them, whose task process is killed at the points that its Dag run names.

The package has no hooks for that. The process that runs the task wraps a method, as one does with a mock,
and sends itself SIGKILL there; a marker file makes it once a point, so that the next try lives longer. What a
run wants is in its params, and takes effect in its own process only.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import IO, Any, NoReturn
from urllib.request import ProxyHandler, build_opener

from airflow.sdk import DAG, Context, Param, task
from airflow.sdk.execution_time import task_runner

from airflow_provider_bitdance.operators.bitdance import BitDanceBatchOperator, BitDanceTextToImageOperator
from airflow_provider_bitdance.records import Intended, Journal, Status, Stored, Submitted
from airflow_provider_bitdance.records.enhanced_prompts import EnhancedPrompts
from airflow_provider_bitdance.records.events import Claimed
from airflow_provider_bitdance.records.receipts import Receipts
from airflow_provider_bitdance.storage import LocalFolder
from airflow_provider_bitdance.wavespeed import http as api_http
from airflow_provider_bitdance.wavespeed.client import AsyncClient

Hook = Callable[..., None]
IN_FLIGHT = 20
"""Of a batch. The next is bought when one of these has ended, so a kill meets purchases at any time."""
UNANSWERED = 8
"""So many submissions without a response a batch has at most."""


def wrap(owner: Any, name: str, *, before: Hook | None = None, after: Hook | None = None) -> None:
    """Let `before` and `after` see each call of a method or function."""
    original = getattr(owner, name)

    def wrapped(*args: Any, **options: Any) -> Any:
        if before is not None:
            before(*args)
        result = original(*args, **options)
        if after is not None:
            after(*args)
        return result

    setattr(owner, name, wrapped)


def die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


class Killer:
    """Kills this process, a task instance once at each of its points: the markers outlive the process."""

    def __init__(self, markers: Path, points: list[str]) -> None:
        self.markers = markers
        self.point = next((point for point in points if not (markers / point).exists()), "")

    def kill(self, *_: Any) -> None:
        self.markers.mkdir(parents=True, exist_ok=True)
        (self.markers / self.point).touch(exist_ok=False)
        die()

    def at(self, point: str) -> None:
        """Kill here, if this is the point."""
        if point == self.point:
            self.kill()

    def lurk(self) -> None:
        """Wait at the point, where it lies within the package."""
        if self.point in LURKERS:
            LURKERS[self.point](self)

    def on_entry(self, when: Callable[[set[type]], bool], *, written: bool) -> None:
        """Kill before or after the journal's entry whose kinds of events are the wanted ones."""

        def look(_journal: Journal, _now: float, *events: Any) -> None:
            if when({type(event) for event in events}):
                self.kill()

        wrap(Journal, "_append", **{"after" if written else "before": look})

    def on_share_stored(self, percent: int) -> None:
        """Kill after the entry with which so many of a batch are stored."""

        def look(journal: Journal, *_: Any) -> None:
            images = journal.state.images.values()
            if 100 * sum(image.status is Status.STORED for image in images) >= percent * len(images):
                self.kill()

        wrap(Journal, "_append", after=look)

    def on_answers(self, unread: int = 1, *, read: int = 0, of: bytes = b'"seed"') -> None:
        """Kill when the service has made and charged predictions, and no byte of its answers is read.

        :param unread: So many.
        :param read: The answers to so many submissions before them are.
        :param of: What a submission of the kind has in its body: of an image, or of a prompt.
        """
        transport: Any = api_http.httpx.AsyncHTTPTransport
        original = transport.handle_async_request
        sent = 0

        async def handle(self_: Any, request: Any) -> Any:
            async def trace(event: str, _info: Any) -> None:
                nonlocal sent
                # The request is sent, and httpcore is about to read.
                if event.endswith("receive_response_headers.started"):
                    sent += 1
                    if sent <= read:
                        return
                    url = request.url
                    _wait_until_made(f"{url.scheme}://{url.host}:{url.port}", json.loads(request.content))
                    if sent == read + unread:
                        self.kill()
                    await asyncio.Event().wait()

            if request.method == "POST" and of in request.content:
                request.extensions["trace"] = trace
            return await original(self_, request)

        transport.handle_async_request = handle

    def on_all_submitted(self) -> None:
        """Kill after the entry with which every image of a batch is bought."""

        def look(journal: Journal, *_: Any) -> None:
            images = journal.state.images.values()
            if images and all(image.prediction_id for image in images):
                self.kill()

        wrap(Journal, "_append", after=look)

    def before_receipt(self) -> None:
        """Kill before a receipt is created, or written where one may be."""
        for name in ("create", "write"):
            wrap(Receipts, name, before=self.kill)

    def in_download(self) -> None:
        original = AsyncClient.download
        killer = self

        class HalfFile:
            def __init__(self, file: IO[bytes]) -> None:
                self.file = file

            def __getattr__(self, name: str) -> Any:
                return getattr(self.file, name)

            def write(self, data: bytes) -> None:
                self.file.write(data[: len(data) // 2])
                killer.kill()

        async def download(self_: Any, url: str, into: IO[bytes], **options: Any) -> None:
            await original(self_, url, HalfFile(into), **options)  # type: ignore[arg-type]

        AsyncClient.download = download  # type: ignore[method-assign]


def _wait_until_made(service: str, sent: dict[str, Any]) -> None:
    prompt = sent.get("prompt", sent.get("text"))
    opener = build_opener(ProxyHandler({}))
    while True:
        with opener.open(f"{service}/admin/predictions") as answer:
            if any(made["prompt"] == prompt for made in json.load(answer)):
                return
        time.sleep(0.02)


LURKERS: dict[str, Callable[[Killer], None]] = {
    "claim written": lambda killer: killer.on_entry(
        lambda kinds: Claimed in kinds and Intended not in kinds, written=True
    ),
    "intent written": lambda killer: killer.on_entry(lambda kinds: Intended in kinds, written=True),
    "request sent, response not read": Killer.on_answers,
    "8 responses not read": partial(Killer.on_answers, unread=UNANSWERED, read=IN_FLIGHT),
    "response read, not recorded": lambda killer: killer.on_entry(
        lambda kinds: Submitted in kinds, written=False
    ),
    "submitted": lambda killer: killer.on_entry(lambda kinds: Submitted in kinds, written=True),
    # Airflow's task runner calls it after its supervisor has been told of the deferral.
    "deferred": lambda killer: wrap(task_runner, "finalize", before=killer.kill),
    "half a download": Killer.in_download,
    "file written, receipt not": Killer.before_receipt,
    "receipt written, journal entry missing": lambda killer: killer.on_entry(
        lambda kinds: Stored in kinds, written=False
    ),
    "all submitted": Killer.on_all_submitted,
    "prompt sent, response not read": partial(Killer.on_answers, of=b'"style"'),
    "prompt enhanced, image not bought": lambda killer: wrap(EnhancedPrompts, "write", after=killer.kill),
    **{f"{share} % stored": partial(Killer.on_share_stored, percent=share) for share in (10, 50, 90)},
}
"""Points within the package. "event received" and "journal complete, XCom not pushed" are `Mortal`'s own."""


class Mortal:
    """An operator whose connection, deferral and death are the Dag run's."""

    defer_timeout = 0.0
    records_read = images_read = 0

    def execute(self, context: Context) -> Any:
        killer = self._prepare(context)
        result = super().execute(context)
        killer.at("journal complete, XCom not pushed")
        self._write_reads(context)
        return result

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        killer = self._prepare(context)
        killer.at("event received")
        result = super().execute_complete(context, event)
        killer.at("journal complete, XCom not pushed")
        return result

    def defer(self, **options: Any) -> NoReturn:
        # Airflow's own time-out comes a minute after the operator's; no test waits for that.
        if self.defer_timeout:
            options["timeout"] = timedelta(seconds=self.defer_timeout)
        super().defer(**options)

    def _count_reads(self) -> None:
        """Count the files that this process reads, whoever asks for them."""
        original = LocalFolder.read
        self.records_read = self.images_read = 0

        def read(folder: LocalFolder, name: str) -> bytes | None:
            data = original(folder, name)
            self.records_read += data is not None and name.endswith(".json")
            self.images_read += data is not None and not name.endswith(".json")
            return data

        LocalFolder.read = read  # type: ignore[method-assign]

    def _write_reads(self, context: Context) -> None:
        markers = Path(context["params"]["markers"], context["run_id"])
        markers.mkdir(parents=True, exist_ok=True)
        (markers / "files read").write_text(f"{self.records_read} {self.images_read}")

    def _prepare(self, context: Context) -> Killer:
        params = context["params"]
        self.bitdance_conn_id = params["conn_id"]
        self.deferrable, self.defer_after = params["deferrable"], 0.0
        first = context["ti"].try_number == 1
        self.defer_timeout = params["defer_timeout"] if first else 0.0
        self.timeout = params["timeout"]
        self.max_in_flight = params["in_flight"]
        self._count_reads()
        killer = Killer(Path(params["markers"], context["run_id"]), params["kill_at"])
        killer.lurk()
        return killer


class MortalImage(Mortal, BitDanceTextToImageOperator):
    pass


class MortalBatch(Mortal, BitDanceBatchOperator):
    pass


@task
def prompts_of(params: dict[str, Any]) -> list[str]:
    """Return the run's prompts, for the mapped tasks."""
    prompts: list[str] = params["prompts"]
    return prompts


RETRY_DELAY = timedelta(seconds=float(os.environ.get("BITDANCE_CHAOS_RETRY_DELAY", "1")))

for dag_id, operator, wanted, retries in (
    ("mortal", MortalImage, {"prompt": "{{ params.prompts[0] }}"}, 3),
    ("mortal_mapped", MortalImage, {}, 3),
    ("mortal_batch", MortalBatch, {"items": "{{ params.prompts }}"}, 3),
    ("mortal_batch_once", MortalBatch, {"items": "{{ params.prompts }}"}, 0),
):
    with DAG(
        dag_id,
        schedule=None,
        params={
            "prompts": Param(["a mortal"]),
            "output_path": Param("/nowhere/"),
            "conn_id": Param("bitdance_default"),
            "deferrable": Param(False),
            "defer_timeout": Param(0),
            "timeout": Param(600),
            "in_flight": Param(IN_FLIGHT),
            "style": Param(""),
            "kill_at": Param([]),
            "markers": Param("/nowhere"),
        },
        default_args={"retries": retries, "retry_delay": RETRY_DELAY},
        render_template_as_native_obj=True,  # a list stays one
        max_active_runs=64,
        max_active_tasks=64,
    ):
        options = {
            "task_id": "image",
            "size": "256*256",
            "enhance_prompt": "{{ params.style }}",
            "output_path": "{{ params.output_path }}",
            "records_path": "{{ params.output_path.rpartition('/')[0] }}/.bitdance",
        }
        if wanted:
            operator(**options, **wanted)
        else:
            operator.partial(**options).expand(prompt=prompts_of())
