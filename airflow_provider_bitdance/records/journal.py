"""Reads and writes the journal of one job in one store, as one process does it."""

from __future__ import annotations

import re
import threading
from datetime import UTC, datetime

from airflow_provider_bitdance.exceptions import FencedError
from airflow_provider_bitdance.records.codec import read_record
from airflow_provider_bitdance.records.events import (
    FORMAT,
    Claimed,
    Entry,
    Event,
    Job,
    Orphaned,
    Owner,
    Snapshot,
)
from airflow_provider_bitdance.records.state import JobState, at_snapshot, fold, snapshot_of
from airflow_provider_bitdance.storage import Folder, uri_of

SNAPSHOT_FROM = 50
"""Jobs of so many images have snapshots: in every entry whose number is a multiple of the next."""
SNAPSHOT_EVERY = 64
_NUMBER = re.compile(r"/(\d{6,})\.json$")


class Journal:
    """The journal of one job in one store, as one process reads and writes it. Its methods block.

    :param folder: The records path.
    :param writer: This process.
    :param job: The job that the journal is of, where it is not the writer's own.
    """

    def __init__(self, folder: Folder, writer: Owner, *, job: Job | None = None) -> None:
        self.writer = writer
        self.job = job or writer.job
        self.state = JobState()
        self._folder = folder
        self._turn = threading.RLock()

    @property
    def uri(self) -> str:
        """Where the journal lies."""
        return uri_of(self._folder, self.job.folder)

    def load(self) -> JobState:
        """Read what has been written since the last look, and return the state.

        :raises RecordUnreadableError: An entry is damaged or of a newer format. Nothing is overwritten.
        :raises StorageError: The store failed.
        """
        while (entry := self._read(self.state.number + 1)) is not None:
            had_a_plan = bool(self.state.images)
            self.state = fold(self.state, entry)
            if not had_a_plan and len(self.state.images) >= SNAPSHOT_FROM:
                self._leap()
        return self.state

    def _leap(self) -> None:
        """Go on from the last snapshot, where there is one: the entries before it need not be read."""
        numbers = [
            int(match[1]) for name in self._folder.names(self.job.folder) if (match := _NUMBER.search(name))
        ]
        last = max(numbers, default=0)
        for number in range(last - last % SNAPSHOT_EVERY, self.state.number, -SNAPSHOT_EVERY):
            entry = self._read(number)
            snapshot = entry.events[-1] if entry else None
            if entry is not None and isinstance(snapshot, Snapshot):
                self.state = at_snapshot(self.state, entry, snapshot)
                return

    def claim(self, deadline: float, now: float, *events: Event) -> JobState:
        """Become the job's writer. The events, if any, go into the same entry.

        :raises FencedError: Another process changed the job since :meth:`load`.
        """
        with self._turn:
            return self._append(now, Claimed(deadline=deadline), *events)

    def append(self, now: float, *events: Event) -> JobState:
        """Write the next entry, and return the state after it.

        :param now: Unix time.
        :raises FencedError: The number is taken: another process has gone on with the job.
        :raises StorageError: The store failed; nothing is known to be written.
        """
        with self._turn:
            last = self.state.writer
            if last and last.token != self.writer.token:
                raise self._fenced()  # a note has made this process read on
            return self._append(now, *events)

    def _append(self, now: float, *events: Event) -> JobState:
        left = events
        while left and (found := self._write(now, left)) is not None:
            if found.writer.token == self.writer.token:
                # Written although the store said that it failed, or that it took too long.
                left = tuple(event for event in left if event not in found.events)
            elif not found.is_note:
                raise self._fenced()
            self.state = fold(self.state, found)
        return self.state

    def note(self, now: float, *events: Orphaned) -> None:
        """Add to the journal as a process that has been replaced; the one that has claimed it goes on.

        :raises StorageError: The store failed; nothing is known to be written.
        """
        with self._turn:
            while (found := self._write(now, events)) is not None:
                self.state = fold(self.state, found)
                if found.events == events:
                    return

    def check_unchanged(self) -> None:
        """Make sure that no other process has gone on with the job: called before money is spent.

        Changes nothing, so many threads may ask while one writes.

        :raises FencedError: One has.
        """
        number = self.state.number + 1
        while (entry := self._read(number)) is not None:
            # An entry of ours is written at this moment, in another thread.
            if entry.writer.token != self.writer.token and not entry.is_note:
                raise self._fenced()
            number += 1

    def _fenced(self) -> FencedError:
        return FencedError(f"Another process of this task has taken over the job {self.uri}")

    def _write(self, now: float, events: tuple[Event, ...]) -> Entry | None:
        """Write the next entry; or return the one that is there already."""
        number = self.state.number + 1
        entry = Entry(number=number, time=datetime.fromtimestamp(now, UTC), writer=self.writer, events=events)
        after = fold(self.state, entry)
        if number % SNAPSHOT_EVERY == 0 and len(after.images) >= SNAPSHOT_FROM and not entry.is_note:
            entry = entry.model_copy(update={"events": (*events, snapshot_of(after))})
        try:
            self._folder.create(self._name(number), entry.model_dump_json(indent=1).encode())
        except FileExistsError:
            found = self._read(number)
            if found is None:  # taken, and not to be seen yet
                raise self._fenced() from None
            return found
        self.state = after
        return None

    def _read(self, number: int) -> Entry | None:
        name = self._name(number)
        data = self._folder.read(name)
        if data is None:
            return None
        return read_record(Entry, data, newest=FORMAT, uri=uri_of(self._folder, name))

    def _name(self, number: int) -> str:
        return f"{self.job.folder}/{number:06}.json"
