"""The local service in process: its own app, reached without a socket, one for each kind of history."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from starlette.types import ASGIApp, Message

from airflow_provider_bitdance.local.app import create_app
from airflow_provider_bitdance.local.options import Options
from airflow_provider_bitdance.local.service import Service
from tests.unit.support import API_KEY, API_URL
from tests.wire import httpx

LATENCY = "60%:1-8,30%:20-60,10%:650-660"
"""Seconds; the longest is longer than a try waits."""


@dataclass(frozen=True, slots=True)
class HistoryKind:
    """What the account's history is like.

    :param shows: The inputs are shown, in whatever form, so that a prediction that is listed proves itself.
    :param is_up: It shows each prediction at once, and its filters match.
    """

    options: Mapping[str, Any]
    shows: bool = False
    is_up: bool = False


INTACT = {"history_echo": "intact", "result_echo": "intact"}
HISTORIES = {
    "echo": HistoryKind(INTACT, shows=True, is_up=True),
    "nothing echoed": HistoryKind({}, is_up=True),
    "inputs": HistoryKind(
        {"history_echo": "defaults", "history_inputs_key": "inputs", "include_inputs": "needed"},
        shows=True,
        is_up=True,
    ),
    "another form": HistoryKind({"history_echo": "size"}, shows=True, is_up=True),
    "seed as text": HistoryKind({"history_echo": "text_seed"}, shows=True, is_up=True),
    "another size": HistoryKind({"history_echo": "snapped"}, is_up=True),
    "no seed": HistoryKind({"history_echo": "no_seed", "history_lag": "0-90"}),
    "cut": HistoryKind({"history_echo": "cut", "history_lag": "0-90"}),
    "expanded": HistoryKind({"history_echo": "expanded", "include_inputs": "refused"}),
    "lag": HistoryKind({**INTACT, "history_lag": "0-90"}, shows=True),
    "lag, nothing echoed": HistoryKind({"history_lag": "0-90"}),
    "rows are missing": HistoryKind({"history_drop": 0.3, "history_lag": "0-90"}),
    "rows are missing, results echo": HistoryKind({**INTACT, "history_drop": 0.3}, shows=True),
    "the filter of the model matches nothing": HistoryKind({**INTACT, "history_filter": "model"}),
    "the filter of the date matches nothing": HistoryKind({**INTACT, "history_filter": "date"}),
}


@lru_cache
def service_with(history: str) -> tuple[Service, ASGIApp]:
    """Build a service and its app once; the app takes as long as a hundred of the model's steps.

    :param history: One of :data:`HISTORIES`.
    """
    service = Service(
        Options(
            api_key=API_KEY,
            latency=LATENCY,
            pictures="fast",
            balance_usd=1e6,
            **HISTORIES[history].options,
        )
    )
    return service, create_app(service, base_url=API_URL)


class InProcess(httpx.AsyncBaseTransport):
    """Hands requests to the app in the caller's loop, and breaks connections as the app's faults ask.

    :param travel: Called before each request arrives and before its answer does; takes a while.
    :param connect: Called before each request; may raise.
    """

    def __init__(
        self, app: ASGIApp, *, travel: Callable[[], Awaitable[None]], connect: Callable[[], None]
    ) -> None:
        self._app = app
        self._travel = travel
        self._connect = connect

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self._connect()
        await self._travel()
        exchange = _Exchange(await request.aread())
        serving = asyncio.ensure_future(self._app(exchange.scope(request), exchange.receive, exchange.send))
        try:
            async with asyncio.timeout(request.extensions["timeout"]["read"]):
                await exchange.is_over.wait()
        except TimeoutError:
            raise httpx.ReadTimeout("no answer in time") from None
        finally:
            exchange.is_gone.set()
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
        await self._travel()
        if exchange.status is None:
            raise httpx.ReadError("the connection was reset")
        return httpx.Response(exchange.status, headers=exchange.headers, stream=_Body(exchange))


class _Exchange:
    """One request and its answer, as the app sees them; also the connection, which a fault may break."""

    def __init__(self, body: bytes) -> None:
        self.body = [body]
        self.status: int | None = None
        self.headers: list[tuple[bytes, bytes]] = []
        self.answer = b""
        self.is_broken = False
        self.is_over = asyncio.Event()
        self.is_gone = asyncio.Event()

    def scope(self, request: httpx.Request) -> dict[str, Any]:
        return {
            "type": "http",
            "http_version": "1.1",
            "method": request.method,
            "scheme": request.url.scheme,
            "path": request.url.path,
            "raw_path": request.url.raw_path,
            "query_string": request.url.query,
            "root_path": "",
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
            "state": {"transport": self, "stopping": asyncio.Event()},
        }

    async def receive(self) -> Message:
        if self.body:
            return {"type": "http.request", "body": self.body.pop()}
        await self.is_gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], list(message["headers"])
            return
        self.answer += message.get("body", b"")
        if not message.get("more_body"):
            self.is_over.set()

    def abort(self) -> None:
        self.is_broken = True
        self.is_over.set()

    close = abort

    def get_extra_info(self, _: str) -> _Exchange:
        return self

    def setsockopt(self, *_: object) -> None:
        """A reset is asked for; it is one anyway."""


class _Body(httpx.AsyncByteStream):
    def __init__(self, exchange: _Exchange) -> None:
        self._exchange = exchange

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._exchange.answer
        if self._exchange.is_broken:
            raise httpx.RemoteProtocolError("the connection was closed within the body")
