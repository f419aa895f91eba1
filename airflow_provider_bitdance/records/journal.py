"""Reads and writes the journal of one job in one store, as one process does it.

All that reads it raises ``RecordUnreadableError`` for an entry or a note that is damaged or of a newer
format, and overwrites nothing. If the store fails, it is a ``StorageError``: nothing is known to be written.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import count, islice

from airflow_provider_bitdance.exceptions import FencedError, InputError, StorageError
from airflow_provider_bitdance.records.codec import damaged, read_record
from airflow_provider_bitdance.records.events import Claimed, Entry, Event, Planned
from airflow_provider_bitdance.records.notes import NOTES, Note, is_note, read_notes
from airflow_provider_bitdance.records.owner import PRUNER, Job, Owner
from airflow_provider_bitdance.records.state import JobState, fold, fold_all, fold_notes
from airflow_provider_bitdance.storage import Folder, uri_of
from airflow_provider_bitdance.storage.base import LARGEST_FILE
from airflow_provider_bitdance.storage.naming import safe_name

ONE_BY_ONE = 4
"""Entries of a journal that are read one by one: most have no more."""
READ_AHEAD = 128
"""Entries of a long journal that are read at once. A slow job of 10,000 images writes 24,000 of them. On a
store that takes 30 ms an operation it is entered in 10 s; with 64, in 16 s (``benchmarks/reentry.py``)."""


class Journal:
    """The journal of one job in one store, as one process reads and writes it. Its methods block.

    :param folder: The records path.
    :param owner: This process.
    :param job: The job that the journal is of, where it is not the owner's own.
    :ivar written_at: Unix time at which this process last began to write an entry that was then written: at
        that moment it was the job's only process.
    """

    def __init__(self, folder: Folder, owner: Owner, *, job: Job | None = None) -> None:
        self.owner = owner
        self.job = job or owner.job
        self.state = JobState()
        self.written_at = -math.inf
        self._folder = folder
        self._turn = threading.RLock()
        self._unsure: list[tuple[int, tuple[Event, ...]]] = []
        self._recovered: list[Event] = []

    @property
    def uri(self) -> str:
        """The URI of the journal."""
        return uri_of(self._folder, self.job.folder)

    def load(self) -> JobState:
        """Read what has been written since the last read, and return the state."""
        new = read_entries(self._folder, self.job.folder, after=self.state.number)
        self.state = fold_all(self.state, new)
        return self.read_notes()

    def read_notes(self) -> JobState:
        """Read what replaced processes have bought, where there may be such, and return the state."""
        if self.state.may_have_notes:  # else no listing: most journals are of one process at a time
            names = filter(is_note, self._folder.names(f"{self.job.folder}{NOTES}"))
            notes = read_notes(self._folder, names)
            with self._turn:
                self.state = fold_notes(self.state, notes)
        return self.state

    def claim(self, deadline: float, now: float, *events: Event) -> JobState:
        """Become the job's owner. The events, if any, go into the same entry.

        :raises FencedError: Another process changed the job since :meth:`load`.
        :raises StorageError: ``records prune`` is removing the journal. Soon there is none.
        """
        with self._turn:
            state = self.state
            if state.is_removed or (state.is_owned_by_prune and now < state.lease_end(now)):
                raise StorageError(
                    f"records prune is removing the journal {self.uri}",
                    fix=(
                        "A retry begins a new journal. Nothing that is stored is bought again. If this "
                        "stays so, that prune was killed: run records prune --delete again"
                    ),
                )
            return self._append(now, Claimed(deadline=deadline), *events)

    def append(self, now: float, *events: Event) -> JobState:
        """Write the next entry, and return the state after it.

        :param now: Unix time.
        :param events: An event whose write seemed to fail may be given again, as the same object: it is
            written once.
        :raises FencedError: The number is taken: another process has gone on with the job.
        """
        with self._turn:
            last = self.state.owner
            if last and last.token != self.owner.token:
                raise self.fenced()  # this process has read on since it was replaced
            return self._append(now, *events)

    def _append(self, now: float, *events: Event) -> JobState:
        left, time = self._not_recovered(events), datetime.fromtimestamp(now, UTC)
        while left:
            entry = Entry(number=self.state.number + 1, time=time, writer=self.owner, events=left)
            after = fold(self.state, entry)
            name, data = _entry_name(self.job.folder, entry.number), _encoded(entry)
            try:
                self._folder.create(name, data)
                self.written_at = now
            except FileExistsError:
                found = _read_entry(self._folder, self.job.folder, entry.number)
                if found is None or found.writer.token != self.owner.token:  # None: it is not to be seen yet
                    raise self.fenced() from None
                # Written although the store said that it failed, or that it took too long. When that was
                # nobody knows, so it does not show that this process still has the job.
                entry, after = found, fold(self.state, found)
                self._take_for_written(entry)
            except StorageError:
                self._unsure.append((entry.number, left))
                raise
            self.state = after
            left = tuple(event for event in left if event not in entry.events)
        return self.state

    def _take_for_written(self, entry: Entry) -> None:
        """Remember which events of writes that seemed to fail an entry of ours has: of several images that
        write again after a failure, the first one finds what all have written.
        """
        for number, events in self._unsure:
            if number == entry.number:
                self._recovered += [event for event in events if event in entry.events]

    def _not_recovered(self, events: tuple[Event, ...]) -> tuple[Event, ...]:
        """Return the events without those that are written. The same object is the same event; an equal one
        may be that of a later purchase.
        """
        written = set(map(id, self._recovered))
        return tuple(event for event in events if id(event) not in written)

    def note(self, now: float, *, key: str, prediction_id: str, intent: int) -> None:
        """Leave a note of what was bought, as a process that has been replaced; it changes no entry.

        :param intent: Which intent of the image it was, counted from 1.
        """
        note = Note(
            time=datetime.fromtimestamp(now, UTC),
            owner=self.owner,
            key=key,
            prediction_id=prediction_id,
            intent=intent,
        )
        name = f"{self.owner.job.folder}{NOTES}/{safe_name(prediction_id)}.json"
        # One that is there already is this one: the store's client has repeated its write.
        with contextlib.suppress(FileExistsError):
            self._folder.create(name, note.model_dump_json(indent=1).encode())

    def check_unchanged(self) -> None:
        """Make sure that no other process has gone on with the job: called before money is spent.

        Changes nothing, so many threads may check while one writes.

        :raises FencedError: One has.
        """
        number = self.state.number + 1
        while (entry := _read_entry(self._folder, self.job.folder, number)) is not None:
            if entry.writer.token != self.owner.token:
                raise self.fenced()
            number += 1  # an entry of ours is written at this moment, in another thread

    def fenced(self) -> FencedError:
        """Return the error of a process that must do nothing more."""
        return FencedError(f"Another process of this task has taken over the job {self.uri}")


def read_entries(folder: Folder, journal: str, *, after: int = 0) -> Iterator[Entry]:
    """Yield the entries of a journal in their order, up to the first that is missing.

    A short journal, as most are, is read entry by entry: a store charges for a read that finds nothing, too.
    The longer a journal turns out to be, the more is read ahead, up to :data:`READ_AHEAD` entries at once.
    An entry beyond a missing number does not count: it was written after that number was read. Nor does any
    behind a first one of ``records prune``: these are being removed.

    :param journal: The journal's folder.
    :param after: Begin after this number.
    """
    numbers = count(after + 1)
    for number in islice(numbers, ONE_BY_ONE):
        if (entry := _read_entry(folder, journal, number)) is None:
            return
        yield entry
        if number == 1 and entry.writer.job == PRUNER:
            return
    with ThreadPoolExecutor(READ_AHEAD, "bitdance-journal") as pool:
        ahead = deque[Future[Entry | None]]()
        for read in count(ONE_BY_ONE):
            while len(ahead) < min(read // 2, READ_AHEAD):
                ahead.append(pool.submit(_read_entry, folder, journal, next(numbers)))
            if (entry := ahead.popleft().result()) is None:
                return
            yield entry


def _read_entry(folder: Folder, journal: str, number: int) -> Entry | None:
    name = _entry_name(journal, number)
    entry = read_record(Entry, folder, name)
    if entry is None:
        return None
    if entry.number != number:
        raise damaged(folder, name, f"says that it is number {entry.number}")
    # Others write here, too: they stop the job, and say what became of its purchases. Its plan is its own.
    if entry.writer.job.folder != journal and any(isinstance(event, Planned) for event in entry.events):
        raise damaged(folder, name, "has the plan of another job")
    return entry


def _encoded(entry: Entry) -> bytes:
    data = entry.model_dump_json(indent=1).encode()
    if len(data) > LARGEST_FILE:  # nobody could read it; only a plan is so large
        raise InputError(
            f"This task's plan has {len(data) // 1024**2} MiB, most of it prompts and columns",
            allowed=f"{LARGEST_FILE // 1024**2} MiB",
            fix="Split the items across several tasks",
        )
    return data


def _entry_name(journal: str, number: int) -> str:
    return f"{journal}/{number:06}.json"
