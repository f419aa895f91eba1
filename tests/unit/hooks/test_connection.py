"""From an Airflow connection to what client and operators need, however the connection is written."""

from __future__ import annotations

import asyncio
import re
from typing import Any
from unittest.mock import Mock

import jsonschema
import pytest

from airflow_provider_bitdance.exceptions import InputError
from airflow_provider_bitdance.get_provider_info import CONNECTION_FIELDS
from airflow_provider_bitdance.hooks.bitdance import BitDanceHook
from airflow_provider_bitdance.hooks.connection import ConnectionExtra
from airflow_provider_bitdance.redaction import shorten
from airflow_provider_bitdance.wavespeed.models import BITDANCE_14B
from tests.unit.hooks.support import KEY, Connect


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
        ("price_usd", 10_001),
        ("timeout", 0),
        ("timeout", "soon"),
        ("timeout", "inf"),
        ("timeout", 601),
        ("records_path", 7),
        ("records_path", "bucket/records"),
        ("allow_http", "perhaps"),
        ("max_in_flight", 0),
        ("max_in_flight", 1001),
        ("max_in_flight", 2.5),
        ("max_in_flight", True),
        ("price_usd", True),
        ("live_price", "off course"),
        ("max_in_flight", "many"),
        ("requests_per_minute", 0),
        ("requests_per_minute", 10_001),
        ("model_prices", "cheap"),
        ("model_prices", "[" * 9000),
        ("model_prices", [0.01]),
        ("model_prices", "[0.01]"),
        ("model_prices", {"flux": 0.01}),
        ("model_prices", {"a/b?c": 0.01}),
        ("model_prices", {"wavespeed-ai/flux-dev": True}),
    ],
)
def test_an_extra_field_that_is_wrong_is_named(field: str, value: object, connect: Connect) -> None:
    with pytest.raises(InputError, match=f"'bitdance_test'.*{field} is {re.escape(shorten(repr(value)))}"):
        connect(extra={field: value}).extra  # noqa: B018


@pytest.mark.parametrize("price", [-0.1, "cheap", None, 10_001, float("nan"), "inf", {}])
def test_a_models_price_that_is_none_is_named(price: object) -> None:
    with pytest.raises(InputError, match=r"model_prices\.wavespeed-ai/flux-dev is .*"):
        ConnectionExtra.of({"model_prices": {"wavespeed-ai/flux-dev": price}})


@pytest.mark.parametrize(
    "given",
    [
        {"vendor/model": 0.03, "wavespeed-ai/prompt-optimizer": "0.002"},
        '{"vendor/model": 0.03, "wavespeed-ai/prompt-optimizer": 0.002}',
    ],
)
def test_prices_of_models_may_be_an_object_or_json(given: object, connect: Connect) -> None:
    extra = connect(extra={"model_prices": given, "price_usd": 0.02}).extra
    assert extra.prices == {BITDANCE_14B: 0.02, "vendor/model": 0.03, "wavespeed-ai/prompt-optimizer": 0.002}


def test_a_price_of_bitdance_among_those_of_the_models_goes_first() -> None:
    extra = ConnectionExtra.of({"price_usd": 0.02, "model_prices": {BITDANCE_14B: 0.03}})
    assert extra.prices == {BITDANCE_14B: 0.03}


def test_all_extra_fields_that_are_wrong_are_named(connect: Connect) -> None:
    with pytest.raises(InputError, match=r"price_usd.*timeout"):
        connect(extra={"price_usd": "cheap", "timeout": -1}).extra  # noqa: B018


def test_an_extra_that_is_no_object_is_refused() -> None:
    # Airflow 3.3 hands a list through; 3.1 refuses the connection itself.
    with pytest.raises(InputError, match="not a JSON object"):
        ConnectionExtra.of([1])  # type: ignore[arg-type]


def test_fields_left_empty_have_their_defaults(connect: Connect) -> None:
    for empty in (None, ""):
        assert connect(extra=dict.fromkeys(CONNECTION_FIELDS, empty)).extra == ConnectionExtra()


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Mock:
    """Return the hook's log."""
    log = Mock()
    monkeypatch.setattr(BitDanceHook, "log", log)
    return log


def test_a_slip_in_a_field_s_name_is_told_once_with_the_name_that_was_meant(
    connect: Connect, log: Mock
) -> None:
    extra = {"recods_path": "s3://b/private", "Max-In-Flight": 3, "comment": "mine", "timeout": 5}

    hook = connect(extra=extra)

    assert (hook.extra, hook.settings.timeout) == (ConnectionExtra(timeout=5), 5)
    (told,) = log.warning.call_args_list
    assert told.args[0] % told.args[1:] == (
        "Connection 'bitdance_test': Unknown extra fields have no effect: 'recods_path' (did you mean "
        "records_path?), 'Max-In-Flight' (did you mean max_in_flight?), 'comment'."
    )


def test_a_trigger_is_told_of_a_slip_too(connect: Connect, log: Mock) -> None:
    async def read(hook: BitDanceHook) -> None:
        await (await hook.get_async_conn()).aclose()

    asyncio.run(read(connect(extra={"recods_path": "/data"})))

    assert "'recods_path' (did you mean records_path?)" in str(log.warning.call_args)


def test_known_fields_are_no_reason_to_warn(connect: Connect, log: Mock) -> None:
    assert connect(extra=ConnectionExtra(max_in_flight=3).model_dump()).extra.max_in_flight == 3
    assert log.mock_calls == []


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


# The form.


def test_the_form_has_the_fields_that_the_hook_reads_and_no_other() -> None:
    assert set(CONNECTION_FIELDS) == set(ConnectionExtra.model_fields)


@pytest.mark.parametrize("field", CONNECTION_FIELDS)
def test_the_form_shows_the_hooks_defaults(field: str) -> None:
    shown = CONNECTION_FIELDS[field]["schema"]
    default = ConnectionExtra.model_fields[field].default
    default = "" if default == {} else default  # an object is written as JSON
    assert shown.get("default") == (None if default == "" else default)
    jsonschema.validate(default, shown)
    jsonschema.validate(None, shown)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("price_usd", -0.1),
        ("timeout", 0),
        ("allow_http", "perhaps"),
        ("max_in_flight", 0),
        ("max_in_flight", 1001),
        ("max_in_flight", 2.5),
        ("requests_per_minute", 0),
        ("requests_per_minute", 10_001),
    ],
)
def test_the_form_refuses_what_the_hook_refuses(field: str, value: object) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(value, CONNECTION_FIELDS[field]["schema"])
    with pytest.raises(InputError, match=field):
        ConnectionExtra.of({field: value})
