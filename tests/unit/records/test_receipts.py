"""The record of one stored image."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_bitdance.exceptions import RecordUnreadableError
from airflow_provider_bitdance.records.events import Enhancement
from airflow_provider_bitdance.records.receipts import Receipt, Receipts
from airflow_provider_bitdance.storage.naming import parse_destination
from airflow_provider_bitdance.wavespeed.image_request import ImageRequest
from tests.unit.support import OUTPUT, RECORDS, MemoryFolder, a_receipt

DOCUMENTED = {
    "uri",
    "receipt",
    "prediction_id",
    "model",
    "size",
    "width",
    "height",
    "media_type",
    "bytes",
    "sha256",
    "seed",
    "inference_ms",
    "estimated_cost_usd",
    "reused",
    "nsfw",
    "possibly_paid",
    "prompts_possibly_paid",
    "size_differs",
}
COVER = parse_destination(f"{OUTPUT}/cover", default_stem="unused")
ENHANCEMENT = Enhancement(
    style="anime",
    prediction_id="pred-text",
    estimated_cost_usd=0.001,
    possibly_paid=2,
    possibly_paid_usd=0.002,
)


@pytest.fixture
def disk() -> dict[str, bytes]:
    return {}


@pytest.fixture
def receipts(disk: dict[str, bytes]) -> Receipts:
    return Receipts(MemoryFolder(disk, RECORDS))


def test_a_receipt_is_found_as_it_was_written(receipts: Receipts) -> None:
    receipt = a_receipt(inference_ms=None, possibly_paid=2)
    receipts.write(COVER, receipt)
    assert receipts.find(COVER) == receipt


def test_there_is_none_before_it_is_written(receipts: Receipts) -> None:
    assert receipts.find(COVER) is None


def test_a_withdrawn_receipt_is_gone_and_may_be_withdrawn_again(receipts: Receipts) -> None:
    receipts.write(COVER, a_receipt())
    receipts.withdraw(COVER)
    receipts.withdraw(COVER)
    assert receipts.find(COVER) is None


def test_a_later_receipt_takes_the_place_of_an_earlier_one(
    receipts: Receipts, disk: dict[str, bytes]
) -> None:
    receipts.write(COVER, a_receipt(prediction_id="first"))
    receipts.write(COVER, a_receipt(prediction_id="second"))
    assert [json.loads(data)["prediction_id"] for data in disk.values()] == ["second"]


def test_its_uri_names_the_file_that_holds_it(receipts: Receipts, disk: dict[str, bytes]) -> None:
    receipts.write(COVER, a_receipt())
    assert list(disk) == [receipts.uri(COVER)]


@pytest.mark.parametrize("same", ["mem://conn@disk/images/cover", "mem://disk/images/cover.png"])
def test_one_address_has_one_file(receipts: Receipts, same: str) -> None:
    assert receipts.uri(parse_destination(same, default_stem="unused")) == receipts.uri(COVER)


@pytest.mark.parametrize("other", [f"{OUTPUT}/a/cover", f"{OUTPUT}/cover2", "mem://disk2/images/cover"])
def test_different_addresses_have_different_files(receipts: Receipts, other: str) -> None:
    assert receipts.uri(parse_destination(other, default_stem="unused")) != receipts.uri(COVER)


def test_the_summary_has_exactly_the_documented_keys_as_plain_json() -> None:
    summary = a_receipt().summary(receipt="mem://r", reused=False, possibly_paid=0)
    assert set(summary) == DOCUMENTED
    assert json.loads(json.dumps(summary)) == summary


def test_the_summary_holds_no_prompt() -> None:
    receipt = a_receipt()
    summary = receipt.summary(receipt="mem://r", reused=False, possibly_paid=0)
    assert receipt.request.prompt not in json.dumps(summary)


def test_the_summary_has_the_seed_that_was_sent() -> None:
    receipt = a_receipt(seed_asked=-1)
    assert receipt.summary(receipt="mem://r", reused=False, possibly_paid=0)["seed"] == 7


def test_a_reused_image_cost_nothing_this_time() -> None:
    receipt = a_receipt(possibly_paid=1)
    bought = receipt.summary(receipt="mem://r", reused=False, possibly_paid=1)
    reused = receipt.summary(receipt="mem://r", reused=True, possibly_paid=0)
    costs = ("estimated_cost_usd", "possibly_paid", "reused")
    assert [bought[key] for key in costs] == [0.01, 1, False]
    assert [reused[key] for key in costs] == [0.0, 0, True]


def test_what_the_prompt_cost_is_in_the_cost_and_its_lost_purchases_are_counted_apart() -> None:
    fields = {"receipt": "mem://r", "possibly_paid": 1, "enhancement": ENHANCEMENT}
    summary = a_receipt().summary(reused=False, **fields)
    assert (summary["estimated_cost_usd"], summary["possibly_paid"]) == (0.011, 1)
    assert summary["prompts_possibly_paid"] == 2
    assert a_receipt().summary(reused=True, **fields)["estimated_cost_usd"] == 0.001


def written(disk: dict[str, bytes]) -> dict[str, Any]:
    (data,) = disk.values()
    fields: dict[str, Any] = json.loads(data)
    return fields


def test_what_is_as_usual_is_not_written(receipts: Receipts, disk: dict[str, bytes]) -> None:
    receipts.write(COVER, a_receipt())
    left_out = {"prompt_asked", "enhancement", "size_differs", "sha256_received"}
    assert set(Receipt.model_fields) - set(written(disk)) == left_out
    assert set(written(disk)["request"]) == {"prompt", "size", "seed", "model"}


def test_what_is_not_as_usual_is_written_and_found(receipts: Receipts, disk: dict[str, bytes]) -> None:
    unusual = a_receipt(
        request=ImageRequest(prompt="sent", seed=None, inputs={"steps": 4}),
        seed_asked=None,
        prompt_asked="asked",
        enhancement=ENHANCEMENT,
        size_differs=True,
        sha256_received="another",
    )
    receipts.write(COVER, unusual)
    found = receipts.find(COVER)
    assert found == unusual
    assert found.sha256_received == "another"
    assert written(disk)["enhancement"] == ENHANCEMENT.model_dump()
    assert written(disk)["request"]["inputs"] == {"steps": 4}
    assert (written(disk)["request"]["seed"], written(disk)["seed_asked"]) == (None, None)
    assert written(disk).items() >= {"prompt_asked": "asked", "size_differs": True}.items()


def test_an_infinite_time_that_the_api_reports_does_not_keep_an_image_from_its_receipt(
    receipts: Receipts,
) -> None:
    receipt = a_receipt(inference_ms=float("inf"))
    receipts.write(COVER, receipt)
    assert receipts.find(COVER) == receipt.model_copy(update={"inference_ms": None})


def test_a_receipt_of_format_1_is_read_with_the_defaults_of_what_came_later(
    receipts: Receipts, disk: dict[str, bytes]
) -> None:
    receipts.write(COVER, a_receipt())
    (path,) = disk
    disk[path] = json.dumps(written(disk) | {"format": 1}).encode()
    found = receipts.find(COVER)
    assert found is not None
    assert (found.format, found.prompt_asked, found.size_differs, found.request.inputs) == (
        1,
        None,
        False,
        {},
    )
    assert found.sha256_received is None


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:-20],
        lambda data: b"",
        lambda data: data.replace(b'"format": 2', b'"format": 3'),
        lambda data: data.replace(b'"sha256"', b'"sha255"'),
    ],
)
def test_a_receipt_that_cannot_be_read_stops_its_reader_and_stays_as_it_is(
    receipts: Receipts, disk: dict[str, bytes], change: object
) -> None:
    receipts.write(COVER, a_receipt())
    (path,) = disk
    disk[path] = change(disk[path])  # type: ignore[operator]
    damaged = dict(disk)
    with pytest.raises(RecordUnreadableError, match="cover-"):
        receipts.find(COVER)
    assert disk == damaged
