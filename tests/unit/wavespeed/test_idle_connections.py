"""Connections that wait for their next request, over real sockets."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import anyio
import pytest

from airflow_provider_bitdance.wavespeed.client import AsyncClient, ClientSettings

BODY = json.dumps({"code": 200, "message": "success", "data": {"balance": 7.5}}).encode()
RESPONSE = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
)


class Server:
    """Answers requests for the balance, so many on each connection, and closes it then without a word.

    :ivar served: Requests of each connection, in the order of the connections.
    """

    def __init__(self, listener: socket.socket, requests: int) -> None:
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self.served: list[int] = []
        self.closed = threading.Event()
        self._listener, self._requests = listener, requests

    def serve(self) -> None:
        with suppress(OSError):
            while True:
                caller, _ = self._listener.accept()
                self.served.append(0)
                with caller:
                    while self.served[-1] < self._requests and caller.recv(65536):
                        caller.sendall(RESPONSE)
                        self.served[-1] += 1
                self.closed.set()


@contextmanager
def server(*, requests: int) -> Iterator[Server]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = Server(listener, requests)
        threading.Thread(target=serving.serve, daemon=True).start()
        yield serving
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)  # wakes accept()


def test_a_connection_that_the_server_has_closed_meanwhile_takes_no_request() -> None:
    """A purchase that left on it would be a lost response."""

    async def balances(serving: Server) -> list[float]:
        found = []
        async with AsyncClient(ClientSettings("key", base_url=serving.url)) as client:
            for _ in range(3):
                serving.closed.clear()
                found.append((await client.get_balance()).balance)
                assert await asyncio.to_thread(serving.closed.wait, 5)
        return found

    with server(requests=1) as serving:
        assert asyncio.run(balances(serving)) == [7.5] * 3
    assert serving.served == [1, 1, 1]


def test_both_ends_of_an_idle_connection_are_not_looked_up_for_each_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lookups = []
    extra = anyio.TypedAttributeProvider.extra

    def counted(self: Any, *arguments: Any) -> Any:
        lookups.append(arguments)
        return extra(self, *arguments)

    monkeypatch.setattr(anyio.TypedAttributeProvider, "extra", counted)

    async def lookups_after(requests: int, client: AsyncClient) -> int:
        for _ in range(requests):
            await client.get_balance()
        return len(lookups)

    async def run(serving: Server) -> tuple[int, int]:
        async with AsyncClient(ClientSettings("key", base_url=serving.url)) as client:
            return await lookups_after(1, client), await lookups_after(9, client)

    with server(requests=10) as serving:
        first, last = asyncio.run(run(serving))
    assert serving.served == [10]
    assert 0 < first == last
