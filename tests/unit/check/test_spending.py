"""What a check buys, and what it never does."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_bitdance.check.account import SIZES, Figures
from airflow_provider_bitdance.check.observations import Refusal, Spending
from airflow_provider_bitdance.check.spending import refusal_of
from airflow_provider_bitdance.engine import Policy
from airflow_provider_bitdance.exceptions import StorageError
from airflow_provider_bitdance.wavespeed.responses import Price
from tests.unit.check.support import SUBMIT, Place
from tests.unit.support import envelope, refusal
from tests.wire import httpx


def spent(place: Place, amount: float = 0.04) -> Spending:
    spending = place.seen(amount).spending
    assert spending is not None
    return spending


def posts(place: Place) -> int:
    return place.account.requests.count(f"POST {SUBMIT}")


def figures(price: float = 0.01, discounted: float | None = None, *, balance: float | None = 1.0) -> Figures:
    return Figures(balance, {size: Price(price=price, discounted_price=discounted) for size in SIZES})


def price(usd: float) -> Price:
    return Price(price=usd)


MIXED = dict(zip(SIZES, map(price, (0.01, 0.02, 0.01)), strict=True))


@pytest.mark.parametrize(
    ("known", "amount", "expected"),
    [
        (figures(), 0.03, None),
        (figures(), 0.04, None),
        (figures(), 0.0299, Refusal.ABOVE_AMOUNT),
        (figures(0.02), 0.04, Refusal.ABOVE_AMOUNT),
        # Which of the two figures is charged is not documented, so the higher one has to fit.
        (figures(0.02, 0.01), 0.04, Refusal.ABOVE_AMOUNT),
        (figures(0.01, 0.02), 0.04, Refusal.ABOVE_AMOUNT),
        # A quote of nothing is no reason to buy without limit; one below it is refused when it is read.
        (figures(0.0), 0.02, Refusal.ABOVE_AMOUNT),
        # Two of one job count with the higher of their prices: 0.01 + 2 * 0.02.
        (Figures(1.0, MIXED), 0.049, Refusal.ABOVE_AMOUNT),
        (Figures(1.0, MIXED), 0.05, None),
        (figures(balance=0.02), 0.04, Refusal.ABOVE_BALANCE),
        (figures(balance=0.03), 0.04, None),
        (figures(balance=None), 0.04, Refusal.NO_BALANCE),
        (Figures(1.0, {SIZES[0]: Price(price=0.01)}), 0.04, Refusal.NO_PRICE),
    ],
)
def test_all_purchases_have_to_fit_before_the_first_one(
    known: Figures, amount: float, expected: Refusal | None
) -> None:
    assert refusal_of(known, amount) is expected


def test_nothing_is_bought_without_an_amount() -> None:
    place = Place()

    assert place.seen().spending is None
    assert place.account.billed == posts(place) == 0
    assert not any("/jobs/" in name for name in place.disk)


def test_three_images_are_bought_through_the_journal_and_stored() -> None:
    place = Place()

    spending = spent(place)

    assert [(each.requested, each.error) for each in spending.purchases] == [(size, "") for size in SIZES]
    assert place.account.billed == posts(place) == 3
    names = [name for name in place.disk if "/jobs/" in name]
    assert names
    assert all("/jobs/check/check__" in name for name in names)
    journals = b"".join(place.disk[name] for name in names).decode()
    assert all(made in journals for made in place.account.made)
    assert sum(name.endswith(".png") for name in place.disk) == 3


def test_prices_and_balance_come_before_the_first_purchase() -> None:
    place = Place()
    spent(place)

    first = place.account.requests.index(f"POST {SUBMIT}")
    before = place.account.requests[:first]
    assert before.count("POST /api/v3/model/price") == 3
    assert "GET /api/v3/balance" in before


@pytest.mark.parametrize(
    ("price", "balance", "amount"), [(0.02, 10.0, 0.04), (0.01, 0.02, 0.04), (0.01, 10.0, 0.02)]
)
def test_what_does_not_fit_buys_nothing(price: float, balance: float, amount: float) -> None:
    place = Place()
    place.account.price, place.account.balance = price, balance

    assert spent(place, amount).refused in (Refusal.ABOVE_AMOUNT, Refusal.ABOVE_BALANCE)
    assert place.account.billed == posts(place) == 0


def test_where_no_price_is_quoted_nothing_is_bought() -> None:
    place = Place()
    place.account.instead["POST /api/v3/model/price"] = refusal(500)

    assert spent(place).refused is Refusal.NO_PRICE
    assert posts(place) == 0


def test_the_engine_knows_what_is_left_of_the_amount(monkeypatch: pytest.MonkeyPatch) -> None:
    place, limits = Place(), []

    def policy(**options: Any) -> Policy:
        limits.append(options["max_cost_usd"])
        return Policy(**options)

    monkeypatch.setattr("airflow_provider_bitdance.check.purchases.Policy", policy)
    spent(place, 0.035)

    assert limits == [pytest.approx(0.01), pytest.approx(0.025)]


def test_where_a_store_cannot_be_used_nothing_is_bought(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place()

    def full(*_: object) -> None:
        raise StorageError("The disk is full")

    monkeypatch.setattr("tests.unit.check.support.DiskFolder.create", full)

    assert spent(place).refused is Refusal.NO_STORE
    assert posts(place) == 0


def test_a_lost_response_is_not_bought_again_and_is_written_down() -> None:
    place = Place()
    place.account.on_post = [place.account.lose_answer]

    spending = spent(place)

    assert posts(place) == place.account.billed == 1
    assert spending.refused is Refusal.FIRST_FAILED
    (purchase,) = spending.purchases
    assert (purchase.error, purchase.is_paid) == ("UnconfirmedPurchaseError", "possibly")
    assert any(b'"lost"' in data for data in place.disk.values())


def test_a_lost_response_that_the_history_proves_is_collected() -> None:
    place = Place()
    place.account.echo = "history"
    place.account.on_post = [place.account.lose_answer]

    spending = spent(place)

    assert posts(place) == place.account.billed == 3
    assert [each.error for each in spending.purchases] == ["", "", ""]


def test_nothing_more_is_bought_where_the_first_one_fails() -> None:
    place = Place()
    place.account.on_post = [place.account.answer_failing(status="failed", error="no", code=1403)]

    assert spent(place).refused is Refusal.FIRST_FAILED
    assert posts(place) == 1


def test_nothing_more_is_bought_where_the_first_one_costs_more_than_quoted() -> None:
    place = Place()
    place.account.charge = 0.02

    spending = spent(place)

    assert spending.refused is Refusal.CHARGED_MORE
    assert posts(place) == 1
    assert spending.purchases[0].is_charged_as_quoted is False


def test_a_submission_that_is_refused_ends_the_purchases() -> None:
    place = Place()
    place.account.on_post = [refusal(400, "Insufficient credits. Please top up.")]

    spending = spent(place)

    assert (posts(place), place.account.billed) == (1, 0)
    assert spending.purchases[0].error == "InsufficientCreditError"
    assert any("Top up the WaveSpeed account" in line for line in place.lines)
    assert spending.purchases[0].is_paid == "no"


def test_only_what_it_bought_is_deleted() -> None:
    place = Place()
    stranger = place.account.create({"prompt": "of another program", "size": "512*512", "seed": 1})

    spending = spent(place)

    assert spending.deleted == 1
    assert len(place.account.deleted) == 1
    assert stranger.id not in place.account.deleted
    assert set(place.account.deleted) <= place.account.made.keys() - {stranger.id}


def test_an_image_that_is_not_stored_is_not_deleted() -> None:
    place = Place()
    place.account.on_download = [httpx.Response(404)] * 30

    spending = spent(place)

    assert spending.purchases[0].error == "OutputError"
    assert spending.deletion is None
    assert place.account.deleted == []


def test_a_batch_that_is_stored_in_part_deletes_what_is_stored() -> None:
    place = Place()
    account = place.account
    account.on_post = [account.answer_rightly, account.answer_failing(status="failed", error="no")]

    spending = spent(place)

    assert sorted(each.error for each in spending.purchases) == ["", "", "PredictionFailedError"]
    assert posts(place) == 3
    assert spending.deleted == 1


def test_a_submission_with_a_strange_response_is_left_to_the_engine() -> None:
    place = Place()
    place.account.on_post = [envelope({"id": "../../etc", "status": "created"})]

    spending = spent(place)

    assert posts(place) == 1
    assert spending.polling is None
    assert spending.purchases[0].is_paid == "possibly"
