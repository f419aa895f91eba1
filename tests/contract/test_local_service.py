"""The local service over real sockets: its endpoints, its faults, its bill, its pictures, its command line.

The clock is moved by hand, so that no test waits for a latency.
"""

from __future__ import annotations

import io
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

from airflow_provider_bitdance.local import LocalService, Options, pictures, running_service

MODEL = "wavespeed-ai/bitdance-14b/text-to-image"
SUBMIT = f"/api/v3/{MODEL}"
COMMAND = (sys.executable, "-m", "airflow_provider_bitdance.local")
ROOT = Path(__file__).parents[2]


class Clock:
    """Stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 1_780_000_000.25

    def __call__(self) -> float:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += seconds


class Caller:
    """A client that knows the service's paths and nothing about the provider."""

    def __init__(self, local: LocalService, clock: Clock) -> None:
        self.local = local
        self.clock = clock
        self.http = httpx.Client(
            base_url=local.url,
            headers={"Authorization": f"Bearer {local.api_key}"},
            verify=False,  # No TLS here, and to read the CA bundle takes longer than most tests.
        )

    def ask(self, prompt: str = "a lighthouse", **inputs: object) -> httpx.Response:
        return self.http.post(SUBMIT, json={"prompt": prompt, **inputs})

    def submit(self, prompt: str = "a lighthouse", **inputs: object) -> str:
        answer = self.ask(prompt, **inputs)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["data"]["id"])

    def read(self, prediction_id: str) -> httpx.Response:
        return self.http.get(f"/api/v3/predictions/{prediction_id}/result")

    def data(self, prediction_id: str) -> dict[str, object]:
        answer = self.read(prediction_id)
        assert answer.status_code == 200, answer.text
        return dict(answer.json()["data"])

    def finish(self, prediction_id: str) -> str:
        """Let the time pass and return the output's URL."""
        self.clock.move(self.local.service.find(prediction_id).due_at - self.clock.now)
        (url,) = self.http.get(f"/api/v3/predictions/{prediction_id}").json()["data"]["outputs"]
        return str(url)

    def history(self, **query: object) -> httpx.Response:
        return self.http.post("/api/v3/predictions", json={"page": 1, "page_size": 100, **query})


def _get(url: str) -> httpx.Response:
    """Ask without a key."""
    return httpx.get(url, verify=False)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def shared() -> Iterator[LocalService]:
    """One service for most tests, which start from its reset: a start and a stop cost 0.3 s."""
    with running_service(Options(latency=4)) as local:
        yield local


@pytest.fixture
def caller(shared: LocalService, clock: Clock) -> Iterator[Caller]:
    shared.reset()
    shared.service.clock = clock
    caller = Caller(shared, clock)
    with caller.http:
        yield caller


def _caller(options: Options, clock: Clock) -> Iterator[Caller]:
    with running_service(options, clock=clock) as local:
        caller = Caller(local, clock)
        with caller.http:
            yield caller


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
    assert data["created_at"] == "2026-05-28T20:26:40.250000000Z"
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


def test_both_forms_of_the_result_path_answer_the_same(caller: Caller) -> None:
    prediction_id = caller.submit()
    assert caller.read(prediction_id).json() == caller.http.get(f"/api/v3/predictions/{prediction_id}").json()


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
    assert f"parameter {field}:" in body["message"]
    assert caller.local.bill().submitted == 0


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_json_object_is_refused(caller: Caller, body: bytes) -> None:
    answer = caller.http.post(SUBMIT, content=body)
    assert (answer.status_code, answer.json()["code"]) == (400, 400)


@pytest.mark.parametrize("size", ["256*1536", "1536*256", "1024*1024"])
@pytest.mark.parametrize("seed", [-1, 0, 2_147_483_647])
def test_the_limits_themselves_are_accepted(caller: Caller, size: str, seed: int) -> None:
    assert caller.ask(size=size, seed=seed, unknown_key=1).status_code == 200


def test_an_unknown_model_prediction_or_path_is_404_in_an_envelope(caller: Caller) -> None:
    for answer in (
        caller.http.post("/api/v3/nobody/nothing", json={"prompt": "x"}),
        caller.read("0" * 32),
        caller.http.get("/nowhere"),
        caller.http.get("/outputs/none/1.png"),
    ):
        assert (answer.status_code, answer.json()["code"], answer.json()["data"]) == (404, 404, None)


def test_history_lists_newest_first_in_pages_and_shows_no_inputs(caller: Caller) -> None:
    ids = [caller.submit(f"prompt {number}") for number in range(5)]
    assert [item["id"] for item in caller.history().json()["data"]["items"]] == ids[::-1]
    second = caller.history(page=2, page_size=2)
    assert second.json()["data"]["page"] == 2
    assert [item["id"] for item in second.json()["data"]["items"]] == [ids[2], ids[1]]
    assert caller.history(page=9).json()["data"]["items"] == []
    assert "prompt" not in second.text


def test_history_shows_inputs_as_asked_when_told_to(clock: Clock) -> None:
    for caller in _caller(Options(echo_inputs=True), clock):
        caller.submit("a lighthouse", size="512*512")
        (item,) = caller.history().json()["data"]["items"]
        assert item["input"] == {"prompt": "a lighthouse", "size": "512*512", "seed": -1}


def test_history_filters_by_model_status_and_time(caller: Caller) -> None:
    old = caller.submit()
    caller.clock.move(60)
    new = caller.submit()

    def ids(**query: object) -> list[str]:
        return [item["id"] for item in caller.history(**query).json()["data"]["items"]]

    assert ids(model=MODEL) == [new, old]
    assert ids(model="other/model") == []
    assert ids(status="completed") == [old]
    assert ids(status="created") == [new]
    assert ids(created_after="2026-05-28T20:27:00Z") == [new]
    assert ids(created_before="2026-05-28T22:27:00.123456789+02:00") == [old]
    assert ids(created_after="2026-05-28T20:26:00", created_before="2026-05-28T20:27:00") == [old]


@pytest.mark.parametrize(
    "query",
    [
        {"page": 0},
        {"page_size": 0},
        {"page_size": 101},
        {"page": None},
        {"status": "done"},
        {"created_after": "yesterday"},
        {"created_after": 5},
    ],
)
def test_a_bad_history_query_is_refused(caller: Caller, query: dict[str, object]) -> None:
    assert caller.history(**query).status_code == 400


def test_predictions_are_gone_after_seven_days(caller: Caller) -> None:
    prediction_id = caller.submit()
    caller.clock.move(7 * 24 * 3600 + 1)
    assert caller.read(prediction_id).status_code == 404
    assert caller.history().json()["data"]["items"] == []
    assert caller.local.bill().billed == 1


def test_deleted_predictions_are_gone_and_unknown_ids_ignored(caller: Caller) -> None:
    kept, deleted = caller.submit(), caller.submit()
    answer = caller.http.post("/api/v3/predictions/delete", json={"ids": [deleted, "unknown"]})
    assert answer.json()["data"] == {"deleted_count": 1}
    assert caller.read(deleted).status_code == 404
    assert [item["id"] for item in caller.history().json()["data"]["items"]] == [kept]


def test_a_price_is_quoted(caller: Caller) -> None:
    answer = caller.http.post("/api/v3/model/price", json={"model_id": MODEL, "inputs": {"prompt": "x"}})
    price = {"model_id": MODEL, "price": 0.01, "discounted_price": 0.01, "currency": "USD"}
    assert answer.json()["data"] == price
    assert caller.http.post("/api/v3/model/price", json={"model_id": "none"}).status_code == 404


def test_the_bill_adds_up(caller: Caller) -> None:
    caller.local.add_fault(on="submit", kind="failed", match="bad")
    caller.local.add_fault(on="submit", kind="never_finish", match="endless")
    for prompt in ("good", "good", "bad", "endless"):
        caller.submit(prompt)
    at_first = caller.http.get("/admin/bill").json()
    assert at_first == {
        **{"submitted": 4, "billed": 4, "refunded": 0, "completed": 0, "failed": 0, "in_flight": 4},
        **{"cost_usd": 0.04, "balance_usd": 99.96},
    }
    caller.clock.move(1_000)
    at_last = caller.http.get("/admin/bill").json()
    assert at_last == {
        **{"submitted": 4, "billed": 3, "refunded": 1, "completed": 2, "failed": 1, "in_flight": 1},
        **{"cost_usd": 0.03, "balance_usd": 99.97},
    }
    assert caller.http.get("/api/v3/balance").json()["data"] == {"balance": 99.97}


def test_without_credit_a_submit_is_refused_as_a_400_that_names_credits(clock: Clock) -> None:
    for caller in _caller(Options(balance_usd=0.02, latency=4), clock):
        caller.submit("one")
        caller.local.add_fault(on="submit", kind="failed", times=1)
        caller.submit("two, to be refunded")
        answer = caller.ask("three")
        assert answer.status_code == 400
        assert answer.json() == {
            "code": 400,
            "message": "Insufficient credits. Please top up your account to continue.",
            "data": None,
        }
        clock.move(5)
        caller.submit("three, after the refund")
        assert caller.local.bill().balance_usd == 0


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


def test_latency_and_seeds_follow_from_the_services_seed(clock: Clock) -> None:
    def drawn(seed: int) -> list[tuple[float, int]]:
        drawn = []
        for caller in _caller(Options(latency=(1, 12), seed=seed), clock):
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


def test_a_download_needs_no_key_and_is_byte_for_byte_what_draw_makes(caller: Caller) -> None:
    prediction_id = caller.submit("a lighthouse", size="384*256", seed=7)
    answer = _get(caller.finish(prediction_id))
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    assert answer.content == pictures.draw(
        model=MODEL, prompt="a lighthouse", width=384, height=256, seed=7, media_type="image/png"
    )
    assert caller.local.predictions()[0]["downloads"] == 1


@pytest.mark.parametrize(("picture_format", "name"), [("png", "PNG"), ("jpeg", "JPEG"), ("webp", "WEBP")])
def test_pictures_come_in_the_chosen_format_and_say_what_they_show(
    clock: Clock, picture_format: str, name: str
) -> None:
    prompt = "灯台 \N{ELECTRIC LIGHT BULB} at dusk"
    for caller in _caller(Options(picture_format=picture_format), clock):  # type: ignore[arg-type]
        url = caller.finish(caller.submit(prompt, size="256*320", seed=3))
        answer = _get(url)
        assert url.endswith(f".{picture_format}")
        assert answer.headers["content-type"] == f"image/{picture_format}"
        with Image.open(io.BytesIO(answer.content)) as image:
            image.load()
            assert (image.format, image.size) == (name, (256, 320))
        assert pictures.labels(answer.content) == pictures.Labels(MODEL, prompt, "256*320", 3)


def test_png_text_chunks_hold_prompt_size_and_seed(caller: Caller) -> None:
    answer = _get(caller.finish(caller.submit("a lighthouse", size="256*256", seed=3)))
    with Image.open(io.BytesIO(answer.content)) as image:
        image.load()
        said = {key: str(image.info[key]) for key in ("prompt", "size", "seed")}
    assert said == {"prompt": "a lighthouse", "size": "256*256", "seed": "3"}


def _draw(
    *, prompt: str = "a", width: int = 256, height: int = 256, seed: int = 1, media_type: pictures.MediaType
) -> bytes:
    return pictures.draw(
        model=MODEL, prompt=prompt, width=width, height=height, seed=seed, media_type=media_type
    )


def test_the_same_request_gives_the_same_bytes_in_another_process() -> None:
    script = f"""
from airflow_provider_bitdance.local.pictures import draw
for kind in ("png", "jpeg", "webp"):
    picture = draw(model={MODEL!r}, prompt="a", width=256, height=256, seed=1, media_type="image/" + kind)
    print(picture.hex())
"""
    run = [sys.executable, "-c", script]
    runs = {
        subprocess.run(run, check=True, capture_output=True, text=True, cwd=ROOT).stdout for _ in range(2)
    }
    here = [_draw(media_type=kind).hex() for kind in ("image/png", "image/jpeg", "image/webp")]
    assert runs == {"\n".join(here) + "\n"}


def test_other_prompts_seeds_and_sizes_give_other_pixels() -> None:
    drawn = [
        _draw(media_type="image/png"),
        _draw(prompt="b", media_type="image/png"),
        _draw(seed=2, media_type="image/png"),
        _draw(width=320, media_type="image/png"),
    ]
    pixels = []
    for picture in drawn:
        with Image.open(io.BytesIO(picture)) as image:
            pixels.append(image.tobytes())
    assert len(set(pixels)) == 4


@pytest.mark.parametrize("media_type", ["image/png", "image/jpeg", "image/webp"])
@pytest.mark.parametrize(
    "prompt", ["word " * 20_000, "x" * 100_000, "\N{ELECTRIC LIGHT BULB}" * 50_000, "\x00\n\t"]
)
def test_any_prompt_can_be_drawn_in_any_format(prompt: str, media_type: pictures.MediaType) -> None:
    picture = _draw(prompt=prompt, media_type=media_type)
    assert prompt.startswith(pictures.labels(picture).prompt)


def test_a_picture_from_elsewhere_has_no_labels() -> None:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    with pytest.raises(ValueError, match="no labels"):
        pictures.labels(file.getvalue())


def test_an_output_is_there_only_between_completion_and_expiry(clock: Clock) -> None:
    for caller in _caller(Options(latency=4, output_ttl=60), clock):
        prediction_id = caller.submit(size="256*256")
        assert caller.http.get(f"/outputs/{prediction_id}/1.png").status_code == 404
        url = caller.finish(prediction_id)
        assert caller.http.get(url).status_code == 200
        assert caller.http.get(url.replace("/1.png", "/2.png")).status_code == 404
        clock.move(61)
        assert caller.http.get(url).status_code == 404
        assert caller.data(prediction_id)["status"] == "completed"


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


def test_a_truncated_download_ends_before_its_content_length(caller: Caller) -> None:
    url = caller.finish(caller.submit(size="256*256"))
    caller.local.add_fault(on="output", kind="truncated", times=1)
    with pytest.raises(httpx.RemoteProtocolError):
        caller.http.get(url)
    assert caller.local.predictions()[0]["downloads"] == 0
    assert caller.http.get(url).status_code == 200


def test_a_picture_that_is_not_whole_fits_its_content_length(caller: Caller) -> None:
    url = caller.finish(caller.submit(size="256*256"))
    whole = caller.http.get(url).content
    caller.local.add_fault(on="output", kind="not_whole")
    answer = caller.http.get(url)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    assert answer.content == whole[: len(whole) // 2]


def test_a_download_of_the_wrong_type_is_html(caller: Caller) -> None:
    url = caller.finish(caller.submit())
    caller.local.add_fault(on="output", kind="wrong_type", times=1)
    caller.local.add_fault(on="output", kind="wrong_type", media_type="image/png")
    honest, lying = caller.http.get(url), caller.http.get(url)
    assert honest.headers["content-type"].startswith("text/html")
    assert lying.headers["content-type"] == "image/png"
    assert honest.content == lying.content == b"<!doctype html>" + honest.content[15:]


@pytest.mark.parametrize("declared", [False, True])
def test_an_oversized_download_streams_as_much_as_asked(caller: Caller, declared: bool) -> None:
    url = caller.finish(caller.submit())
    caller.local.add_fault(on="output", kind="oversized", bytes=300_001, declared=declared)
    answer = caller.http.get(url)
    assert len(answer.content) == 300_001
    assert answer.content.startswith(b"\x89PNG\r\n\x1a\n")
    assert answer.headers.get("content-length") == ("300001" if declared else None)


def test_a_client_may_hang_up_on_an_oversized_download(caller: Caller) -> None:
    url = caller.finish(caller.submit())
    caller.local.add_fault(on="output", kind="oversized", bytes=10**12, times=1)
    with caller.http.stream("GET", url) as answer:
        next(answer.iter_raw())
    assert caller.http.get(url).status_code == 200


def test_a_bomb_promises_more_pixels_than_anyone_should_decode(caller: Caller) -> None:
    url = caller.finish(caller.submit())
    caller.local.add_fault(on="output", kind="bomb")
    answer = caller.http.get(url)
    assert len(answer.content) < 200
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(answer.content))


def test_a_download_may_be_redirected_refused_or_reset(caller: Caller) -> None:
    url = caller.finish(caller.submit())
    caller.local.add_fault(on="output", kind="redirect", url="http://169.254.169.254/latest", times=1)
    caller.local.add_fault(on="output", kind="status", status=403, body="html", times=1)
    caller.local.add_fault(on="output", kind="reset", times=1)
    redirected = caller.http.get(url)
    assert (redirected.status_code, redirected.headers["location"]) == (302, "http://169.254.169.254/latest")
    assert caller.http.get(url).status_code == 403
    with pytest.raises(httpx.ReadError):
        caller.http.get(url)


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
        {"kind": "reset"},
        [],
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(caller: Caller, rule: object) -> None:
    answer = caller.http.post("/admin/faults", json=rule)
    assert (answer.status_code, answer.json()["code"]) == (422, 422)
    assert caller.http.get("/admin/faults").json() == []


def test_faults_are_added_counted_and_cleared_over_http(caller: Caller) -> None:
    rule = {"on": "balance", "kind": "status", "status": 500, "times": 2}
    added = caller.http.post("/admin/faults", json=rule)
    assert added.status_code == 201
    assert rule.items() <= added.json().items()
    assert caller.http.get("/api/v3/balance").status_code == 500
    (listed,) = caller.http.get("/admin/faults").json()
    assert (listed["applied"], listed["left"]) == (1, 1)
    assert caller.http.delete("/admin/faults").status_code == 204
    assert caller.http.get("/api/v3/balance").status_code == 200


def test_the_event_log_holds_paths_but_no_keys_and_no_admin_calls(caller: Caller) -> None:
    caller.ask()
    caller.http.get("/api/v3/balance?key=local-key")
    _get(caller.local.url + "/api/v3/balance")
    answer = caller.http.get("/admin/requests")
    assert [(event["method"], event["path"], event["status"]) for event in answer.json()] == [
        ("POST", SUBMIT, 200),
        ("GET", "/api/v3/balance", 200),
        ("GET", "/api/v3/balance", 401),
    ]
    assert answer.json()[0]["time"] == caller.clock.now
    assert "local-key" not in answer.text


def test_a_reset_forgets_everything(caller: Caller) -> None:
    caller.local.add_fault(on="balance", kind="reset")
    prediction_id = caller.submit()
    assert caller.http.post("/admin/reset").status_code == 204
    assert caller.local.requests() == []
    assert caller.read(prediction_id).status_code == 404
    assert caller.http.get("/api/v3/balance").json()["data"] == {"balance": 100}
    assert caller.local.bill().submitted == 0


@pytest.mark.parametrize("after_create", [False, True])
def test_a_slow_submit_that_timed_out_may_be_charged_and_holds_up_no_stop(
    clock: Clock, after_create: bool
) -> None:
    local = LocalService(clock=clock)
    local.add_fault(on="submit", kind="slow", seconds=60, after_create=after_create)
    local.start()
    with Caller(local, clock).http as http, pytest.raises(httpx.ReadTimeout):
        http.post(SUBMIT, json={"prompt": "x"}, timeout=0.1)
    began = time.monotonic()
    local.stop()
    assert time.monotonic() - began < 2
    assert local.bill().billed == int(after_create)
    local.stop()
    with pytest.raises(httpx.ConnectError):
        _get(local.url)


def test_a_client_that_stalls_holds_up_no_stop(clock: Clock) -> None:
    local = LocalService(clock=clock)
    local.add_fault(on="output", kind="oversized")
    local.start()
    caller = Caller(local, clock)
    with caller.http, caller.http.stream("GET", caller.finish(caller.submit())) as answer:
        next(answer.iter_raw())
        began = time.monotonic()
        local.stop()
    assert time.monotonic() - began < 1


def test_a_stopped_service_starts_again_on_the_same_address(clock: Clock) -> None:
    local = LocalService(clock=clock)
    local.start()
    first = local.url
    local.stop()
    local.start()
    assert local.url == first
    assert _get(first + "/admin/bill").status_code == 200
    local.stop()


def test_an_answer_does_not_wait_for_delayed_acknowledgements(caller: Caller) -> None:
    caller.http.get("/admin/bill")
    began = time.monotonic()
    for _ in range(20):
        caller.http.get("/admin/bill")
    assert time.monotonic() - began < 20 * 0.03


@pytest.mark.parametrize("host", ["localhost", "127.0.0.2"])
def test_other_names_of_this_computer_will_do(host: str) -> None:
    with running_service(host=host) as local:
        assert _get(local.url + "/admin/bill").status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.1", "example.com", ""])
def test_only_loopback_hosts_are_allowed(host: str) -> None:
    with pytest.raises(ValueError, match="not a loopback address"):
        LocalService(host=host)


def test_importing_the_package_loads_no_server() -> None:
    script = (
        "import sys, airflow_provider_bitdance.local;"
        "print(sorted({'fastapi', 'uvicorn', 'PIL', 'pydantic', 'airflow'} & sys.modules.keys()))"
    )
    run = [sys.executable, "-c", script]
    done = subprocess.run(run, check=True, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, cwd=ROOT, timeout=60)


def test_help_names_every_option_path_and_fault() -> None:
    done = _run("--help")
    assert done.returncode == 0
    for word in ("--latency", "--balance", "/admin/bill", "/predictions/ID", "null_outputs", "after_create"):
        assert word in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("--host", "0.0.0.0"),
        ("--port", "70000"),
        ("--latency", "12-1"),
        ("--latency", "nan"),
        ("--format", "gif"),
        ("--faults", "/nonexistent"),
    ],
)
def test_a_bad_argument_is_refused_by_name(arguments: tuple[str, str]) -> None:
    done = _run(*arguments)
    assert done.returncode == 2
    assert f"argument {arguments[0]}" in done.stderr


def test_a_taken_port_is_told_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = _run("--port", str(taken.getsockname()[1]))
    assert done.returncode == 1
    assert re.fullmatch(r"cannot listen on 127\.0\.0\.1:\d+: Address already in use\n", done.stderr)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_serves_until_it_is_told_to_stop(tmp_path: Path, number: signal.Signals) -> None:
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps([{"on": "submit", "kind": "failed", "match": "bad"}]))
    arguments = ("--latency", "0", "--api-key", "k", "--format", "jpeg", "--faults", str(plan))
    with subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            (url,) = re.findall(r"http://127\.0\.0\.1:\d+", line)
            with httpx.Client(base_url=url, headers={"Authorization": "Bearer k"}) as http:
                for prompt in ("good", "bad"):
                    assert http.post(SUBMIT, json={"prompt": prompt}).status_code == 200
                bill = http.get("/admin/bill").json()
                assert (bill["billed"], bill["refunded"]) == (1, 1)
                good = http.get("/admin/predictions").json()[0]["id"]
                picture = http.get(f"/outputs/{good}/1.jpeg")
                assert picture.headers["content-type"] == "image/jpeg"
        finally:
            process.send_signal(number)
        assert process.wait(timeout=10) == 0
        assert process.stdout.read() == ""
