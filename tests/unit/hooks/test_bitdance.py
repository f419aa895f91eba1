"""The hook's own methods against the local service, and what Airflow reads of it."""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import airflow
import jsonschema
import pytest
from airflow.sdk import BaseHook

from airflow_provider_bitdance import exceptions
from airflow_provider_bitdance.exceptions import InputError, Paid
from airflow_provider_bitdance.get_provider_info import (
    CONNECTION_FIELDS,
    UI_FIELD_BEHAVIOUR,
    get_provider_info,
)
from airflow_provider_bitdance.hooks.bitdance import BitDanceHook
from airflow_provider_bitdance.hooks.waiting import Wait
from airflow_provider_bitdance.local import LocalService
from airflow_provider_bitdance.local.catalogue import STYLE_WORDS
from airflow_provider_bitdance.wavespeed.client import Client
from airflow_provider_bitdance.wavespeed.models import BITDANCE_14B, PROMPT_OPTIMIZER
from airflow_provider_bitdance.wavespeed.responses import Prediction
from tests.unit.hooks.support import KEY, PROMPT, Clock, Connect


def test_submit_buys_one_image_and_does_not_wait(
    hook: BitDanceHook, service: LocalService, clock: Clock
) -> None:
    prediction = hook.submit(prompt=PROMPT, size="16:9", seed="42")
    (task,) = service.predictions()
    assert (task["id"], task["prompt"], task["size"], task["seed"], task["model"]) == (
        prediction.id,
        PROMPT,
        "1280*720",
        42,
        BITDANCE_14B,
    )
    assert clock.slept == []
    assert hook.get_prediction(prediction.id).status == "created"


def test_width_and_height_reach_the_api(hook: BitDanceHook, service: LocalService) -> None:
    hook.submit(prompt=PROMPT, width="512", height=768)
    assert service.predictions()[0]["size"] == "512*768"


@pytest.mark.parametrize(
    "bad", [{"prompt": " "}, {"size": "5:4"}, {"width": 1}, {"seed": "x"}, {"model": "m"}], ids=str
)
@pytest.mark.parametrize("method", ["submit", "generate"])
def test_bad_input_is_refused_before_anything_is_sent(
    method: str, bad: dict[str, Any], hook: BitDanceHook, service: LocalService
) -> None:
    with pytest.raises(InputError):
        getattr(hook, method)(**{"prompt": PROMPT, **bad})
    assert service.requests() == []


def test_enhance_prompt_returns_the_text_for_a_tenth_of_a_cent(
    hook: BitDanceHook, service: LocalService, clock: Clock
) -> None:
    text = hook.enhance_prompt("  A fox ", style="anime", poll_interval=2)
    assert text == f"A fox, {STYLE_WORDS['anime']}"
    assert clock.slept == [2.0, 2.0, 2.0]
    (task,) = service.predictions()
    assert (task["model"], service.bill().billed) == (PROMPT_OPTIMIZER, 1)


@pytest.mark.parametrize(
    "bad", [{"text": " "}, {"style": "sharper"}, {"timeout": -1}, {"poll_interval": "x"}], ids=str
)
def test_enhance_prompt_refuses_bad_input_before_anything_is_sent(
    bad: dict[str, Any], hook: BitDanceHook, service: LocalService
) -> None:
    with pytest.raises(InputError):
        hook.enhance_prompt(**{"text": PROMPT, **bad})
    assert service.requests() == []


def test_enhance_prompt_speaks_of_the_prompt_and_not_of_an_image(
    hook: BitDanceHook, service: LocalService
) -> None:
    service.add_fault(on="submit", kind="never_finish", times=1)
    with pytest.raises(exceptions.PredictionTimeoutError) as caught:
        hook.enhance_prompt(PROMPT, timeout=30)
    assert str(caught.value).endswith(
        "get_prediction polls it again for free; enhance_prompt buys another one. The prompt is paid for."
    )
    service.add_fault(on="submit", kind="failed", code=1200, error="sensitive")
    with pytest.raises(exceptions.ModerationError, match=r"The prompt may have been charged\.$"):
        hook.enhance_prompt(PROMPT)


def test_enhance_prompt_returns_no_text_of_another_prediction(
    hook: BitDanceHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    another = {"id": "p", "status": "completed", "outputs": ["x"], "input": {"text": "somebody's"}}
    monkeypatch.setattr(Wait, "until_ended", lambda *_: Prediction.model_validate(another))
    with pytest.raises(exceptions.GarbledResponseError, match=r"a different text .* The prompt may"):
        hook.enhance_prompt(PROMPT)


def test_generate_waits_for_the_picture(hook: BitDanceHook, service: LocalService, clock: Clock) -> None:
    prediction = hook.generate(prompt=PROMPT, size="256*256", poll_interval=2)
    assert prediction.is_completed
    assert prediction.outputs[0].startswith(f"{service.url}/outputs/")
    assert clock.slept == [2.0, 2.0, 2.0]
    assert service.bill().billed == 1


def test_generate_tells_why_there_is_no_picture(hook: BitDanceHook, service: LocalService) -> None:
    service.add_fault(on="submit", kind="failed", code=1200, error=f"Sensitive: {PROMPT * 9}")
    with pytest.raises(exceptions.ModerationError) as caught:
        hook.generate(prompt=PROMPT * 9)
    assert PROMPT * 4 not in str(caught.value)


def test_generate_that_runs_out_of_time_names_the_prediction_that_is_paid_for(
    hook: BitDanceHook, service: LocalService, clock: Clock
) -> None:
    service.add_fault(on="submit", kind="never_finish")
    start = clock.now
    with pytest.raises(exceptions.PredictionTimeoutError, match="Not done within 60 s") as caught:
        hook.generate(prompt=PROMPT, timeout=60)
    (task,) = service.predictions()
    assert str(task["id"]) in str(caught.value)
    assert "generate buys another image" in str(caught.value)
    assert (caught.value.retry_helps, caught.value.paid) == (False, Paid.YES)
    assert clock.now - start == 60


def test_generate_outlives_failed_looks(hook: BitDanceHook, service: LocalService) -> None:
    service.add_fault(on="result", kind="status", status=503, times=3)
    service.add_fault(on="result", kind="reset", times=1)
    service.add_fault(on="result", kind="truncated_json", times=1)
    assert hook.generate(prompt=PROMPT, size="256*256").is_completed
    assert service.bill().submitted == 1


def test_generate_waits_as_long_as_the_api_asks(
    hook: BitDanceHook, service: LocalService, clock: Clock
) -> None:
    service.add_fault(on="result", kind="status", status=429, retry_after=33, times=1)
    hook.generate(prompt=PROMPT, size="256*256", poll_interval=2)
    assert clock.slept == [2.0, 33.0]


def test_generate_takes_it_that_a_new_prediction_is_unknown_for_a_moment(
    hook: BitDanceHook, service: LocalService
) -> None:
    service.add_fault(on="result", kind="not_found", reads=2)
    assert hook.generate(prompt=PROMPT, size="256*256").is_completed


@pytest.mark.parametrize(
    ("status", "seconds", "why"),
    [
        (401, 60, "Polling prediction {id} failed: GET /api/v3/predictions/{id}/result got status 401"),
        (400, 60, "Polling prediction {id} failed: GET /api/v3/predictions/{id}/result got status 400"),
        (404, 60, "Polling prediction {id} failed: GET /api/v3/predictions/{id}/result got status 404"),
        (500, 3600, "{id}; the last poll failed: GET /api/v3/predictions/{id}/result got status 500"),
    ],
    ids=["401", "400", "404", "500"],
)
def test_generate_that_loses_sight_names_the_prediction_that_is_paid_for(
    status: int, seconds: int, why: str, hook: BitDanceHook, service: LocalService, clock: Clock
) -> None:
    service.add_fault(on="result", kind="status", status=status)
    start = clock.now
    with pytest.raises(exceptions.PredictionTimeoutError) as caught:
        hook.generate(prompt=PROMPT, timeout=3600)
    (task,) = service.predictions()
    assert why.format(id=task["id"]) in str(caught.value)
    assert (caught.value.retry_helps, caught.value.paid) == (False, Paid.YES)
    assert clock.now - start == pytest.approx(seconds, abs=20)


def test_a_refused_submission_is_not_repeated(hook: BitDanceHook, service: LocalService) -> None:
    service.add_fault(on="submit", kind="status", status=503)
    with pytest.raises(exceptions.ServerError) as caught:
        hook.generate(prompt=PROMPT)
    assert caught.value.paid is Paid.POSSIBLY
    assert len(service.requests()) == 1


def test_the_balance_is_a_number_of_dollars(hook: BitDanceHook) -> None:
    hook.submit(prompt=PROMPT)
    assert hook.get_balance() == 99.99


def test_a_sync_client_is_closed_by_its_with_statement(hook: BitDanceHook) -> None:
    with hook.get_conn() as client:
        assert isinstance(client, Client)
        assert client.get_balance().balance == 100.0
    with pytest.raises(RuntimeError, match="closed"):
        client.get_balance()


def test_an_async_client_is_made_inside_an_event_loop(hook: BitDanceHook) -> None:
    async def balance() -> float:
        async with await hook.get_async_conn() as client, await hook.get_async_conn() as other:
            assert other.settings is client.settings
            return (await client.get_balance()).balance

    assert asyncio.run(balance()) == 100.0


def test_an_async_client_checks_the_connection_too(connect: Connect) -> None:
    hook = connect(extra={"timeout": "soon"})
    with pytest.raises(InputError, match=r"'bitdance_test'.*timeout is 'soon'"):
        asyncio.run(hook.get_async_conn())


def test_an_async_client_is_made_of_settings_read_before(hook: BitDanceHook) -> None:
    assert hook.settings.api_key == KEY

    async def balance() -> float:
        async with hook.new_async_client() as client:
            return (await client.get_balance()).balance

    assert asyncio.run(balance()) == 100.0


# Secrets.


def test_the_key_and_the_prompt_are_in_no_repr_and_no_log(
    hook: BitDanceHook,
    service: LocalService,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    url = hook.generate(prompt=PROMPT, size="256*256").outputs[0]
    hook.test_connection()
    shown = repr([hook, hook.settings, hook.extra, hook.get_conn()])
    printed = capsys.readouterr()
    for secret in (KEY, PROMPT, url):
        assert secret not in caplog.text
        assert secret not in shown + printed.out + printed.err


def test_no_error_of_the_connection_shows_the_key(connect: Connect) -> None:
    for fields in ({"host": "http://gateway.corp"}, {"extra": {"timeout": 0}}, {"password": f"{KEY} {KEY}"}):
        with pytest.raises(InputError) as caught:
            connect(**fields).get_conn()
        assert KEY not in str(caught.value)


# What Airflow reads of the provider.


def test_the_old_and_the_new_form_are_the_same() -> None:
    old = BitDanceHook.get_ui_field_behaviour()
    assert old == {
        "hidden_fields": UI_FIELD_BEHAVIOUR["hidden-fields"],
        "relabeling": UI_FIELD_BEHAVIOUR["relabeling"],
        "placeholders": UI_FIELD_BEHAVIOUR["placeholders"],
    }
    assert connection_type()["ui-field-behaviour"] == UI_FIELD_BEHAVIOUR


def test_airflow_3_1_finds_the_form_in_the_class_that_the_metadata_names() -> None:
    assert {"get_ui_field_behaviour", "get_connection_form_widgets"} <= vars(BitDanceHook).keys()


def connection_type() -> dict[str, Any]:
    (found,) = get_provider_info()["connection-types"]
    return dict(found)


def test_the_metadata_names_this_hook() -> None:
    module, _, name = connection_type()["hook-class-name"].rpartition(".")
    assert getattr(importlib.import_module(module), name) is BitDanceHook
    assert issubclass(BitDanceHook, BaseHook)
    assert connection_type()["connection-type"] == BitDanceHook.conn_type == "bitdance"
    assert connection_type()["hook-name"] == BitDanceHook.hook_name == "BitDance (WaveSpeedAI)"
    assert BitDanceHook.conn_name_attr == "bitdance_conn_id"


def test_the_metadata_satisfies_airflows_schema() -> None:
    schema = json.loads((Path(airflow.__file__).parent / "provider_info.schema.json").read_text())
    jsonschema.validate(get_provider_info(), schema)


def test_every_module_in_the_metadata_exists() -> None:
    info = get_provider_info()
    for kind in ("hooks", "operators", "triggers"):
        for entry in info[kind]:
            for module in entry["python-modules"]:
                assert importlib.import_module(module).__name__ == module


def test_the_form_s_fields_are_the_metadata_s() -> None:
    assert connection_type()["conn-fields"] == CONNECTION_FIELDS


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), "nan", "soon", -1, 1e300, None])
@pytest.mark.parametrize("name", ["timeout", "poll_interval"])
def test_a_time_that_would_never_end_is_refused_before_anything_is_bought(
    name: str, seconds: Any, hook: BitDanceHook, service: LocalService
) -> None:
    with pytest.raises(InputError, match=f"{name} is "):
        hook.generate(prompt=PROMPT, **{name: seconds})
    assert service.requests() == []


# The account's predictions.


def test_the_history_is_read_page_after_page_up_to_a_limit(
    hook: BitDanceHook, service: LocalService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_bitdance.wavespeed.protocol.PAGE_SIZE", 2)
    ids = [hook.submit(prompt=f"{PROMPT} {number}").id for number in range(5)]
    assert [found.id for found in hook.history()] == ids[::-1]
    before = len(service.requests())
    assert [found.id for found in hook.history(limit=3)] == ids[:1:-1]
    assert len(service.requests()) == before + 2


def test_the_history_is_typed_and_has_outputs(
    hook: BitDanceHook, service: LocalService, clock: Clock
) -> None:
    hook.generate(prompt=PROMPT, size="256*256")
    (found,) = hook.history(model=BITDANCE_14B)
    assert (found.status, found.model, len(found.outputs)) == ("completed", BITDANCE_14B, 1)
    assert hook.history(model="another/model") == []
    assert hook.history(since=datetime.fromtimestamp(clock.now + 60, UTC)) == []


@pytest.mark.parametrize("bad", [{"limit": 0}, {"limit": 10_001}, {"limit": True}, {"model": "x y"}], ids=str)
def test_a_history_that_has_no_bounds_is_refused(
    bad: dict[str, Any], hook: BitDanceHook, service: LocalService
) -> None:
    with pytest.raises(InputError):
        hook.history(**bad)
    assert service.requests() == []


def test_a_history_that_fails_says_so(hook: BitDanceHook, service: LocalService) -> None:
    service.add_fault(on="history", kind="status", status=503)
    with pytest.raises(exceptions.ServerError) as caught:
        hook.history()
    assert caught.value.paid is Paid.NO


def test_predictions_are_deleted_once_however_often_that_is_requested(
    hook: BitDanceHook, service: LocalService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_bitdance.hooks.account.DELETED_AT_ONCE", 2)
    ids = [hook.submit(prompt=PROMPT).id for _ in range(3)]
    assert hook.delete([*ids, ids[0]]) == 3
    assert hook.delete(ids) == 0
    assert hook.history() == []
    with pytest.raises(exceptions.NotFoundError):
        hook.get_prediction(ids[0])
    assert service.bill().billed == 3


@pytest.mark.parametrize("bad", [[], [""], ["../balance"], [7], ""], ids=repr)
def test_what_is_no_id_is_not_sent_to_be_deleted(bad: Any, hook: BitDanceHook, service: LocalService) -> None:
    with pytest.raises(InputError):
        hook.delete(bad)
    assert service.requests() == []


def test_a_prediction_says_what_was_requested_though_the_api_does_not(hook: BitDanceHook) -> None:
    found = hook.generate(prompt=PROMPT, size="256*256", seed=7)
    assert found.input is not None
    assert (found.input["prompt"], found.input["size"], found.input["seed"]) == (PROMPT, "256*256", 7)
    assert PROMPT not in repr(found)


# The account's bill.


def test_charges_since_a_time_are_added_up_less_refunds(
    hook: BitDanceHook, service: LocalService, clock: Clock
) -> None:
    assert hook.get_charges(since=datetime.fromtimestamp(clock.now, UTC)) == 0.0
    hook.generate(prompt=PROMPT, size="256*256")
    clock.now += 3600
    later = datetime.fromtimestamp(clock.now, UTC)
    hook.generate(prompt=PROMPT, size="256*256")
    hook.submit(prompt=PROMPT, size="256*256")
    assert hook.get_charges(since=later) == 0.02
    assert hook.get_charges(since=later.replace(tzinfo=None) - timedelta(hours=2)) == 0.03


def test_a_bill_that_is_not_whole_gives_no_sum(
    hook: BitDanceHook, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_bitdance.engine.account_history.MAX_PAGES", 0)
    with pytest.raises(exceptions.GarbledResponseError, match="the charges are unknown") as caught:
        hook.get_charges(since=datetime.fromtimestamp(clock.now, UTC))
    assert caught.value.paid is Paid.NO
