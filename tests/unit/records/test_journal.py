"""The journal on a store: its numbers are the lock, and nothing that it cannot read is written over."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_bitdance.exceptions import FencedError, RecordUnreadableError, StorageError
from airflow_provider_bitdance.records import (
    Adopted,
    Failed,
    Failure,
    Intended,
    JobState,
    Journal,
    Lost,
    NotCreated,
    Orphaned,
    Planned,
    Status,
    Stored,
    Submitted,
)
from airflow_provider_bitdance.records.events import Claimed, Event
from airflow_provider_bitdance.records.journal import SNAPSHOT_EVERY, SNAPSHOT_FROM
from tests.unit.support import OUTPUT, RECORDS, START, MemoryFolder, a_job, a_plan, a_writer

PLAN = Planned(output=OUTPUT, images=(a_plan(),))
INTENT = Intended(keys=("image",))
SUBMITTED = Submitted(key="image", prediction_id="pred-1")
DEADLINE = START + 600

Disk = dict[str, bytes]


@pytest.fixture
def disk() -> Disk:
    return {}


def a_journal(disk: Disk, *, token: str = "us", try_number: int = 1) -> Journal:
    journal = Journal(MemoryFolder(disk, RECORDS), a_writer(token=token, try_number=try_number))
    journal.load()
    return journal


def entry_path(number: int) -> str:
    return f"{RECORDS}/{a_job().folder}/{number:06}.json"


def test_entries_are_numbered_from_one_in_the_jobs_folder(disk: Disk) -> None:
    ours = a_journal(disk)
    ours.claim(DEADLINE, START, PLAN)
    ours.append(START, INTENT)
    assert list(disk) == [entry_path(1), entry_path(2)]
    assert ours.uri == f"{RECORDS}/jobs/covers/run-1/cover/map=-1/generation=0"


def test_another_process_reads_the_state_that_the_writer_has(disk: Disk) -> None:
    ours = a_journal(disk)
    ours.claim(DEADLINE, START, PLAN, INTENT)
    ours.append(START + 1.25, SUBMITTED)
    assert a_journal(disk, token="them").state == ours.state
    assert ours.state.images["image"].submitted_at == START + 1.25


@pytest.mark.parametrize(
    "events",
    [
        [PLAN, Stored(key="image", receipt="mem://r", reused=True)],
        [PLAN, INTENT, SUBMITTED, Stored(key="image", receipt="mem://r")],
        [PLAN, INTENT, NotCreated(key="image", reason='429 "é" \u2028')],
        [PLAN, INTENT, Lost(key="image", reason="ReadTimeout")],
        *([PLAN, INTENT, SUBMITTED, Failed(key="image", failure=kind, reason="why")] for kind in Failure),
    ],
)
def test_every_event_survives_the_round_trip(disk: Disk, events: list[Event]) -> None:
    ours = a_journal(disk)
    ours.claim(DEADLINE, START, *events)
    assert a_journal(disk).state == ours.state


def test_the_first_claim_of_two_wins_and_the_other_is_fenced(disk: Disk) -> None:
    ours, theirs = a_journal(disk), a_journal(disk, token="them")
    theirs.claim(DEADLINE, START, PLAN)
    before = dict(disk)
    with pytest.raises(FencedError):
        ours.claim(DEADLINE, START, PLAN)
    assert disk == before
    assert ours.state == JobState()


def test_a_second_writers_claim_fences_the_firsts_append_and_its_check(disk: Disk) -> None:
    ours = a_journal(disk)
    ours.claim(DEADLINE, START, PLAN)
    ours.check_unchanged()
    a_journal(disk, token="them").claim(DEADLINE, START)
    before = dict(disk)
    with pytest.raises(FencedError, match="run-1/cover"):
        ours.check_unchanged()
    with pytest.raises(FencedError):
        ours.append(START, INTENT)
    assert disk == before


def test_a_fenced_writer_that_reads_on_still_cannot_append(disk: Disk) -> None:
    ours = a_journal(disk)
    ours.claim(DEADLINE, START, PLAN)
    a_journal(disk, token="them").claim(DEADLINE, START)
    ours.load()
    with pytest.raises(FencedError):
        ours.append(START, INTENT)
    assert len(disk) == 2


class RepeatsItsWrite(MemoryFolder):
    """A client that lost the response to its write, wrote again, and now says that the name is taken."""

    def create(self, name: str, data: bytes) -> None:
        super().create(name, data)
        raise FileExistsError(name)


def test_our_own_entry_written_twice_by_the_stores_client_is_accepted(disk: Disk) -> None:
    ours = Journal(RepeatsItsWrite(disk, RECORDS), a_writer(token="us"))
    ours.claim(DEADLINE, START, PLAN)
    ours.append(START + 0.1, INTENT)
    assert ours.state.images["image"].status is Status.INTENDED
    assert ours.state == a_journal(disk).state


def test_the_same_events_of_another_process_are_not_taken_for_ours(disk: Disk) -> None:
    ours, theirs = a_journal(disk, token="us"), a_journal(disk, token="them")
    theirs.claim(DEADLINE, START, PLAN, INTENT)
    with pytest.raises(FencedError):
        ours.claim(DEADLINE, START, PLAN, INTENT)


class Full(MemoryFolder):
    """A store that takes nothing."""

    def create(self, name: str, data: bytes) -> None:
        raise StorageError("full")


def test_a_store_that_fails_leaves_the_state_as_it_was(disk: Disk) -> None:
    ours = Journal(Full(disk, RECORDS), a_writer())
    with pytest.raises(StorageError):
        ours.claim(DEADLINE, START, PLAN)
    assert ours.state == JobState()


def test_an_event_that_breaks_the_rules_is_refused_before_it_is_written(disk: Disk) -> None:
    ours = a_journal(disk)
    ours.claim(DEADLINE, START, PLAN)
    with pytest.raises(RecordUnreadableError):
        ours.append(START, SUBMITTED)
    assert len(disk) == 1


def test_a_number_that_json_cannot_hold_is_refused_before_it_is_written(disk: Disk) -> None:
    ours = a_journal(disk)
    with pytest.raises(ValueError, match="finite"):
        ours.claim(float("inf"), START, PLAN)
    assert disk == {}


def edited(**changes: Any) -> Any:
    """Return a function that changes an entry's fields; ``None`` takes one away."""

    def edit(data: bytes) -> bytes:
        entry = json.loads(data) | changes
        return json.dumps({key: value for key, value in entry.items() if value is not None}).encode()

    return edit


DAMAGES = {
    "cut": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "not text": lambda data: b"\xff\x00" + data,
    "not an object": lambda data: b"[]",
    "no format": edited(format=None),
    "no writer": edited(writer=None),
    "no events": edited(events=[]),
    "an unknown event": edited(events=[{"event": "refunded", "key": "image"}]),
    "an event with a field too many": edited(events=[{"event": "claimed", "deadline": 1.0, "why": "?"}]),
    "an event with a field too few": edited(events=[{"event": "claimed"}]),
    "a field too many": edited(comment="hello"),
    "a wrong number": edited(number=7),
    "a newer format": edited(format=2),
    "a newer format of another shape": edited(format=2, writer=None, events=None),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("number", [1, 2])
def test_an_entry_that_cannot_be_read_stops_its_reader_and_no_byte_is_changed(
    disk: Disk, damage: Any, number: int
) -> None:
    ours = a_journal(disk)
    ours.claim(DEADLINE, START, PLAN)
    ours.append(START, INTENT)
    disk[entry_path(number)] = damage(disk[entry_path(number)])
    before = dict(disk)
    theirs = Journal(MemoryFolder(disk, RECORDS), a_writer(token="them"))
    with pytest.raises(RecordUnreadableError):
        theirs.load()
    assert disk == before


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_an_unreadable_entry_in_its_way_stops_a_writer_too(disk: Disk, damage: Any) -> None:
    ours = a_journal(disk)
    ours.claim(DEADLINE, START, PLAN)
    a_journal(disk, token="them").claim(DEADLINE, START)
    disk[entry_path(2)] = damage(disk[entry_path(2)])
    before = dict(disk)
    with pytest.raises((RecordUnreadableError, FencedError)):
        ours.append(START, INTENT)
    with pytest.raises((RecordUnreadableError, FencedError)):
        ours.check_unchanged()
    assert disk == before


NEXT_EVENTS: dict[Status, tuple[Event, ...]] = {
    Status.PLANNED: (INTENT,),
    Status.INTENDED: (SUBMITTED, NotCreated(key="image", reason="r"), Lost(key="image", reason="r")),
    Status.SUBMITTED: (
        Stored(key="image", receipt="mem://r"),
        Failed(key="image", failure=Failure.FAILED, reason="r"),
    ),
    Status.FAILED: (INTENT,),
    Status.STORED: (),
}

moves = st.lists(
    st.tuples(
        st.sampled_from("AB"), st.sampled_from(["load", "claim", "append", "append"]), st.integers(0, 2)
    ),
    max_size=40,
)


@given(moves)
def test_of_two_writers_only_the_last_to_claim_writes_whatever_the_order(
    moves: list[tuple[str, str, int]],
) -> None:
    disk: Disk = {}
    writers = {name: a_journal(disk, token=name) for name in "AB"}
    owner = ""
    for name, move, choice in moves:
        journal = writers[name]
        written = len(disk)
        numbers = {other: writers[other].state.number for other in "AB"}
        up_to_date = journal.state.number == written
        if move == "load":
            assert journal.load().number == written
        elif move == "claim":
            try:
                journal.claim(DEADLINE, START, *([] if journal.state.images else [PLAN]))
            except FencedError:
                assert not up_to_date
            else:
                assert up_to_date
                owner = name
        elif journal.state.images and (events := NEXT_EVENTS[journal.state.images["image"].status]):
            try:
                journal.append(START, events[choice % len(events)])
            except (FencedError, RecordUnreadableError):
                assert owner != name
            else:
                assert owner == name
        assert len(disk) - written in (0, 1)
        assert all(writers[other].state.number >= numbers[other] for other in "AB")
    assert writers["A"].load() == writers["B"].load() == a_journal(disk).state
    assert writers["A"].state.number == len(disk)


def test_a_claim_alone_is_an_entry(disk: Disk) -> None:
    a_journal(disk).claim(DEADLINE, START, PLAN)
    theirs = a_journal(disk, token="them", try_number=2)
    theirs.claim(DEADLINE + 50, START)
    assert json.loads(disk[entry_path(2)])["events"] == [Claimed(deadline=DEADLINE + 50).model_dump()]
    assert theirs.state.deadline == DEADLINE + 50


ORPHAN = Orphaned(key="image", prediction_id="pred-9", intent=1)


def test_a_note_takes_the_journal_from_nobody(disk: Disk) -> None:
    first, second = a_journal(disk), a_journal(disk, token="them")
    first.claim(START + 600, START, PLAN, INTENT)
    second.load()
    second.claim(START + 600, START)
    first.note(START, ORPHAN)
    second.check_unchanged()
    state = second.append(START, Lost(key="image", reason="ReadTimeout"))
    assert state.number == 4
    assert state.images["image"].possibly_paid == 1


def test_a_note_that_comes_between_a_look_and_a_write_is_read_and_the_next_number_taken(
    disk: Disk,
) -> None:
    first, second = a_journal(disk), a_journal(disk, token="them")
    first.claim(START + 600, START, PLAN, INTENT)
    second.load()
    second.claim(START + 600, START)
    first.note(START, ORPHAN)
    assert second.append(START, Lost(key="image", reason="ReadTimeout")).number == 4
    assert a_journal(disk).load() == second.state


def test_a_writer_that_was_replaced_after_a_note_stops(disk: Disk) -> None:
    first, second, third = (a_journal(disk, token=token) for token in ("us", "them", "others"))
    first.claim(START + 600, START, PLAN, INTENT)
    second.load()
    second.claim(START + 600, START)
    first.note(START, ORPHAN)
    third.load()
    third.claim(START + 600, START)
    with pytest.raises(FencedError):
        second.check_unchanged()
    with pytest.raises(FencedError):
        second.append(START, Lost(key="image", reason="ReadTimeout"))


# Long journals

MANY = Planned(
    output=OUTPUT, images=tuple(a_plan(f"k{number}", stem=f"k{number}") for number in range(SNAPSHOT_FROM))
)


def a_long_journal(disk: Disk, entries: int) -> Journal:
    """Return a journal in which image after image is bought, and every third one stored or lost."""
    journal = a_journal(disk)
    journal.claim(START + 600, START, MANY)
    keys = [image.key for image in MANY.images] * (entries // len(MANY.images) + 1)
    done: set[str] = set()
    for key in keys:
        if journal.state.number >= entries:
            break
        if key in done:
            journal.append(START, Claimed(deadline=START + journal.state.number))
            continue
        done.add(key)
        journal.append(START, Intended(keys=(key,)))
        if journal.state.number % 3:
            journal.append(START, Submitted(key=key, prediction_id=f"pred-{key}"))
            if journal.state.number % 2:
                journal.append(START, Stored(key=key, receipt=f"mem://{key}"))
        else:
            journal.append(START, Lost(key=key, reason="ReadTimeout"))
    return journal


@pytest.mark.parametrize("entries", [1, 63, 64, 65, 127, 128, 130, 300])
def test_a_long_journal_read_from_its_last_snapshot_is_the_one_that_was_written(
    disk: Disk, entries: int
) -> None:
    written = a_long_journal(disk, entries)
    assert a_journal(disk, token="them").state == written.state


def test_a_long_journal_takes_few_reads(disk: Disk) -> None:
    a_long_journal(disk, 10 * SNAPSHOT_EVERY + 7)
    folder = CountingFolder(disk, RECORDS)
    Journal(folder, a_writer()).load()
    assert folder.reads <= SNAPSHOT_EVERY


class CountingFolder(MemoryFolder):
    reads = 0

    def read(self, name: str) -> bytes | None:
        self.reads += 1
        return super().read(name)


@pytest.mark.parametrize("place", [SNAPSHOT_EVERY, 2 * SNAPSHOT_EVERY])
def test_a_note_in_the_place_of_a_snapshot_makes_readers_go_one_snapshot_back(disk: Disk, place: int) -> None:
    replaced = a_long_journal(disk, place - 2)
    journal = a_journal(disk, token="them")
    journal.claim(START + 600, START)
    replaced.load()
    replaced.note(START, Orphaned(key="k0", prediction_id="pred-9", intent=9))
    assert replaced.state.number == place
    journal.append(START, Claimed(deadline=START + 1))
    assert journal.state.number == place + 1
    assert a_journal(disk, token="others").state == journal.state
    assert journal.state.images["k0"].possibly_paid == 1


def test_a_listing_that_is_behind_costs_reads_and_nothing_else(disk: Disk) -> None:
    journal = a_long_journal(disk, 3 * SNAPSHOT_EVERY)

    class Behind(MemoryFolder):
        def names(self, below: str) -> list[str]:
            return sorted(super().names(below))[:70]

    late = Journal(Behind(disk, RECORDS), a_writer())
    assert late.load() == journal.state


def test_short_jobs_have_no_snapshots_and_are_not_listed(disk: Disk) -> None:
    journal = a_journal(disk)
    journal.claim(START + 600, START, PLAN)
    for number in range(SNAPSHOT_EVERY + 2):
        journal.append(START, Claimed(deadline=START + number))
    assert not any(b'"snapshot"' in data for data in disk.values())

    class Unlisted(MemoryFolder):
        def names(self, below: str) -> list[str]:
            raise AssertionError("one image needs no listing")

    assert Journal(Unlisted(disk, RECORDS), a_writer()).load() == journal.state


def test_an_adopted_seed_survives_a_snapshot(disk: Disk) -> None:
    journal = a_journal(disk)
    journal.claim(START + 600, START, MANY)
    adopted = Adopted(
        key="k3",
        request=a_plan(seed=99).request,
        prediction_id="pred-2",
        submitted_at=datetime.fromtimestamp(START, UTC),
        bought_by=a_job(generation=1),
    )
    journal.append(START, adopted)
    while journal.state.number < SNAPSHOT_EVERY:
        journal.append(START, Claimed(deadline=START))
    assert a_journal(disk, token="them").state == journal.state
    assert journal.state.images["k3"].plan.request.seed == 99


def test_many_threads_may_check_the_journal_while_one_writes(disk: Disk) -> None:
    """The pump checks before each purchase and each write, in threads of its own."""
    journal = a_journal(disk)
    journal.claim(START + 600, START, PLAN)
    stop = threading.Event()
    errors: list[Exception] = []

    def check() -> None:
        while not stop.is_set():
            try:
                journal.check_unchanged()
            except Exception as error:
                errors.append(error)
                return

    threads = [threading.Thread(target=check) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(300):
        journal.append(START, Claimed(deadline=START + number))
    stop.set()
    for thread in threads:
        thread.join()
    assert errors == []


def test_a_process_that_was_replaced_cannot_claim_the_job_back_by_a_new_deadline(disk: Disk) -> None:
    ours, theirs = a_journal(disk), a_journal(disk, token="them", try_number=2)
    ours.claim(DEADLINE, START, PLAN, INTENT)
    theirs.load()
    theirs.claim(DEADLINE + 600, START + 601)
    with pytest.raises(FencedError):
        ours.append(START + 602, SUBMITTED)
    ours.note(START + 602, Orphaned(key="image", prediction_id="pred-1", intent=1))
    with pytest.raises(FencedError):
        ours.append(START + 603, Claimed(deadline=DEADLINE + 900))
    theirs.append(START + 604, Submitted(key="image", prediction_id="pred-1"))
