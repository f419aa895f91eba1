"""Which entries of the account's history may be about a purchase of ours, by two clocks that differ."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from airflow_provider_bitdance.engine.account_history import CLOCK_MARGIN, History, read_history
from airflow_provider_bitdance.wavespeed.image_request import BITDANCE_14B
from airflow_provider_bitdance.wavespeed.responses import Prediction
from tests.unit.support import START, World, envelope, run


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
