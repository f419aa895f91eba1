"""From an Airflow connection to the client, and the hook's own methods against the local service."""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import airflow
import jsonschema
import pytest
from airflow.sdk import BaseHook

from airflow_provider_bitdance.api import errors
from airflow_provider_bitdance.api.client import Client
from airflow_provider_bitdance.api.errors import InputError, Paid
from airflow_provider_bitdance.api.models import BITDANCE_14B
from airflow_provider_bitdance.get_provider_info import (
    CONNECTION_FIELDS,
    UI_FIELD_BEHAVIOUR,
    get_provider_info,
)
from airflow_provider_bitdance.hooks.bitdance import BitDanceHook, ConnectionExtra
from airflow_provider_bitdance.local import LocalService, Options, running_service

KEY = "wsk_Secret-0123456789"
PROMPT = "a very private lighthouse"
Connect = Callable[..., BitDanceHook]


class Clock:
    """Stands still until somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1_780_000_000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture(scope="module")
def shared() -> Iterator[LocalService]:
    """One service for all tests, each of which starts from its reset: a start and a stop cost 0.3 s."""
    with running_service(Options(api_key=KEY, latency=5)) as service:
        yield service


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Return a clock that the hook and the service go by."""
    clock = Clock()
    # The hook's own name for the module: the service's event loop needs the real one.
    own_time = SimpleNamespace(sleep=clock.sleep, monotonic=clock)
    monkeypatch.setattr("airflow_provider_bitdance.hooks.bitdance.time", own_time)
    return clock


@pytest.fixture
def service(shared: LocalService, clock: Clock) -> LocalService:
    shared.reset()
    shared.service.clock = clock
    return shared


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Connect:
    """Return what makes a hook of a connection, as an environment variable holds it."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)

    def connect(uri: str | None = None, **fields: Any) -> BitDanceHook:
        given = uri or json.dumps({"conn_type": "bitdance", "password": KEY, **fields})
        monkeypatch.setenv("AIRFLOW_CONN_BITDANCE_TEST", given)
        return BitDanceHook("bitdance_test")

    return connect


@pytest.fixture
def hook(service: LocalService, connect: Connect) -> BitDanceHook:
    return connect(host=service.url)


# The connection.


@pytest.mark.parametrize(
    ("fields", "address"),
    [
        ({}, "https://api.wavespeed.ai"),
        ({"host": ""}, "https://api.wavespeed.ai"),
        ({"host": "  "}, "https://api.wavespeed.ai"),
        ({"host": "api.wavespeed.ai"}, "https://api.wavespeed.ai"),
        ({"host": "https://api.wavespeed.ai/"}, "https://api.wavespeed.ai"),
        ({"host": "https://api.wavespeed.ai/api/v3"}, "https://api.wavespeed.ai"),
        ({"host": "gateway.corp", "schema": "https", "port": 8443}, "https://gateway.corp:8443"),
        ({"host": "gateway.corp/ws", "port": 8443}, "https://gateway.corp:8443/ws"),
        ({"host": "127.0.0.1", "schema": "http", "port": 8000}, "http://127.0.0.1:8000"),
        ({"host": "http://127.0.0.1:8000"}, "http://127.0.0.1:8000"),
        ({"host": "http://127.0.0.1", "port": 8000}, "http://127.0.0.1:8000"),
        ({"host": "http://127.0.0.1:8000", "port": 9000}, "http://127.0.0.1:8000"),
        ({"host": "http://[::1]", "port": 8000}, "http://[::1]:8000"),
        ({"host": "http://gateway.corp", "extra": {"allow_http": True}}, "http://gateway.corp"),
    ],
)
def test_a_connection_leads_to_an_address(fields: dict[str, Any], address: str, connect: Connect) -> None:
    settings = connect(**fields).settings
    assert (settings.base_url, settings.api_key) == (address, KEY)


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        (f"bitdance://:{KEY}@api.wavespeed.ai", "https://api.wavespeed.ai"),
        (f"bitdance://:{KEY}@127.0.0.1:8000/http", "http://127.0.0.1:8000"),
        (f"bitdance://http://:{KEY}@127.0.0.1:8000", "http://127.0.0.1:8000"),
        (f"bitdance://:{KEY}@", "https://api.wavespeed.ai"),
    ],
)
def test_a_connection_may_be_a_uri(uri: str, address: str, connect: Connect) -> None:
    settings = connect(uri).settings
    assert (settings.base_url, settings.api_key) == (address, KEY)


def test_a_uri_carries_extra_fields_as_strings(connect: Connect) -> None:
    uri = f"bitdance://:{KEY}@api.wavespeed.ai?timeout=5&price_usd=0.02&allow_http=true&records_path=s3%3A%2F%2Fb%2Fr"
    assert connect(uri).extra == ConnectionExtra(
        timeout=5, price_usd=0.02, allow_http=True, records_path="s3://b/r"
    )


@pytest.mark.parametrize("password", [None, "", "  "])
def test_a_missing_key_names_the_connection_and_the_field(password: str | None, connect: Connect) -> None:
    with pytest.raises(InputError, match=r"'bitdance_test'.*API key is missing") as caught:
        connect(password=password).get_conn()
    assert "password field of the connection" in str(caught.value)


def test_http_to_another_machine_is_refused(connect: Connect) -> None:
    with pytest.raises(InputError, match=r"'bitdance_test'.*clear text.*allow_http"):
        connect(host="http://gateway.corp").get_conn()


@pytest.mark.parametrize(
    "host", ["https://", "https://user@gateway.corp", "gate way", "https://gateway.corp:x"]
)
def test_a_host_that_is_none_is_refused(host: str, connect: Connect) -> None:
    with pytest.raises(InputError, match=r"'bitdance_test'.*not a plain https URL"):
        connect(host=host).get_conn()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("price_usd", -1),
        ("price_usd", "cheap"),
        ("price_usd", "nan"),
        ("price_usd", "inf"),
        ("timeout", 0),
        ("timeout", "soon"),
        ("timeout", "inf"),
        ("records_path", 7),
        ("allow_http", "perhaps"),
    ],
)
def test_an_extra_field_that_is_wrong_is_named(field: str, value: object, connect: Connect) -> None:
    with pytest.raises(InputError, match=f"'bitdance_test'.*{field} is {value!r}"):
        connect(extra={field: value}).extra  # noqa: B018


def test_all_extra_fields_that_are_wrong_are_named(connect: Connect) -> None:
    with pytest.raises(InputError, match=r"price_usd.*timeout"):
        connect(extra={"price_usd": "cheap", "timeout": -1}).extra  # noqa: B018


def test_an_extra_that_is_no_object_is_refused() -> None:
    # Airflow 3.3 hands a list through; 3.1 refuses the connection itself.
    with pytest.raises(InputError, match="not a JSON object"):
        ConnectionExtra.of([1])  # type: ignore[arg-type]


def test_fields_left_empty_have_their_defaults_and_unknown_ones_are_ignored(connect: Connect) -> None:
    empty = {"price_usd": None, "timeout": "", "records_path": None, "allow_http": "", "comment": "mine"}
    assert connect(extra=empty).extra == connect(extra={}).extra == ConnectionExtra()


def test_the_time_out_of_the_connection_is_the_clients(connect: Connect) -> None:
    assert connect(extra={"timeout": 5}).settings.timeout == 5.0


def test_a_connection_is_read_once(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    hook = connect()
    settings = hook.settings
    monkeypatch.delenv("AIRFLOW_CONN_BITDANCE_TEST")
    assert hook.settings is settings
    assert hook.extra == ConnectionExtra()


def test_the_default_connection_is_bitdance_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_BITDANCE_DEFAULT", f"bitdance://:{KEY}@")
    assert BitDanceHook().settings.api_key == KEY


# test_connection.


def test_a_right_key_is_told_with_the_balance(hook: BitDanceHook, service: LocalService) -> None:
    assert hook.test_connection() == (True, "The key works. The balance is $100.00.")
    assert [event.path for event in service.requests()] == ["/api/v3/balance"]


def test_a_wrong_key_is_told_in_words(service: LocalService, connect: Connect) -> None:
    ok, message = connect(host=service.url, password="wrong-key").test_connection()
    assert (ok, message) == (
        False,
        "The API key was refused. Check it; a key works only after the first top-up.",
    )


def test_a_suspended_account_is_told_in_the_apis_words(hook: BitDanceHook, service: LocalService) -> None:
    service.add_fault(on="balance", kind="status", status=403)
    ok, message = hook.test_connection()
    assert not ok
    assert "Your account is suspended" in message


def test_a_missing_key_is_told_before_anything_is_sent(service: LocalService, connect: Connect) -> None:
    ok, message = connect(host=service.url, password="").test_connection()
    assert not ok
    assert "The API key is missing" in message
    assert service.requests() == []


def test_an_address_where_nobody_listens_is_told(connect: Connect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    ok, message = connect(host=f"http://127.0.0.1:{port}").test_connection()
    assert not ok
    assert "could not be reached. Check the address and the network" in message


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "truncated_json"},
        {"kind": "status", "status": 404, "body": "html"},
    ],
)
def test_another_service_at_the_address_is_told(
    wrong: dict[str, Any], hook: BitDanceHook, service: LocalService
) -> None:
    service.add_fault(on="balance", **wrong)
    ok, message = hook.test_connection()
    assert not ok
    assert "not the address of a WaveSpeed API. Check the host" in message


def test_a_path_that_is_wrong_is_told(service: LocalService, connect: Connect) -> None:
    ok, message = connect(host=f"{service.url}/elsewhere").test_connection()
    assert not ok
    assert "not the address of a WaveSpeed API" in message


def test_other_answers_are_told_as_their_errors_are(hook: BitDanceHook, service: LocalService) -> None:
    for status, said in ((400, "Insufficient credits"), (500, "Internal server error"), (429, "Slow down")):
        service.add_fault(on="balance", kind="status", status=status, message=said, times=1)
        ok, message = hook.test_connection()
        assert not ok
        assert said in message


# The methods.


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


def test_generate_waits_for_the_picture(hook: BitDanceHook, service: LocalService, clock: Clock) -> None:
    prediction = hook.generate(prompt=PROMPT, size="256*256", poll_interval=2)
    assert prediction.is_completed
    assert prediction.outputs[0].startswith(f"{service.url}/outputs/")
    assert clock.slept == [2.0, 2.0, 2.0]
    assert service.bill().billed == 1


def test_generate_tells_why_there_is_no_picture(hook: BitDanceHook, service: LocalService) -> None:
    service.add_fault(on="submit", kind="failed", code=1200, error=f"Sensitive: {PROMPT * 9}")
    with pytest.raises(errors.ModerationError) as caught:
        hook.generate(prompt=PROMPT * 9)
    assert PROMPT * 4 not in str(caught.value)


def test_generate_that_runs_out_of_time_names_the_prediction_that_is_paid_for(
    hook: BitDanceHook, service: LocalService, clock: Clock
) -> None:
    service.add_fault(on="submit", kind="never_finish")
    start = clock.now
    with pytest.raises(errors.PredictionTimeoutError, match="Not done within 60 s") as caught:
        hook.generate(prompt=PROMPT, timeout=60)
    (task,) = service.predictions()
    assert str(task["id"]) in str(caught.value)
    assert "generate again buys another image" in str(caught.value)
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
    ("fault", "looks"),
    [
        ({"kind": "status", "status": 401}, 1),
        ({"kind": "status", "status": 400}, 1),
        ({"kind": "status", "status": 500}, 10),
        ({"kind": "status", "status": 404}, 8),
    ],
    ids=str,
)
def test_generate_that_loses_sight_names_the_prediction_that_is_paid_for(
    fault: dict[str, Any], looks: int, hook: BitDanceHook, service: LocalService
) -> None:
    service.add_fault(on="result", **fault)
    with pytest.raises(errors.PredictionTimeoutError) as caught:
        hook.generate(prompt=PROMPT)
    (task,) = service.predictions()
    assert f"Looking at prediction {task['id']} failed" in str(caught.value)
    assert (caught.value.retry_helps, caught.value.paid) == (False, Paid.YES)
    assert len(service.requests()) == 1 + looks


def test_a_refused_submission_is_not_repeated(hook: BitDanceHook, service: LocalService) -> None:
    service.add_fault(on="submit", kind="status", status=503)
    with pytest.raises(errors.ServerError) as caught:
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


def test_the_form_has_the_fields_that_the_hook_reads_and_no_other() -> None:
    assert set(CONNECTION_FIELDS) == set(ConnectionExtra.model_fields)
    assert connection_type()["conn-fields"] == CONNECTION_FIELDS


@pytest.mark.parametrize("field", CONNECTION_FIELDS)
def test_the_form_shows_the_hooks_defaults(field: str) -> None:
    shown = CONNECTION_FIELDS[field]["schema"]
    default = ConnectionExtra.model_fields[field].default
    assert shown.get("default", "") == default
    jsonschema.validate(default, shown)
    jsonschema.validate(None, shown)


@pytest.mark.parametrize(("field", "value"), [("price_usd", -0.1), ("timeout", 0), ("allow_http", "yes")])
def test_the_form_refuses_what_the_hook_refuses(field: str, value: object) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(value, CONNECTION_FIELDS[field]["schema"])
