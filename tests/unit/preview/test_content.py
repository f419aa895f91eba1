"""What a preview holds, and its bounds."""

from __future__ import annotations

import json
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_bitdance.preview.collector import Thumbnails
from airflow_provider_bitdance.preview.content import (
    MAX_PREVIEW,
    Preview,
    PreviewImage,
    bounded,
    chosen,
    read_preview,
)

THUMBNAIL = b64encode(bytes(9_000)).decode()


def images(stored: int, failed: int = 0, *, thumbnail: str = "") -> list[PreviewImage]:
    made = [PreviewImage(key=f"s{n}", status="stored", thumbnail=thumbnail) for n in range(stored)]
    return made + [PreviewImage(key=f"f{n}", status="failed", error="no") for n in range(failed)]


def test_what_is_pushed_is_read_back() -> None:
    preview = Preview(total=2, stored=2, images=tuple(images(2, thumbnail="AAAA")))
    assert read_preview(json.loads(json.dumps(preview.as_xcom()))) == preview
    assert "prompt" not in json.dumps(preview.as_xcom())


def test_a_thousand_images_are_two_hundred_kilobytes_at_most() -> None:
    shown = chosen(images(990, 10, thumbnail=THUMBNAIL), 200)
    small = bounded(Preview(total=1000, stored=990, failed=10, images=tuple(shown)), 24)
    assert len(json.dumps(small.as_xcom()).encode()) <= MAX_PREVIEW
    assert (small.total, small.stored, small.failed) == (1000, 990, 10)
    assert 10 < len(small.images) <= 24
    assert any(image.status == "failed" for image in small.images)


def test_of_many_failures_half_of_what_is_shown_is_the_rest() -> None:
    shown = [image.key for image in chosen(images(100, 100), 10)]
    assert len(shown) == 10
    assert sum(key.startswith("f") for key in shown) == 5


def test_of_failures_only_as_many_are_shown_as_there_is_room() -> None:
    assert len(chosen(images(0, 100), 10)) == 10
    assert len(chosen(images(2, 100), 10)) == 10


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 30))
def test_what_is_chosen_is_in_the_plans_order_and_within_the_limit(
    stored: int, failed: int, limit: int
) -> None:
    given = images(stored, failed)
    shown = chosen(given, limit)
    assert len(shown) == min(limit, stored + failed)
    assert [given.index(image) for image in shown] == sorted(given.index(image) for image in shown)


@pytest.mark.parametrize("value", [None, 1, "text", [], {}, {"format": 2, "total": 1}, {"total": -1}])
def test_what_is_no_preview_is_none(value: object) -> None:
    assert read_preview(value) is None


def test_no_more_thumbnails_are_made_than_are_kept() -> None:
    thumbnails = Thumbnails(2)
    assert [thumbnails.wants_more() for _ in range(4)] == [True, True, False, False]
    thumbnails.take("a", b"webp")
    thumbnails.take("b", b"")
    assert thumbnails.found == {"a": b64encode(b"webp").decode()}
    assert not Thumbnails().wants_more()
