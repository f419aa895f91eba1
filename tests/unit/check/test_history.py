"""What is seen of one purchase while it is polled and listed."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_bitdance.check.assumptions import judge_all
from airflow_provider_bitdance.check.history import PAUSES, TRIES
from airflow_provider_bitdance.check.observations import Spending
from airflow_provider_bitdance.engine.lost_response_decisions import SHOWN_WITHIN
from tests.unit.check.support import Place
from tests.unit.support import refusal


def spent(place: Place) -> Spending:
    spending = place.seen(0.04).spending
    assert spending is not None
    return spending


def verdict(place: Place, name: str) -> str:
    found = judge_all(place.seen(0.04))
    return next(verdict.value for assumption, verdict, _ in found if assumption.name == name)


def test_the_history_is_listed_for_as_long_as_the_engine_waits_for_it() -> None:
    assert sum(PAUSES) == SHOWN_WITHIN


@pytest.mark.parametrize(("lag", "shown"), [(0.0, 0.0), (4.0, 4.0), (40.0, 45.0)])
def test_the_lag_of_the_history_is_measured(lag: float, shown: float) -> None:
    place = Place()
    place.account.lag = lag

    found = spent(place).listings

    assert all(listing.shown_after is not None for listing in found.values())
    assert found["all"].shown_after == pytest.approx(lag, abs=6.0)
    assert found["all"].shown_after <= shown + 1  # type: ignore[operator]


def test_a_history_that_shows_nothing_ends_the_listing_in_time() -> None:
    place = Place()
    place.account.lag = 10_000.0

    spending = spent(place)

    assert {listing.shown_after for listing in spending.listings.values()} == {None}
    assert spending.listings["by model"].listings == 1
    assert len(spending.purchases) == 3


def test_a_filter_that_does_not_match_is_tried_some_times() -> None:
    place = Place()
    history = place.account._history

    def deaf(asked: dict[str, Any]) -> Any:
        return history(asked | {"model": "another"} if "model" in asked else asked)

    place.account._history = deaf  # type: ignore[method-assign]
    found = spent(place).listings

    assert found["all"].shown_after is not None
    assert found["by date"].shown_after is not None
    assert (found["by model"].shown_after, found["by model"].listings) == (None, TRIES)
    assert found["as the engine lists"].shown_after is None


def test_filters_that_are_ignored_are_noticed() -> None:
    place = Place()
    place.account.filters = False

    spending = spent(place)

    assert (spending.excludes_model, spending.excludes_date) == (False, False)


@pytest.mark.parametrize("field", ["input", "inputs"])
def test_an_echo_in_the_history_is_found_in_either_field(field: str) -> None:
    place = Place()
    place.account.echo, place.account.echo_field = "history", field

    echo = spent(place).listings["all"].echo

    assert echo is not None
    assert (echo.field, echo.is_ours, echo.is_exact, echo.extra) == (field, True, True, ())


def test_an_echo_in_the_result_only_is_found() -> None:
    place = Place()
    place.account.echo = "poll"

    spending = spent(place)

    assert spending.polling is not None
    assert spending.polling.echo is not None
    assert spending.polling.echo.is_ours
    assert spending.listings["all"].echo is not None
    assert spending.listings["all"].echo.field == ""


@pytest.mark.parametrize(
    ("change", "is_ours", "is_exact"),
    [
        ({"size": "1024x1024"}, True, False),
        ({"prompt": "A red paper boat"}, False, False),
        ({"prompt": " A red paper boat  on a white table "}, True, False),
        ({"steps": 50}, True, True),
    ],
)
def test_the_form_of_an_echo_is_noticed(change: dict[str, Any], is_ours: bool, is_exact: bool) -> None:
    place = Place()
    place.account.echo = "history"
    explained = place.account._explained

    def changed(made: Any, *, echo: bool = False) -> dict[str, Any]:
        shown = explained(made, echo=echo)
        return shown | ({"input": shown["input"] | change} if "input" in shown else {})

    place.account._explained = changed  # type: ignore[method-assign]
    echo = spent(place).listings["all"].echo

    assert echo is not None
    assert (echo.is_ours, echo.is_exact) == (is_ours, is_exact)
    assert echo.extra == (("steps",) if "steps" in change else ())


def test_polls_that_do_not_know_the_prediction_yet_are_counted() -> None:
    place = Place()
    place.account.on_poll = [refusal(404, "no")] * 3  # the first is of a prediction that nobody made

    polling = spent(place).polling

    assert polling is not None
    assert polling.unknown == 2
    assert polling.known_after is not None
    assert polling.known_after > 0


def test_statuses_are_seen_in_their_order_and_strange_ones_are_not_named() -> None:
    place = Place()
    explained = place.account._explained

    def strange(made: Any, *, echo: bool = False) -> dict[str, Any]:
        shown = explained(made, echo=echo)
        return shown | {"status": "kestrel" if shown["status"] == "processing" else shown["status"]}

    place.account._explained = strange  # type: ignore[method-assign]
    polling = spent(place).polling

    assert polling is not None
    assert polling.statuses == ("other", "completed")


def test_a_clock_that_differs_is_allowed_for() -> None:
    place = Place()
    place.account.skew = 7200.0

    assert verdict(place, "clock") == "does not hold"
    assert verdict(place, "history_as_listed") == "holds"


def test_a_history_that_fails_costs_no_image() -> None:
    place = Place()
    place.account.instead["POST /api/v3/predictions"] = refusal(403)
    place.account.instead = {"POST /api/v3/predictions": refusal(503)}

    spending = spent(place)

    assert [each.error for each in spending.purchases] == ["", "", ""]
    assert spending.listings["all"].error == "ServerError"


def test_the_lines_say_what_is_bought() -> None:
    place = Place()
    spent(place)

    assert any(line.startswith("Buying 3 images for about $0.03") for line in place.lines)
    assert sum(line.startswith("Bought prediction") for line in place.lines) == 3
