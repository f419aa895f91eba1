"""The books: charges and refunds by record, by model and by day, and that they add up to the bill."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_bitdance.local.books import Record
from airflow_provider_bitdance.local.inputs import BillingQuery, Refused, UsageQuery, checked
from airflow_provider_bitdance.local.service import Options
from tests.unit.local.builders import BITDANCE, FLUX, FULL_MINUTE, Account

DAY = 24 * 3600


def _account() -> Account:
    """Two good ones and a failed one, on two days."""
    account = Account(Options(latency=10, refund_after=100))
    account.rule(on="submit", kind="failed", match="bad")
    account.submit("good")
    account.move(1)
    account.submit("bad", FLUX)
    account.move(DAY)
    account.submit("good too")
    return account


def _records(account: Account, **query: object) -> list[Record]:
    return account.service.billing(checked(BillingQuery, query))[0]


def _told(records: list[Record]) -> list[tuple[str, str, Decimal, float]]:
    return [
        (record.billing_type, record.model, record.price, record.created_at - FULL_MINUTE)
        for record in records
    ]


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def _usage(**query: object) -> UsageQuery:
    return checked(
        UsageQuery, {"start_time": _iso(FULL_MINUTE), "end_time": _iso(FULL_MINUTE + 2 * DAY), **query}
    )


def test_charges_and_refunds_are_listed_newest_first() -> None:
    account = _account()
    records = _records(account)
    cent, flux = Decimal("0.01"), Decimal("0.012")
    assert _told(records) == [
        ("deduct", BITDANCE, cent, 1 + DAY),
        ("refund", FLUX, flux, 1 + 10 + 100),
        ("deduct", FLUX, flux, 1),
        ("deduct", BITDANCE, cent, 0),
    ]
    assert [record.status for record in records] == ["created", "failed", "failed", "completed"]
    assert _told(_records(account, sort="created_at ASC")) == _told(records)[::-1]


def test_records_have_a_uuid_of_their_own_that_stays() -> None:
    account = _account()
    records = _records(account)
    assert len({record.uuid for record in records}) == 4
    assert _records(account) == records
    refund, charge = records[1], records[2]
    assert (refund.order_uuid, refund.prediction_id) == (charge.order_uuid, charge.prediction_id)


def test_a_refund_is_in_the_books_only_when_it_was_given() -> None:
    account = Account(Options(latency=10, refund_after=100))
    account.rule(on="submit", kind="failed")
    account.submit()
    account.move(109.9)
    assert [record.billing_type for record in _records(account)] == ["deduct"]
    account.move(0.1)
    assert [record.billing_type for record in _records(account)] == ["refund", "deduct"]


def test_who_deletes_a_prediction_has_paid_for_it_all_the_same() -> None:
    account = _account()
    before = _records(account)
    account.service.delete([record.prediction_id for record in before])
    assert _records(account) == before
    assert account.service.predictions() == []


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"billing_type": "refund"}, [1]),
        ({"billing_type": "top_up"}, []),
        ({"model_uuid": FLUX}, [1, 2]),
        ({"start_time": _iso(FULL_MINUTE + 1)}, [0, 1, 2]),
        ({"end_time": _iso(FULL_MINUTE + 1)}, [2, 3]),
        ({"start_time": str(int(FULL_MINUTE + 1) * 1000), "end_time": _iso(FULL_MINUTE + DAY)}, [1, 2]),
        ({"access_key_uuid": "x"}, []),
        ({"prediction_uuids": []}, []),
    ],
)
def test_a_query_filters(query: Mapping[str, object], found: list[int]) -> None:
    account = _account()
    everything = _records(account)
    assert _records(account, **query) == [everything[number] for number in found]
    one = everything[1].prediction_id
    assert _records(account, prediction_uuids=[one]) == everything[1:3]


def test_pages_tell_whether_there_are_more() -> None:
    account = _account()
    everything = _records(account)
    pages = [account.service.billing(BillingQuery(page=page, page_size=2)) for page in (1, 2, 3)]
    assert pages == [(everything[:2], True), (everything[2:], False), ([], False)]


@pytest.mark.parametrize(
    "query",
    [
        {"page": 0},
        {"page_size": 101},
        {"sort": "price"},
        {"start_time": 5},
        {"start_time": "yesterday"},
        {"prediction_uuids": "x"},
    ],
)
def test_a_bad_query_is_refused_by_field(query: Mapping[str, object]) -> None:
    (field,) = query
    with pytest.raises(Refused, match=f"^Invalid parameter {field}") as refusal:
        checked(BillingQuery, query)
    assert refusal.value.status == 400


def test_usage_adds_up_by_model_and_by_day() -> None:
    account = _account()
    usage = account.service.usage(_usage())
    told = [(model.model, model.kind, model.cost_usd, model.count, model.last_used) for model in usage.models]
    assert told == [
        (BITDANCE, "text-to-image", Decimal("0.02"), 2, "2026-05-29"),
        (FLUX, "text-to-image", Decimal(0), 1, "2026-05-28"),
    ]
    assert [(day.date, day.cost_usd, day.count) for day in usage.days] == [
        ("2026-05-28", Decimal("0.01"), 2),
        ("2026-05-29", Decimal("0.01"), 1),
    ]
    assert (usage.cost_usd, usage.requests, usage.succeeded) == (Decimal("0.02"), 3, 1)


def test_usage_heeds_model_and_span() -> None:
    account = _account()
    assert account.service.usage(_usage(model_uuid=FLUX)).requests == 1
    assert account.service.usage(_usage(end_time=_iso(FULL_MINUTE + DAY))).requests == 2
    assert account.service.usage(_usage(model_uuid="nobody/nothing")).days == []


@pytest.mark.parametrize(
    "span", [{"end_time": _iso(FULL_MINUTE - 1)}, {"end_time": _iso(FULL_MINUTE + 31 * DAY + 1)}]
)
def test_a_span_of_usage_has_31_days_at_most(span: Mapping[str, object]) -> None:
    with pytest.raises(Refused, match="at most 31 days after start_time"):
        _usage(**span)
    assert _usage(end_time=_iso(FULL_MINUTE + 31 * DAY)).end_time == FULL_MINUTE + 31 * DAY


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["good", "bad", "endless", "wait", "delete"]),
        st.sampled_from([BITDANCE, FLUX]),
        st.floats(0, 400),
    ),
    max_size=30,
)


@given(STEPS, st.sampled_from([0.0, 50.0]), st.integers(1, 7))
def test_the_books_add_up_to_the_bill(
    steps: list[tuple[str, str, float]], refund_after: float, page_size: int
) -> None:
    account = Account(Options(latency=10, refund_after=refund_after, max_in_flight=3, above_limit="queue"))
    account.rule(on="submit", kind="failed", match="bad")
    account.rule(on="submit", kind="latency", match="endless", seconds=1e9)
    for what, model, seconds in steps:
        if what == "wait":
            account.move(seconds)
        elif what == "delete":
            account.service.delete([task.id for task in account.service.predictions()[:2]])
        else:
            account.submit(what, model)
    bill = account.service.bill()
    records: list[Record] = []
    more, page = True, 1
    while more:
        found, more = account.service.billing(BillingQuery(page=page, page_size=page_size))
        records, page = records + found, page + 1
    moments = [record.created_at for record in records]
    assert moments == sorted(moments, reverse=True)
    signs = {"deduct": 1, "refund": -1}
    cost = sum((signs[record.billing_type] * record.price for record in records), Decimal(0))
    usage = account.service.usage(_usage(end_time=_iso(FULL_MINUTE + 31 * DAY)))
    assert float(cost) == float(usage.cost_usd) == bill.cost_usd
    assert bill.balance_usd == float(Decimal(100) - cost)
    assert sum(record.billing_type == "refund" for record in records) == bill.refunded
    assert (usage.requests, usage.succeeded) == (bill.submitted, bill.completed)
    assert usage.cost_usd == sum((day.cost_usd for day in usage.days), Decimal(0))
