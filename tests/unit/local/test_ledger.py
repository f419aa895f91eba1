"""The ledger: charges and refunds by record, and that they add up to the bill."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_bitdance.local.inputs import BillingQuery, Refused, checked
from airflow_provider_bitdance.local.ledger import Record
from airflow_provider_bitdance.local.options import Options
from tests.unit.local.builders import BITDANCE, FLUX, FULL_MINUTE, Account

DAY = 24 * 3600


def _account() -> Account:
    """Two good ones and a failed one, on two days."""
    account = Account(Options(latency=10))
    account.rule(on="submit", kind="failed", match="bad")
    account.submit("good")
    account.move(1)
    account.submit("bad", FLUX)
    account.move(DAY)
    account.submit("good too")
    return account


def _records(account: Account, **query: object) -> list[Record]:
    return account.service.billing(checked(BillingQuery, query))[0]


def _shown(records: list[Record]) -> list[tuple[str, str, Decimal, float]]:
    return [
        (record.billing_type, task.model, task.price, record.created_at - FULL_MINUTE)
        for record in records
        for task in [record.prediction]
    ]


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def test_charges_and_refunds_are_listed_newest_first() -> None:
    account = _account()
    records = _records(account)
    cent, flux = Decimal("0.01"), Decimal("0.012")
    assert _shown(records) == [
        ("deduct", BITDANCE, cent, 1 + DAY),
        ("refund", FLUX, flux, 1 + 10),
        ("deduct", FLUX, flux, 1),
        ("deduct", BITDANCE, cent, 0),
    ]
    statuses = [record.prediction.status(account.now) for record in records]
    assert statuses == ["created", "failed", "failed", "completed"]


def test_a_refund_is_recorded_only_when_it_was_given() -> None:
    account = Account(Options(latency=10))
    account.rule(on="submit", kind="failed")
    account.submit()
    account.move(9.9)
    assert [record.billing_type for record in _records(account)] == ["deduct"]
    account.move(0.1)
    assert [record.billing_type for record in _records(account)] == ["refund", "deduct"]


def test_who_deletes_a_prediction_has_paid_for_it_all_the_same() -> None:
    account = _account()
    before = _records(account)
    account.service.delete([record.prediction.id for record in before])
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
        ({"prediction_uuids": []}, []),
    ],
)
def test_a_query_filters(query: Mapping[str, object], found: list[int]) -> None:
    account = _account()
    everything = _records(account)
    assert _records(account, **query) == [everything[number] for number in found]
    one = everything[1].prediction.id
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
        {"start_time": 5},
        {"start_time": "yesterday"},
        {"prediction_uuids": "x"},
    ],
)
def test_a_bad_query_is_refused_by_field(query: Mapping[str, object]) -> None:
    (field,) = query
    with pytest.raises(Refused, match=f'^invalid request body, Error at "/{field}": ') as refusal:
        checked(BillingQuery, query)
    assert refusal.value.status == 400


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["good", "bad", "endless", "wait", "delete"]),
        st.sampled_from([BITDANCE, FLUX]),
        st.floats(0, 400),
    ),
    max_size=30,
)


@given(STEPS, st.integers(1, 7))
def test_the_records_add_up_to_the_bill(steps: list[tuple[str, str, float]], page_size: int) -> None:
    account = Account(Options(latency=10, max_in_flight=3, above_limit="queue"))
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
    cost = sum((signs[record.billing_type] * record.prediction.price for record in records), Decimal(0))
    assert float(cost) == bill.cost_usd
    assert bill.balance_usd == float(Decimal(100) - cost)
    kinds = [record.billing_type for record in records]
    assert (kinds.count("deduct"), kinds.count("refund")) == (bill.submitted, bill.refunded)
    assert bill.refunded == bill.failed
    assert bill.submitted == bill.completed + bill.failed + bill.in_flight
