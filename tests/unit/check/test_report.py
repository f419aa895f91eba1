"""The JSON of a check is fit for a bug report: it says nothing of the account, whatever the API sends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_bitdance.check.account import PROMPT
from airflow_provider_bitdance.check.assumptions import ASSUMPTIONS
from airflow_provider_bitdance.check.render import shown_report
from airflow_provider_bitdance.check.run import check
from airflow_provider_bitdance.exceptions import InputError
from tests.unit.check.support import SUBMIT, Place
from tests.unit.support import API_HOST, API_KEY, envelope, refusal
from tests.wire import httpx

BALANCE = 73.1904
STRANGER = "A heron on the weir"


def as_text(place: Place, amount: float = 0.04) -> str:
    return json.dumps(place.check(amount).as_json())


def assert_discreet(text: str, place: Place) -> None:
    """Search a report for all that belongs to the account."""
    made = list(place.account.made.values())
    secrets = [
        *(
            API_KEY,
            API_HOST,
            PROMPT,
            STRANGER,
            "73.19",
            "73.16",
            "http://",
            "https://",
            "mem://",
            "/outputs/",
        ),
        *(each.id for each in made),
        *(str(each.body["seed"]) for each in made if each.body["seed"] > 9),
    ]
    assert [secret for secret in secrets if secret.lower() in text.lower()] == []


def leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for inner in value.values() for leaf in leaves(inner)]
    if isinstance(value, list | tuple):
        return [leaf for inner in value for leaf in leaves(inner)]
    return [value]


def a_busy_place() -> Place:
    """Return an account with a balance to be recognized by, on which somebody else has bought, too."""
    place = Place()
    place.account.echo = "history"
    place.account.balance = BALANCE
    place.account.create({"prompt": STRANGER, "size": "512*512", "seed": 77123})
    return place


def test_a_report_says_nothing_of_the_account() -> None:
    place = a_busy_place()

    text = as_text(place)

    assert place.account.billed == 4
    assert_discreet(text, place)
    outputs = [each["output"] for each in json.loads(text)["observations"]["spending"]["purchases"]]
    assert {output["host"] for output in outputs} == {"127.0.0.1"}
    assert {output["media_type"] for output in outputs} == {"image/png"}


def test_a_report_of_a_failed_purchase_says_nothing_of_the_account() -> None:
    for answer in (
        httpx.Response(400, json={"code": 400, "message": f"bad {PROMPT} with {API_KEY}"}),
        httpx.Response(500, text=f"<html>{API_KEY} {PROMPT}"),
        httpx.ReadTimeout(f"{API_KEY}"),
    ):
        place = a_busy_place()
        place.account.on_post = [answer]

        assert_discreet(as_text(place), place)


def test_an_api_that_uses_secrets_as_names_does_not_get_them_into_a_report() -> None:
    place = a_busy_place()
    account = place.account
    explained = account._explained

    def as_names(made: Any, *, echo: bool = False) -> dict[str, Any]:
        names = (made.id, PROMPT, API_KEY, f"http://{API_HOST}/outputs/{made.id}")
        return explained(made, echo=echo) | {name: {name: 1} for name in names}

    account._explained = as_names  # type: ignore[method-assign]
    account.instead["GET /api/v3/balance"] = httpx.Response(
        200,
        json={"code": 200, "data": {"balance": account.balance, API_KEY: 1, f"{account.balance}": 1}},
        headers={API_KEY: "x", "x-73-1904": "y", "content-type": f"text/{API_KEY}"},
    )

    assert_discreet(as_text(place), place)


def test_every_leaf_is_a_truth_a_number_or_a_short_name() -> None:
    report = a_busy_place().check(0.04).as_json()
    texts = [leaf for leaf in leaves(report) if isinstance(leaf, str)]

    assert all(isinstance(leaf, bool | int | float | str | None) for leaf in leaves(report))
    assert max(map(len, texts)) <= 60
    assert report["verdicts"].keys() == {each.name for each in ASSUMPTIONS}


def test_what_is_printed_has_no_key_and_no_output_url() -> None:
    place = a_busy_place()

    printed = "\n".join([shown_report(place.check(0.04)), *place.lines])

    assert API_KEY not in printed
    assert "/outputs/" not in printed
    assert STRANGER not in printed


def test_the_table_says_what_to_do_where_something_does_not_hold() -> None:
    place = Place()
    place.account.real_sizes["1280*720"] = "1280*768"

    printed = shown_report(place.check(0.04))

    assert "it is 1280*768" in printed
    assert "-> Read the size of an image from its result, which has the real size." in printed


def test_without_a_purchase_the_table_says_how_to_see_more() -> None:
    place = Place()
    report = place.check()

    assert "--spend 0.04" in shown_report(report).splitlines()[-1]
    assert not report.needs_attention


def test_a_wrong_key_is_one_row_and_nothing_else_is_requested() -> None:
    place = Place()
    place.account.instead["GET /api/v3/balance"] = httpx.Response(401, json=envelope(None).json())

    report = place.check(0.04)

    assert report.needs_attention
    assert report.as_json()["verdicts"]["key"] == "does not hold"
    assert f"POST {SUBMIT}" not in place.account.requests
    assert len(place.account.requests) == 1


@pytest.mark.parametrize("name", ["", "missing/report.json"], ids=["a folder", "in a missing folder"])
def test_a_report_that_cannot_be_written_is_refused_before_anything_is_requested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    connection = '{"conn_type": "bitdance", "password": "k", "host": "http://127.0.0.1:9"}'
    monkeypatch.setenv("AIRFLOW_CONN_BITDANCE_DEFAULT", connection)
    said: list[str] = []

    with pytest.raises(InputError, match="cannot be written"):
        check(output_path=str(tmp_path), spend=0.04, json_file=str(tmp_path / name), say=said.append)

    assert said == []


@pytest.mark.parametrize(("status", "is_told"), [(200, True), (401, False)])
def test_the_way_to_see_more_is_told_where_the_key_works(status: int, is_told: bool) -> None:
    place = Place()
    if status != 200:
        place.account.instead["GET /api/v3/balance"] = refusal(status)
    assert ("--spend 0.04 buys three images" in shown_report(place.check(0.0))) is is_told
