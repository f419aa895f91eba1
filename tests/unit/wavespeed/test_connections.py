"""How many connections there are: no more than requests at once, and those that nobody needs are closed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from airflow_provider_bitdance.wavespeed import client as client_module
from airflow_provider_bitdance.wavespeed import http
from airflow_provider_bitdance.wavespeed.client import AsyncClient, ClientSettings
from airflow_provider_bitdance.wavespeed.clients import CONNECTIONS_EACH
from tests.unit.wavespeed.test_idle_connections import RESPONSE

AT_ONCE = 2 * CONNECTIONS_EACH + 4


class Server:
    """Responds once so many requests wait.

    :ivar wanted: How many.
    :ivar opened: Connections ever.
    :ivar open: Connections now.
    :ivar all_closed: There is none.
    """

    def __init__(self) -> None:
        self.url = ""
        self.wanted, self.opened, self.open = 1, 0, 0
        self.all_closed = asyncio.Event()
        self._waiting = 0
        self._all_here = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        self.open += 1
        self.all_closed.clear()
        while await reader.read(65536):
            self._waiting += 1
            here = self._all_here
            if self._waiting == self.wanted:
                self._waiting, self._all_here = 0, asyncio.Event()
                here.set()
            await here.wait()
            writer.write(RESPONSE)
        writer.close()
        self.open -= 1
        if not self.open:
            self.all_closed.set()


@asynccontextmanager
async def server_and_client() -> AsyncIterator[tuple[Server, AsyncClient]]:
    server = Server()
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as serving:
        server.url = f"http://127.0.0.1:{serving.sockets[0].getsockname()[1]}"
        async with asyncio.timeout(20):
            async with AsyncClient(ClientSettings("key", base_url=server.url)) as client:
                yield server, client
            await server.all_closed.wait()  # the client leaves none open


async def at_once(requests: int, server: Server, client: AsyncClient) -> None:
    server.wanted = requests
    await asyncio.gather(*(client.get_balance() for _ in range(requests)))


def test_requests_use_the_connections_that_are_idle_whichever_client_has_them() -> None:
    async def run() -> list[int]:
        opened = []
        async with server_and_client() as (server, client):
            for requests in (AT_ONCE, 1, 5, AT_ONCE, AT_ONCE - CONNECTIONS_EACH):
                await at_once(requests, server, client)
                opened.append(server.opened)
        return opened

    assert asyncio.run(run()) == [AT_ONCE] * 5


def test_one_request_after_the_other_uses_one_connection() -> None:
    async def run() -> int:
        async with server_and_client() as (server, client):
            for _ in range(30):
                await at_once(1, server, client)
            return server.opened

    assert asyncio.run(run()) == 1


def test_more_requests_than_connections_wait_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    most = 2 * CONNECTIONS_EACH
    monkeypatch.setattr(http, "MAX_CONNECTIONS", most)

    async def run() -> int:
        async with server_and_client() as (server, client):
            server.wanted = most
            await asyncio.gather(*(client.get_balance() for _ in range(3 * most)))
            return server.opened

    assert asyncio.run(run()) == most


def test_connections_that_a_burst_has_opened_are_closed_when_nobody_needs_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client_module, "IDLE_SECONDS", 0.01)

    async def run() -> None:
        async with server_and_client() as (server, client):
            await at_once(AT_ONCE, server, client)
            assert server.open == AT_ONCE
            while server.open > CONNECTIONS_EACH:
                await at_once(1, server, client)

    asyncio.run(run())
