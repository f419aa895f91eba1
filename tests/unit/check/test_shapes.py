"""What of a response may be published, and what never is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_bitdance.check.shapes import (
    DOCUMENTED,
    MAX_NAMES,
    MEDIA_TYPES,
    OTHER,
    host_of,
    name_of,
    shape_of,
)
from airflow_provider_bitdance.wavespeed.protocol import Exchange

SECRETS = ("wsk_live_kestrel", "A heron on the weir", "9f86d081884c4d659a2feaa0c55ad015")


def an_exchange(body: object, **headers: str) -> Exchange:
    shown = {name.replace("_", "-"): value for name, value in headers.items()}
    return Exchange("GET", "https://api.example/x", 200, shown, json.dumps(body).encode())


def test_the_keys_of_a_response_are_shown_by_their_place_and_no_value_is() -> None:
    body = {
        "code": 200,
        "data": {"items": [{"id": SECRETS[2], "inputs": {"prompt": SECRETS[1]}}, {"other": 1}]},
    }
    shape = shape_of(an_exchange(body, content_type="application/json; charset=utf-8", date="now"))

    assert shape.keys == {
        "": ("code", "data"),
        "data": ("items",),
        "data.items[]": ("id", "inputs"),
        "data.items[].inputs": ("prompt",),
    }
    assert (shape.status, shape.media_type, shape.headers) == (
        200,
        "application/json",
        ("content-type", "date"),
    )


@pytest.mark.parametrize("name", ["wsk_live_kestrel", "kestrel", "heron", "A heron on the weir", "x" * 41])
def test_a_name_that_may_say_something_is_not_shown(name: str) -> None:
    assert name_of(name, SECRETS) == OTHER


@pytest.mark.parametrize("name", [SECRETS[2], "2026-11-29", "user_4711_x9", "naïve", "", "a b"])
def test_a_name_that_is_no_plain_word_is_not_shown(name: str) -> None:
    assert name_of(name, ()) == OTHER


@pytest.mark.parametrize("name", ["prompt", "id", "executionTime", "sha256", "x-request-id"])
def test_a_documented_or_plain_name_is_shown_even_where_a_secret_has_its_letters(name: str) -> None:
    secrets = ("an idle prompt",) if name in DOCUMENTED else ()

    assert name_of(name, secrets) == name


def test_a_response_that_is_no_json_has_no_keys() -> None:
    exchange = Exchange("GET", "https://api.example", 502, {"content-type": "text/html"}, b"<html>gone")

    assert shape_of(exchange).keys == {}
    assert shape_of(exchange).media_type == "text/html"
    assert shape_of(None).status == 0


def test_a_media_type_that_nobody_knows_is_not_shown() -> None:
    assert shape_of(an_exchange({}, content_type="application/kestrel")).media_type == OTHER


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://d2h7xmz5gqybh9.cloudfront.net/output/a.png", "d2h7xmz5gqybh9.cloudfront.net"),
        ("https://wsk_live_kestrel.example/a", OTHER),
        ("https://user:pass@cdn.example:8443/a?b", "cdn.example"),
        ("https://[::1", OTHER),
        ("no url", OTHER),
    ],
)
def test_of_a_url_only_the_host_is_shown(url: str, shown: str) -> None:
    assert host_of(url, SECRETS) == shown


def test_a_host_that_holds_a_secret_is_not_shown() -> None:
    assert host_of("https://kestrel.cdn.example/a.png", ("kestrel",)) == OTHER
    assert host_of("https://cdn.example/a.png", ("kestrel",)) == "cdn.example"


def test_what_is_shown_is_bounded() -> None:
    many = {f"{chr(97 + number % 26)}{chr(97 + number // 26)}x": number for number in range(600)}
    deep: Any = {"a": {}}
    for _ in range(50):
        deep = {"a": deep}

    assert len(shape_of(an_exchange(many)).keys[""]) <= MAX_NAMES
    assert len(shape_of(an_exchange(deep)).keys) <= 5
    assert shape_of(an_exchange([[[[[[]]]]]])).keys == {}


TEXTS = (
    st.sampled_from([*SECRETS, *(secret.upper() for secret in SECRETS), "kestrel", "data", "x"]) | st.text()
)
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=12,
)


@given(JSON, st.dictionaries(TEXTS, TEXTS, max_size=3))
def test_no_secret_gets_through_whatever_the_response_is(body: object, headers: dict[str, str]) -> None:
    exchange = Exchange("GET", "https://api.example", 200, headers, json.dumps(body).encode())
    shape = shape_of(exchange, secrets=SECRETS)
    names = {*shape.headers, *(name for names in shape.keys.values() for name in names), *shape.keys}

    assert not any(secret.lower() in name.lower() for secret in SECRETS for name in names)
    assert shape.media_type in {*MEDIA_TYPES, OTHER, ""}
