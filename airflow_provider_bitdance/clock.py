"""Time, as everything that waits is given it: tests pass a clock that they move by hand."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any

__all__ = ["Clock"]


class Clock:
    """Wall-clock time and waiting; tests pass one that they move by hand."""

    def time(self) -> float:
        """Return Unix time."""
        return time.time()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)

    async def wait_for(self, event: asyncio.Event, seconds: float) -> None:
        """Wait until something happens, but at most this many seconds."""
        waiters: set[asyncio.Future[Any]] = {asyncio.ensure_future(event.wait())}
        if seconds < math.inf:
            waiters.add(asyncio.ensure_future(self.sleep(seconds)))
        try:
            await asyncio.wait(waiters, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for waiter in waiters:
                waiter.cancel()
