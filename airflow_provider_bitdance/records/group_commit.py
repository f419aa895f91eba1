"""Group commit: writes a job's events into its journal, many at a time.

A store takes one entry after the other, and a batch has many images that move at once. While one entry is
being written the next events gather, and whoever comes first writes them all. An event is on the store when
its :meth:`GroupCommit.write` returns.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from airflow_provider_bitdance.clock import Clock
from airflow_provider_bitdance.exceptions import StorageError
from airflow_provider_bitdance.records import Journal
from airflow_provider_bitdance.records.events import Event, Stored

LONG_JOURNAL, STORED_LINGERS = 64, 0.1
"""Beyond this many entries an event that nothing waits for lets the next one take it along, for so many
seconds: the store is free for intents and bought predictions."""
HUGE_JOURNAL, ALL_LINGER = 1024, 0.025
"""Beyond this many, each entry gathers events for so many seconds: the journal stays quick to read."""


@dataclass(slots=True, eq=False)
class _Waiting:
    events: tuple[Event, ...]
    is_over: asyncio.Event = field(default_factory=asyncio.Event)
    error: Exception | None = None

    @property
    def is_urgent(self) -> bool:
        """Whether something hangs on it. That an image is stored is known from its receipt, too."""
        return not all(isinstance(event, Stored) for event in self.events)


class GroupCommit:
    """Writes into the journal of one job.

    :param journal: Claimed by this process.
    """

    def __init__(self, journal: Journal, clock: Clock) -> None:
        self._journal = journal
        self._clock = clock
        self._waiting: list[_Waiting] = []
        self._turn = asyncio.Lock()

    async def write(self, *events: Event) -> None:
        """Write events, in one entry with what others write at this moment.

        :raises FencedError: Another process has gone on with the job.
        :raises StorageError: The store failed; nothing is known to be written.
        """
        mine = _Waiting(events)
        self._waiting.append(mine)
        if self._journal.state.number >= LONG_JOURNAL and not mine.is_urgent:
            await self._clock.wait_for(mine.is_over, STORED_LINGERS)
        async with self._turn:
            if mine in self._waiting:  # else it was written along with others
                await self._write_all()
        if mine.error is not None:
            raise mine.error

    async def _write_all(self) -> None:
        if self._journal.state.number >= HUGE_JOURNAL:
            await self._clock.sleep(ALL_LINGER)
        together, self._waiting = self._waiting, []
        events = [event for waiting in together for event in waiting.events]
        try:
            await asyncio.to_thread(self._journal.append, self._clock.time(), *events)
        except BaseException as error:
            # The others learn of it, too; one that is cancelled here must not appear cancelled there.
            interrupted = StorageError("Writing to the journal was interrupted")
            for waiting in together:
                waiting.error = error if isinstance(error, Exception) else interrupted
            raise
        finally:
            for waiting in together:
                waiting.is_over.set()
