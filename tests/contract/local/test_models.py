"""The catalogue, and the models beside BitDance."""

from __future__ import annotations

import threading

import pytest

from airflow_provider_bitdance.local import Options
from airflow_provider_bitdance.local.catalogue import MODELS
from tests.contract.local.caller import MODEL, Caller, Clock, calling, until
from tests.wire import httpx

OPTIMIZER = "wavespeed-ai/prompt-optimizer"
PICTURE_MODELS = [model.id for model in MODELS.values() if model.kind == "text-to-image"]


def _optimize(caller: Caller, **inputs: object) -> httpx.Response:
    return caller.http.post(f"/api/v3/{OPTIMIZER}", json={"text": "a lighthouse", **inputs})


def test_the_catalogue_tells_price_and_request_schema(caller: Caller) -> None:
    listed = {model["model_id"]: model for model in caller.http.get("/api/v3/models").json()["data"]}
    assert listed.keys() == MODELS.keys()
    bitdance = listed[MODEL]
    assert (bitdance["type"], bitdance["base_price"]) == ("text-to-image", 0.01)
    (schema,) = bitdance["api_schema"]["api_schemas"]
    assert (schema["type"], schema["method"], schema["server"]) == ("model_run", "POST", caller.local.url)
    assert schema["api_path"] == f"/api/v3/{MODEL}"
    asked = schema["request_schema"]
    assert asked["required"] == ["prompt"]
    assert asked["x-order-properties"] == list(asked["properties"]) == ["prompt", "size", "seed"]
    assert asked["properties"]["seed"]["default"] == -1


@pytest.mark.parametrize("model", PICTURE_MODELS)
def test_every_text_to_image_model_draws_what_it_was_asked(caller: Caller, model: str) -> None:
    answer = caller.http.post(f"/api/v3/{model}", json={"prompt": "a lighthouse"})
    url = caller.finish(answer.json()["data"]["id"])
    assert caller.http.get(url).headers["content-type"].startswith("image/")
    assert caller.local.bill().cost_usd == float(MODELS[model].price)


def test_the_optimizer_answers_with_a_text(caller: Caller) -> None:
    prediction_id = _optimize(caller).json()["data"]["id"]
    caller.clock.move(5)
    (text,) = caller.data(prediction_id)["outputs"]  # type: ignore[misc]
    assert text.startswith("a lighthouse, ")
    assert caller.http.get(f"/outputs/{prediction_id}/1.png").status_code == 404


def test_in_sync_mode_the_answer_comes_when_the_text_is_there(caller: Caller) -> None:
    answers: list[httpx.Response] = []
    asking = threading.Thread(target=lambda: answers.append(_optimize(caller, enable_sync_mode=True)))
    asking.start()
    until(lambda: caller.local.bill().submitted)
    assert not answers
    caller.clock.move(5)
    asking.join()
    data = answers[0].json()["data"]
    assert (data["status"], len(data["outputs"])) == ("completed", 1)


def test_sync_mode_gives_up_after_90_seconds_and_the_task_goes_on(clock: Clock) -> None:
    with calling(Options(latency=100), clock) as caller:
        asking = threading.Thread(target=_move_on, args=(caller, 91))
        asking.start()
        answer = _optimize(caller, enable_sync_mode=True)
        asking.join()
        data = answer.json()["data"]
        assert (answer.status_code, data["status"], data["code"], data["outputs"]) == (
            *(200, "processing"),
            *(5004, []),
        )
        assert data["error"].startswith("Sync mode timed out after 90 seconds.")
        caller.clock.move(10)
        assert caller.data(data["id"])["status"] == "completed"


def test_sync_mode_holds_up_no_stop(clock: Clock) -> None:
    with calling(Options(latency=100), clock) as caller:
        asking = threading.Thread(target=_expect_cut_off, args=(caller,))
        asking.start()
        until(lambda: caller.local.bill().submitted)
        caller.local.stop()
        asking.join(timeout=5)
        assert not asking.is_alive()


def _move_on(caller: Caller, seconds: float) -> None:
    until(lambda: caller.local.bill().submitted)
    caller.clock.move(seconds)


def _expect_cut_off(caller: Caller) -> None:
    with pytest.raises(httpx.TransportError):
        _optimize(caller, enable_sync_mode=True)
