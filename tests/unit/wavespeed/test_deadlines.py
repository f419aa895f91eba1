"""One deadline for each request, whatever part of it is slow: over real sockets."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from airflow_provider_bitdance.exceptions import (
    AuthenticationError,
    BitDanceError,
    LostResponseError,
    NotSentError,
    OutputError,
    Paid,
)
from airflow_provider_bitdance.local import Options, running_service
from airflow_provider_bitdance.wavespeed import http
from airflow_provider_bitdance.wavespeed.client import AsyncClient, Client, ClientSettings
from airflow_provider_bitdance.wavespeed.image_request import ImageRequest
from tests.wire import httpx, slow_server

REQUEST = ImageRequest.of(prompt="a lighthouse")
DEADLINE = 0.25
GENEROUS = 2.0
"""Seconds within which it has ended on a busy machine: without a deadline it would not end at all."""
HEADERS = b"HTTP/1.1 200 OK\r\nX-Slow: "
BODY = b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\n"


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def settings(url: str, timeout: float = DEADLINE) -> ClientSettings:
    return ClientSettings("key-of-a-test", base_url=url, timeout=timeout, allow_http=True)


def submit_sync(given: ClientSettings) -> Any:
    with Client(given) as client:
        return client.submit(REQUEST)


def submit_async(given: ClientSettings) -> Any:
    async def run() -> Any:
        async with AsyncClient(given) as client:
            return await client.submit(REQUEST)

    return asyncio.run(run())


both = pytest.mark.parametrize("submit", [submit_sync, submit_async], ids=["sync", "async"])


@contextmanager
def ending_soon() -> Iterator[None]:
    start = time.monotonic()
    yield
    assert time.monotonic() - start < GENEROUS


def failure(submit: Callable[[ClientSettings], Any], url: str) -> BitDanceError:
    with ending_soon(), pytest.raises(BitDanceError) as caught:
        submit(settings(url))
    return caught.value


@both
@pytest.mark.parametrize("start", [b"", HEADERS, BODY, CHUNKED], ids=["status", "headers", "body", "chunks"])
def test_a_response_that_drips_is_lost_at_the_deadline_and_may_be_paid_for(
    submit: Callable[[ClientSettings], Any], start: bytes
) -> None:
    with slow_server(start) as server:
        error = failure(submit, server.url)
    assert (type(error), error.paid) == (LostResponseError, Paid.POSSIBLY)
    assert f"not complete within {DEADLINE} s" in str(error)
    assert len(server.heads) == 1, "a POST is sent once"


@both
def test_a_handshake_that_drips_is_no_request(submit: Callable[[ClientSettings], Any]) -> None:
    # The start of a TLS record of 16 kB, whose rest takes five minutes.
    with slow_server(b"\x16\x03\x03\x3f\xff") as server:
        error = failure(submit, f"https://127.0.0.1:{server.port}")
    assert (type(error), error.paid) == (NotSentError, Paid.NO)


@both
def test_a_proxy_that_opens_no_tunnel_has_no_request(
    submit: Callable[[ClientSettings], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with slow_server(HEADERS) as server:
        monkeypatch.setenv("HTTPS_PROXY", server.url)
        error = failure(submit, "https://api.example")
    assert server.heads[0].startswith(b"CONNECT api.example:443 ")
    assert (type(error), error.paid) == (NotSentError, Paid.NO)


@both
def test_a_proxy_that_has_the_request_may_have_handed_it_on(
    submit: Callable[[ClientSettings], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with slow_server(HEADERS) as server:
        monkeypatch.setenv("HTTP_PROXY", server.url)
        error = failure(submit, "http://api.example")
    assert server.heads[0].startswith(b"POST http://api.example/")
    assert (type(error), error.paid) == (LostResponseError, Paid.POSSIBLY)


def test_a_request_that_waits_for_a_connection_was_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MAX_CONNECTIONS", 2)

    async def submissions(url: str) -> list[Any]:
        async with AsyncClient(settings(url)) as client:
            return await asyncio.gather(*(client.submit(REQUEST) for _ in range(20)), return_exceptions=True)

    with slow_server(HEADERS) as server, ending_soon():
        errors = asyncio.run(submissions(server.url))
    # Where the first two give up, the next two may be sent at the last moment.
    lost = [error for error in errors if isinstance(error, LostResponseError)]
    waited = [error for error in errors if isinstance(error, NotSentError)]
    assert 2 <= len(server.heads) <= len(lost) < 20, "what the server has seen may be paid for"
    assert len(lost) + len(waited) == 20


def test_a_download_that_trickles_ends_at_its_deadline() -> None:
    async def run(url: str) -> None:
        async with AsyncClient(settings(url)) as client:
            await client.download(url, io.BytesIO(), max_bytes=60_000, seconds=DEADLINE)

    with slow_server(BODY) as server, ending_soon(), pytest.raises(OutputError, match=r"longer than 0\.25 s"):
        asyncio.run(run(server.url))


def get_in_turns(client: AsyncClient) -> tuple[BitDanceError, int]:
    """Poll once; return the error, and how many turns another task of the event loop had meanwhile."""

    async def run() -> tuple[BitDanceError, int]:
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        other = asyncio.create_task(others())
        async with client:
            with pytest.raises(BitDanceError) as caught:
                await client.get_prediction("p-1")
        other.cancel()
        return caught.value, turns

    return asyncio.run(run())


FLOODS = {
    "informational": b"HTTP/1.1 100 Continue\r\n\r\n" * 4_000,
    "headers": b"HTTP/1.1 200 OK\r\n" + b"a:\r\n" * 20_000,
    "one header": b"HTTP/1.1 200 OK\r\na: " + b"a" * 80_000,
}


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
def test_a_flood_before_the_body_is_read_in_small_steps_and_ends(flood: bytes) -> None:
    with slow_server(flood) as server, ending_soon():
        error, turns = get_in_turns(AsyncClient(settings(server.url, timeout=60.0)))
    assert isinstance(error, LostResponseError)
    assert "TooLargeHeadError" in str(error)
    assert turns > 16


def test_a_flood_before_a_download_ends_it() -> None:
    async def run(url: str) -> None:
        async with AsyncClient(settings(url)) as client:
            await client.download(url, io.BytesIO(), max_bytes=60_000, seconds=60.0)

    flood = FLOODS["informational"]
    with slow_server(flood) as server, ending_soon(), pytest.raises(OutputError, match="TooLargeHead"):
        asyncio.run(run(server.url))


@pytest.mark.parametrize(("status", "kind"), [(200, LostResponseError), (401, AuthenticationError)])
def test_a_body_in_tiny_chunks_lets_others_go_on_and_ends(status: int, kind: type[BitDanceError]) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(100_000):
            yield b" "

    answer = httpx.MockTransport(lambda _: httpx.Response(status, content=chunks()))
    error, turns = get_in_turns(AsyncClient(settings("https://api.example", 60.0), transport=answer))
    assert isinstance(error, kind)
    assert 250 <= turns < 1_000, "every 64 chunks, of which some 16,000 are read"


def test_a_body_in_many_small_chunks_is_read() -> None:
    body = json.dumps({"data": {"id": "p-1", "error": "x" * 15_000}}).encode()

    async def chunks() -> AsyncIterator[bytes]:
        for at in range(len(body)):
            yield body[at : at + 1]

    async def run() -> str:
        answer = httpx.MockTransport(lambda _: httpx.Response(200, content=chunks()))
        async with AsyncClient(settings("https://api.example", 60.0), transport=answer) as client:
            return (await client.get_prediction("p-1")).id

    assert asyncio.run(run()) == "p-1"


# The sync client is the async one on a loop of its own.


@pytest.fixture(scope="module")
def service_url() -> Iterator[str]:
    with running_service(Options(api_key="key-of-a-test")) as service:
        yield service.url


def test_the_sync_client_works_where_an_event_loop_runs(service_url: str) -> None:
    async def run() -> float:
        with Client(settings(service_url, 5)) as client:
            return client.get_balance().balance

    assert asyncio.run(run()) == 100


def test_one_sync_client_serves_many_threads(service_url: str) -> None:
    with Client(settings(service_url, 5)) as client, ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: client.get_balance().balance, range(16)))
    assert set(found) == {100}


def test_a_forked_process_has_connections_of_its_own(service_url: str) -> None:
    with Client(settings(service_url, 5)) as client:
        client.get_balance()
        child = os.fork()
        if not child:
            signal.alarm(20)
            code = 1
            try:
                code = 0 if client.get_balance().balance == 100 else 2
                client.close()
            finally:
                os._exit(code)
        assert client.get_balance().balance == 100
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert client.get_balance().balance == 100


def threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "bitdance-client"}


def test_a_sync_client_that_is_not_used_has_no_thread_and_one_that_is_closed_has_none_left(
    service_url: str,
) -> None:
    before = threads()
    client = Client(settings(service_url, 5))
    assert threads() == before
    client.get_balance()
    assert len(threads() - before) == 1
    client.close()
    client.close()
    assert threads() == before
    with pytest.raises(RuntimeError, match="closed"):
        client.get_balance()


def test_a_sync_client_that_nobody_closed_ends_its_thread(service_url: str) -> None:
    before = threads()
    client = Client(settings(service_url, 5))
    client.get_balance()
    (thread,) = threads() - before
    del client
    gc.collect()
    thread.join(5)
    assert not thread.is_alive()


def test_what_interrupts_the_wait_ends_the_request() -> None:
    """Airflow's time-out of a task is an exception that a signal raises."""

    class Interruption(BaseException):
        pass

    def interrupt(*_: object) -> None:
        raise Interruption

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with slow_server(HEADERS) as server, ending_soon():
            client = Client(settings(server.url, 60))
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            with pytest.raises(Interruption):
                client.submit(REQUEST)
            client.close()
    finally:
        signal.signal(signal.SIGALRM, before)
