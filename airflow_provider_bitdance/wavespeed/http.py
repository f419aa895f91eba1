"""One HTTP request: its whole response within one deadline and one size, or an error that says what became of
it.

The only module that imports httpx, or httpx2: Airflow brings the one up to 3.3, the other from 3.4 on. The
one thing to know: nothing here sends a request twice, and only what certainly never left is a
``NotSentError``.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import platform
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import IO, TYPE_CHECKING, Any

from airflow_provider_bitdance import __version__
from airflow_provider_bitdance.exceptions import (
    InputError,
    LostResponseError,
    NotSentError,
    OutputError,
    OutputRefusedError,
    ResponseTooLargeError,
)
from airflow_provider_bitdance.redaction import redact
from airflow_provider_bitdance.wavespeed import protocol, urls
from airflow_provider_bitdance.wavespeed.bodies import GZIP, Response, unpack_file
from airflow_provider_bitdance.wavespeed.clients import CONNECTIONS_EACH, Clients
from airflow_provider_bitdance.wavespeed.reading import Exchange, TooManyChunksError, current, in_steps
from airflow_provider_bitdance.wavespeed.response_errors import too_large
from airflow_provider_bitdance.wavespeed.settings import ClientSettings

if TYPE_CHECKING:
    import httpx
else:
    try:
        import httpx
    except ImportError:
        import httpx2 as httpx

USER_AGENT = f"airflow-provider-bitdance/{__version__} (Python {platform.python_version()})"
MAX_CONNECTIONS = 128
"""To the API, and as many to the hosts of outputs: at most, 64 submissions and 64 polls are under way."""
IDLE_SECONDS = 5.0
"""An idle connection is kept so long. A server that closes one would lose the response to a purchase."""
CONNECT_SECONDS = 10.0
_NOT_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
)
_HAS_OUTPUT = (200, 203)
"""A proxy that passes an output on may say 203."""
# What httpx raises besides its own errors where an address, a header or a cookie is beyond it.
_BROKEN = (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, ValueError, OSError)


class Pool:
    """Connections to the API, or to the hosts of outputs.

    :param transport: An ``httpx.AsyncBaseTransport`` instead of the network; for tests.
    :param sends_key: Each request carries the API key, and goes to the API.
    :param idle: Seconds for which an idle connection is kept.
    :raises InputError: A proxy or certificate variable of the environment cannot be used.
    """

    def __init__(
        self, settings: ClientSettings, *, transport: Any, sends_key: bool, idle: float = IDLE_SECONDS
    ) -> None:
        key = {"Authorization": f"Bearer {settings.api_key}"} if sends_key else {}
        self._seconds = settings.timeout
        # Only of a real network it is known what left this machine: httpcore tells.
        self._is_network = transport is None
        verify = tls_context()
        # Clients over one transport would close it for each other.
        most = max(1, MAX_CONNECTIONS // CONNECTIONS_EACH) if self._is_network else 1
        connections = min(CONNECTIONS_EACH, MAX_CONNECTIONS)
        with _environment_explained():
            self._clients = Clients(
                functools.partial(
                    httpx.AsyncClient,
                    base_url=settings.base_url,
                    headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"} | key,
                    # A total bounds all: httpx counts from one byte to the next.
                    timeout=httpx.Timeout(None, connect=min(CONNECT_SECONDS, settings.timeout)),
                    # Redirects are never followed: a POST must not move.
                    follow_redirects=False,
                    transport=transport,
                    # No proxy for this machine: it would get the key, and could not reach the service.
                    mounts={f"all://{host}": None for host in urls.loopback_hosts(settings.base_url)},
                    verify=verify,
                    limits=httpx.Limits(
                        max_connections=connections,
                        max_keepalive_connections=connections,
                        keepalive_expiry=idle,
                    ),
                    cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
                ),
                most=most,
                idle=idle,
            )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._clients.aclose()

    async def exchange(self, call: protocol.Call[Any]) -> Response:
        """Send a request once, and return its whole response.

        Errors of httpx are not chained: that is a hundred lines of a task's log, and some quote a header.

        :raises NotSentError: The request certainly never left.
        :raises LostResponseError: It may have, and no whole response came in time.
        :raises GarbledResponseError: The response is good, and larger than it may be.
        """
        exchange = Exchange(is_unsent=self._is_network)
        timeout = asyncio.timeout(self._seconds)
        why = f"it was not complete within {self._seconds:g} s"
        with _under_way(exchange):
            try:
                async with (
                    timeout,
                    self._clients.one() as http,
                    http.stream(
                        call.method, call.path, json=call.body, extensions={"trace": exchange.note}
                    ) as response,
                ):
                    return await _whole(response, call)
            except _BROKEN as error:
                if not timeout.expired():
                    why = type(error).__name__
                if exchange.is_unsent or isinstance(error, _NOT_SENT):
                    await exchange.close()
                    detail = f": {redact(_why(error))}" if isinstance(error, httpx.ConnectError) else ""
                    raise NotSentError(
                        f"No connection to the API for {call.method} {call.path}: {why}{detail}",
                        fix="Check the connection's host and the network",
                    ) from None
                raise LostResponseError(
                    f"The response to {call.method} {call.path} was lost: {why}", paid=call.paid
                ) from None

    async def fetch(
        self,
        url: str,
        into: IO[bytes],
        *,
        max_bytes: int,
        rule: urls.OutputRule,
        observe: Callable[[Response], None],
    ) -> str | None:
        """Fetch one hop of a download into a file; return where it redirects to, or nothing when it is whole.

        :param observe: Called with the response, without its body, before anything is made of it.
        :raises OutputRefusedError: The address is not allowed, or there are more bytes than that.
        :raises OutputError: The download failed; it may be tried again.
        """
        exchange = Exchange(is_unsent=False)
        with _under_way(exchange):
            try:
                async with (
                    self._clients.one() as http,
                    http.stream("GET", url, extensions={"trace": exchange.note}) as response,
                ):
                    await _check_peer(response, rule)
                    observe(_response(response, b""))
                    if response.next_request is not None:
                        return str(response.next_request.url)
                    if response.status_code not in _HAS_OUTPUT:
                        raise OutputError(f"The output's host responded with status {response.status_code}")
                    await _save(response, into, max_bytes)
                    return None
            except TimeoutError:
                raise  # of the download's own deadline
            except _BROKEN as error:
                # No chaining: the text of some of these holds the output's URL.
                raise OutputError(f"The download of the output failed: {type(error).__name__}") from None


def _why(error: BaseException) -> str:
    """Return why there is no connection: anyio tries each address, and itself says only that all failed."""
    first = error
    while (cause := first.__cause__ or first.__context__) is not None:
        first = cause.exceptions[0] if isinstance(cause, BaseExceptionGroup) else cause
    return os.strerror(first.errno or 0) if isinstance(first, ConnectionError) else str(error)


async def _whole(response: httpx.Response, call: protocol.Call[Any]) -> Response:
    """Read a response up to its bound. Of an error the status counts, whatever its body is."""
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    # That of a test may be read already, and is unpacked then.
    is_read = response.is_stream_consumed
    body = bytearray()
    try:
        async for chunk in in_steps(response.aiter_bytes() if is_read else response.aiter_raw()):
            if len(body) + len(chunk) > call.max_bytes:
                raise too_large(call)
            body += chunk
    except (ResponseTooLargeError, TooManyChunksError):
        if response.is_success:
            raise
        return _response(response, b"")
    return _response(response, bytes(body), "" if is_read or encoding == "identity" else encoding)


def _response(response: httpx.Response, body: bytes, encoding: str = "") -> Response:
    return Response(str(response.request.url), response.status_code, response.headers, body, encoding)


async def _check_peer(response: httpx.Response, rule: urls.OutputRule) -> None:
    """Check the address that was reached: a name may resolve to another one than a moment ago."""
    stream = response.extensions.get("network_stream")
    peer = stream.get_extra_info("server_addr") if stream is not None else None
    if peer and not urls.uses_proxy(str(response.request.url)):
        await rule.check_address(str(peer[0]))


async def _save(response: httpx.Response, into: IO[bytes], max_bytes: int) -> None:
    """Write a body. None that is packed is asked for; one layer of gzip is unpacked all the same."""
    refusal = OutputRefusedError("The output is too large", allowed=f"at most {max_bytes} bytes")
    if int(response.headers.get("Content-Length", "0") or 0) > max_bytes:
        raise refusal
    taken = 0
    async for chunk in in_steps(response.aiter_raw()):
        taken += len(chunk)
        if taken > max_bytes:
            raise refusal
        into.write(chunk)
    is_packed = response.headers.get("Content-Encoding", "").strip().lower() in GZIP
    if is_packed and not await asyncio.to_thread(unpack_file, into, max_bytes):
        raise refusal


@contextmanager
def _under_way(exchange: Exchange) -> Iterator[None]:
    """Say that an exchange is ours: httpx does not log it, for its lines hold whole URLs, also of outputs."""
    token = current.set(exchange)
    try:
        yield
    finally:
        current.reset(token)


# Both families, whichever is imported: alias_httpx() of httpx2 may have put one in the other's place.
for _family in ("", "2"):
    logging.getLogger(f"httpx{_family}").addFilter(lambda _: current.get() is None)
    for _part in ("connection", "http11", "http2", "proxy", "socks"):
        logging.getLogger(f"httpcore{_family}.{_part}").addFilter(lambda _: current.get() is None)


@functools.cache
def tls_context() -> ssl.SSLContext:
    """Return the TLS context of all clients. The first call takes tens of ms: not for an event loop.

    :raises InputError: A variable of the environment names certificates that cannot be read.
    """
    try:
        return httpx.create_ssl_context()
    except OSError as error:
        names = ("SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE")
        found = " or ".join(name for name in names if os.environ.get(name)) or "the list of CA certificates"
        raise InputError(
            f"{found} names a file that cannot be used: {redact(error.strerror or type(error).__name__)}",
            allowed="for SSL_CERT_FILE a file of CA certificates in PEM format",
            fix="Correct or unset it on this machine",
        ) from None


@contextmanager
def _environment_explained() -> Iterator[None]:
    """Say which variable of the environment keeps httpx from making a client. Its value may be secret."""
    try:
        yield
    except (ImportError, ValueError, httpx.InvalidURL):
        wrong = [name for name in _proxy_variables() if not _is_usable_proxy(os.environ[name])]
        raise InputError(
            f"{' and '.join(wrong) or 'NO_PROXY'} cannot be used by httpx",
            allowed="http://host:port for a proxy, socks5:// if the package socksio is installed; names "
            "and addresses for NO_PROXY, without ranges such as ::1/128",
            fix="Correct the environment variable on this machine",
        ) from None


def _proxy_variables() -> list[str]:
    known = {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"}
    return sorted(name for name, value in os.environ.items() if name.upper() in known and value)


def _is_usable_proxy(value: str) -> bool:
    try:
        proxy = httpx.Proxy(value if "://" in value else f"http://{value}")
        httpx.AsyncHTTPTransport(verify=tls_context(), proxy=proxy)
    except (ImportError, ValueError, httpx.InvalidURL):
        return False
    return True
