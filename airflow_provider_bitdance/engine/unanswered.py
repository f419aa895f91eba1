"""Unanswered: the places of purchases whose response is not recorded. So many a kill can lose.

A purchase whose response came hands its place on: the record of that response and the next purchase's intent
are one entry of the journal. Where the store is far away, each purchase waits for it once instead of twice.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from airflow_provider_bitdance.exceptions import StorageError
from airflow_provider_bitdance.records.events import Intended

__all__ = ["Unanswered"]

_Waiting = tuple[Intended | None, asyncio.Future[bool]]


class Unanswered:
    """Places for purchases, from intent to recorded response, in the order in which they are asked for.

    :param most: So many at once.
    """

    def __init__(self, most: int) -> None:
        self._free = most
        self._waiting: deque[_Waiting] = deque()

    async def enter(self, intent: Intended | None) -> bool:
        """Wait for a place. :meth:`leave` gives it back.

        :param intent: Of the purchase, where it is still to be written.
        :return: Whether the purchase that handed its place on has written it.
        :raises RecordError: It could not write it. Then there is no place.
        """
        if self._free > 0:
            self._free -= 1
            return False
        place: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((intent, place))
        try:
            return await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and place.exception() is None:
                self.leave()  # it came at this very moment
            raise

    def leave(self) -> None:
        """Give a place back. The purchase that has waited longest has it next."""
        self._free += 1
        if self._free > 0 and (first := self._first_waiting()) is not None:
            self._free -= 1
            first[1].set_result(False)

    async def hand_on(self, record: Callable[..., Awaitable[None]]) -> None:
        """Record a response, and with it the intent of the purchase that has waited longest; it has a place
        then. The place of the purchase that hands on is still to be given back.

        :param record: Writes the response and the events that it is given, in one entry.
        """
        first = self._first_waiting()
        if first is None:
            await record()
            return
        intent, place = first
        try:
            await record(*([intent] if intent else []))
        except BaseException as error:
            interrupted = StorageError("Writing to the journal was interrupted")
            if not place.done():
                place.set_exception(error if isinstance(error, Exception) else interrupted)
            raise
        if not place.done():
            self._free -= 1  # until the other one is back: nobody else may take that
            place.set_result(True)

    def _first_waiting(self) -> _Waiting | None:
        """Return, and forget, who has waited longest and was not cancelled."""
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting[1].done():
                return waiting
        return None
