"""Reading all records at once: what jobs bought and lost; a damaged record is told and stops nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from airflow_provider_bitdance.exceptions import StorageError
from airflow_provider_bitdance.maintenance.scan import read_records
from airflow_provider_bitdance.records import Journal, Status
from airflow_provider_bitdance.storage import LocalFolder
from airflow_provider_bitdance.storage.base import translate_errors
from tests.unit.maintenance.support import Office
from tests.unit.support import RECORDS, START, MemoryFolder, a_job, a_wanted, a_writer, refusal


@pytest.fixture
def office() -> Office:
    return Office()


def test_a_records_path_without_records_has_none(office: Office) -> None:
    records = office.records

    assert (records.jobs, records.receipts, records.findings) == ((), {}, ())


def test_each_task_is_a_job_with_what_it_bought_and_its_receipt(office: Office) -> None:
    office.task()
    office.task(job=a_job(dag_id="another", run_id="run 2 with: signs"), wanted=a_wanted(name="b"))

    records = office.records

    assert [record.job.dag_id for record in records.jobs] == ["another", "covers"]
    assert {record.job.run_id for record in records.jobs} == {"run-1", "run 2 with: signs"}
    assert all(record.state.is_stored for record in records.jobs)
    assert [bought.prediction_id for record in records.jobs for bought in record.purchases] == [
        "pred-2",
        "pred-1",
    ]
    assert {receipt.prediction_id for receipt in records.receipts.values()} == {"pred-1", "pred-2"}
    assert records.findings == ()


def test_what_an_earlier_try_bought_and_failed_is_a_purchase_too(office: Office) -> None:
    office.api.next_changes = {"status": "failed", "error": "no luck"}
    office.task(timeout=60)
    office.api.next_changes = {}
    office.task(try_number=2)

    (record,) = office.records.jobs

    assert [bought.prediction_id for bought in record.purchases] == ["pred-1", "pred-2"]
    assert record.last_try == 2


def test_a_lost_response_is_a_loss_with_what_was_asked(office: Office) -> None:
    office.api.on_post = [office.api.lose_answer]
    office.task(wanted=a_wanted("a fox"), timeout=60)

    (record,) = office.records.jobs

    (loss,) = record.losses
    assert (loss.plan.request.prompt, loss.plan.key, loss.prediction_id) == ("a fox", "image", "")
    assert loss.reason


def test_a_purchase_of_a_replaced_process_is_a_purchase_and_a_loss_with_its_id(office: Office) -> None:
    office.task()
    journal = Journal(office.folder, a_writer(token="slept"))
    journal.note(office.clock.now, key="image", prediction_id="pred-9", intent=1)

    (record,) = office.records.jobs

    assert [loss.prediction_id for loss in record.losses] == ["pred-9"]
    assert [bought.prediction_id for bought in record.purchases] == ["pred-1", "pred-9"]
    assert "pred-9" in office.records.predictions


def test_an_intent_taken_for_lost_whose_process_wakes_up_is_one_loss_with_the_prediction(
    office: Office,
) -> None:
    office.api.on_post = [office.api.lose_answer]
    office.task(timeout=60)
    journal = Journal(office.folder, a_writer(token="slept"))
    journal.note(office.clock.now, key="image", prediction_id="pred-1", intent=1)

    (record,) = office.records.jobs

    assert [loss.prediction_id for loss in record.losses] == ["pred-1"]


def test_a_purchase_that_the_history_proved_and_its_process_notes_too_is_no_loss(office: Office) -> None:
    office.task()
    journal = Journal(office.folder, a_writer(token="slept"))
    journal.note(office.clock.now, key="image", prediction_id="pred-1", intent=1)

    (record,) = office.records.jobs

    assert record.losses == ()
    assert [bought.prediction_id for bought in record.purchases] == ["pred-1"]


def test_a_note_is_no_journal_whatever_its_prediction_is_called(office: Office) -> None:
    office.task()
    Journal(office.folder, a_writer()).note(office.clock.now, key="image", prediction_id="1234567", intent=1)

    assert [loss.prediction_id for loss in office.records.jobs[0].losses] == ["1234567"]
    assert office.records.findings == ()


def test_a_damaged_note_is_a_finding_of_its_journal(office: Office) -> None:
    office.task()
    Journal(office.folder, a_writer()).note(office.clock.now, key="image", prediction_id="pred-9", intent=1)
    office.damage("/notes/")

    (finding,) = office.records.findings

    assert office.records.jobs == ()
    assert "notes/pred-9.json is damaged" in finding.what


def test_a_long_journal_among_others_is_read_whole(office: Office) -> None:
    office.task()
    journal = Journal(office.folder, a_writer(try_number=2))
    journal.load()
    for number in range(150):
        journal.claim(START, START + number)
    office.task(job=a_job(run_id="run-2"), wanted=a_wanted(name="b"))

    records = office.records

    assert sorted(record.state.number for record in records.jobs) == [3, 153]
    assert records.findings == ()


def test_a_purchase_is_counted_once_and_also_where_only_its_receipt_is_left(office: Office) -> None:
    office.task()
    whole = office.records.purchases
    for name in [name for name in office.disk if "/jobs/" in name]:
        del office.disk[name]

    assert [bought.prediction_id for bought in whole] == ["pred-1"]
    assert [(bought.prediction_id, bought.job) for bought in office.records.purchases] == [
        (whole[0].prediction_id, whole[0].job)
    ]


def test_a_damaged_journal_is_a_finding_and_the_others_are_read(office: Office) -> None:
    office.task()
    office.task(job=a_job(run_id="run-2"), wanted=a_wanted(name="b"))
    office.damage("run-2")

    records = office.records

    assert [record.job.run_id for record in records.jobs] == ["run-1"]
    (finding,) = records.findings
    assert "run-2" in finding.uri
    assert "damaged" in finding.what


def test_a_journal_of_a_newer_version_is_a_finding(office: Office) -> None:
    office.task()
    name = max(name for name in office.disk if "/jobs/" in name)
    office.disk[name] = json.dumps(json.loads(office.disk[name]) | {"format": 99}).encode()

    (finding,) = office.records.findings

    assert "newer version" in finding.what


def test_a_journal_with_an_entry_missing_in_the_middle_is_a_finding(office: Office) -> None:
    office.task()
    del office.disk[next(name for name in office.disk if name.endswith("/000002.json"))]

    (finding,) = office.records.findings

    assert "Entry 2 of 3 is missing" in finding.what


def test_a_damaged_receipt_is_a_finding(office: Office) -> None:
    office.task()
    name = office.damage("/receipts/")

    records = office.records

    assert records.receipts == {}
    assert [finding.uri for finding in records.findings] == [name]


def test_what_a_crash_left_beside_the_records_is_no_record(office: Office) -> None:
    office.task()
    before = office.records
    office.folder.replace("jobs/covers/run-1/cover/map=-1/generation=0/.0f3a.tmp", b"half")
    office.folder.replace("receipts/.0f3a.tmp", b"half")

    assert office.records == before


def test_a_journal_that_only_others_have_written_into_is_no_job(office: Office) -> None:
    cleared = a_job(generation=2)
    journal = Journal(office.folder, a_writer(job=cleared, try_number=2), job=a_job())
    journal.claim(START, START)

    assert office.records.jobs == ()
    assert office.records.findings == ()


def test_a_job_that_another_has_stopped_keeps_its_own_name_and_try(office: Office) -> None:
    office.task(dies="before poll")
    journal = Journal(office.folder, a_writer(job=a_job(dag_id="thief"), try_number=7), job=a_job())
    journal.load()
    journal.claim(office.clock.now, office.clock.now)

    (record,) = office.records.jobs

    assert (record.job, record.last_try) == (a_job(), 1)
    assert [image.status for image in record.open_images] == [Status.SUBMITTED]


def test_a_refused_purchase_is_neither_bought_nor_lost(office: Office) -> None:
    office.api.on_post = [refusal(400, "bad size")]
    office.task(timeout=60)

    (record,) = office.records.jobs

    assert (record.purchases, record.losses, record.open_images) == ((), (), [])


def plant(folder: Path, name: str, kind: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "link":
            path.symlink_to("/etc/passwd")
        case "sparse":
            path.touch()
            os.truncate(path, 2**30)
        case "deep":
            path.write_bytes(b"[" * 1_000_000)
        case "bytes":
            path.write_bytes(b"\xff" * 100)


@pytest.mark.parametrize("kind", ["pipe", "link", "sparse", "deep", "bytes"])
def test_whatever_lies_in_a_record_s_place_is_a_finding_and_the_others_are_read(
    kind: str, office: Office, tmp_path: Path
) -> None:
    office.task()
    for name, data in office.disk.items():
        if name.startswith(f"{RECORDS}/"):
            path = tmp_path / name.removeprefix(f"{RECORDS}/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    plant(tmp_path, "receipts/their.json", kind)
    plant(tmp_path, "receipts/\udcff.json", kind)
    plant(tmp_path, "jobs/their/run/task/map=-1/generation=0/000001.json", kind)

    records = read_records(LocalFolder(tmp_path))

    assert [record.job.dag_id for record in records.jobs] == ["covers"]
    assert len(records.receipts) == 1
    assert len(records.findings) == 3
    for finding in records.findings:
        assert "is damaged" in finding.what
        finding.uri.encode()


def test_a_folder_of_records_that_is_a_link_is_a_finding(office: Office, tmp_path: Path) -> None:
    (tmp_path / "receipts").symlink_to("/etc")

    (finding,) = read_records(LocalFolder(tmp_path)).findings

    assert finding.what.endswith("receipts is a link")


def test_a_receipt_under_another_s_name_is_a_finding(office: Office) -> None:
    office.task()
    (name,) = (name for name in office.disk if "/receipts/" in name)
    office.disk[f"{RECORDS}/receipts/another-0123456789abcdef.json"] = office.disk[name]
    elsewhere = office.disk[name].replace(b"/images/", b"/elsewhere/")
    office.disk[f"{RECORDS}/receipts/moved-0123456789abcdef.json"] = elsewhere

    records = office.records

    assert len(records.receipts) == 1
    assert ["has another name" in finding.what for finding in records.findings] == [True, True]


def test_a_record_that_may_not_be_read_is_a_finding_and_a_store_that_fails_is_none(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    office.task()
    read, (name,) = MemoryFolder.read, (name for name in office.disk if "/receipts/" in name)
    error: OSError = PermissionError("Access Denied")

    def refuse(folder: MemoryFolder, wanted: str) -> bytes | None:
        with translate_errors("read", folder.uri, wanted):
            if name.endswith(wanted):
                raise error
        return read(folder, wanted)

    monkeypatch.setattr(MemoryFolder, "read", refuse)
    (finding,) = office.records.findings
    assert "Access Denied" in finding.what
    error = ConnectionError("refused")
    with pytest.raises(StorageError):
        _ = office.records
