"""Verify: a stored image that is not as its receipt says is told, each kind in words of its own."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from airflow_provider_bitdance.exceptions import InputError
from airflow_provider_bitdance.maintenance.scan import Finding
from airflow_provider_bitdance.maintenance.verify import verify
from airflow_provider_bitdance.storage import Folder
from tests.unit.maintenance.support import Office
from tests.unit.support import OUTPUT, RECORDS, a_job, a_picture, a_wanted

FILE = f"{OUTPUT}/cover.png"


def findings(office: Office) -> list[Finding]:
    return verify(office.records, office.open_folder)


@pytest.fixture
def office() -> Office:
    office = Office()
    office.task()
    office.task(job=a_job(run_id="run-2"), wanted=a_wanted(name="b"))
    return office


def test_what_is_as_recorded_has_no_findings(office: Office) -> None:
    assert findings(office) == []


def remove(office: Office) -> None:
    del office.disk[FILE]


def shorten(office: Office) -> None:
    office.disk[FILE] = office.disk[FILE][:-1]


def change(office: Office) -> None:
    office.disk[FILE] = office.disk[FILE][:-1] + b"!"


def lie_about_the_size(office: Office) -> None:
    replace_in_receipt(office, '"width": 12', '"width": 13')


def lie_about_the_format(office: Office) -> None:
    replace_in_receipt(office, "image/png", "image/webp")


def replace_in_receipt(office: Office, old: str, new: str) -> None:
    name = next(name for name in office.disk if name.startswith(f"{RECORDS}/receipts/cover"))
    assert old in office.disk[name].decode()
    office.disk[name] = office.disk[name].replace(old.encode(), new.encode())


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (remove, "the file is missing"),
        (shorten, "bytes; it had"),
        (change, "its sha256 differs"),
        (lie_about_the_size, "its receipt says image/png, 13, 12"),
        (lie_about_the_format, "its receipt says image/webp, 12, 12"),
    ],
    ids=lambda item: getattr(item, "__name__", ""),
)
def test_a_file_that_is_not_as_its_receipt_says_is_told(
    office: Office, harm: Callable[[Office], None], told: str
) -> None:
    harm(office)

    (finding,) = findings(office)

    assert finding.uri == FILE
    assert told in finding.what


def test_a_stored_image_without_a_receipt_is_told(office: Office) -> None:
    name = next(name for name in office.disk if name.startswith(f"{RECORDS}/receipts/cover"))
    del office.disk[name]

    (finding,) = findings(office)

    assert "run-1" in finding.uri
    assert finding.what.endswith(name)


def test_a_damaged_receipt_is_told_once(office: Office) -> None:
    name = office.damage("/receipts/cover")

    assert [finding.uri for finding in findings(office)] == [name]


def test_an_image_that_a_later_run_has_replaced_is_no_finding() -> None:
    office = Office()
    office.task(wanted=a_wanted("a fox", named=True))
    office.task(job=a_job(run_id="run-2"), wanted=a_wanted("a crow", named=True))

    assert office.api.billed == 2
    assert len(office.records.receipts) == 1
    assert findings(office) == []


def test_a_folder_that_this_machine_cannot_open_is_told_for_each_of_its_images(office: Office) -> None:
    def refuse(uri: str) -> Folder:
        raise InputError(f"{uri} cannot be opened")

    found = verify(office.records, refuse)

    assert [finding.uri for finding in found] == [f"{OUTPUT}/b.png", FILE]
    assert all("cannot be opened" in finding.what for finding in found)


def test_nothing_is_written(office: Office) -> None:
    office.disk[FILE] = a_picture(text="another")
    before = dict(office.disk)

    assert findings(office)
    assert office.disk == before
