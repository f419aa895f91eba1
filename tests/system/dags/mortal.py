"""One image whose task process is killed once, at the point that its Dag run names.

The package has no hooks for that. The process that runs the task wraps a method, as one does with a mock,
and sends itself SIGKILL there; a marker file makes it once, so that the next try lives. What a run wants is
in its params, and takes effect in its own process only.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import IO, Any, NoReturn
from urllib.request import ProxyHandler, build_opener

from airflow.sdk import DAG, Context, Param
from airflow.sdk.execution_time import task_runner

from airflow_provider_bitdance.api import client as api_client
from airflow_provider_bitdance.journal import Intended, Journal, Stored, Submitted
from airflow_provider_bitdance.journal.entries import Claimed
from airflow_provider_bitdance.operators.bitdance import BitDanceTextToImageOperator
from airflow_provider_bitdance.receipts import Receipts

Hook = Callable[..., None]


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
    """Kills this process, once a task instance: the marker file outlives the process."""

    def __init__(self, marker: Path, point: str) -> None:
        self.marker = marker
        self.point = point

    def kill(self, *_: Any) -> None:
        self.marker.parent.mkdir(parents=True, exist_ok=True)
        self.marker.touch(exist_ok=False)
        die()

    def at(self, point: str) -> None:
        """Kill here, if this is the point."""
        if point == self.point and not self.marker.exists():
            self.kill()

    def lurk(self) -> None:
        """Wait at the point, where it lies within the package."""
        if self.point in LURKERS and not self.marker.exists():
            LURKERS[self.point](self)

    def on_entry(self, when: Callable[[set[type]], bool], *, written: bool) -> None:
        """Kill before or after the journal's entry whose kinds of events are the wanted ones."""

        def look(_journal: Journal, _now: float, *events: Any) -> None:
            if when({type(event) for event in events}):
                self.kill()

        wrap(Journal, "append", **{"after" if written else "before": look})

    def on_answer(self) -> None:
        """Kill when the service has made and charged the prediction, and no byte of its answer is read."""
        transport: Any = api_client.httpx.AsyncHTTPTransport
        original = transport.handle_async_request

        async def handle(self_: Any, request: Any) -> Any:
            async def trace(event: str, _info: Any) -> None:
                # The request is sent, and httpcore is about to read.
                if event.endswith("receive_response_headers.started"):
                    url = request.url
                    _wait_until_made(f"{url.scheme}://{url.host}:{url.port}", json.loads(request.content))
                    self.kill()

            if request.method == "POST" and b'"seed"' in request.content:
                request.extensions["trace"] = trace
            return await original(self_, request)

        transport.handle_async_request = handle

    def in_download(self) -> None:
        original = api_client.AsyncClient.download
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

        api_client.AsyncClient.download = download  # type: ignore[method-assign]


def _wait_until_made(service: str, sent: dict[str, Any]) -> None:
    opener = build_opener(ProxyHandler({}))
    while True:
        with opener.open(f"{service}/admin/predictions") as answer:
            if any(made["prompt"] == sent["prompt"] for made in json.load(answer)):
                return
        time.sleep(0.02)


LURKERS: dict[str, Callable[[Killer], None]] = {
    "claim written": lambda killer: killer.on_entry(
        lambda kinds: Claimed in kinds and Intended not in kinds, written=True
    ),
    "intent written": lambda killer: killer.on_entry(lambda kinds: Intended in kinds, written=True),
    "request sent, answer not read": Killer.on_answer,
    "answer read, not recorded": lambda killer: killer.on_entry(
        lambda kinds: Submitted in kinds, written=False
    ),
    "submitted": lambda killer: killer.on_entry(lambda kinds: Submitted in kinds, written=True),
    # Airflow's task runner calls it after its supervisor has been told of the deferral.
    "deferred": lambda killer: wrap(task_runner, "finalize", before=killer.kill),
    "half a download": Killer.in_download,
    "file written, receipt not": lambda killer: wrap(Receipts, "write", before=killer.kill),
    "receipt written, not settled": lambda killer: killer.on_entry(
        lambda kinds: Stored in kinds, written=False
    ),
}
"""Points within the package. "event received" and "settled, XCom not pushed" are `Mortal`'s own."""


class Mortal(BitDanceTextToImageOperator):
    """An image whose connection, deferral and death are the Dag run's."""

    defer_timeout = 0.0

    def execute(self, context: Context) -> Any:
        killer = self._prepare(context)
        result = super().execute(context)
        killer.at("settled, XCom not pushed")
        return result

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        killer = self._prepare(context)
        killer.at("event received")
        result = super().execute_complete(context, event)
        killer.at("settled, XCom not pushed")
        return result

    def defer(self, **options: Any) -> NoReturn:
        # Airflow's own time-out comes a minute after the operator's; no test waits for that.
        if self.defer_timeout:
            options["timeout"] = timedelta(seconds=self.defer_timeout)
        super().defer(**options)

    def _prepare(self, context: Context) -> Killer:
        params = context["params"]
        self.bitdance_conn_id = params["conn_id"]
        self.deferrable, self.defer_after = params["deferrable"], 0.0
        first = context["ti"].try_number == 1
        self.defer_timeout = params["defer_timeout"] if first else 0.0
        killer = Killer(Path(params["markers"], context["run_id"]), params["kill_at"])
        killer.lurk()
        return killer


with DAG(
    "mortal",
    schedule=None,
    params={
        "prompt": Param("a mortal"),
        "output_path": Param("/nowhere/"),
        "conn_id": Param("bitdance_default"),
        "deferrable": Param(False),
        "defer_timeout": Param(0),
        "kill_at": Param(""),
        "markers": Param("/nowhere"),
    },
    default_args={"retries": 3, "retry_delay": timedelta(seconds=1)},
    max_active_runs=64,
    max_active_tasks=64,
):
    Mortal(
        task_id="image",
        prompt="{{ params.prompt }}",
        size="256*256",
        output_path="{{ params.output_path }}",
        records_path="{{ params.output_path.rpartition('/')[0] }}/.bitdance",
    )
