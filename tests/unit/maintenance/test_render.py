"""What the commands print: a stored image is shown with its place, wherever the records are now."""

from __future__ import annotations

from airflow_provider_bitdance.maintenance.render import jobs_as_json, shown_findings, shown_jobs
from airflow_provider_bitdance.maintenance.scan import Records, read_records
from airflow_provider_bitdance.maintenance.verify import verify
from tests.unit.maintenance.support import Office
from tests.unit.support import OUTPUT, RECORDS, MemoryFolder, a_job

MOVED = "mem://another_conn@disk/records"


def moved(office: Office) -> Records:
    """Move the records, as to another bucket or a connection of another name, and read them there."""
    for name in [name for name in office.disk if name.startswith(RECORDS)]:
        office.disk[name.replace(RECORDS, MOVED)] = office.disk.pop(name)
    return read_records(MemoryFolder(office.disk, MOVED))


def test_a_stored_image_is_shown_with_its_place_though_the_records_have_moved() -> None:
    office = Office()
    office.task()

    records = moved(office)

    assert f"  stored    {OUTPUT}/cover.png" in shown_jobs(records, list(records.jobs)).splitlines()
    (image,) = jobs_as_json(records, list(records.jobs))["jobs"][0]["images"]
    assert image["uri"] == f"{OUTPUT}/cover.png"
    assert verify(records, office.open_folder, outputs=[OUTPUT]) == []


def test_an_image_that_is_not_stored_is_shown_with_where_it_goes_for_a_person_to_save_it_there() -> None:
    office = Office()
    office.task(dies="before poll")

    records = office.records

    assert shown_jobs(records, list(records.jobs)).splitlines()[-1].endswith(f"; destination {OUTPUT}/cover")
    (image,) = jobs_as_json(records, list(records.jobs))["jobs"][0]["images"]
    assert (image["destination"], image["uri"]) == (f"{OUTPUT}/cover", None)


def test_a_missing_receipt_is_named_where_the_records_are_now() -> None:
    office = Office()
    office.task()
    receipt = next(name for name in office.disk if "/receipts/" in name)
    del office.disk[receipt]

    (finding,) = verify(moved(office), office.open_folder, outputs=[OUTPUT])

    assert finding.what.endswith(f"is missing: {receipt.replace(RECORDS, MOVED)}")


def test_a_stored_image_without_a_receipt_is_shown_with_what_is_missing() -> None:
    office = Office()
    office.task()
    receipt = next(name for name in office.disk if "/receipts/" in name)
    del office.disk[receipt]

    shown = shown_jobs(office.records, list(office.records.jobs))

    assert shown.splitlines()[-1] == f"  stored    the receipt {receipt} is missing"


def test_no_name_on_a_disk_and_no_id_of_a_run_forges_a_line_or_fills_a_screen() -> None:
    office = Office()
    forged = "x\nStored all images, $0.00" + "y" * 900
    office.task(job=a_job(run_id=forged))
    office.disk[f"{RECORDS}/receipts/x\nno findings.json"] = b"{"

    records = office.records
    shown = shown_jobs(records, list(records.jobs)) + shown_findings(records, list(records.findings))

    assert not any(line.startswith(("Stored all", "no findings")) for line in shown.splitlines())
    assert all(len(line) < 1100 for line in shown.splitlines())
    assert "receipts/x no findings.json" in shown
