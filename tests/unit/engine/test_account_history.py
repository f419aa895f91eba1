"""Which entries of the account's history may be about a purchase of ours, by two clocks that differ."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from airflow_provider_bitdance.engine.account_history import (
    CLOCK_MARGIN,
    MAX_ASKED,
    History,
    read_history,
    with_charged,
)
from airflow_provider_bitdance.exceptions import RequestRefusedError
from airflow_provider_bitdance.wavespeed.image_request import BITDANCE_14B
from airflow_provider_bitdance.wavespeed.responses import BillingRecord, Prediction
from tests.unit.support import START, World, envelope, refusal, run


def made_at(moment: float) -> Prediction:
    return Prediction(id="p-1", created_at=datetime.fromtimestamp(moment, UTC))


@pytest.mark.parametrize("skew", [0.0, 90.0, -90.0])
@pytest.mark.parametrize(
    ("seconds", "may_be"), [(60.0, True), (0.0, True), (-CLOCK_MARGIN, True), (-CLOCK_MARGIN - 1, False)]
)
def test_what_was_made_a_moment_before_by_the_api_s_clock_may_be_ours(
    skew: float, seconds: float, may_be: bool
) -> None:
    prediction = made_at(START + skew + seconds)
    assert History((prediction,), skew).since(START) == [prediction][: int(may_be)]


def test_what_has_no_time_may_be_ours() -> None:
    prediction = Prediction(id="p-1")
    assert History((prediction,)).since(START) == [prediction]


def test_the_oldest_comes_first() -> None:
    newer, older = made_at(START + 2), made_at(START + 1)
    assert History((newer, older)).since(START) == [older, newer]


def test_the_history_is_asked_for_from_a_moment_before_on() -> None:
    world = World()
    run(read_history(world.api.client(), world.clock, model=BITDANCE_14B, since=START))
    (asked,) = world.api.histories
    assert datetime.fromisoformat(asked["created_after"]).timestamp() == START - CLOCK_MARGIN


def test_an_api_that_never_comes_to_an_end_is_asked_for_a_hundred_pages() -> None:
    world = World()
    world.api.on_history = [
        envelope({"page": page, "items": [{"id": f"p-{page}", "status": "completed"}]})
        for page in range(1, 120)
    ]
    history = run(read_history(world.api.client(), world.clock, model=BITDANCE_14B, since=START))
    assert len(history.items) == len(world.api.histories) == 100
    assert not history.is_whole


def test_inputs_are_asked_for_and_once_without_where_the_api_refuses_to() -> None:
    world = World()
    world.api.on_history = [refusal(400, "unknown field include_inputs")]
    world.api.create({})
    history = run(read_history(world.api.client(), world.clock, model=BITDANCE_14B, since=START))
    assert [asked.get("include_inputs") for asked in world.api.histories] == [True, None, None]
    assert len(history.items) == 1


def test_a_history_that_is_refused_with_and_without_the_inputs_is_refused() -> None:
    world = World()
    world.api.on_history = [refusal(400)] * 9
    with pytest.raises(RequestRefusedError):
        run(read_history(world.api.client(), world.clock, model=BITDANCE_14B, since=START))
    assert len(world.api.histories) == 2


@pytest.mark.parametrize(("rows", "is_whole"), [([], True), ([{"id": "a/b"}], False)])
def test_a_history_with_a_row_that_cannot_be_read_is_not_whole(
    rows: list[dict[str, Any]], is_whole: bool
) -> None:
    world = World()
    world.api.on_history = [envelope({"page": 1, "items": [{"id": "p-1"}, *rows]})] * 2
    history = run(read_history(world.api.client(), world.clock, model=BITDANCE_14B, since=START))
    assert (len(history.items), history.is_whole) == (1, is_whole)


@pytest.mark.parametrize(("charges", "is_whole"), [(MAX_ASKED, True), (MAX_ASKED + 1, False)])
def test_of_very_many_charges_that_the_history_does_not_show_a_hundred_are_asked_for(
    charges: int, is_whole: bool
) -> None:
    world = World()
    bill = [BillingRecord(price=0.01, prediction_id=f"p-{number}") for number in range(charges)]
    client = world.api.client()
    completed = run(with_charged(client, History(()), bill, models=[BITDANCE_14B], known=(), since=START))
    assert (len(completed.items), completed.is_whole) == (MAX_ASKED, is_whole)
    assert len(world.api.polls) == MAX_ASKED


def test_a_charge_of_before_and_one_that_the_records_know_are_not_asked_for() -> None:
    world = World()
    before = datetime.fromtimestamp(START - 61, UTC)
    bill = [
        BillingRecord(price=0.01, prediction_id="early", created_at=before),
        BillingRecord(price=0.01, prediction_id="known"),
    ]
    client = world.api.client()
    completed = run(
        with_charged(client, History(()), bill, models=[BITDANCE_14B], known=["known"], since=START)
    )
    assert (completed.items, world.api.polls) == ((), [])
