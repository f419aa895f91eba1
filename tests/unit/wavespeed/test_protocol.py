"""What is sent, and what is read. No network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from airflow_provider_bitdance import exceptions
from airflow_provider_bitdance.exceptions import Paid
from airflow_provider_bitdance.wavespeed import protocol
from airflow_provider_bitdance.wavespeed.models import BITDANCE_14B
from airflow_provider_bitdance.wavespeed.protocol import Call
from airflow_provider_bitdance.wavespeed.response_errors import failure_of
from tests.unit.wavespeed.support import GET, REQUEST, SUBMIT, body, refused

SINCE = datetime(2026, 1, 1, tzinfo=UTC)
HISTORY = protocol.list_predictions(model="m/n", created_after=SINCE)
BILL = protocol.search_billings(start_time=SINCE)


def test_a_submission_sends_the_documented_keys_and_no_other() -> None:
    assert (SUBMIT.method, SUBMIT.path) == ("POST", f"/api/v3/{BITDANCE_14B}")
    assert SUBMIT.body == {"prompt": "a lighthouse", "size": "512*768", "seed": 7}


def test_only_a_submission_spends_money() -> None:
    free = [GET, HISTORY, protocol.get_balance(), protocol.get_price(REQUEST), BILL]
    assert SUBMIT.paid is Paid.POSSIBLY
    assert {call.paid for call in free} == {Paid.NO}


@pytest.mark.parametrize(
    ("call", "method", "path", "sent"),
    [
        (GET, "GET", "/api/v3/predictions/p-1/result", None),
        (protocol.get_balance(), "GET", "/api/v3/balance", None),
        (
            protocol.list_predictions(page=2, model="m/n", created_after=SINCE),
            "POST",
            "/api/v3/predictions",
            {
                "page": 2,
                "page_size": 100,
                "model": "m/n",
                "created_after": "2026-01-01T00:00:00.000Z",
                "include_inputs": True,
            },
        ),
        (
            protocol.get_price(REQUEST),
            "POST",
            "/api/v3/model/price",
            {"model_id": BITDANCE_14B, "inputs": {"prompt": "a lighthouse", "size": "512*768", "seed": 7}},
        ),
        (
            protocol.search_billings(page=2, start_time=SINCE),
            "POST",
            "/api/v3/billings/search",
            {"page": 2, "page_size": 100, "start_time": "2026-01-01T00:00:00.000Z"},
        ),
    ],
)
def test_each_call_is_sent_as_documented(
    call: Call[Any], method: str, path: str, sent: dict[str, Any] | None
) -> None:
    assert (call.method, call.path, call.body) == (method, path, sent)


@pytest.mark.parametrize(
    ("prediction_id", "part"), [("a/b", "a%2Fb"), ("a?b#c", "a%3Fb%23c"), ("../x", "..%2Fx"), ("é", "%C3%A9")]
)
def test_an_id_is_quoted_in_the_path(prediction_id: str, part: str) -> None:
    assert protocol.get_prediction(prediction_id).path == f"/api/v3/predictions/{part}/result"


def test_the_prompt_is_in_no_repr() -> None:
    shown = repr([SUBMIT, protocol.get_price(REQUEST)])
    assert "lighthouse" not in shown


@pytest.mark.parametrize(
    "envelope",
    [{"data": {"id": "p-1"}}, {"code": None, "data": {"id": "p-1"}}, {"code": 201, "data": {"id": "p-1"}}],
)
def test_an_envelope_without_a_bad_code_is_good(envelope: dict[str, Any]) -> None:
    assert protocol.read(SUBMIT, 201, {}, json.dumps(envelope).encode()).id == "p-1"


@pytest.mark.parametrize("code", [0, "0", 400, 402, 500, 1200, "200"])
def test_an_id_in_an_accepted_response_to_a_submission_is_a_purchase_whatever_the_code(code: object) -> None:
    said = json.dumps({"code": code, "message": "?", "data": {"id": "p-1"}}).encode()
    assert protocol.read(SUBMIT, 200, {}, said).id == "p-1"
    assert refused(SUBMIT, 500, said).paid is Paid.POSSIBLY


def test_a_refusal_with_something_behind_it_in_an_accepted_response_may_be_a_purchase() -> None:
    no = body(400, "Insufficient credits")
    assert refused(SUBMIT, 200, no + b"\n").paid is Paid.NO
    for rest in (no, b"{}", b"<html>"):
        assert refused(SUBMIT, 200, no + rest).paid is Paid.POSSIBLY
    yes = json.dumps({"code": 200, "data": {"id": "p-1"}}).encode()
    for said in (no + yes, yes + no):
        assert protocol.read(SUBMIT, 200, {}, said).id == "p-1"


@pytest.mark.parametrize("status", [302, 400, 402, 409, 429, 500, 504])
def test_a_prediction_in_any_response_to_a_submission_is_a_purchase(status: int) -> None:
    """It would be sent again otherwise, or said to have cost nothing."""
    said = body(status, "Too many requests", {"id": "p-1", "status": "created"})
    assert protocol.read(SUBMIT, status, {}, said).id == "p-1"


INPUT = b'{"code": 200, "data": {"id": "p-1", "input": %s}}'
DEFACED = {
    "invalid UTF-8 in the echo": INPUT % b'{"prompt": "caf\xe9"}',
    "a line break in the echo": INPUT % b'{"prompt": "a\nb"}',
    "a comment after the end": INPUT % b"{}" + b"<!-- gateway -->",
    "a prefix": b")]}',\n" + INPUT % b"{}",
    "an echo that is nested too deep": INPUT % (b"[" * 30_000 + b"]" * 30_000),
    "a number of 5,000 digits": INPUT % (b'{"seed": ' + b"9" * 5000 + b"}"),
    "cut after the id": (INPUT % b"{}")[:-8],
}


@pytest.mark.parametrize("said", DEFACED.values(), ids=DEFACED)
def test_an_id_that_is_paid_for_is_read_out_of_a_defaced_response(said: bytes) -> None:
    assert protocol.read(SUBMIT, 200, {}, said).id == "p-1"


@pytest.mark.parametrize(
    "said",
    [
        b'<script>{"data": {"id": "p-1"}}</script>',
        b'{"data": {"input": {"id": "p-1"}, ',
        b'{"error": {"id": "p-1"}, ',
        b'{"data": {"prompt": "\\"id\\": \\"p-1\\"", ',
    ],
)
def test_an_id_of_anything_else_is_read_out_of_no_response(said: bytes) -> None:
    error = refused(SUBMIT, 200, said)
    assert (type(error), error.paid) == (exceptions.GarbledResponseError, Paid.POSSIBLY)


@pytest.mark.parametrize(("status", "code"), [(200, 402), (200, 500), (500, 500), (402, 402)])
def test_that_a_prediction_has_ended_comes_before_the_code_around_it(status: int, code: int) -> None:
    call = protocol.get_prediction("p-1")

    def said(**data: object) -> bytes:
        return json.dumps({"code": code, "message": "Insufficient credits", "data": data}).encode()

    assert protocol.read(call, status, {}, said(id="p-1", status="failed", code=1200)).code == 1200
    assert isinstance(refused(call, status, said(id="p-2", status="failed")), exceptions.APIError)
    assert isinstance(refused(call, status, said(id="p-1", status="processing")), exceptions.APIError)


@pytest.mark.parametrize("status", ["completed", "failed", "processing"])
def test_a_response_about_another_prediction_is_none_about_ours(status: str) -> None:
    """A cache before the API that takes one path for another: its picture would be stored as ours."""
    data = {"id": "p-2", "status": status, "outputs": ["https://x.example/y.png"]}
    error = refused(GET, 200, body(data=data))
    assert (type(error), error.paid) == (exceptions.GarbledResponseError, Paid.NO)
    assert "is about another prediction" in str(error)


def test_a_body_without_an_envelope_is_the_prediction_and_its_code_that_of_its_end() -> None:
    bare = {"id": "p-1", "status": "failed", "code": 5004, "error": {"message": "out of memory"}}
    found = protocol.read(protocol.get_prediction("p-1"), 200, {}, json.dumps(bare).encode())
    assert (found.status, found.code, found.error) == ("failed", 5004, "out of memory")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999", "9" * 400, "9" * 5000])
def test_a_number_that_is_none_is_garbled_or_left_out_and_never_a_crash(number: str) -> None:
    def said(text: str) -> bytes:
        return f'{{"code": 200, "data": {text}}}'.encode()

    with pytest.raises(exceptions.GarbledResponseError):
        protocol.read(protocol.get_balance(), 200, {}, said(f'{{"balance": {number}}}'))
    text = f'{{"id": "p-1", "status": "failed", "code": {number}, "timings": {{"inference": {number}}}}}'
    found = protocol.read(SUBMIT, 200, {}, said(text))
    assert (found.inference_ms, found.code) == (None, 0)
    assert str(failure_of(found))


def read(call: Call[Any], headers: Mapping[str, str] | None = None, **data: Any) -> Any:
    return protocol.read(call, 200, headers or {}, body(data=data))


def test_a_page_of_the_history_is_read() -> None:
    page = read(HISTORY, page=2, items=[{"id": "a"}, {"id": "b", "x": 1}])
    assert [item.id for item in page.items] == ["a", "b"]


@pytest.mark.parametrize("call", [HISTORY, BILL])
@pytest.mark.parametrize("data", [{}, {"items": None, "page": None}, {"items": []}])
def test_an_empty_page_is_empty(data: dict[str, Any], call: Call[Any]) -> None:
    assert read(call, **data).items == ()


@pytest.mark.parametrize(
    ("call", "data", "field"),
    [
        (HISTORY, {"items": {"id": "a"}}, "items"),
        (HISTORY, {"items": "a"}, "items"),
        (protocol.get_balance(), {}, "balance"),
        (protocol.get_balance(), {"balance": None}, "balance"),
        (protocol.get_price(REQUEST), {"discounted_price": 0.01}, "price"),
    ],
)
def test_an_answer_that_cannot_be_used_names_the_field(
    call: Call[Any], data: dict[str, Any], field: str
) -> None:
    with pytest.raises(exceptions.GarbledResponseError, match=rf"has no usable {field}\.") as caught:
        read(call, **data)
    assert caught.value.paid is Paid.NO


@pytest.mark.parametrize(
    ("call", "rows", "readable"),
    [
        (HISTORY, [{"id": "a"}, {"id": "a/b"}, {"id": "c"}], ["a", "c"]),
        (HISTORY, [{}, "a", None, 7, {"id": "b", "outputs": 3}], ["b"]),
        (BILL, [{"uuid": "b-1"}, {"uuid": "b-2", "price": 0.01}], ["b-2"]),
        (BILL, [{"uuid": "b-1", "price": float("inf")}], []),
    ],
)
def test_a_row_that_cannot_be_read_does_not_spoil_its_page_and_is_counted(
    call: Call[Any], rows: list[Any], readable: list[str]
) -> None:
    page = read(call, items=rows)
    assert [getattr(row, "id", None) or row.uuid for row in page.items] == readable
    assert page.unreadable == len(rows) - len(readable)


@pytest.mark.parametrize(
    ("data", "charged"),
    [
        ({"price": 0.01}, 0.01),
        ({"price": 0.01, "discounted_price": 0.008}, 0.008),
        ({"price": 0.01, "discounted_price": None}, 0.01),
        ({"price": "0.01", "discounted_price": 0}, 0.01),
    ],
)
def test_a_price_is_the_discounted_one_where_there_is_one(data: dict[str, Any], charged: float) -> None:
    assert read(protocol.get_price(REQUEST), **data).charged == charged


def test_a_page_of_the_history_tells_the_time_of_the_apis_own_clock() -> None:
    noon = datetime(2026, 11, 22, 12, tzinfo=UTC).timestamp()
    assert read(HISTORY, {"date": "Sun, 22 Nov 2026 12:00:00 GMT"}, items=[]).api_time == noon
    assert read(HISTORY, items=[], api_time=1.0).api_time is None


def test_a_page_of_the_bill_is_read() -> None:
    item = {"uuid": "b-1", "price": 0.01, "prediction": {"uuid": "p-1"}}
    page = read(BILL, page=1, has_more=True, items=[item])
    assert [line.prediction_id for line in page.items] == ["p-1"]
