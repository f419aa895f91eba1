"""Clients of few connections each, lent for a request: as many as the requests that are under way need.

Before and after each request httpcore goes over all connections of a client, and for each idle one over all
once more: with 60 in one client, that was a seventh of the event loop's time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

CONNECTIONS_EACH = 8
"""Connections of one client."""


class Closable(Protocol):
    """What an HTTP client is here."""

    async def aclose(self) -> None:
        """Close its connections."""


C = TypeVar("C", bound=Closable)


@dataclass(slots=True, eq=False)
class _Lent(Generic[C]):
    """A client.

    :ivar under_way: Requests that use it.
    :ivar connections: As many as it had requests under way at once; some may have expired since.
    :ivar left_at: When the last one left it, on the event loop's clock.
    """

    client: C
    under_way: int = 0
    connections: int = 0
    left_at: float = 0.0


@dataclass
class Clients(Generic[C]):
    """Clients of :data:`CONNECTIONS_EACH` connections.

    :param new: Makes one.
    :param most: At most so many; further requests wait for a connection.
    :param idle: Seconds after which one that nobody uses is closed.
    """

    new: Callable[[], C]
    most: int
    idle: float
    _clients: list[_Lent[C]] = field(init=False)

    def __post_init__(self) -> None:
        self._clients = [_Lent(self.new())]  # what is wrong with the environment shows here

    @asynccontextmanager
    async def one(self) -> AsyncIterator[C]:
        """Lend a client until the response is read, and close those that nobody used for a while."""
        while (spare := self._unused()) is not None:
            self._clients.remove(spare)
            await spare.client.aclose()
        lent = self._with_room()
        lent.under_way += 1
        lent.connections = max(lent.connections, lent.under_way)
        try:
            yield lent.client
        finally:
            lent.under_way -= 1
            lent.left_at = asyncio.get_running_loop().time()

    def _unused(self) -> _Lent[C] | None:
        """Return one that may be closed. The first one stays: its connections expire by themselves."""
        since = asyncio.get_running_loop().time() - self.idle
        unused = (each for each in self._clients[1:] if not each.under_way and each.left_at < since)
        return next(unused, None)

    def _with_room(self) -> _Lent[C]:
        """Return the first client that has an idle connection, else the first that may open one."""
        for each in self._clients:
            if each.under_way < each.connections:
                return each
        for each in self._clients:
            if each.connections < CONNECTIONS_EACH:
                return each
        if len(self._clients) == self.most:
            return min(self._clients, key=lambda each: each.under_way)
        self._clients.append(_Lent(self.new()))
        return self._clients[-1]

    async def aclose(self) -> None:
        """Close all."""
        for lent in self._clients:
            await lent.client.aclose()
