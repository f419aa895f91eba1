"""The sync and the async client: they send what :mod:`protocol` builds, and nothing else.

The only module that imports httpx (Airflow 3.4 moves to httpx2). The one thing to know: nothing here sends
a request twice. A submission costs money, and whether it may be repeated is decided by the engine, which
writes down what it does.
"""

from __future__ import annotations

import functools
import logging
import platform
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import IO, Any, Self, TypeVar

import httpx
from pydantic import BaseModel

from airflow_provider_bitdance import __version__
from airflow_provider_bitdance.exceptions import (
    GarbledResponseError,
    LostResponseError,
    NotSentError,
    OutputError,
    OutputRefusedError,
)
from airflow_provider_bitdance.redaction import redact
from airflow_provider_bitdance.wavespeed import protocol, urls
from airflow_provider_bitdance.wavespeed.image_request import ImageRequest
from airflow_provider_bitdance.wavespeed.responses import Balance, Prediction
from airflow_provider_bitdance.wavespeed.settings import ClientSettings

__all__ = ["AsyncClient", "Client", "ClientSettings", "tls_context"]

T = TypeVar("T", bound=BaseModel)
OnResponse = Callable[[protocol.Exchange], None]
USER_AGENT = f"airflow-provider-bitdance/{__version__} (Python {platform.python_version()})"
MAX_REDIRECTS = 3
MAX_RESPONSE_BYTES = 16 * 2**20
"""Of the API, decoded. The largest that is read, the catalogue of all models, takes a few megabytes."""
MAX_CONNECTIONS = 32
"""To the API, and as many to the hosts of outputs: more than the engine's submissions and polls at once."""
IDLE_SECONDS = 5.0
"""An idle connection is kept so long. A server that closes one would lose the response to a purchase."""
IDLE_SECONDS_OF_READERS = 60.0
"""Of a client that only polls: longer than most pauses between them, for a new connection costs a
handshake."""


class Client:
    """The sync client, for hooks and scripts.

    :param settings: Key and URL.
    :param transport: An ``httpx.BaseTransport``; for tests.
    """

    def __init__(self, settings: ClientSettings, *, transport: Any = None) -> None:
        self.settings = settings
        self._http = httpx.Client(**_api_options(settings, transport))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

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
        body = bytearray()
        with _explained(call), self._http.stream(call.method, call.path, json=call.body) as response:
            for chunk in response.iter_bytes():
                _take(body, chunk, call)
        return _read(self.settings, call, response, bytes(body))


class AsyncClient:
    """The async client, for the engine and the triggers; it also downloads outputs.

    :param settings: Key and URL.
    :param transport: An ``httpx.AsyncBaseTransport``, used for downloads too; for tests.
    :param output_rule: Says which output URLs may be fetched.
    :param is_reader: It only polls, and buys nothing: its idle connections are kept for longer.
    :param on_response: Called with every response before it is read, and with each hop of a download; for
        those who compare the API with its documentation.
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
        self._http = httpx.AsyncClient(**_api_options(settings, transport, idle))
        # A second client, so that the API key cannot reach the host of an output.
        self._outputs = httpx.AsyncClient(**_options(settings, transport))
        self._output_rule = output_rule or urls.OutputRule(settings.base_url)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()
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

    async def download(self, url: str, into: IO[bytes], *, max_bytes: int) -> None:
        """Stream an output into a file, without the API key. Free.

        :param url: The output's URL; it and each of at most three redirects are checked first.
        :param into: Written to from its start.
        :param max_bytes: The most that is taken.
        :raises OutputRefusedError: The address is not allowed, or there are more bytes than that.
        :raises OutputError: The download failed; it may be tried again.
        """
        for _ in range(MAX_REDIRECTS + 1):
            await self._output_rule.check(url)
            into.seek(0)
            into.truncate()
            with _quietly():
                try:
                    redirect = await self._fetch(url, into, max_bytes)
                except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
                    # No chaining: the text of some of these holds the output's URL.
                    raise OutputError(f"The download of the output failed: {type(error).__name__}") from None
            if redirect is None:
                return
            url = redirect
        raise OutputRefusedError(f"The output's URL redirects more than {MAX_REDIRECTS} times")

    async def _fetch(self, url: str, into: IO[bytes], max_bytes: int) -> str | None:
        """Fetch one hop; return where it redirects to, or nothing when the file is whole."""
        # Raw bytes of an unencoded body: a compressed response could be a bomb, and is no image.
        async with self._outputs.stream("GET", url, headers={"Accept-Encoding": "identity"}) as response:
            await self._check_peer(response)
            if self._on_response is not None:
                self._on_response(_exchange(response, b""))
            if response.next_request is not None:
                return str(response.next_request.url)
            if response.status_code != 200:
                raise OutputError(f"The output's host responded with status {response.status_code}")
            too_large = OutputRefusedError("The output is too large", allowed=f"at most {max_bytes} bytes")
            if int(response.headers.get("Content-Length", "0") or 0) > max_bytes:
                raise too_large
            taken = 0
            async for chunk in response.aiter_raw():
                taken += len(chunk)
                if taken > max_bytes:
                    raise too_large
                into.write(chunk)
            return None

    async def _check_peer(self, response: httpx.Response) -> None:
        """Check the address that was reached: a name may resolve to another one than a moment ago."""
        stream = response.extensions.get("network_stream")
        peer = stream.get_extra_info("server_addr") if stream is not None else None
        if peer and not urls.uses_proxy(str(response.request.url)):
            await self._output_rule.check_address(str(peer[0]))

    async def send(self, call: protocol.Call[T]) -> T:
        """Send any call of :mod:`protocol` and read its response."""
        body = bytearray()
        with _explained(call):
            async with self._http.stream(call.method, call.path, json=call.body) as response:
                async for chunk in response.aiter_bytes():
                    _take(body, chunk, call)
        return _read(self.settings, call, response, bytes(body), self._on_response)


def _options(settings: ClientSettings, transport: Any, idle: float = IDLE_SECONDS) -> dict[str, Any]:
    """Return what both httpx clients share. Redirects are never followed: a POST must not move."""
    return {
        "timeout": httpx.Timeout(settings.timeout, connect=min(10.0, settings.timeout)),
        "follow_redirects": False,
        "headers": {"User-Agent": USER_AGENT},
        "transport": transport,
        "verify": tls_context(),
        "limits": httpx.Limits(
            max_connections=MAX_CONNECTIONS,
            max_keepalive_connections=MAX_CONNECTIONS,
            keepalive_expiry=idle,
        ),
    }


def _api_options(settings: ClientSettings, transport: Any, idle: float = IDLE_SECONDS) -> dict[str, Any]:
    options = _options(settings, transport, idle)
    options["headers"] = {**options["headers"], "Authorization": f"Bearer {settings.api_key}"}
    return {**options, "base_url": settings.base_url}


def _take(body: bytearray, chunk: bytes, call: protocol.Call[Any]) -> None:
    """Take another part of a response, up to the bound."""
    if len(body) + len(chunk) > MAX_RESPONSE_BYTES:
        raise GarbledResponseError(
            f"The response to {call.method} {call.path} is too large",
            allowed=f"at most {MAX_RESPONSE_BYTES} bytes",
            fix="Check the connection's host: the response may come from a proxy",
            paid=call.paid,
        )
    body += chunk


def _read(
    settings: ClientSettings,
    call: protocol.Call[T],
    response: httpx.Response,
    body: bytes,
    on_response: OnResponse | None = None,
) -> T:
    # A response that echoes the key must not carry it into an error's text.
    body = body.replace(settings.api_key.encode(), b"***")
    if on_response is not None:
        on_response(_exchange(response, body))
    return protocol.read(call, response.status_code, response.headers, body)


def _exchange(response: httpx.Response, body: bytes) -> protocol.Exchange:
    url = str(response.request.url)
    return protocol.Exchange(response.request.method, url, response.status_code, response.headers, body)


_NOT_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
)


@contextmanager
def _explained(call: protocol.Call[Any]) -> Iterator[None]:
    """Turn httpx's errors into ours. The question is whether the request can have reached the API.

    Theirs are not chained: it is a hundred lines of a task's log, and the text of some holds a header.
    """
    with _quietly():
        try:
            yield
        except _NOT_SENT as error:
            # The text of a ConnectError is the operating system's.
            why = f": {redact(error)}" if isinstance(error, httpx.ConnectError) else ""
            raise NotSentError(
                f"No connection to the API for {call.method} {call.path}: {type(error).__name__}{why}",
                fix="Check the connection's host and the network",
            ) from None
        except httpx.HTTPError as error:
            raise LostResponseError(
                f"The response to {call.method} {call.path} was lost: {type(error).__name__}", paid=call.paid
            ) from None


_quiet: ContextVar[bool] = ContextVar("bitdance_quiet", default=False)


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep httpx from logging our requests: its lines hold whole URLs, also those of outputs."""
    token = _quiet.set(True)
    try:
        yield
    finally:
        _quiet.reset(token)


for _name in ("httpx", "httpcore.connection", "httpcore.http11", "httpcore.proxy"):
    logging.getLogger(_name).addFilter(lambda _: not _quiet.get())


@functools.cache
def tls_context() -> ssl.SSLContext:
    """Return the TLS context of all clients. The first call takes tens of ms: not for an event loop."""
    return httpx.create_ssl_context()
