"""Which error a response means, what it says, and whether an image may have been paid for."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_bitdance import exceptions
from airflow_provider_bitdance.exceptions import BitDanceError, Paid
from airflow_provider_bitdance.wavespeed import protocol
from airflow_provider_bitdance.wavespeed.image_request import ImageRequest
from airflow_provider_bitdance.wavespeed.response_errors import failure_of, retry_after
from airflow_provider_bitdance.wavespeed.responses import Prediction
from tests.unit.wavespeed.support import GET, SUBMIT, body, refused

HTML = b"<!doctype html><html><body>502 Bad Gateway https://gw.example/x</body></html>"
OK = b'{"code": 200, "message": "success", "data": {"id": "p-1"}}'


def ended(
    status: str = "failed", code: int | None = 0, error: str = "", *, prompt: str = ""
) -> BitDanceError:
    data = {"id": "p-1", "status": status, "code": code, "error": error}
    return failure_of(Prediction.model_validate(data), prompt=prompt)


# Status, body, headers; the error's class; does a retry help; may a submission be paid for.
E = exceptions
CASES = {
    "400 bad input": (400, body(400, "Invalid size"), {}, E.RequestRefusedError, False, Paid.NO),
    "400 no money": (
        400,
        body(400, "Insufficient credits. Please top up your account to continue."),
        {},
        E.InsufficientCreditError,
        False,
        Paid.NO,
    ),
    "400 no money, in other words": (
        400,
        body(400, "INSUFFICIENT account Balance"),
        {},
        E.InsufficientCreditError,
        False,
        Paid.NO,
    ),
    "400 that is short of something else": (
        400,
        body(400, "Insufficient resolution"),
        {},
        E.RequestRefusedError,
        False,
        Paid.NO,
    ),
    "400 as HTML": (400, HTML, {}, E.RequestRefusedError, False, Paid.NO),
    "401": (401, body(401, "Invalid API key"), {}, E.AuthenticationError, False, Paid.NO),
    "402": (402, b"", {}, E.InsufficientCreditError, False, Paid.NO),
    "403": (403, body(403, "suspended"), {}, E.AuthenticationError, False, Paid.NO),
    "404": (404, body(404, "not found"), {}, E.NotFoundError, False, Paid.NO),
    "404 of nothing": (404, b"", {}, E.UnknownPathError, False, Paid.NO),
    "408": (408, b"", {}, E.ServerError, True, Paid.POSSIBLY),
    "460 of a load balancer": (460, HTML, {}, E.ServerError, True, Paid.POSSIBLY),
    "499 of a gateway": (499, HTML, {}, E.ServerError, True, Paid.POSSIBLY),
    "envelope 499": (200, body(499), {}, E.ServerError, True, Paid.POSSIBLY),
    "400 with an id of the error's own": (
        400,
        body(400, "Invalid size", {"id": "trace-1"}),
        {},
        E.RequestRefusedError,
        False,
        Paid.NO,
    ),
    "409": (409, b"", {}, E.RequestRefusedError, False, Paid.NO),
    "413 as HTML": (413, HTML, {}, E.RequestRefusedError, False, Paid.NO),
    "422": (422, body(422), {}, E.RequestRefusedError, False, Paid.NO),
    "429": (429, body(429, "concurrency limit"), {}, E.RateLimitError, True, Paid.NO),
    "429 of a gateway": (429, HTML, {"retry-after": "5"}, E.RateLimitError, True, Paid.NO),
    "301": (301, b"", {"location": "https://x.example/"}, E.ServerError, True, Paid.POSSIBLY),
    "307": (307, b"", {"location": "https://x.example/"}, E.ServerError, True, Paid.POSSIBLY),
    "500 as JSON": (500, body(500, "Internal"), {}, E.ServerError, True, Paid.POSSIBLY),
    "500 with another code": (500, body(400, "Insufficient credits"), {}, E.ServerError, True, Paid.POSSIBLY),
    "500 that says success": (500, OK, {}, E.ServerError, True, Paid.POSSIBLY),
    "502 as HTML": (502, HTML, {}, E.ServerError, True, Paid.POSSIBLY),
    "503 of nothing": (503, b"", {}, E.ServerError, True, Paid.POSSIBLY),
    "504 as a JSON string": (504, b'"late"', {}, E.ServerError, True, Paid.POSSIBLY),
    "envelope 400": (200, body(400, "Invalid size"), {}, E.RequestRefusedError, False, Paid.NO),
    "envelope 400, no money": (
        200,
        body(400, "Insufficient credit"),
        {},
        E.InsufficientCreditError,
        False,
        Paid.NO,
    ),
    "envelope 401": (200, body(401), {}, E.AuthenticationError, False, Paid.NO),
    "envelope 404": (200, body(404), {}, E.NotFoundError, False, Paid.NO),
    "envelope 429": (200, body(429), {}, E.RateLimitError, True, Paid.NO),
    "envelope 500": (200, body(500), {}, E.ServerError, True, Paid.POSSIBLY),
    "envelope 1200": (200, body(1200), {}, E.ServerError, True, Paid.POSSIBLY),
    "envelope 0": (200, body(0), {}, E.GarbledResponseError, True, Paid.POSSIBLY),
    "envelope 500 around data": (200, body(500, data={"n": 1}), {}, E.ServerError, True, Paid.POSSIBLY),
    "truncated JSON": (200, OK[:40], {}, E.GarbledResponseError, True, Paid.POSSIBLY),
    "no body": (200, b"", {}, E.GarbledResponseError, True, Paid.POSSIBLY),
    "204": (204, b"", {}, E.GarbledResponseError, True, Paid.POSSIBLY),
    "HTML with 200": (200, HTML, {}, E.GarbledResponseError, True, Paid.POSSIBLY),
    "no UTF-8": (200, b'{"data": {"id": "\xff"}}', {}, E.GarbledResponseError, True, Paid.POSSIBLY),
    "nested too deep": (200, b"[" * 200_000, {}, E.GarbledResponseError, True, Paid.POSSIBLY),
    "a list": (200, b"[]", {}, E.GarbledResponseError, True, Paid.POSSIBLY),
    "a number": (200, b"200", {}, E.GarbledResponseError, True, Paid.POSSIBLY),
    "null": (200, b"null", {}, E.GarbledResponseError, True, Paid.POSSIBLY),
    "data null": (200, body(), {}, E.GarbledResponseError, True, Paid.POSSIBLY),
    "data a list": (200, body(data=[]), {}, E.GarbledResponseError, True, Paid.POSSIBLY),
    "no id": (200, body(data={"status": "created"}), {}, E.GarbledResponseError, True, Paid.POSSIBLY),
    "id null": (200, body(data={"id": None}), {}, E.GarbledResponseError, True, Paid.POSSIBLY),
    "unsafe id": (200, body(data={"id": "../../etc"}), {}, E.GarbledResponseError, True, Paid.POSSIBLY),
}
Row = tuple[int, bytes, dict[str, str], type[BitDanceError], bool, Paid]


@pytest.mark.parametrize("row", CASES.values(), ids=CASES)
def test_a_refused_submission_says_whether_it_may_be_paid_for(row: Row) -> None:
    status, content, headers, kind, retry_helps, paid = row
    error = refused(SUBMIT, status, content, headers)
    assert (type(error), error.retry_helps, error.paid) == (kind, retry_helps, paid)


@pytest.mark.parametrize("row", CASES.values(), ids=CASES)
def test_a_refused_look_is_the_same_error_and_never_paid_for(row: Row) -> None:
    status, content, headers, kind, retry_helps, _ = row
    error = refused(GET, status, content, headers)
    assert (type(error), error.retry_helps, error.paid) == (kind, retry_helps, Paid.NO)


@pytest.mark.parametrize("row", CASES.values(), ids=CASES)
def test_a_message_names_the_call_and_holds_no_url(row: Row) -> None:
    status, content, headers, *_ = row
    text = str(refused(SUBMIT, status, content, headers))
    assert f"POST {SUBMIT.path}" in text
    assert "://" not in text


def test_an_answer_that_is_not_the_apis_is_told_to_be_a_proxys_perhaps() -> None:
    assert "Check the connection's host: the response may come from a proxy." in str(
        refused(GET, 200, b"<html>", {})
    )


def test_the_status_that_said_no_is_kept() -> None:
    for status, content, seen in ((503, b"", 503), (200, body(403), 403)):
        error = refused(SUBMIT, status, content)
        assert isinstance(error, exceptions.APIError)
        assert error.status == seen


LONG = "a lighthouse, insufficient credit on its sensitive walls, " * 10


@pytest.mark.parametrize("call", [protocol.submit, protocol.get_price])
def test_a_message_quotes_at_most_80_characters_of_the_prompt(call: Any) -> None:
    request = ImageRequest.of(prompt=LONG)
    text = str(refused(call(request), 400, body(400, f"Bad prompt: {LONG} see https://docs.example/{LONG}")))
    assert LONG[:60] in text
    assert LONG[:81] not in text
    assert "docs.example" not in text


@pytest.mark.parametrize("prompt", ["credit", "Insufficient", "e"])
def test_a_prompt_with_a_word_of_the_message_does_not_hide_a_lack_of_money(prompt: str) -> None:
    said = body(400, "Insufficient credits. Please top up your account to continue.")
    error = refused(protocol.submit(ImageRequest.of(prompt=prompt)), 400, said)
    assert type(error) is exceptions.InsufficientCreditError


def test_words_of_the_prompt_do_not_look_like_a_lack_of_money() -> None:
    error = refused(
        protocol.submit(ImageRequest.of(prompt=LONG)), 400, body(400, f"Bad prompt: {LONG.strip()}")
    )
    assert type(error) is exceptions.RequestRefusedError


@pytest.mark.parametrize(
    "said",
    [
        {"message": "no such size"},
        {"error": "no such size"},
        {"error": {"code": 7, "message": "no such size"}},
        {"detail": "no such size"},
        {"detail": [{"msg": "no such size", "loc": ["size"]}]},
    ],
)
def test_the_reason_of_a_refusal_reaches_the_user_in_whatever_shape_it_comes(said: dict[str, Any]) -> None:
    assert "no such size" in str(refused(SUBMIT, 400, json.dumps({"code": 400, **said}).encode()))


@pytest.mark.parametrize("escapes", [0, 1, 2])
def test_a_prompt_that_is_quoted_as_json_decides_nothing(escapes: int) -> None:
    prompt = quoted = 'a sign that says "insufficient credits" in neon'
    for _ in range(escapes):
        quoted = json.dumps(quoted)[1:-1]
    said = body(400, f'invalid request body, Error at "/prompt": too long. Value: "{quoted}"')
    error = refused(protocol.submit(ImageRequest.of(prompt=prompt)), 400, said)
    assert type(error) is exceptions.RequestRefusedError


@pytest.mark.parametrize(
    "reason",
    [
        "image size must be at least 3686400 pixels",
        "Please check your inputs and try again.",
        "The request was rejected by the model",
        "guidance_scale is not supported",
    ],
)
def test_what_the_model_refuses_after_the_submission_is_never_bought_again(reason: str) -> None:
    ended = Prediction(id="p-1", status="failed", error=reason)
    error = failure_of(ended)
    assert (type(error), error.retry_helps) == (exceptions.PredictionRefusedError, False)


def test_a_403_that_is_no_json_speaks_of_a_proxy_and_an_unknown_model_of_the_model() -> None:
    assert "proxy" in str(refused(SUBMIT, 403, b"<html>Forbidden</html>"))
    assert "API key" in str(refused(SUBMIT, 403, body(403, "suspended")))
    for said in ("model not found", "product not found"):
        assert "model's path" in str(refused(SUBMIT, 400, body(400, said)))


NOW = "Wed, 21 Oct 2026 07:28:00 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "30"}, 30.0),
        ({"retry-after": " 0 "}, 0.0),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:45 GMT", "date": NOW}, 45.0),
        ({"retry-after": "Wed, 21 Oct 2026 07:27:00 GMT", "date": NOW}, 0.0),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:45", "date": NOW}, 45.0),
        ({"retry-after": "Thu, 01 Jan 1970 00:01:40 GMT"}, 90.0),
        ({"retry-after": "Thu, 01 Jan 1970 00:01:40 GMT", "date": "now"}, 90.0),
        ({}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "1.5"}, None),
        ({"retry-after": "\u00b2"}, None),
        ({"retry-after": "9" * 400}, None),
        ({"retry-after": "Wed, 21 Oct 20199999999 07:28:00 GMT"}, None),
    ],
)
def test_retry_after_is_seconds_or_a_date_on_the_apis_clock(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert retry_after(headers, now=10.0) == seconds


nearly_dates = st.builds(
    "{}, {:02} {} {:04} {:02}:{:02}:{:02} {}".format,
    st.sampled_from(["Wed", "Thu", "Someday"]),
    st.integers(0, 32),
    st.sampled_from(["Jan", "Feb", "Oct", "Dec", "Nix"]),
    st.integers(1965, 2030) | st.integers(0, 10_000) | st.integers(0, 10**18),
    st.integers(0, 24),
    st.integers(0, 60),
    st.integers(0, 61),
    st.sampled_from(["GMT", "", "EST", "-0000", "+2359", "+9999", "-9999", "+99999999999"]),
)
"""Dates as HTTP has them, and what is a date but for one part."""


@given(nearly_dates | st.text(), nearly_dates | st.text())
def test_no_garbage_in_retry_after_hides_the_429(value: str, date: str) -> None:
    error = refused(SUBMIT, 429, b"", {"retry-after": value, "date": date})
    assert isinstance(error, exceptions.RateLimitError)
    assert error.retry_after is None or 0 <= error.retry_after < float("inf")


def test_a_rate_limit_carries_the_seconds_to_wait() -> None:
    error = refused(SUBMIT, 429, b"", {"retry-after": "7"})
    assert isinstance(error, exceptions.RateLimitError)
    assert error.retry_after == 7.0


@pytest.mark.parametrize(
    ("status", "code", "kind", "retry_helps", "paid"),
    [
        ("failed", 1200, exceptions.ModerationError, False, Paid.POSSIBLY),
        ("failed", 1400, exceptions.PredictionRefusedError, False, Paid.POSSIBLY),
        ("failed", 1401, exceptions.PredictionRefusedError, False, Paid.POSSIBLY),
        ("failed", 1402, exceptions.PredictionRefusedError, False, Paid.POSSIBLY),
        ("failed", 1403, exceptions.PredictionFailedError, True, Paid.NO),
        ("failed", 1404, exceptions.PredictionFailedError, True, Paid.NO),
        ("failed", 1405, exceptions.PredictionFailedError, True, Paid.NO),
        ("failed", 1406, exceptions.PredictionFailedError, True, Paid.NO),
        ("failed", 1407, exceptions.PredictionRefusedError, False, Paid.NO),
        ("failed", 5000, exceptions.PredictionFailedError, True, Paid.NO),
        ("failed", 5001, exceptions.PredictionFailedError, True, Paid.NO),
        ("failed", 5002, exceptions.PredictionFailedError, True, Paid.NO),
        ("failed", 5003, exceptions.PredictionFailedError, True, Paid.NO),
        ("failed", 5004, exceptions.PredictionFailedError, True, Paid.NO),
        ("failed", 9999, exceptions.PredictionFailedError, True, Paid.NO),
        ("failed", 0, exceptions.PredictionFailedError, True, Paid.NO),
        ("failed", None, exceptions.PredictionFailedError, True, Paid.NO),
        ("timeout", 0, exceptions.PredictionFailedError, True, Paid.NO),
        ("timeout", 5004, exceptions.PredictionFailedError, True, Paid.NO),
        ("cancelled", 0, exceptions.PredictionGoneError, False, Paid.POSSIBLY),
        ("canceled", 1403, exceptions.PredictionGoneError, False, Paid.POSSIBLY),
        ("deleted", 0, exceptions.PredictionGoneError, False, Paid.POSSIBLY),
    ],
)
def test_an_end_without_a_picture_is_told_by_status_and_code(
    status: str, code: int | None, kind: type[BitDanceError], retry_helps: bool, paid: Paid
) -> None:
    error = ended(status, code, "Task ended")
    assert (type(error), error.retry_helps, error.paid) == (kind, retry_helps, paid)
    assert f"Prediction p-1 ended as '{status}' (code {code or 0}): Task ended" in str(error)


@pytest.mark.parametrize(
    "said", ["Content flagged as potentially sensitive", "NSFW content detected", "Blocked by Moderation"]
)
def test_moderation_is_also_told_by_its_text(said: str) -> None:
    assert type(ended(code=1403, error=said)) is exceptions.ModerationError


def test_words_of_the_prompt_do_not_look_like_moderation() -> None:
    prompt = "a sensitive portrait"
    error = ended(code=5000, error=f"Worker lost while drawing {prompt!r}", prompt=prompt)
    assert type(error) is exceptions.PredictionFailedError


def test_a_failure_shows_little_of_the_prompt_and_no_url() -> None:
    text = str(ended(error=f"{LONG} https://cdn.example/signed", prompt=LONG.strip()))
    assert LONG[:81] not in text
    assert "cdn.example" not in text


def test_a_failure_without_words_says_so() -> None:
    assert "no reason given" in str(ended())
