"""Verify: a stored image that is not as its receipt says is told, each kind in words of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from airflow_provider_bitdance.exceptions import InputError
from airflow_provider_bitdance.maintenance.scan import Finding
from airflow_provider_bitdance.maintenance.verify import verify
from airflow_provider_bitdance.storage import Folder, LocalFolder
from airflow_provider_bitdance.storage.naming import Destination
from tests.unit.maintenance.support import Office
from tests.unit.support import OUTPUT, RECORDS, MemoryFolder, a_job, a_picture, a_wanted

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


def leads_to(office: Office, folder: str) -> None:
    """Plant a receipt of an image elsewhere, under the name that it has to have."""
    name = next(name for name in office.disk if name.startswith(f"{RECORDS}/receipts/b"))
    planted = json.loads(office.disk[name]) | {"uri": f"{folder}/b.png"}
    record = Destination(folder, "b").record_name
    office.disk[f"{RECORDS}/receipts/{record}.json"] = json.dumps(planted).encode()


@pytest.mark.parametrize(
    ("folder", "outputs"),
    [
        ("file:///etc", ()),
        ("s3://my_s3@private/payroll", ()),
        ("mem://disk", ()),
        (f"{OUTPUT}-2", ()),
        (f"{OUTPUT}/../private", ()),
        ("mem://my_s3@disk/images", ()),
        ("s3://my_s3@covers/2026", ("s3://covers/",)),
        ("s3://covers-2/2026", ("s3://covers",)),
    ],
)
def test_a_receipt_does_not_choose_what_is_opened(
    office: Office, folder: str, outputs: tuple[str, ...]
) -> None:
    leads_to(office, folder)

    (finding,) = verify(office.records, office.open_folder, outputs=outputs)  # which asserts

    assert finding == Finding(
        f"{folder}/b.png", f"its output folder is not among those that may be read: add --output {folder}"
    )


def test_images_in_the_folders_that_are_given_and_below_are_read(office: Office) -> None:
    folder = "s3://my_s3@covers/2026"
    leads_to(office, folder)
    opened = []

    def open_folder(uri: str) -> Folder:
        opened.append(uri)
        return MemoryFolder(office.disk, OUTPUT)

    assert verify(office.records, open_folder, outputs=["s3://my_s3@covers/"]) == []
    assert opened == [OUTPUT, folder]


def test_records_at_a_path_of_their_own_open_no_folder_that_is_not_given(office: Office) -> None:
    records = replace(office.records, uri="mem://disk/records")

    assert len(verify(records, office.open_folder)) == 2
    assert verify(records, office.open_folder, outputs=[OUTPUT]) == []


def test_records_at_the_root_of_a_disk_open_nothing(office: Office) -> None:
    leads_to(office, "file:///etc")

    found = verify(replace(office.records, uri="file:///.bitdance"), office.open_folder, outputs=[OUTPUT])

    assert [finding.uri for finding in found] == ["file:///etc/b.png"]


def test_a_link_below_an_output_folder_is_not_followed(office: Office, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "b.png").write_bytes(office.disk[f"{OUTPUT}/b.png"])
    (tmp_path / "covers").mkdir()
    (tmp_path / "covers" / "sub").symlink_to(tmp_path / "outside")
    leads_to(office, f"file://{tmp_path}/covers/sub")

    def found(*below: str) -> list[str]:
        outputs = [OUTPUT, *(f"file://{tmp_path}/{output}" for output in below)]
        return [finding.what for finding in verify(office.records, open_local, outputs=outputs)]

    def open_local(uri: str) -> Folder:
        is_local = uri.startswith("file://")
        return LocalFolder(Path(uri.removeprefix("file://"))) if is_local else office.open_folder(uri)

    assert found("covers") == [f"file://{tmp_path}/covers/sub is a link"]
    assert found("covers/sub") == found("covers", "covers/sub") == []


def test_nothing_is_written(office: Office) -> None:
    office.disk[FILE] = a_picture(text="another")
    before = dict(office.disk)

    assert findings(office)
    assert office.disk == before
