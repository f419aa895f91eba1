"""An event loop in a thread of its own: how code without one uses the async client."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

__all__ = ["LoopThread"]

R = TypeVar("R")


class LoopThread:
    """An event loop that runs until it is closed, or nobody refers to this object any more.

    :param wind_up: Awaited on the loop before it is closed.
    """

    def __init__(self, wind_up: Callable[[], Awaitable[None]]) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=_run, args=(self._loop, wind_up), name="bitdance-client", daemon=True
        )
        self._thread.start()
        self._stop = weakref.finalize(self, _stop, self._loop, os.getpid())

    def run(self, coroutine: Coroutine[Any, Any, R]) -> R:
        """Run a coroutine on the loop, and wait for it. What interrupts the wait cancels it."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """Cancel what is under way, and end the thread."""
        self._stop()
        self._thread.join()


def _run(loop: asyncio.AbstractEventLoop, wind_up: Callable[[], Awaitable[None]]) -> None:
    try:
        loop.run_forever()
        loop.run_until_complete(_wind_up(wind_up))
    finally:
        # Not asyncio.Runner: it waits for threads, and a look-up of a name may hang in one.
        loop.close()


async def _wind_up(wind_up: Callable[[], Awaitable[None]]) -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await wind_up()


def _stop(loop: asyncio.AbstractEventLoop, pid: int) -> None:
    if pid == os.getpid() and not loop.is_closed():  # a process forked off has no such thread
        loop.call_soon_threadsafe(loop.stop)
