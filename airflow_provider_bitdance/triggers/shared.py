"""One client and one poller for all triggers of an account in a triggerer.

A client costs tens of milliseconds of a loop that a thousand triggers share, and each has connections of its
own. A poller that knows all predictions polls a few of them to know about the others. Both live as long as
a trigger uses them. Imports the client, so it is imported in a thread (:mod:`.bitdance`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from airflow_provider_bitdance.clock import Clock
from airflow_provider_bitdance.hooks.bitdance import BitDanceHook
from airflow_provider_bitdance.polling.policy import PollPolicy
from airflow_provider_bitdance.polling.poller import Poller, wait_for
from airflow_provider_bitdance.wavespeed.client import AsyncClient, tls_context

__all__ = ["shared_poller", "wait_for"]

CONNECTION_SECONDS = 60.0
"""So long a connection that was read is good for further triggers: a new key takes effect after it."""


@dataclass(slots=True, eq=False)
class _Connection:
    read_at: float = 0.0
    hook: BitDanceHook | None = None
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(slots=True, eq=False)
class _Shared:
    client: AsyncClient
    poller: Poller
    users: int = 0


@dataclass(slots=True, eq=False)
class _OfLoop:
    """What the triggers of one event loop share."""

    connections: dict[str, _Connection] = field(default_factory=dict)
    pollers: dict[tuple[Hashable, float], _Shared] = field(default_factory=dict)


_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, _OfLoop] = WeakKeyDictionary()


@asynccontextmanager
async def shared_poller(conn_id: str, *, poll_interval: float, clock: Clock) -> AsyncIterator[Poller]:
    """Yield the poller of a connection's account; the last one to leave closes its client.

    :param poll_interval: Seconds; triggers with another one have a poller of their own.
    :raises BitDanceError: The connection cannot be used.
    """
    of_loop = _loops.setdefault(asyncio.get_running_loop(), _OfLoop())
    hook = await _read(of_loop.connections.setdefault(conn_id, _Connection()), conn_id)
    key = (hook.settings.identity, poll_interval)
    shared = of_loop.pollers.get(key)
    if shared is None:
        client = hook.new_async_client(is_reader=True)
        policy = PollPolicy(interval=poll_interval)
        shared = of_loop.pollers[key] = _Shared(client, Poller(client, policy=policy, clock=clock))
    shared.users += 1
    try:
        yield shared.poller
    finally:
        shared.users -= 1
        if not shared.users:
            del of_loop.pollers[key]
            with suppress(Exception):  # what was seen counts
                await shared.client.aclose()


async def _read(connection: _Connection, conn_id: str) -> BitDanceHook:
    """Read a connection, once for all triggers that come at the same time."""
    async with connection.turn:
        if connection.hook is None or time.monotonic() > connection.read_at + CONNECTION_SECONDS:
            hook = BitDanceHook(conn_id)
            await hook.read_connection()
            await asyncio.to_thread(tls_context)
            connection.hook, connection.read_at = hook, time.monotonic()
        return connection.hook
