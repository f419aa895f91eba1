"""Fault rules: how they shape predictions, spoil the API's answers, and are kept."""

from __future__ import annotations

import contextlib
import json
import time
from typing import get_args

import pytest

from airflow_provider_bitdance.local import faults
from tests.contract.local.caller import MODEL, SUBMIT, Caller
from tests.wire import httpx


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 502, 503, 504])
def test_a_status_fault_answers_an_envelope_as_often_as_asked(caller: Caller, status: int) -> None:
    caller.local.add_fault(on="submit", kind="status", status=status, times=2)
    answers = [caller.ask() for _ in range(3)]
    assert [answer.status_code for answer in answers] == [status, status, 200]
    body = answers[0].json()
    assert (body["code"], body["data"]) == (status, None)
    assert "retry-after" not in answers[0].headers
    assert caller.local.bill().submitted == 1


def test_a_status_fault_may_carry_retry_after_html_or_nothing(caller: Caller) -> None:
    caller.local.add_fault(on="balance", kind="status", status=429, retry_after=7, times=1)
    caller.local.add_fault(on="balance", kind="status", status=502, body="html", times=1)
    caller.local.add_fault(on="balance", kind="status", status=503, body="empty", times=1)
    caller.local.add_fault(on="balance", kind="status", status=400, message="Out of paper")
    limited, html, empty, said = (caller.http.get("/api/v3/balance") for _ in range(4))
    assert (limited.status_code, limited.headers["retry-after"]) == (429, "7")
    assert limited.json()["message"] == "You have reached your concurrency limit"
    assert (html.status_code, html.headers["content-type"]) == (502, "text/html; charset=utf-8")
    assert html.text.startswith("<!doctype html>")
    assert (empty.status_code, empty.content) == (503, b"")
    assert said.json()["message"] == "Out of paper"


@pytest.mark.parametrize("after_create", [False, True])
@pytest.mark.parametrize(
    "rule",
    [
        {"kind": "status", "status": 500},
        {"kind": "envelope"},
        {"kind": "redirect", "url": "http://127.0.0.1:9/", "status": 307},
    ],
)
def test_a_spoiled_submit_charges_only_after_create(
    caller: Caller, rule: dict[str, object], after_create: bool
) -> None:
    caller.local.add_fault(on="submit", after_create=after_create, **rule)
    caller.ask()
    assert caller.local.bill().billed == int(after_create)


@pytest.mark.parametrize("after_create", [False, True])
def test_a_reset_submit_gets_no_answer(caller: Caller, after_create: bool) -> None:
    caller.local.add_fault(on="submit", kind="reset", after_create=after_create, times=1)
    with pytest.raises(httpx.ReadError):
        caller.ask()
    assert caller.local.bill().billed == int(after_create)
    assert caller.local.requests()[-1].status is None
    assert caller.ask().status_code == 200


def test_truncated_json_is_half_of_the_right_answer(caller: Caller) -> None:
    caller.local.add_fault(on="submit", kind="truncated_json", times=1)
    answer = caller.ask()
    assert answer.status_code == 200
    assert answer.text.startswith('{"code":200,')
    with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
        answer.json()
    assert caller.local.bill().billed == 1


def test_an_envelope_fault_is_http_200_with_another_code(caller: Caller) -> None:
    caller.local.add_fault(on="history", kind="envelope", code=503, message="Busy")
    answer = caller.history()
    assert answer.status_code == 200
    assert answer.json() == {"code": 503, "message": "Busy", "data": None}


def test_a_slow_answer_is_right_but_late(caller: Caller) -> None:
    prediction_id = caller.submit()
    caller.local.add_fault(on="result", kind="slow", seconds=0.2, times=1)
    began = time.monotonic()
    assert caller.data(prediction_id)["id"] == prediction_id
    assert time.monotonic() - began >= 0.2


def test_a_submit_without_id_is_charged(caller: Caller) -> None:
    caller.local.add_fault(on="submit", kind="no_id")
    data = caller.ask().json()["data"]
    assert data["status"] == "created"
    assert not {"id", "urls"} & data.keys()
    assert caller.local.bill().billed == 1


def test_a_prediction_that_never_finishes_stays_in_processing(caller: Caller) -> None:
    caller.local.add_fault(on="submit", kind="never_finish")
    prediction_id = caller.submit()
    caller.clock.move(86_400)
    assert caller.data(prediction_id)["status"] == "processing"
    assert caller.http.get("/admin/predictions").json()[0]["completed_at"] is None


def test_an_nsfw_prediction_completes_with_a_flag(caller: Caller) -> None:
    caller.local.add_fault(on="submit", kind="nsfw")
    prediction_id = caller.submit()
    caller.finish(prediction_id)
    data = caller.data(prediction_id)
    assert (data["status"], data["has_nsfw_contents"]) == ("completed", [True])


def test_a_latency_rule_slows_the_prompts_it_matches(caller: Caller) -> None:
    caller.local.add_fault(on="submit", kind="latency", seconds=60, match="slow")
    quick, slow = caller.submit("a quick one"), caller.submit("a slow one")
    caller.clock.move(5)
    assert [caller.data(one)["status"] for one in (quick, slow)] == ["completed", "processing"]
    caller.clock.move(55)
    assert caller.data(slow)["timings"] == {"inference": 60_000}


def test_shaping_and_spoiling_rules_apply_to_the_same_submit(caller: Caller) -> None:
    caller.local.add_fault(on="submit", kind="latency", seconds=60)
    caller.local.add_fault(on="submit", kind="no_id")
    assert "id" not in caller.ask().json()["data"]
    caller.clock.move(59)
    assert caller.local.predictions()[0]["status"] == "processing"


def test_an_unknown_status_is_shown_as_often_as_asked(caller: Caller) -> None:
    prediction_id = caller.submit()
    caller.local.add_fault(on="result", kind="unknown_status", status="pondering", times=1)
    assert [caller.data(prediction_id)["status"] for _ in range(2)] == ["pondering", "created"]


def test_null_outputs_are_shown_on_completed_predictions_only(caller: Caller) -> None:
    caller.local.add_fault(on="result", kind="null_outputs", times=1)
    prediction_id = caller.submit()
    assert caller.data(prediction_id)["outputs"] == []
    caller.clock.move(5)
    assert caller.data(prediction_id)["outputs"] is None
    assert caller.data(prediction_id)["outputs"] != []


def test_not_found_hides_each_prediction_for_its_first_reads(caller: Caller) -> None:
    caller.local.add_fault(on="result", kind="not_found", reads=2)
    for prediction_id in (caller.submit("one"), caller.submit("two")):
        assert [caller.read(prediction_id).status_code for _ in range(3)] == [404, 404, 200]


def test_result_and_output_rules_match_by_the_predictions_prompt(caller: Caller) -> None:
    caller.local.add_fault(on="result", kind="status", status=500, match="cursed")
    blessed, cursed = caller.submit("a blessed one"), caller.submit("a cursed one")
    assert [caller.read(one).status_code for one in (blessed, cursed)] == [200, 500]


@pytest.mark.parametrize(
    "rule",
    [
        {"on": "submit", "kind": "explode"},
        {"on": "nowhere", "kind": "reset"},
        {"on": "result", "kind": "failed"},
        {"on": "submit", "kind": "bomb"},
        {"on": "submit", "kind": "latency"},
        {"on": "submit", "kind": "latency", "seconds": -1},
        {"on": "submit", "kind": "reset", "colour": "red"},
        {"on": "submit", "kind": "reset", "times": 0},
        {"on": "submit", "kind": "status", "status": 200},
        {"on": "result", "kind": "reset", "after_create": True},
        {"on": "balance", "kind": "reset", "match": "x"},
        {"on": "submit", "kind": "reset", "probability": 0},
        {"on": "submit", "kind": "reset", "probability": 1.1},
        {"on": "output", "kind": "truncated_json"},
        {"kind": "reset"},
        [],
        {"on": "result", "kind": "reset", "times": True},
        {"on": "result", "kind": "reset", "times": "2"},
        {"on": "submit", "kind": "slow", "seconds": 1, "after_create": 1},
        {"on": "submit", "kind": "reset", "late": 1},
        {"on": "result", "kind": "slow", "seconds": 1, "late": 1},
        {"on": "any", "kind": "reset"},
        {"on": "submit", "kind": "outage", "seconds": 1, "match": "x"},
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(caller: Caller, rule: object) -> None:
    answer = caller.http.post("/admin/faults", json=rule)
    assert (answer.status_code, answer.json()["code"]) == (422, 422)
    assert caller.local.service.faults.all() == []


def test_faults_are_added_over_http_and_counted(caller: Caller) -> None:
    rule = {"on": "balance", "kind": "status", "status": 500, "times": 2}
    assert caller.http.post("/admin/faults", json=rule).status_code == 204
    assert caller.http.get("/api/v3/balance").status_code == 500
    (planned,) = caller.local.service.faults.all()
    assert (planned.applied, planned.left) == (1, 1)
    assert [caller.http.get("/api/v3/balance").status_code for _ in range(2)] == [500, 200]


SPOILABLE = {
    "history": ("POST", "/api/v3/predictions", {"page": 1, "page_size": 1}),
    "delete": ("POST", "/api/v3/predictions/delete", {"ids": []}),
    "balance": ("GET", "/api/v3/balance", None),
    "price": ("POST", "/api/v3/model/price", {"model_id": MODEL}),
    "models": ("GET", "/api/v3/models", None),
    "billing": ("POST", "/api/v3/billings/search", {}),
}


@pytest.mark.parametrize("point", SPOILABLE)
def test_every_answer_of_the_account_can_be_spoiled(caller: Caller, point: str) -> None:
    method, path, body = SPOILABLE[point]
    rules: list[dict[str, object]] = [
        {"kind": "status", "status": 503},
        {"kind": "envelope", "code": 500},
        {"kind": "truncated_json"},
        {"kind": "slow", "seconds": 0},
        {"kind": "bare"},
    ]
    for rule in rules:
        caller.local.add_fault(on=point, times=1, **rule)
    unavailable, envelope, half, slow, bare, right = (
        caller.http.request(method, path, json=body) for _ in range(6)
    )
    assert unavailable.status_code == 503
    assert envelope.json()["code"] == 500
    assert half.content == right.content[: len(right.content) // 2]
    assert slow.json() == right.json()
    assert bare.json() == right.json()["data"]
    assert right.json()["code"] == 200


def test_every_point_of_an_account_answer_is_tried() -> None:
    with_a_test_of_their_own = {"submit", "result", "output"}
    assert SPOILABLE.keys() | with_a_test_of_their_own == set(get_args(faults.Point))


def test_a_spoiled_delete_deletes_nothing(caller: Caller) -> None:
    prediction_id = caller.submit()
    caller.local.add_fault(on="delete", kind="status", status=500, times=1)
    assert caller.http.delete(f"/api/v3/predictions/{prediction_id}").status_code == 500
    assert caller.read(prediction_id).status_code == 200


def test_a_dripping_answer_is_right_and_comes_in_pieces(caller: Caller) -> None:
    caller.local.add_fault(on="submit", kind="drip", seconds=0.2)
    with caller.http.stream("POST", SUBMIT, json={"prompt": "x"}) as answer:
        assert caller.local.bill().billed == 1
        drops = list(answer.iter_raw())
    assert len(drops) > 1
    assert json.loads(b"".join(drops))["code"] == 200


def test_a_moderated_prediction_may_quote_its_prompt(caller: Caller) -> None:
    caller.local.add_fault(on="submit", kind="failed", code=1200, error='sensitive information in "{prompt}"')
    prediction_id = caller.submit("a {very} naked lighthouse")
    caller.clock.move(5)
    data = caller.data(prediction_id)
    assert (data["code"], data["error"]) == (1200, 'sensitive information in "a {very} naked lighthouse"')


def test_a_rule_with_a_probability_applies_now_and_then(caller: Caller) -> None:
    caller.local.add_fault(on="balance", kind="status", status=503, probability=0.5, times=5)
    answers = [caller.http.get("/api/v3/balance").status_code for _ in range(40)]
    assert answers.count(503) == 5
    assert answers[:5] != [503] * 5


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"on": "submit", "kind": "latency"}, "latency.seconds: Field required"),
        (
            {"on": "result", "kind": "slow", "seconds": 1, "after_create": True},
            "slow: after_create: only for",
        ),
        ({"on": "submit", "kind": "explode"}, "Input tag 'explode' found using 'kind' does not match any"),
    ],
)
def test_a_refused_rule_is_told_what_is_wrong_in_one_line(
    caller: Caller, rule: dict[str, object], message: str
) -> None:
    said = caller.http.post("/admin/faults", json=rule).json()["message"]
    assert said.startswith(message)
    assert "\n" not in said


def test_a_bare_submit_is_the_prediction_itself(caller: Caller) -> None:
    caller.local.add_fault(on="submit", kind="bare", times=1)
    caller.local.add_fault(on="result", kind="bare", times=1)
    submitted = caller.ask().json()
    assert submitted["status"] == "created"
    assert caller.read(submitted["id"]).json()["id"] == submitted["id"]
    assert caller.data(submitted["id"])["id"] == submitted["id"]


def test_a_failure_may_come_in_an_envelope_of_its_own_code(caller: Caller) -> None:
    caller.local.add_fault(on="submit", kind="failed", code=1200, error="sensitive", match="failed")
    caller.local.add_fault(on="submit", kind="nsfw", match="flagged")
    caller.local.add_fault(on="result", kind="failure_code", times=2)
    ids = [caller.submit(prompt) for prompt in ("good", "failed", "flagged")]
    assert [caller.read(each).json()["code"] for each in ids] == [200, 200, 200], "nothing failed yet"
    caller.clock.move(5)
    good, failed, flagged = (caller.read(each) for each in ids)
    assert [answer.status_code for answer in (good, failed, flagged)] == [200, 200, 200]
    assert [answer.json()["code"] for answer in (good, failed, flagged)] == [200, 402, 402]
    assert (failed.json()["message"], failed.json()["data"]["status"]) == ("sensitive", "failed")
    assert flagged.json()["data"]["has_nsfw_contents"] == [True]
    assert caller.read(ids[1]).json()["code"] == 200, "as often as asked"


@pytest.mark.parametrize(
    ("rule", "status"),
    [({"kind": "reset"}, None), ({"kind": "status", "status": 504, "body": "html"}, 504)],
)
def test_a_late_submission_is_made_and_charged_after_its_connection_is_gone(
    caller: Caller, rule: dict[str, object], status: int | None
) -> None:
    caller.local.add_fault(on="submit", after_create=True, late=20, times=1, **rule)
    with contextlib.suppress(httpx.ReadError):
        caller.ask("late")
    assert caller.local.requests()[-1].status == status
    caller.clock.move(19.9)
    sooner = caller.submit("sooner")
    assert (caller.local.bill().billed, caller.listed()) == (1, [sooner])
    caller.clock.move(0.1)
    assert (caller.local.bill().billed, caller.local.bill().balance_usd) == (2, 99.98)
    late, _ = caller.listed()
    assert late != sooner, "the newest comes first"
    assert [task["prompt"] for task in caller.local.predictions()] == ["sooner", "late"]
    assert caller.data(late)["created_at"] == "2026-05-28T20:27:00.250000000Z"
    caller.clock.move(4)
    assert caller.data(late)["timings"] == {"inference": 4000}


def test_a_late_prediction_cannot_be_seen_or_deleted_before_it_is_made(caller: Caller) -> None:
    caller.local.add_fault(on="submit", kind="slow", seconds=0, late=20)
    prediction_id = caller.submit()
    delete = {"json": {"ids": [prediction_id]}}
    assert caller.read(prediction_id).status_code == 404
    assert caller.http.post("/api/v3/predictions/delete", **delete).json()["data"]["deleted_count"] == 0
    assert caller.http.post("/api/v3/billings/search", json={}).json()["data"]["items"] == []
    caller.clock.move(20)
    assert caller.data(prediction_id)["status"] == "created"
    assert len(caller.http.post("/api/v3/billings/search", json={}).json()["data"]["items"]) == 1


def test_an_outage_lasts_from_its_first_request_on_and_is_over_for_ever(caller: Caller) -> None:
    prediction_id = caller.submit()
    picture = caller.finish(prediction_id)
    caller.local.add_fault(on="any", kind="outage", seconds=120)
    caller.clock.move(1000)
    calls = (caller.ask, lambda: caller.read(prediction_id), caller.history, lambda: caller.http.get(picture))

    def statuses() -> set[int]:
        return {call().status_code for call in calls}

    assert statuses() == {503}
    assert caller.read("unknown").status_code == caller.ask("").status_code == 503, "whatever is asked"
    caller.clock.move(119.9)
    assert statuses() == {503}
    caller.clock.move(0.1)
    assert statuses() == {200}
    caller.clock.move(1000)
    assert statuses() == {200}
    assert caller.local.bill().submitted == 3


def test_an_outage_may_break_the_connections_of_one_kind_of_request(caller: Caller) -> None:
    caller.local.add_fault(on="history", kind="outage", seconds=60, response="reset")
    for _ in range(2):
        # Which one depends on whether the client was still sending.
        with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
            caller.history()
        caller.submit()
        caller.clock.move(30)
    assert caller.history().status_code == 200
