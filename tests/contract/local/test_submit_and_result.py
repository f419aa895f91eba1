"""Submitting, reading, and what is refused."""

from __future__ import annotations

import re

import pytest

from airflow_provider_bitdance.local import Options
from tests.contract.local.caller import MODEL, SUBMIT, Caller, Clock, calling
from tests.wire import httpx


def test_a_submit_answers_with_a_created_prediction(caller: Caller) -> None:
    answer = caller.ask("a lighthouse", size="512*256", seed=7)
    assert answer.status_code == 200
    body = answer.json()
    data = body["data"]
    assert (body["code"], body["message"]) == (200, "success")
    assert re.fullmatch(r"[0-9a-f]{32}", data["id"])
    assert (data["model"], data["status"], data["outputs"], data["error"]) == (MODEL, "created", [], "")
    assert (data["has_nsfw_contents"], data["timings"]) == ([], {"inference": 0})
    assert data["urls"]["get"] == f"{caller.local.url}/api/v3/predictions/{data['id']}/result"
    assert data["created_at"] == "2026-05-28T20:26:40.248Z"
    assert "date" in answer.headers


def test_a_prediction_is_created_then_processing_then_completed(caller: Caller) -> None:
    prediction_id = caller.submit()
    assert caller.data(prediction_id)["status"] == "created"
    caller.clock.move(3.9)
    assert caller.data(prediction_id)["status"] == "processing"
    caller.clock.move(0.2)
    data = caller.data(prediction_id)
    assert (data["status"], data["has_nsfw_contents"]) == ("completed", [False])
    assert data["timings"] == {"inference": 4000}
    assert data["outputs"] == [f"{caller.local.url}/outputs/{prediction_id}/1.png"]


def test_what_was_submitted_is_on_record_some_milliseconds_later_and_to_the_nanosecond(
    caller: Caller,
) -> None:
    prediction_id = caller.submit()
    (item,) = caller.history().json()["data"]["items"]
    assert caller.data(prediction_id)["created_at"] == item["created_at"] == "2026-05-28T20:26:40.250000000Z"


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "predictions/{id}"), ("GET", "account/balance"), ("GET", MODEL), ("PUT", "balance")],
)
def test_no_route_of_the_api_is_a_404_in_plain_text(caller: Caller, method: str, path: str) -> None:
    answer = caller.http.request(method, "/api/v3/" + path.format(id=caller.submit()))
    assert (answer.status_code, answer.text) == (404, "404 page not found")
    assert answer.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize("authorization", [None, "Bearer wrong", "local-key", "bearer local-key"])
def test_a_wrong_key_is_refused_and_costs_nothing(caller: Caller, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    calls = (("POST", SUBMIT), ("GET", "/api/v3/balance"), ("GET", "/api/v3/predictions/x/result"))
    for method, path in calls:
        answer = httpx.request(
            method, caller.local.url + path, headers=headers, json={"prompt": "x"}, verify=False
        )
        assert answer.status_code == 401
        assert answer.json() == {"code": 401, "message": "Invalid API key", "data": None}
    assert caller.local.bill().submitted == 0


@pytest.mark.parametrize(
    ("inputs", "field"),
    [
        ({}, "prompt"),
        ({"prompt": " \n"}, "prompt"),
        ({"prompt": 5}, "prompt"),
        ({"prompt": "x", "size": "255*512"}, "size"),
        ({"prompt": "x", "size": "512*1537"}, "size"),
        ({"prompt": "x", "size": "512x512"}, "size"),
        ({"prompt": "x", "size": "512*512*512"}, "size"),
        ({"prompt": "x", "size": "٥١٢*512"}, "size"),
        ({"prompt": "x", "size": ""}, "size"),
        ({"prompt": "x", "seed": -2}, "seed"),
        ({"prompt": "x", "seed": 2_147_483_648}, "seed"),
        ({"prompt": "x", "seed": "7"}, "seed"),
        ({"prompt": "x", "seed": True}, "seed"),
    ],
)
def test_bad_inputs_are_refused_by_field(caller: Caller, inputs: dict[str, object], field: str) -> None:
    answer = caller.http.post(SUBMIT, json=inputs)
    body = answer.json()
    assert (answer.status_code, body["code"], body["data"]) == (400, 400, None)
    assert body["message"].startswith(f'invalid request body, Error at "/{field}": ')
    assert caller.local.bill().submitted == 0


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"seed": 7}, 'Error at "/prompt": property "prompt" is missing'),
        ({"prompt": ["a 'red' \"fox\""]}, 'value must be a string\nValue:\n  ["a \'red\' \\"fox\\""]'),
        ({"prompt": "x", "seed": 2**31}, "number must be at most 2147483647\nValue:\n  2147483648"),
        ({"prompt": "x", "size": "9*9"}, 'with sides from 256 to 1536\nValue:\n  "9*9"'),
    ],
)
def test_a_refusal_says_why_and_may_quote_the_value(
    caller: Caller, inputs: dict[str, object], said: str
) -> None:
    assert caller.http.post(SUBMIT, json=inputs).json()["message"].endswith(said)


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"[]", b'"x"', b"\xff", b"[" * 100_000),
        b'{"prompt": "half a character: \\ud800"}',
        b'{"prompt": "half a character: \xed\xa0\x80"}',
        b'{"prompt": "x", "seed": %s}' % (b"9" * 5000),
        b'{"prompt": "x", "seed": 1e400}',
        b'{"prompt": "x", "seed": NaN}',
    ],
)
def test_a_body_that_no_object_can_be_read_from_is_refused(caller: Caller, body: bytes) -> None:
    answer = caller.http.post(SUBMIT, content=body)
    assert (answer.status_code, answer.json()["code"]) == (400, 400)


@pytest.mark.parametrize("size", ["256*1536", "1536*256", "1024*1024"])
@pytest.mark.parametrize("seed", [-1, 0, 2_147_483_647])
def test_the_limits_themselves_are_accepted(caller: Caller, size: str, seed: int) -> None:
    assert caller.ask(size=size, seed=seed, unknown_key=1).status_code == 200


def test_an_unknown_model_is_a_400_that_says_so(caller: Caller) -> None:
    for path, body in (("nobody/nothing", {"prompt": "x"}), ("model/price", {"model_id": "nobody/nothing"})):
        answer = caller.http.post(f"/api/v3/{path}", json=body)
        assert (answer.status_code, answer.json()["message"]) == (400, "model not found")


def test_an_unknown_prediction_or_file_is_404_in_an_envelope(caller: Caller) -> None:
    for answer in (
        caller.read("0" * 32),
        caller.http.get("/nowhere"),
        caller.http.get("/outputs/none/1.png"),
    ):
        assert (answer.status_code, answer.json()["code"], answer.json()["data"]) == (404, 404, None)


def test_a_failed_prediction_is_refunded_and_says_why(caller: Caller) -> None:
    caller.local.add_fault(on="submit", kind="failed", code=1200, error="sensitive information")
    prediction_id = caller.submit()
    assert caller.data(prediction_id)["status"] == "created"
    caller.clock.move(5)
    answer = caller.read(prediction_id)
    assert (answer.status_code, answer.json()["code"]) == (200, 200)
    data = answer.json()["data"]
    assert (data["status"], data["code"], data["error"]) == ("failed", 1200, "sensitive information")
    assert data["outputs"] == []
    assert (caller.local.bill().billed, caller.local.bill().refunded) == (0, 1)


def test_a_size_below_the_minimum_is_accepted_and_fails_by_name(clock: Clock) -> None:
    with calling(Options(min_pixels=1024 * 1024), clock) as caller:
        small, large = caller.submit(size="1024*1023"), caller.submit(size="1024*1024")
        data = caller.data(small)
        assert (data["status"], data["error"]) == ("failed", "image size must be at least 1048576 pixels")
        assert caller.data(large)["status"] == "completed"
        assert (caller.local.bill().billed, caller.local.bill().refunded) == (1, 1)


def test_latency_and_seeds_follow_from_the_services_seed(clock: Clock) -> None:
    def drawn(seed: int) -> list[tuple[float, int]]:
        drawn = []
        with calling(Options(latency=(1, 12), seed=seed), clock) as caller:
            for _ in range(8):
                task = caller.local.service.find(caller.submit())
                drawn.append((task.due_at - task.created_at, task.seed))
        return drawn

    first = drawn(1)
    assert first == drawn(1) != drawn(2)
    assert all(1 <= latency <= 12 for latency, _ in first)
    assert len(set(first)) == 8


def test_the_real_seed_is_known_to_the_admin_only(caller: Caller) -> None:
    random, fixed = caller.submit("random"), caller.submit("fixed", seed=42)
    shown = {row["id"]: row for row in caller.http.get("/admin/predictions").json()}
    assert (shown[fixed]["seed"], shown[fixed]["seed_asked"]) == (42, 42)
    assert shown[random]["seed_asked"] == -1
    assert shown[random]["seed"] >= 0
    assert "seed" not in caller.read(random).text
