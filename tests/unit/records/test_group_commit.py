"""Group commit: what many images write at one moment is one entry, and money never waits for company."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from airflow_provider_bitdance.exceptions import StorageError
from airflow_provider_bitdance.records import Intended, Journal, Planned, Stored, Submitted
from airflow_provider_bitdance.records.events import Event
from airflow_provider_bitdance.records.group_commit import (
    ALL_LINGER,
    HUGE_JOURNAL,
    LONG_JOURNAL,
    STORED_LINGERS,
    GroupCommit,
)
from tests.unit.support import OUTPUT, RECORDS, START, FakeClock, MemoryFolder, a_plan, a_writer, run

PLAN = Planned(output=OUTPUT, images=tuple(a_plan(key, stem=key) for key in "abc"))
Disk = dict[str, bytes]


def intended(key: str) -> Intended:
    return Intended(keys=(key,))


def submitted(key: str) -> Submitted:
    return Submitted(key=key, prediction_id=f"pred-{key}")


def stored(key: str) -> Stored:
    return Stored(key=key, receipt=f"mem://{key}")


def a_journal(
    disk: Disk, *, length: int = LONG_JOURNAL, folder: type[MemoryFolder] = MemoryFolder
) -> Journal:
    """Return a journal in which two of three images are bought."""
    journal = Journal(folder(disk, RECORDS), a_writer())
    journal.load()
    journal.claim(START + 600, START, PLAN)
    journal.append(START, *map(intended, "abc"))
    journal.append(START, *map(submitted, "ab"))
    while journal.state.number < length:
        journal.claim(START + 600, START)
    return journal


def entries(disk: Disk, since: int) -> list[list[str]]:
    """Return the events of each entry after a number, each event as its name and its image."""
    found = [json.loads(disk[path]) for path in sorted(disk)][since:]
    return [[f"{event['event']} {event['key']}" for event in entry["events"]] for entry in found]


def written(
    disk: Disk, clock: FakeClock, work: Callable[[GroupCommit], Awaitable[Any]], *, length: int = LONG_JOURNAL
) -> list[list[str]]:
    """Let something be written, and return the entries that it made."""
    journal = a_journal(disk, length=length)
    before = journal.state.number
    run(work(GroupCommit(journal, clock)))  # type: ignore[arg-type]
    return entries(disk, before)


def side_by_side(*events: Event) -> Callable[[GroupCommit], Awaitable[Any]]:
    async def work(commit: GroupCommit) -> None:
        await asyncio.gather(*(commit.write(event) for event in events))

    return work


@pytest.mark.parametrize("length", [0, LONG_JOURNAL])
def test_what_is_bought_waits_for_no_other_event(length: int) -> None:
    clock = FakeClock()
    assert written({}, clock, side_by_side(submitted("c")), length=length) == [["submitted c"]]
    assert clock.slept == []


def test_in_a_journal_of_thousands_each_entry_gathers_events_for_a_moment() -> None:
    clock = FakeClock()

    async def work(commit: GroupCommit) -> None:
        first = asyncio.create_task(commit.write(submitted("c")))
        await clock.sleep(ALL_LINGER / 2)
        await asyncio.gather(first, commit.write(stored("a")))

    assert written({}, clock, work, length=HUGE_JOURNAL) == [["submitted c", "stored a"]]
    assert clock.now == START + ALL_LINGER


def test_in_a_long_journal_what_is_stored_goes_along_with_what_is_bought_next() -> None:
    clock = FakeClock()

    async def work(commit: GroupCommit) -> None:
        waiting = [asyncio.create_task(commit.write(stored(key))) for key in "ab"]
        await asyncio.sleep(0)
        await commit.write(submitted("c"))
        await asyncio.gather(*waiting)

    assert written({}, clock, work) == [["stored a", "stored b", "submitted c"]]
    assert clock.now == START


def test_what_is_stored_last_waits_a_moment_and_is_written_by_itself() -> None:
    clock = FakeClock()
    assert written({}, clock, side_by_side(stored("a"), stored("b"))) == [["stored a", "stored b"]]
    assert clock.now == START + STORED_LINGERS


def test_in_a_short_journal_nothing_waits() -> None:
    clock = FakeClock()
    assert written({}, clock, side_by_side(stored("a")), length=0) == [["stored a"]]
    assert clock.slept == []


def test_each_of_those_that_were_written_together_learns_that_the_store_failed() -> None:
    class Failing(MemoryFolder):
        is_full = False

        def create(self, name: str, data: bytes) -> None:
            if self.is_full:
                raise StorageError("The disk is full")
            super().create(name, data)

    journal = a_journal({}, folder=Failing)
    commit = GroupCommit(journal, FakeClock())

    async def work() -> list[BaseException | None]:
        Failing.is_full = True
        writes = [commit.write(stored("a")), commit.write(submitted("c"))]
        return await asyncio.gather(*writes, return_exceptions=True)

    errors = run(work())
    assert [isinstance(error, StorageError) for error in errors] == [True, True]
    Failing.is_full = False
    run(commit.write(stored("b")))
    assert journal.state.images["b"].receipt == "mem://b"


def test_who_is_cancelled_while_the_store_is_slow_leaves_the_others_their_outcome() -> None:
    """The write goes on: an image that wrote the same event again would find it, and call the journal
    damaged."""
    writes_through = threading.Semaphore(0)

    class Slow(MemoryFolder):
        is_slow = False

        def create(self, name: str, data: bytes) -> None:
            if self.is_slow:
                writes_through.acquire(timeout=60)
            super().create(name, data)

    disk: Disk = {}
    journal = a_journal(disk, length=0, folder=Slow)
    before, commit = journal.state.number, GroupCommit(journal, FakeClock())

    async def work() -> list[BaseException | None]:
        Slow.is_slow = True
        events = submitted("c"), stored("a"), stored("b")
        first, leader, other = (asyncio.create_task(commit.write(event)) for event in events)
        await asyncio.sleep(0)
        writes_through.release()
        await first
        for _ in range(3):  # the leader's turn
            await asyncio.sleep(0)
        leader.cancel()
        await asyncio.wait({leader})
        for _ in range(3):
            await asyncio.sleep(0)
        assert not other.done()
        writes_through.release()
        return await asyncio.gather(leader, other, return_exceptions=True)

    cancelled, told = run(work())
    assert isinstance(cancelled, asyncio.CancelledError)
    assert told is None
    assert entries(disk, before) == [["submitted c"], ["stored a", "stored b"]]
