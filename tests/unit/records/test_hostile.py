"""Records that somebody else has written: each field is checked when it is read, and no text breaks a reader.

Whoever may write the records folder can always stop a task, by damage. Nobody can make it delete, write or
fetch anything elsewhere, or spend more.
"""

from __future__ import annotations

import json
import os
import time
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_bitdance.exceptions import InputError, RecordUnreadableError
from airflow_provider_bitdance.records import Failed, Failure, Intended, Journal, Planned, Submitted
from airflow_provider_bitdance.records.codec import LARGE
from airflow_provider_bitdance.records.events import Claimed, Entry
from airflow_provider_bitdance.records.notes import read_notes
from airflow_provider_bitdance.records.receipts import Receipt, Receipts
from airflow_provider_bitdance.records.reservations import Reservation, Reservations
from airflow_provider_bitdance.storage import LocalFolder
from airflow_provider_bitdance.storage.naming import Destination
from tests.unit.support import OUTPUT, START, MemoryFolder, a_job, a_plan, a_receipt, a_writer

pytestmark = pytest.mark.usefixtures("no_garbage_collection")

DESTINATION = Destination(OUTPUT, "cover", named=True)
DEEP = b'{"format": 1, "deep": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
NOT_TEXT: dict[str, bytes] = {
    "deep": DEEP,
    "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "a huge number": b'{"format": ' + b"9" * 100_000 + b"}",
    "a format that is no number": b'{"format": true}',
    "a negative format": b'{"format": -1}',
    "invalid UTF-8": b'{"format": 1, "key": "\xff\xfe"}',
    "UTF-16": '{"format": 1}'.encode("utf-16"),
    "a list": b"[]",
    "nothing": b"",
    "zeros": b"\0" * 4096,
}
FORGED: list[tuple[str, object]] = [
    ("estimated_cost_usd", -100.0),
    ("estimated_cost_usd", 10**400),
    ("possibly_paid", -5),
    ("stem", "../../etc/cron.d/x"),
    ("stem", "/etc/passwd"),
    ("stem", ".."),
    ("stem", ""),
    ("stem", "a\nb"),
    ("stem", "x" * 300),
    ("extension", "/../../x.png"),
    ("extension", ".sh"),
    ("variant_of", "../../x"),
    ("key", "\ud800"),
    ("key", "image\nStored all images, $0.00"),
    ("key", "image\u2028"),
    ("key", "x" * 1025),
    ("fingerprint", "x" * 1025),
]


@pytest.fixture
def disk() -> dict[str, bytes]:
    return {}


@pytest.fixture
def folder(disk: dict[str, bytes]) -> MemoryFolder:
    return MemoryFolder(disk, "mem://disk/records")


def planned(folder: MemoryFolder) -> Journal:
    journal = Journal(folder, a_writer())
    journal.claim(START + 60, START, Planned(output=OUTPUT, images=(a_plan(),)))
    return journal


def edit(disk: dict[str, bytes], change: Callable[[dict[str, Any]], object], *, number: int = 1) -> None:
    name = next(name for name in disk if name.endswith(f"{number:06}.json"))
    found = json.loads(disk[name])
    change(found)
    disk[name] = json.dumps(found).encode()


def refused(read: Callable[[], object]) -> str:
    with pytest.raises(RecordUnreadableError) as caught:
        read()
    assert not caught.value.retry_helps
    assert len(str(caught.value)) < 2000
    str(caught.value).encode()
    return caught.value.what


@pytest.mark.parametrize("data", NOT_TEXT.values(), ids=NOT_TEXT)
def test_what_is_no_record_is_damaged_whatever_it_is(
    data: bytes, folder: MemoryFolder, disk: dict[str, bytes]
) -> None:
    receipts, reservations = Receipts(folder), Reservations(folder)
    journal = Journal(folder, a_writer())
    folder.replace(f"{journal.job.folder}/000001.json", data)
    folder.replace(f"receipts/{DESTINATION.record_name}.json", data)
    folder.replace(f"addresses/{DESTINATION.record_name}/000001.json", data)
    for read in (journal.load, lambda: receipts.find(DESTINATION), lambda: reservations.last(DESTINATION)):
        assert "damaged" in refused(read)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"deadline": ', b'"deadline": NaN, "was": '),
        (b'"deadline": ', b'"deadline": Infinity, "was": '),
        (b'"deadline": ', b'"deadline": 1e999, "was": '),
        (b'"deadline": ', b'"deadline": 0, "deadline": '),
        (b'"output": ', b'"output": "s3://theirs", "output": '),
        (b'"prompt": "', b'"prompt": "\\ud800'),
    ],
)
def test_json_that_two_readers_may_take_for_two_things_is_damaged(
    old: bytes, new: bytes, folder: MemoryFolder, disk: dict[str, bytes]
) -> None:
    planned(folder)
    (name,) = disk
    assert old in disk[name]
    disk[name] = disk[name].replace(old, new, 1)
    assert "damaged" in refused(Journal(folder, a_writer()).load)


def test_a_prompt_may_speak_of_escapes(folder: MemoryFolder) -> None:
    plan = a_plan().model_copy(
        update={"request": a_plan().request.model_copy(update={"prompt": r"a sign: \ud800"})}
    )
    journal = Journal(folder, a_writer())
    journal.claim(START + 60, START, Planned(output=OUTPUT, images=(plan,)))
    assert Journal(folder, a_writer()).load().images["image"].plan == plan


@pytest.mark.parametrize(("name", "value"), FORGED, ids=str)
def test_a_field_of_a_planned_image_is_checked_when_it_is_read(
    name: str, value: object, folder: MemoryFolder, disk: dict[str, bytes]
) -> None:
    planned(folder)
    edit(disk, lambda entry: entry["events"][1]["images"][0].update({name: value}))
    assert "damaged" in refused(Journal(folder, a_writer()).load)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("time",), "9999-12-31T23:59:59-14:00"),
        (("time",), "0001-01-01T00:00:00+14:00"),
        (("time",), "2026-01-01T00:00:00"),
        (("time",), 10**300),
        (("writer", "job", "map_index"), 10**30),
        (("writer", "job", "generation"), -(10**30)),
        (("writer", "pid"), 10**30),
        (("number",), 10**30),
        (("events", 0, "deadline"), -1.0),
        (("events", 0, "deadline"), 1e300),
    ],
    ids=str,
)
def test_numbers_and_times_have_bounds(
    place: tuple[str | int, ...], value: object, folder: MemoryFolder, disk: dict[str, bytes]
) -> None:
    planned(folder)

    def change(entry: Any) -> None:
        for step in place[:-1]:
            entry = entry[step]
        entry[place[-1]] = value

    edit(disk, change)
    assert "damaged" in refused(Journal(folder, a_writer()).load)


IDS = [
    "pred-1\nStored all images, $0.00",
    "..",
    "../../balance?x=",
    "p" * 3_000_000,
    "",
    "pred-1\x1b[2J",
    "a/b",
]


@pytest.mark.parametrize("prediction_id", IDS, ids=lambda name: ascii(name[:20]))
def test_an_id_that_the_api_cannot_have_given_is_damage_wherever_it_is(
    prediction_id: str, folder: MemoryFolder, disk: dict[str, bytes]
) -> None:
    planned(folder).append(START, Intended(keys=("image",)))
    journal = Journal(folder, a_writer())
    journal.load()
    journal.claim(START + 60, START, Submitted(key="image", prediction_id="pred-1"))
    edit(disk, lambda entry: entry["events"][1].update({"prediction_id": prediction_id}), number=3)
    assert "damaged" in refused(Journal(folder, a_writer()).load)

    receipt = a_receipt().model_dump(mode="json") | {"prediction_id": prediction_id}
    folder.replace(f"receipts/{DESTINATION.record_name}.json", json.dumps(receipt).encode())
    assert "at prediction_id" in refused(lambda: Receipts(folder).find(DESTINATION))

    note = {"format": 2, "time": "2026-01-01T00:00:00Z", "owner": a_writer().model_dump(), "key": "image"}
    folder.replace("notes/x.json", json.dumps(note | {"prediction_id": prediction_id, "intent": 1}).encode())
    assert "at prediction_id" in refused(lambda: read_notes(folder, ["notes/x.json"]))


@pytest.mark.parametrize(
    "place",
    [
        *((("writer", "job", name), 1025) for name in ("dag_id", "run_id", "task_id")),
        (("writer", "host"), 1025),
        (("writer", "token"), 1025),
        (("events", 1, "output"), 8193),
    ],
    ids=str,
)
def test_texts_have_bounds(
    place: tuple[tuple[str | int, ...], int], folder: MemoryFolder, disk: dict[str, bytes]
) -> None:
    names, length = place
    planned(folder)

    def change(entry: Any) -> None:
        for step in names[:-1]:
            entry = entry[step]
        entry[names[-1]] = "x" * length

    edit(disk, change)
    assert f"at {'.'.join(map(str, names[:1]))}" in refused(Journal(folder, a_writer()).load)


def test_the_longest_names_that_airflow_and_a_user_may_choose_are_read(folder: MemoryFolder) -> None:
    job = a_job(dag_id="d" * 250, run_id="r\u00fcn: " * 50, task_id=("t" * 120 + ".") * 2)
    plan = a_plan("k" * 100, stem="s" * 240)
    output = "file:///" + "/".join(["%20" * 80] * 16)
    journal = Journal(folder, a_writer(job=job))
    journal.claim(START + 60, START, Planned(output=output, images=(plan,)), Intended(keys=(plan.key,)))
    journal.append(START, Submitted(key=plan.key, prediction_id="p" * 128))
    journal.append(START, Failed(key=plan.key, failure=Failure.FAILED, reason="why " * 1000))
    assert Journal(folder, a_writer(job=job)).load() == journal.state


def test_many_small_lists_in_a_record_are_not_made(folder: MemoryFolder) -> None:
    data = b'{"format":2,"x":[' + b"[]," * 2**21 + b"0]}"
    folder.replace(f"{a_job().folder}/000001.json", data)
    tracemalloc.start()
    try:
        assert "too large" in refused(Journal(folder, a_writer()).load)
        assert tracemalloc.get_traced_memory()[1] < 3 * len(data)
    finally:
        tracemalloc.stop()


def test_brackets_in_prompts_are_no_lists(folder: MemoryFolder) -> None:
    prompt = r'{"a": [\"]}' * 2**18
    plan = a_plan().model_copy(
        update={"request": a_plan().request.model_copy(update={"prompt": prompt + "[{" * 2**19})}
    )
    journal = Journal(folder, a_writer())
    journal.claim(START + 60, START, Planned(output=OUTPUT, images=(plan,)))
    assert Journal(folder, a_writer()).load().images["image"].plan == plan


@pytest.mark.parametrize(
    "text",
    [b'"' + b'\\"[' * 2**21, b"[" * 2**21, b'"\\"' * 2**20 + b"[{" * 2**20],
    ids=["escapes", "lists", "both"],
)
def test_whatever_has_many_brackets_is_seen_to_be_damaged_in_no_time(
    text: bytes, folder: MemoryFolder
) -> None:
    folder.replace(f"{a_job().folder}/000001.json", text)
    began = time.process_time()
    assert "damaged" in refused(Journal(folder, a_writer()).load)
    assert time.process_time() - began < 5


def test_a_receipt_that_is_as_large_as_a_plan_is_damaged(folder: MemoryFolder) -> None:
    receipt = a_receipt().model_dump(mode="json") | {"prompt_asked": "x" * LARGE}
    folder.replace(f"receipts/{DESTINATION.record_name}.json", json.dumps(receipt).encode())
    assert "too large" in refused(lambda: Receipts(folder).find(DESTINATION))


def test_a_plan_with_one_image_twice_is_damaged(folder: MemoryFolder, disk: dict[str, bytes]) -> None:
    planned(folder)
    edit(disk, lambda entry: entry["events"][1]["images"].append(entry["events"][1]["images"][0]))
    assert "plans an image twice" in refused(Journal(folder, a_writer()).load)


def test_a_plan_that_another_job_wrote_is_damaged(folder: MemoryFolder, disk: dict[str, bytes]) -> None:
    planned(folder)
    edit(disk, lambda entry: entry["writer"]["job"].update({"dag_id": "another"}))
    assert "the plan of another job" in refused(Journal(folder, a_writer()).load)


def test_another_job_may_stop_this_one_before_it_has_a_plan(folder: MemoryFolder) -> None:
    other = a_writer(job=a_job(generation=3))
    Journal(folder, other, job=a_writer().job).claim(START, START)
    journal = Journal(folder, a_writer())
    journal.load()
    journal.claim(START + 60, START, Planned(output=OUTPUT, images=(a_plan(),)))
    assert Journal(folder, a_writer()).load().images


def test_a_gap_ends_a_journal_and_a_number_that_is_not_its_own_is_damage(
    folder: MemoryFolder, disk: dict[str, bytes]
) -> None:
    journal = planned(folder)
    journal.append(START, Intended(keys=("image",)))
    journal.append(START, Claimed(deadline=START + 90))
    _, two, three = sorted(disk)
    disk[two], kept = disk[three], disk[two]
    assert "says that it is number 3" in refused(Journal(folder, a_writer()).load)
    del disk[two]
    assert Journal(folder, a_writer()).load().number == 1
    disk[two] = kept
    assert Journal(folder, a_writer()).load().number == 3


def test_a_reservation_that_would_leave_a_gap_is_damaged(
    folder: MemoryFolder, disk: dict[str, bytes]
) -> None:
    now = datetime.fromtimestamp(START, UTC)
    forged = Reservation(number=900_000, time=now, writer=a_writer(), key="image", fingerprint="f")
    folder.create(f"addresses/{DESTINATION.record_name}/000001.json", forged.model_dump_json().encode())
    assert "says that it is number 900000" in refused(lambda: Reservations(folder).last(DESTINATION))


@pytest.mark.parametrize(
    "file",
    ["../../secret.png", "/etc/passwd", "other.png", "cover.sh", "cover", "cover.png/x", "coverx.png", ""],
)
def test_a_receipt_of_a_file_that_is_not_at_its_destination_is_damaged(
    file: str, folder: MemoryFolder, disk: dict[str, bytes]
) -> None:
    receipts = Receipts(folder)
    receipts.write(DESTINATION, a_receipt())
    (name,) = disk
    disk[name] = json.dumps({**json.loads(disk[name]), "file": file}).encode()
    assert "damaged" in refused(lambda: receipts.find(DESTINATION))


@pytest.mark.parametrize("file", ["cover.png", "cover.jpg", "cover.JPEG", "cover.webp"])
def test_a_receipt_of_another_format_of_the_file_is_good(file: str, folder: MemoryFolder) -> None:
    receipts = Receipts(folder)
    receipts.write(DESTINATION, a_receipt(file=file, uri=f"{OUTPUT}/{file}"))
    found = receipts.find(DESTINATION)
    assert found is not None
    assert found.file == file


@pytest.mark.parametrize(
    "uri", ["s3://their_connection@bucket/x.png", "http://169.254.169.254/", "file:///etc/passwd", ""]
)
def test_where_an_image_is_follows_from_its_destination_whatever_its_receipt_says(
    uri: str, folder: MemoryFolder
) -> None:
    receipts = Receipts(folder)
    receipts.write(DESTINATION, a_receipt(uri=uri))
    found = receipts.find(DESTINATION)
    assert found is not None
    assert found.uri == f"{OUTPUT}/cover.png"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("estimated_cost_usd", -0.01),
        ("bytes", -1),
        ("bytes", 10**30),
        ("width", "wide"),
        ("stored_at", "2026-01-01"),
        ("reservation", -1),
    ],
)
def test_a_field_of_a_receipt_is_checked_when_it_is_read(
    name: str, value: object, folder: MemoryFolder, disk: dict[str, bytes]
) -> None:
    receipts = Receipts(folder)
    receipts.write(DESTINATION, a_receipt())
    (file,) = disk
    disk[file] = json.dumps({**json.loads(disk[file]), name: value}).encode()
    assert f"damaged at {name}" in refused(lambda: receipts.find(DESTINATION))


def test_a_format_of_images_that_only_a_newer_version_knows_is_no_damage(
    folder: MemoryFolder, disk: dict[str, bytes]
) -> None:
    Receipts(folder).write(DESTINATION, a_receipt())
    (name,) = disk
    disk[name] = disk[name].replace(b"image/png", b"image/avif")
    with pytest.raises(RecordUnreadableError, match="newer version"):
        Receipts(folder).find(DESTINATION)


def test_what_lies_in_a_record_s_place_and_is_no_file_is_a_damaged_record(tmp_path: Path) -> None:
    folder = LocalFolder(tmp_path)
    name = f"receipts/{DESTINATION.record_name}.json"
    (tmp_path / "receipts").mkdir()
    os.mkfifo(tmp_path / name)
    assert f"{tmp_path}/{name} is damaged: it is a named pipe" in refused(
        lambda: Receipts(folder).find(DESTINATION)
    )


def test_names_in_a_record_do_not_fill_an_error(folder: MemoryFolder, disk: dict[str, bytes]) -> None:
    Receipts(folder).write(DESTINATION, a_receipt())
    (name,) = disk
    disk[name] = json.dumps(
        {**json.loads(disk[name]), "\u202e\x1b[2J" + "x" * 10_000: 1, "bytes": "many"}
    ).encode()
    what = refused(lambda: Receipts(folder).find(DESTINATION))
    assert what.isprintable()
    assert len(what) < 600


def test_every_record_that_is_written_can_be_read(folder: MemoryFolder) -> None:
    """The bounds are for what others write."""
    latest = datetime(2998, 1, 1, tzinfo=UTC)
    entry = Entry(number=1, time=latest, writer=a_writer(), events=(Claimed(deadline=0.0),))
    assert Entry.model_validate_json(entry.model_dump_json()) == entry
    receipt = a_receipt(inference_ms=float("inf"))
    assert Receipt.model_validate_json(receipt.model_dump_json()).inference_ms is None


def test_a_plan_that_nobody_could_read_is_not_written(
    folder: MemoryFolder, disk: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_bitdance.records.journal.LARGEST_FILE", 1024**2)
    prompt = a_plan().request.model_copy(update={"prompt": "x" * 30_000})
    images = [a_plan(str(number)).model_copy(update={"request": prompt}) for number in range(40)]
    with pytest.raises(InputError, match="has 1 MiB"):
        Journal(folder, a_writer()).claim(START + 60, START, Planned(output=OUTPUT, images=tuple(images)))
    assert disk == {}
