"""How leniently a response is read."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from airflow_provider_bitdance.wavespeed.models import BITDANCE_14B
from airflow_provider_bitdance.wavespeed.responses import Balance, BillingRecord, Prediction, Price


def prediction(**data: Any) -> Prediction:
    return Prediction.model_validate({"id": "p-1", **data})


def test_a_whole_answer_is_read() -> None:
    read = prediction(
        model=BITDANCE_14B,
        status="completed",
        outputs=["https://cdn/1.png"],
        has_nsfw_contents=[False],
        created_at="2025-05-19T06:09:15.948268264Z",
        error="",
        code=0,
        timings={"inference": 4200},
        input={"prompt": "a lighthouse"},
        urls={"get": "https://api/x"},
        never_heard_of={"a": 1},
    )
    assert read.outputs == ("https://cdn/1.png",)
    assert read.created_at == datetime(2025, 5, 19, 6, 9, 15, 948268, tzinfo=UTC)
    assert (read.inference_ms, read.input) == (4200.0, {"prompt": "a lighthouse"})
    assert read.is_completed
    assert read.is_terminal
    assert not read.is_nsfw


def test_null_means_not_said() -> None:
    fields = (
        "model",
        "status",
        "outputs",
        "has_nsfw_contents",
        "created_at",
        "error",
        "code",
        "timings",
        "input",
    )
    assert prediction(**dict.fromkeys(fields)) == prediction()
    assert prediction().status == "created"


@pytest.mark.parametrize(
    ("outputs", "urls"),
    [
        ([" https://a/1.png\r\n", " \n"], ("https://a/1.png",)),
        ({"url": "\thttps://a/1.png"}, ("https://a/1.png",)),
        (["https://a/1", "https://a/2"], ("https://a/1", "https://a/2")),
        ([{"url": "https://a/1", "type": "image"}], ("https://a/1",)),
        ([None, "", {"url": None}, {}, 7, "https://a/1"], ("https://a/1",)),
        ([], ()),
        (None, ()),
        ({"url": "https://a/1"}, ("https://a/1",)),
        ("https://a/1", ("https://a/1",)),
        ("", ()),
    ],
)
def test_outputs_may_be_strings_or_objects(outputs: object, urls: tuple[str, ...]) -> None:
    assert prediction(outputs=outputs).outputs == urls


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("2023-04-01T12:34:56.789Z", datetime(2023, 4, 1, 12, 34, 56, 789000, tzinfo=UTC)),
        ("2023-04-01T14:34:56+02:00", datetime(2023, 4, 1, 12, 34, 56, tzinfo=UTC)),
        ("2023-04-01T12:34:56", datetime(2023, 4, 1, 12, 34, 56, tzinfo=UTC)),
        ("yesterday", None),
        ("2023-13-01T00:00:00Z", None),
        ("", None),
        (1680352496, None),
    ],
)
def test_a_time_is_read_with_its_zone_or_not_at_all(written: object, read: datetime | None) -> None:
    found = prediction(created_at=written).created_at
    assert found == read
    assert found is None or found.utcoffset() is not None


@pytest.mark.parametrize(
    ("data", "milliseconds"),
    [
        ({"timings": {"inference": 12.5}}, 12.5),
        ({"timings": {"inference": 0}, "executionTime": 900}, 900.0),
        ({"executionTime": 900}, 900.0),
        ({"timings": {"inference": 0}}, None),
        ({"timings": []}, None),
        ({"timings": {"inference": "fast"}}, None),
        ({"timings": "fast", "executionTime": 900}, 900.0),
        ({"timings": None, "executionTime": "slow"}, None),
    ],
)
def test_the_inference_time_is_where_the_answer_has_one(
    data: dict[str, Any], milliseconds: float | None
) -> None:
    assert prediction(**data).inference_ms == milliseconds


@pytest.mark.parametrize("good", ["a", "0b3f6c2e", "A-1_b.c", "x" * 128])
def test_an_id_of_plain_characters_is_taken(good: str) -> None:
    assert Prediction.model_validate({"id": good}).id == good


@pytest.mark.parametrize(
    "bad",
    [
        None,
        "",
        7,
        ".",
        "..",
        "../x",
        "a/b",
        "a\\b",
        "a b",
        "a?b",
        "a#b",
        "a%2fb",
        "a:b",
        "é",
        "a\n",
        "x" * 129,
        "-a",
    ],
)
def test_an_id_that_is_unsafe_in_a_url_or_a_path_is_refused(bad: object) -> None:
    with pytest.raises(ValidationError, match="id"):
        Prediction.model_validate({"id": bad})


@pytest.mark.parametrize(
    "status", ["created", "processing", "pending", "queued", "succeeded", "a new one", "", None]
)
def test_an_unknown_status_is_not_final(status: str | None) -> None:
    assert not prediction(status=status).is_terminal


@pytest.mark.parametrize("status", ["failed", "cancelled", "canceled", "timeout", "deleted", "FAILED"])
def test_an_end_without_a_picture_is_final(status: str) -> None:
    assert prediction(status=status).is_terminal
    assert not prediction(status=status).is_completed


@pytest.mark.parametrize(
    ("flags", "flagged"),
    [
        *(([flag], False) for flag in (False, 0, "", "false", "False ", "0", "no", None, [], {})),
        *((flag, False) for flag in (False, 0, "", "false", "no", None, [])),
        *(([flag], True) for flag in (True, 1, "true", "yes", "nsfw", 0.7, ["nudity"], {"score": 1})),
        *((flag, True) for flag in (True, "true", 1, [False, True])),
    ],
)
def test_a_prediction_is_flagged_where_any_of_its_outputs_is(flags: object, flagged: bool) -> None:
    assert prediction(has_nsfw_contents=flags).is_nsfw is flagged


def test_a_repr_shows_no_output_no_input_and_no_error_text() -> None:
    shown = prediction(
        outputs=["https://cdn/signed-url"], input={"prompt": "private"}, error="quotes a private prompt"
    )
    for text in (repr(shown), str(shown)):
        assert "p-1" in text
        assert "cdn" not in text
        assert "private" not in text


def test_a_line_of_the_bill_names_its_prediction() -> None:
    line = BillingRecord.model_validate(
        {
            "uuid": "b-1",
            "billing_type": "deduct",
            "price": 0.01,
            "created_at": "2026-11-22T10:00:00.123456789Z",
            "order": None,
            "prediction": {"uuid": "p-1", "model_uuid": "m-1", "status": "completed"},
        }
    )
    assert (line.prediction_id, line.price, line.billing_type) == ("p-1", 0.01, "deduct")
    assert line.created_at == datetime(2026, 11, 22, 10, 0, 0, 123456, UTC)


def test_a_top_up_is_about_no_prediction() -> None:
    assert BillingRecord.model_validate({"uuid": "b-2", "price": 10, "prediction": None}).prediction_id == ""


@pytest.mark.parametrize("about", [None, "p-1", [], {}, {"uuid": None}, {"uuid": 7}])
def test_a_line_that_names_no_prediction_is_about_none(about: object) -> None:
    line = BillingRecord.model_validate({"price": 1, "prediction": about, "uuid": 7, "created_at": 7})
    assert (line.prediction_id, line.uuid, line.created_at) == ("", "", None)


@pytest.mark.parametrize("price", [None, "free", {}])
def test_a_line_without_a_price_is_not_one(price: object) -> None:
    with pytest.raises(ValidationError):
        BillingRecord.model_validate({"uuid": "b-1", "price": price})


@pytest.mark.parametrize("amount", ["NaN", "Infinity", "-Infinity", "1e309", "-1", "1e5", "1e16"])
@pytest.mark.parametrize("field", ["price", "discounted_price"])
def test_a_price_that_is_none_is_refused(field: str, amount: str) -> None:
    given = {"price": 0.01} | {field: json.loads(amount)}
    with pytest.raises(ValidationError):
        Price.model_validate(given)


@pytest.mark.parametrize("amount", ["NaN", "Infinity", "-Infinity", "1e309", "1e10", "-1e10"])
def test_a_balance_that_is_none_is_refused(amount: str) -> None:
    with pytest.raises(ValidationError):
        Balance.model_validate({"balance": json.loads(amount)})
