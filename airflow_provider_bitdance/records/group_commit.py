"""Group commit: writes a job's events into its journal, many at a time.

A store takes one entry after the other, and a batch has many images that move at once. While one entry is
being written the next events gather, and whoever comes first writes them all. An event is on the store when
its :meth:`GroupCommit.write` returns.
"""

from __future__ import annotations

import asyncio
import functools
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
    error: BaseException | None = None

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
            if mine in self._waiting:  # else others write it along
                await self._write_all()
        await mine.is_over.wait()
        if mine.error is not None:
            raise mine.error

    async def _write_all(self) -> None:
        if self._journal.state.number >= HUGE_JOURNAL:
            await self._clock.sleep(ALL_LINGER)
        together, self._waiting = self._waiting, []
        events = [event for waiting in together for event in waiting.events]
        writing = asyncio.ensure_future(asyncio.to_thread(self._journal.append, self._clock.time(), *events))
        writing.add_done_callback(functools.partial(_tell, together))
        # Who is cancelled here leaves the write to its thread, and the others learn how that ended.
        await asyncio.wait({writing})


def _tell(together: list[_Waiting], writing: asyncio.Future[object]) -> None:
    """Tell each of those that were written together how it ended."""
    interrupted = StorageError("Writing to the journal was interrupted")
    error = interrupted if writing.cancelled() else writing.exception()
    for waiting in together:
        waiting.error = error
        waiting.is_over.set()
