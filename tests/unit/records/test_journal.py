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
    Planned,
    Status,
    Stored,
    Submitted,
)
from airflow_provider_bitdance.records.events import Claimed, Event
from airflow_provider_bitdance.records.journal import READ_AHEAD
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
        [PLAN, INTENT, Lost(key="image", reason="x"), Submitted(key="image", prediction_id="p", intent=1)],
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


def test_an_event_is_written_though_its_number_is_that_of_an_earlier_entry_that_seemed_to_fail(
    disk: Disk,
) -> None:
    ours = a_journal(disk)
    ours.claim(DEADLINE, START, Planned(output=OUTPUT, images=(a_plan("a", stem="a"), a_plan("b", stem="b"))))
    again = a_journal(disk)  # this process as it was before it wrote, and took the store's word
    ours.append(START, Intended(keys=("a",)))
    again.append(START, Intended(keys=("b",)))
    assert list(disk) == [entry_path(number) for number in (1, 2, 3)]
    assert len(again.state.having(Status.INTENDED)) == 2
    assert a_journal(disk).state == again.state


class ForgetfulFolder(MemoryFolder):
    """A store that writes, and then says that it took too long."""

    takes_too_long = False

    def create(self, name: str, data: bytes) -> None:
        super().create(name, data)
        if self.takes_too_long:
            raise StorageError("The store took too long")


def test_an_event_that_seemed_to_fail_is_written_once_though_another_image_has_found_it(disk: Disk) -> None:
    folder = ForgetfulFolder(disk, RECORDS)
    ours = Journal(folder, a_writer())
    ours.claim(DEADLINE, START, Planned(output=OUTPUT, images=(a_plan("image"), a_plan("b", stem="b"))))
    ours.append(START, INTENT)
    folder.takes_too_long = True
    with pytest.raises(StorageError):
        ours.append(START, SUBMITTED, Intended(keys=("b",)))
    folder.takes_too_long = False
    ours.append(START, Claimed(deadline=DEADLINE))
    ours.append(START, SUBMITTED)
    assert list(disk) == [entry_path(number) for number in (1, 2, 3, 4)]
    assert a_journal(disk).state == ours.state
    assert [image.status for image in ours.state.images.values()] == [Status.SUBMITTED, Status.INTENDED]


def test_an_event_that_was_found_written_may_happen_again_later(disk: Disk) -> None:
    folder, again = ForgetfulFolder(disk, RECORDS), NotCreated(key="image", reason="429")
    ours = Journal(folder, a_writer())
    ours.claim(DEADLINE, START, PLAN)
    ours.append(START, INTENT)
    folder.takes_too_long = True
    with pytest.raises(StorageError):
        ours.append(START, again)
    folder.takes_too_long = False
    ours.append(START, Claimed(deadline=DEADLINE))
    ours.append(START, Intended(keys=("image",)))
    ours.append(START, again.model_copy())
    assert a_journal(disk).state.images["image"].status is Status.PLANNED


def test_a_newer_claim_is_seen_behind_an_entry_that_another_thread_of_ours_has_written(disk: Disk) -> None:
    ours = a_journal(disk)
    ours.claim(DEADLINE, START, PLAN)
    before = a_journal(disk)  # as a thread sees it that has not come to know of the next entry
    ours.append(START, INTENT)
    before.check_unchanged()
    a_journal(disk, token="them").claim(DEADLINE, START)
    with pytest.raises(FencedError):
        before.check_unchanged()


@pytest.mark.parametrize("prompt_asked", [None, "as the user asked"])
def test_a_plan_keeps_the_prompt_as_asked_where_another_one_is_sent(
    disk: Disk, prompt_asked: str | None
) -> None:
    plan = a_plan().model_copy(update={"prompt_asked": prompt_asked})
    a_journal(disk).claim(DEADLINE, START, Planned(output=OUTPUT, images=(plan,)))
    assert a_journal(disk).state.images["image"].plan.prompt_asked == prompt_asked


@pytest.mark.parametrize("run_id", ["2026/11/28", "../../other/run-1", "run-1/cover"])
def test_a_run_id_with_slashes_leads_to_no_other_jobs_folder(run_id: str) -> None:
    parts = a_job(run_id=run_id).folder.split("/")
    assert [*parts[:2], *parts[3:]] == ["jobs", "covers", "cover", "map=-1", "generation=0"]
    assert parts[2] not in ("..", "run-1")


def test_an_id_from_the_api_does_not_choose_where_its_note_lies(disk: Disk) -> None:
    ours = a_journal(disk)
    ours.claim(DEADLINE, START, PLAN, INTENT)
    with pytest.raises(ValueError, match="prediction_id"):
        ours.note(START, key="image", prediction_id="../../generation=1/000001", intent=1)
    ours.note(START, key="image", prediction_id="Con..json", intent=1)
    (note,) = set(disk) - {entry_path(1)}
    assert note.rpartition("/")[0] == f"{RECORDS}/{a_job().folder}/notes"
    assert a_journal(disk, token="them").state == a_journal(disk).state


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
    "a newer format": edited(format=3),
    "a newer format of another shape": edited(format=3, writer=None, events=None),
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


# What a process that was replaced leaves


def taken_over(disk: Disk) -> tuple[Journal, Journal]:
    """Return the journal of a process with an open intent, and that of the one which has replaced it."""
    first, second = a_journal(disk), a_journal(disk, token="them")
    first.claim(DEADLINE, START, PLAN, INTENT)
    second.load()
    second.claim(DEADLINE, START)
    return first, second


def note_of(journal: Journal, prediction_id: str = "pred-9", *, seconds: float = 0.0) -> None:
    journal.note(START + seconds, key="image", prediction_id=prediction_id, intent=1)


def note_path(prediction_id: str) -> str:
    return f"{RECORDS}/{a_job().folder}/notes/{prediction_id}.json"


def test_a_note_is_a_file_of_its_own_and_takes_the_journal_from_nobody(disk: Disk) -> None:
    first, second = taken_over(disk)
    entries = dict(disk)
    note_of(first)
    assert {path for path in disk if path not in entries} == {note_path("pred-9")}
    assert {path: disk[path] for path in entries} == entries
    second.check_unchanged()
    assert second.append(START, Lost(key="image", reason="ReadTimeout")).number == 3


def test_a_note_says_who_bought_what_and_when(disk: Disk) -> None:
    note_of(taken_over(disk)[0])
    assert json.loads(disk[note_path("pred-9")]) == {
        "format": 2,
        "time": "2026-05-28T20:26:40Z",
        "owner": a_writer(token="us").model_dump(),
        "key": "image",
        "prediction_id": "pred-9",
        "intent": 1,
    }


def test_a_note_that_comes_late_is_counted_by_the_next_load_and_by_the_next_process(disk: Disk) -> None:
    first, second = taken_over(disk)
    note_of(first)
    assert second.state.images["image"].possibly_paid == 0
    for state in (second.load(), a_journal(disk, token="third").state):
        assert state.images["image"].possibly_paid == 1
        assert state.spent_usd == 0.01


def test_a_running_process_may_look_for_notes_and_counts_each_once(disk: Disk) -> None:
    first, second = taken_over(disk)
    second.append(START, NotCreated(key="image", reason="the history has none"))
    assert second.read_notes().spent_usd == 0
    note_of(first)
    for _ in range(2):
        state = second.read_notes()
        assert (state.images["image"].possibly_paid, state.spent_usd) == (1, 0.01)
    assert state.number == 3


def test_a_note_that_the_stores_client_writes_twice_is_one(disk: Disk) -> None:
    first, second = taken_over(disk)
    for _ in range(2):
        note_of(first)
    assert len(second.load().images["image"].notes) == 1


def test_a_process_that_was_replaced_by_a_third_one_stops_whatever_was_noted(disk: Disk) -> None:
    first, second = taken_over(disk)
    note_of(first)
    a_journal(disk, token="third").claim(DEADLINE, START)
    with pytest.raises(FencedError):
        second.check_unchanged()
    with pytest.raises(FencedError):
        second.append(START, Lost(key="image", reason="ReadTimeout"))


class Unlisted(MemoryFolder):
    def names(self, below: str) -> list[str]:
        raise AssertionError("nobody can have left a note")


def test_notes_are_looked_for_only_where_a_process_was_replaced_while_it_was_buying(disk: Disk) -> None:
    journal = a_journal(disk)
    journal.claim(DEADLINE, START, PLAN)
    journal.append(START, INTENT)
    journal.append(START, Claimed(deadline=DEADLINE + 600))  # its own deadline, moved on
    journal.append(START, SUBMITTED)
    a_journal(disk, token="them").claim(DEADLINE, START)
    assert Journal(Unlisted(disk, RECORDS), a_writer()).load().number == 5


@pytest.mark.parametrize("damage", [lambda data: data[:20], lambda data: b"", edited(key="other")])
def test_a_note_that_cannot_be_read_stops_its_reader_and_stays_as_it_is(disk: Disk, damage: Any) -> None:
    first, second = taken_over(disk)
    note_of(first)
    disk[note_path("pred-9")] = damage(disk[note_path("pred-9")])
    before = dict(disk)
    with pytest.raises(RecordUnreadableError, match=r"pred-9"):
        second.load()
    assert disk == before


def test_what_a_crash_left_beside_the_notes_is_no_note(disk: Disk) -> None:
    first, second = taken_over(disk)
    note_of(first)
    disk[f"{RECORDS}/{a_job().folder}/notes/.0f3a.json"] = disk[f"{RECORDS}/{a_job().folder}/notes/x.tmp"] = (
        b""
    )
    assert [note.prediction_id for note in second.load().images["image"].notes] == ["pred-9"]


# What 0.1.0 has left


def as_format_1(data: bytes, *more: dict[str, Any]) -> bytes:
    entry = json.loads(data)
    return json.dumps(entry | {"format": 1, "events": [*entry["events"], *more]}).encode()


def test_a_snapshot_of_format_1_is_skipped_for_the_entries_before_it_say_the_same(disk: Disk) -> None:
    ours = a_journal(disk)
    ours.claim(DEADLINE, START, PLAN, INTENT)
    snapshot = {"event": "snapshot", "deadline": 1.0, "images": {"image": {"status": "stored"}}}
    disk[entry_path(1)] = as_format_1(disk[entry_path(1)], snapshot)
    assert a_journal(disk, token="them").state == ours.state


def an_orphan(disk: Disk, *, token: str = "us") -> None:
    """Write what 0.1.0 wrote for a process that had been replaced."""
    number = sum("/notes/" not in path for path in disk) + 1
    entry = json.loads(disk[entry_path(1)]) | {
        "format": 1,
        "number": number,
        "time": "2026-05-28T20:26:40Z",
        "writer": a_writer(token=token).model_dump(),
        "events": [{"event": "orphaned", "key": "image", "prediction_id": "pred-9", "intent": 1}],
    }
    disk[entry_path(number)] = json.dumps(entry).encode()


def test_an_orphan_of_format_1_counts_as_a_note_and_takes_the_journal_from_nobody(disk: Disk) -> None:
    first, second = taken_over(disk)
    an_orphan(disk)
    state = second.load()
    assert (state.number, state.images["image"].possibly_paid, state.spent_usd) == (3, 1, 0.01)
    assert state.owner == second.owner
    note_of(first)
    assert second.load().images["image"].notes == state.images["image"].notes
    assert second.append(START, Lost(key="image", reason="ReadTimeout")).images["image"].possibly_paid == 1
    assert a_journal(disk, token="third").state == second.state


@pytest.mark.parametrize("event", ["orphaned", "snapshot"])
def test_the_two_events_of_format_1_have_no_place_among_others_in_format_2(disk: Disk, event: str) -> None:
    taken_over(disk)
    an_orphan(disk, token="them")
    old = {"event": event} if event == "snapshot" else json.loads(disk[entry_path(3)])["events"][0]
    entry = json.loads(disk[entry_path(3)])
    claim = Claimed(deadline=DEADLINE).model_dump()
    disk[entry_path(3)] = json.dumps(entry | {"format": 2, "events": [claim, old]}).encode()
    with pytest.raises(RecordUnreadableError):
        a_journal(disk)


# Long journals

MANY = Planned(output=OUTPUT, images=tuple(a_plan(f"k{number}", stem=f"k{number}") for number in range(50)))


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


@pytest.mark.parametrize("entries", [1, 3, 4, 5, 63, 64, 65, 300])
def test_a_journal_of_any_length_is_read_as_it_was_written(disk: Disk, entries: int) -> None:
    written = a_long_journal(disk, entries)
    assert a_journal(disk, token="them").state == written.state


class CountingFolder(MemoryFolder):
    reads = 0

    def read(self, name: str) -> bytes | None:
        self.reads += 1
        return super().read(name)


@pytest.mark.parametrize(("entries", "reads"), [(0, 1), (1, 2), (3, 4)])
def test_a_short_journal_takes_one_read_more_than_it_has_entries(
    disk: Disk, entries: int, reads: int
) -> None:
    journal = a_journal(disk)
    for number in range(entries):
        events = (PLAN,) if number == 0 else ()
        journal.claim(START + number, START, *events)
    folder = CountingFolder(disk, RECORDS)
    assert Journal(folder, a_writer()).load().number == entries
    assert folder.reads == reads


def test_a_long_journal_is_read_many_entries_at_once_and_few_beyond_its_end(disk: Disk) -> None:
    written = a_long_journal(disk, 10 * READ_AHEAD)
    together = threading.Barrier(READ_AHEAD)

    class Far(CountingFolder):
        def read(self, name: str) -> bytes | None:
            data = super().read(name)
            number = int(name[-11:-5])
            if 3 * READ_AHEAD < number <= 4 * READ_AHEAD:
                together.wait(timeout=30)  # breaks where so many are not read at once
            return data

    folder = Far(disk, RECORDS)
    assert Journal(folder, a_writer()).load() == written.state
    assert folder.reads <= written.state.number + READ_AHEAD


def test_what_was_read_ahead_beyond_a_missing_entry_does_not_count(disk: Disk) -> None:
    a_long_journal(disk, 200)
    del disk[entry_path(150)]
    disk[entry_path(152)] = b"damaged, but who knows whether it belongs to this journal"
    ours = a_journal(disk, token="them")
    assert ours.state.number == 149


def test_an_entry_that_appears_while_its_followers_are_read_ahead_is_there_for_the_next_load(
    disk: Disk,
) -> None:
    written = a_long_journal(disk, 200)

    class Late(MemoryFolder):
        hidden = entry_path(150)

        def read(self, name: str) -> bytes | None:
            return None if f"{self.uri}/{name}" == self.hidden else super().read(name)

    folder = Late(disk, RECORDS)
    ours = Journal(folder, a_writer(token="them"))
    assert ours.load().number == 149
    with pytest.raises(FencedError):
        ours.claim(DEADLINE, START)
    folder.hidden = ""
    assert ours.load() == written.state


def test_a_damaged_entry_of_a_long_journal_stops_its_reader(disk: Disk) -> None:
    a_long_journal(disk, 200)
    disk[entry_path(150)] = disk[entry_path(150)][:-9]
    with pytest.raises(RecordUnreadableError, match="000150"):
        a_journal(disk, token="them")


def test_an_adopted_seed_is_read_from_a_long_journal(disk: Disk) -> None:
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
    while journal.state.number < 100:
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
    ours.note(START + 602, key="image", prediction_id="pred-1", intent=1)
    with pytest.raises(FencedError):
        ours.append(START + 603, Claimed(deadline=DEADLINE + 900))
    theirs.append(START + 604, Submitted(key="image", prediction_id="pred-1"))
