"""The preview that a task pushes for the Images tab, and the mark in its files."""

from __future__ import annotations

import contextlib
import json
from base64 import b64decode
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from airflow_provider_bitdance.imaging.label import SOURCE_TYPE
from airflow_provider_bitdance.imaging.thumbnail import MAX_THUMBNAIL
from airflow_provider_bitdance.local import LocalService
from airflow_provider_bitdance.operators import contact_sheets, previews
from airflow_provider_bitdance.operators.bitdance import BitDanceBatchOperator, BitDanceTextToImageOperator
from airflow_provider_bitdance.preview import PREVIEW_KEY, Preview
from airflow_provider_bitdance.preview.collector import Thumbnails
from airflow_provider_bitdance.preview.content import read_preview
from airflow_provider_bitdance.preview.sheet import MAX_SHEET, MAX_SHEETS, read_sheet, sheet_key
from tests.builders import context


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "images"


@pytest.fixture
def pushed(monkeypatch: pytest.MonkeyPatch) -> list[Preview]:
    found: list[Preview] = []

    def push(_: object, key: str, value: object) -> None:
        if key == PREVIEW_KEY:
            read = read_preview(json.loads(json.dumps(value)))
            assert read is not None
            found.append(read)

    monkeypatch.setattr(previews, "_push", push)
    return found


@pytest.fixture
def sheets(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Return the contact sheets that are pushed, by the keys of their XComs."""
    found: dict[str, bytes] = {}

    def push(_: object, key: str, value: object) -> None:
        if key != PREVIEW_KEY:
            found[key] = read_sheet(json.loads(json.dumps(value))) or b""

    monkeypatch.setattr(previews, "_push", push)
    return found


def single(output: Path, **options: Any) -> BitDanceTextToImageOperator:
    given = {"task_id": "image", "prompt": "A fox", "output_path": f"{output}/", "size": "256*256", **options}
    return BitDanceTextToImageOperator(**given)


def batch(output: Path, **options: Any) -> BitDanceBatchOperator:
    items = [{"key": f"k{number}", "prompt": f"A fox {number}"} for number in range(4)]
    given = {"task_id": "batch", "items": items, "output_path": f"{output}/", "size": "256*256", **options}
    return BitDanceBatchOperator(**given)


def test_a_task_shows_what_it_stored(local: LocalService, output: Path, pushed: list[Preview]) -> None:
    result = single(output).execute(context())
    (preview,) = pushed
    (image,) = preview.images
    assert (preview.total, preview.stored, preview.cost_usd) == (1, 1, 0.01)
    assert (image.status, image.width, image.seed) == ("stored", 256, result["seed"])
    assert image.uri == result["uri"]
    with Image.open(BytesIO(b64decode(image.thumbnail))) as small:
        assert (small.format, small.size) == ("WEBP", (192, 192))


def test_what_is_reused_is_shown_from_the_stored_file(
    local: LocalService, output: Path, pushed: list[Preview]
) -> None:
    path = f"{output}/fox.png"
    single(output, output_path=path).execute(context())
    single(output, output_path=path).execute(context(run_id="another"))
    again = pushed[-1]
    assert (again.reused, again.cost_usd, again.images[0].reused) == (1, 0.0, True)
    assert again.images[0].thumbnail


def test_a_batch_shows_failures_with_their_reason_and_no_prompt(
    local: LocalService, output: Path, pushed: list[Preview]
) -> None:
    local.add_fault(on="submit", kind="failed", match="fox 2")
    with pytest.raises(Exception, match="1 of 4 images failed"):
        batch(output).execute(context())
    (preview,) = pushed
    assert (preview.total, preview.stored, preview.failed) == (4, 3, 1)
    (failed,) = (image for image in preview.images if image.status == "failed")
    assert failed.key == "k2"
    assert failed.error
    assert "A fox" not in json.dumps(preview.as_xcom())


def test_a_task_that_fails_says_why(local: LocalService, output: Path, pushed: list[Preview]) -> None:
    local.add_fault(on="submit", kind="failed")
    with pytest.raises(Exception, match="ended as 'failed'"):
        single(output).execute(context())
    (preview,) = pushed
    assert preview.images[0].error
    assert "ended as 'failed'" in preview.images[0].error


def test_flagged_images_are_counted_and_not_shown(
    local: LocalService, output: Path, pushed: list[Preview]
) -> None:
    local.add_fault(on="submit", kind="nsfw")
    single(output, nsfw="allow").execute(context())
    (preview,) = pushed
    assert (preview.stored, preview.flagged, preview.images) == (1, 1, ())


@pytest.mark.parametrize(("limit", "shown"), [(2, 2), (0, None)])
def test_the_limit_is_kept_and_nought_shows_nothing(
    local: LocalService, output: Path, pushed: list[Preview], limit: int, shown: int | None
) -> None:
    batch(output, previews=limit).execute(context())
    assert [len(preview.images) for preview in pushed] == ([] if shown is None else [shown])


@pytest.mark.parametrize(
    ("option", "setting", "map_index", "limit"),
    [(None, None, -1, 24), (None, "3", -1, 3), (5, "3", -1, 5), (5, None, 4, 5), (5, None, 5, 0),
     (0, None, -1, 0), (None, "0", -1, 0), (None, "-4", -1, 0), (None, "9999", -1, 200)],
)  # fmt: skip
def test_of_mapped_tasks_the_first_show_theirs(
    monkeypatch: pytest.MonkeyPatch, option: int | None, setting: str | None, map_index: int, limit: int
) -> None:
    if setting is not None:
        monkeypatch.setenv("AIRFLOW__BITDANCE__PREVIEWS", setting)
    assert previews.previews_of(option, map_index=map_index) == limit


def test_a_preview_that_cannot_be_pushed_fails_no_task(local: LocalService, output: Path) -> None:
    assert single(output).execute(context())["uri"], "there is no Airflow here that would take an XCom"


def test_the_mark_is_in_the_file_and_both_hashes_in_the_receipt(local: LocalService, output: Path) -> None:
    plain = single(output, output_path=f"{output}/plain.png", seed=1).execute(context())
    with_mark = single(output, output_path=f"{output}/marked.png", seed=1, label="iptc")
    marked = with_mark.execute(context(run_id="second"))
    data = Path(marked["uri"].removeprefix("file://")).read_bytes()
    receipt = json.loads(Path(marked["receipt"].removeprefix("file://")).read_text())

    assert SOURCE_TYPE.encode() in data
    assert receipt["sha256_received"] == plain["sha256"]
    assert receipt["sha256"] == marked["sha256"] != plain["sha256"]
    assert "sha256_received" not in json.loads(Path(plain["receipt"].removeprefix("file://")).read_text())
    assert with_mark.execute(context(run_id="third"))["reused"]


def test_each_stored_image_that_is_shown_has_a_picture_whichever_was_stored_first(
    local: LocalService, output: Path, pushed: list[Preview]
) -> None:
    local.add_fault(on="submit", kind="latency", seconds=3, match="fox 0")
    batch(output, previews=2).execute(context())
    (preview,) = pushed
    assert [image.key for image in preview.images] == ["k0", "k1"]
    assert all(image.thumbnail for image in preview.images)


def test_a_batch_that_is_stopped_shows_what_it_has_and_not_only_why(
    local: LocalService, output: Path, pushed: list[Preview]
) -> None:
    local.add_fault(on="submit", kind="failed", match="fox 2")
    with pytest.raises(Exception, match="ended as 'failed'"):
        batch(output, on_item_failure="fail_fast", max_in_flight=1).execute(context())
    (preview,) = pushed
    assert (preview.total, preview.stored, preview.failed, preview.missing) == (4, 2, 1, 1)


def test_a_setting_that_is_no_number_is_named_before_anything_is_bought(
    local: LocalService, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__BITDANCE__PREVIEWS", "many")
    with pytest.raises(Exception, match='"previews" key in "bitdance" section'):
        single(output).execute(context())
    assert local.bill().submitted == 0


def test_a_question_gets_a_small_contact_sheet_of_each_row_and_a_row_that_is_reused_its_own(
    local: LocalService, output: Path, sheets: dict[str, bytes]
) -> None:
    batch(output, variants=2).execute(context())
    made = dict(sheets)
    assert sorted(made) == [sheet_key(f"k{number}") for number in range(4)]
    small_file = BytesIO(made[sheet_key("k0")])
    with Image.open(output / "k0-contact-sheet.jpg") as whole, Image.open(small_file) as small:
        assert small.format == "WEBP"
        assert small.size == tuple(side * 384 // 512 for side in whole.size)
    sheets.clear()
    batch(output, variants=2).execute(context(run_id="another"))
    assert sheets == made


@pytest.mark.parametrize("options", [{"variants": 1}, {"variants": 2, "previews": 0}])
def test_without_variants_or_previews_there_is_no_sheet_to_show(
    local: LocalService, output: Path, sheets: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, options: Any
) -> None:
    monkeypatch.setattr(contact_sheets, "small_sheet", lambda *_, **__: pytest.fail("it costs time"))
    batch(output, **options).execute(context())
    assert sheets == {}


def test_a_row_with_a_flagged_variant_shows_no_sheet(
    local: LocalService, output: Path, sheets: dict[str, bytes]
) -> None:
    local.add_fault(on="submit", kind="nsfw", match="fox 2")
    batch(output, variants=2, nsfw="allow").execute(context())
    assert sorted(sheets) == [sheet_key(f"k{number}") for number in (0, 1, 3)]
    assert (output / "k2-contact-sheet.jpg").exists()


def test_a_batch_that_fails_shows_the_sheets_of_what_it_stored(
    local: LocalService, output: Path, sheets: dict[str, bytes]
) -> None:
    local.add_fault(on="submit", kind="failed", match="fox 2")
    with pytest.raises(Exception, match="of 8 images failed"):
        batch(output, variants=2).execute(context())
    assert {sheet_key("k0"), sheet_key("k3")} <= sheets.keys()


def test_the_sheets_of_a_task_have_a_bound_and_the_first_that_is_too_much_ends_them() -> None:
    thumbnails = Thumbnails(limit=1)
    for number in range(10):
        if thumbnails.wants_sheet():
            thumbnails.take_sheet(f"k{number}", bytes(MAX_SHEET - 1))
    assert list(thumbnails.sheets) == [f"k{number}" for number in range(MAX_SHEETS // MAX_SHEET)]
    thumbnails.take_sheet("small", bytes(9))
    assert not thumbnails.wants_sheet()
    assert "small" not in thumbnails.sheets


class XComs:
    """The bytes of what a task instance pushes, by key: as JSON, as Airflow's database has them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sizes: dict[str, int] = {}
        monkeypatch.setattr(previews, "_push", lambda _, key, value: self.push(key, value))

    def push(self, key: str, value: object) -> None:
        self.sizes[key] = len(json.dumps(value).encode())

    def of(self, operator: Any, map_index: int) -> dict[str, int]:
        """Run one of mapped tasks, and return the sizes of its XComs."""
        self.sizes = {}
        page = f"https://airflow.example/dags/{'d' * 60}/runs/{'r' * 60}/tasks/image/mapped/{map_index}"
        there = context(map_index=map_index)
        there["ti"].log_url, there["ti"].xcom_push = page, self.push
        with contextlib.suppress(Exception):
            self.push("return_value", operator.execute(there))
        return self.sizes


def test_a_thousand_mapped_tasks_add_less_than_a_megabyte(
    local: LocalService, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    xcoms = XComs(monkeypatch)
    first, last = (xcoms.of(single(output), index) for index in (0, 999))
    assert {"bitdance_preview", "_link_ImagesLink"} <= first.keys()
    assert last.keys() == {"return_value"}
    added = sum(size for key, size in first.items() if key != "return_value")
    # As if its picture were as large as any may be: as base64, four characters for three bytes.
    worst = added + 4 * MAX_THUMBNAIL / 3
    assert 24 * worst < 500_000


def test_a_mapped_task_beyond_the_first_adds_nothing_when_it_fails(
    local: LocalService, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    xcoms = XComs(monkeypatch)
    local.add_fault(on="submit", kind="failed")
    assert xcoms.of(single(output), 999) == {}
    assert "bitdance_preview" in xcoms.of(single(output), 23)


def test_where_nothing_is_shown_no_picture_is_made(
    local: LocalService, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[object] = []
    monkeypatch.setattr("airflow_provider_bitdance.imaging.validation.thumbnail", made.append)
    monkeypatch.setattr("airflow_provider_bitdance.imaging.thumbnail.thumbnail", made.append)
    path = f"{output}/fox.png"
    for run_id in ("first", "reuses"):
        single(output, output_path=path, previews=0).execute(context(run_id=run_id))
    batch(output, previews=0).execute(context(run_id="batch"))
    assert made == []
