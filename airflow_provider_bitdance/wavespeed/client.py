"""The clients: they send what :mod:`protocol` builds, and nothing else.

There is one client, the async one; :class:`Client` runs it on an event loop of its own. The one thing to
know: nothing here sends a request twice. A submission costs money, and whether it may be repeated is decided
by the engine, which writes down what it does.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from typing import IO, Any, Self, TypeVar

from pydantic import BaseModel

from airflow_provider_bitdance.exceptions import OutputError, OutputRefusedError
from airflow_provider_bitdance.wavespeed import protocol, urls
from airflow_provider_bitdance.wavespeed.bodies import Response, decoded
from airflow_provider_bitdance.wavespeed.http import IDLE_SECONDS, Pool, tls_context
from airflow_provider_bitdance.wavespeed.image_request import ImageRequest
from airflow_provider_bitdance.wavespeed.loop_thread import LoopThread
from airflow_provider_bitdance.wavespeed.responses import Balance, Prediction
from airflow_provider_bitdance.wavespeed.settings import ClientSettings

__all__ = ["AsyncClient", "Client", "ClientSettings", "tls_context"]

T = TypeVar("T", bound=BaseModel)
OnResponse = Callable[[protocol.Exchange], None]
MAX_REDIRECTS = 3
DOWNLOAD_SECONDS = 120.0
"""For a whole download, with its redirects."""
PARSED_ON_LOOP = 64 * 2**10
"""Bytes: a larger response is read in a thread, for an event loop may have a thousand triggers."""
IDLE_SECONDS_OF_READERS = 60.0
"""Of a client that only polls: longer than most pauses between them, for a new connection costs a
handshake."""


class AsyncClient:
    """The client, for the engine and the triggers; it also downloads outputs.

    :param settings: Key and URL.
    :param transport: An ``httpx.AsyncBaseTransport``, used for downloads too; for tests.
    :param output_rule: Says which output URLs may be fetched.
    :param is_reader: It only polls, and buys nothing: its idle connections are kept for longer.
    :param on_response: Called with every response before it is read, in a thread if it is large, and with
        each hop of a download; for those who compare the API with its documentation.
    :raises InputError: A proxy or certificate variable of the environment cannot be used.
    """

    def __init__(
        self,
        settings: ClientSettings,
        *,
        transport: Any = None,
        output_rule: urls.OutputRule | None = None,
        is_reader: bool = False,
        on_response: OnResponse | None = None,
    ) -> None:
        self.settings = settings
        self._on_response = on_response
        idle = IDLE_SECONDS_OF_READERS if is_reader else IDLE_SECONDS
        self._api = Pool(settings, transport=transport, sends_key=True, idle=idle)
        # A second pool, so that the API key cannot reach the host of an output.
        self._outputs = Pool(settings, transport=transport, sends_key=False)
        self._output_rule = output_rule or urls.OutputRule(settings.base_url)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._api.aclose()
        await self._outputs.aclose()

    async def submit(self, request: ImageRequest) -> Prediction:
        """Buy one image. Costs money on each call; see :func:`protocol.read` for what an error means."""
        return await self.send(protocol.submit(request))

    async def get_prediction(self, prediction_id: str) -> Prediction:
        """Poll a prediction once. Free."""
        return await self.send(protocol.get_prediction(prediction_id))

    async def get_balance(self) -> Balance:
        """Return the account's balance in US dollars. Free."""
        return await self.send(protocol.get_balance())

    async def download(
        self, url: str, into: IO[bytes], *, max_bytes: int, seconds: float = DOWNLOAD_SECONDS
    ) -> None:
        """Stream an output into a file, without the API key. Free.

        :param url: The output's URL; it and each of at most three redirects are checked first.
        :param into: Written to from its start; read, too, where the output comes packed.
        :param max_bytes: The most that is taken.
        :param seconds: For all of it, redirects included.
        :raises OutputRefusedError: The address is not allowed, or there are more bytes than that.
        :raises OutputError: The download failed; it may be tried again.
        """
        try:
            async with asyncio.timeout(seconds):
                await self._download(url, into, max_bytes)
        except TimeoutError:
            raise OutputError(f"The download took longer than {seconds:g} s") from None

    async def _download(self, url: str, into: IO[bytes], max_bytes: int) -> None:
        for _ in range(MAX_REDIRECTS + 1):
            await self._output_rule.check(url)
            into.seek(0)
            into.truncate()
            redirect = await self._outputs.fetch(
                url,
                into,
                max_bytes=max_bytes,
                rule=self._output_rule,
                observe=lambda response: self._observe("GET", response, b""),
            )
            if redirect is None:
                return
            url = redirect
        raise OutputRefusedError(f"The output's URL redirects more than {MAX_REDIRECTS} times")

    async def send(self, call: protocol.Call[T]) -> T:
        """Send any call of :mod:`protocol` and read its response."""
        response = await self._api.exchange(call)
        if response.encoding or len(response.body) > PARSED_ON_LOOP:
            return await asyncio.to_thread(self._read, call, response)
        return self._read(call, response)

    def _read(self, call: protocol.Call[T], response: Response) -> T:
        body = decoded(response, call)
        self._observe(call.method, response, body)
        return protocol.read(call, response.status, response.headers, body)

    def _observe(self, method: str, response: Response, body: bytes) -> None:
        if self._on_response is not None:
            seen = protocol.Exchange(method, response.url, response.status, response.headers, body)
            self._on_response(seen)


class Client:
    """The sync client, for hooks and scripts: the async one, on an event loop in a thread of its own.

    So it has the same deadlines, and works in any thread, also where an event loop runs already. A process
    that is forked off makes connections of its own.

    :param settings: Key and URL.
    :param transport: An ``httpx.AsyncBaseTransport``; for tests.
    :raises InputError: A proxy or certificate variable of the environment cannot be used.
    """

    def __init__(self, settings: ClientSettings, *, transport: Any = None) -> None:
        self.settings = settings
        self._transport = transport
        self._is_closed = False
        self._thread: LoopThread | None = None  # until it is used
        self._inherited: list[object] = []
        self._begin()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._is_closed = True
        if self._thread is not None and self._pid == os.getpid():
            self._thread.close()

    def submit(self, request: ImageRequest) -> Prediction:
        """Buy one image. Costs money on each call; see :func:`protocol.read` for what an error means."""
        return self.send(protocol.submit(request))

    def get_prediction(self, prediction_id: str) -> Prediction:
        """Poll a prediction once. Free."""
        return self.send(protocol.get_prediction(prediction_id))

    def get_balance(self) -> Balance:
        """Return the account's balance in US dollars. Free."""
        return self.send(protocol.get_balance())

    def send(self, call: protocol.Call[T]) -> T:
        """Send any call of :mod:`protocol` and read its response."""
        if self._is_closed:
            raise RuntimeError("This client is closed")
        if self._pid != os.getpid():
            # Kept, for what is collected is closed: the parent still uses these sockets.
            self._inherited += [self._client, self._thread]
            self._thread = None
            self._begin()
        with self._turn:
            self._thread = self._thread or LoopThread(self._client.aclose)
        return self._thread.run(self._client.send(call))

    def _begin(self) -> None:
        self._pid, self._turn = os.getpid(), threading.Lock()
        self._client = AsyncClient(self.settings, transport=self._transport)
