"""Which entries of the account's history may be about a purchase of ours, by two clocks that differ."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from airflow_provider_bitdance.engine.account_history import (
    BILLING_MARGIN,
    CLOCK_MARGIN,
    MAX_ASKED,
    MAX_BYTES,
    MAX_SECONDS,
    Allowance,
    Bill,
    History,
    _Place,
    controls,
    read_bill,
    read_history,
    with_charged,
    with_inputs,
)
from airflow_provider_bitdance.exceptions import RequestRefusedError, ResponseTooLargeError
from airflow_provider_bitdance.wavespeed.client import AsyncClient, ClientSettings
from airflow_provider_bitdance.wavespeed.models import BITDANCE_14B
from airflow_provider_bitdance.wavespeed.responses import BillingRecord, Prediction
from tests.unit.support import START, World, envelope, refusal, run
from tests.wire import httpx


def dated(response: httpx.Response) -> httpx.Response:
    response.headers["date"] = format_datetime(datetime.fromtimestamp(START, UTC), usegmt=True)
    return response


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
    run(read_history(world.api.client(), Allowance.of(world.clock), model=BITDANCE_14B, since=START))
    (asked,) = world.api.histories
    assert datetime.fromisoformat(asked["created_after"]).timestamp() == START - CLOCK_MARGIN


def test_an_api_that_never_comes_to_an_end_is_asked_for_a_hundred_pages() -> None:
    world = World()
    world.api.on_history = [
        dated(envelope({"page": page, "items": [{"id": f"p-{page}", "status": "completed"}]}))
        for page in range(1, 120)
    ]
    history = run(
        read_history(world.api.client(), Allowance.of(world.clock), model=BITDANCE_14B, since=START)
    )
    assert len(history.items) == len(world.api.histories) == 100
    assert not history.is_whole


def test_inputs_are_asked_for_and_once_without_where_the_api_refuses_to() -> None:
    world = World()
    world.api.on_history = [refusal(400, "unknown field include_inputs")]
    world.api.create({})
    history = run(
        read_history(world.api.client(), Allowance.of(world.clock), model=BITDANCE_14B, since=START)
    )
    assert [asked.get("include_inputs") for asked in world.api.histories] == [True, None, None]
    assert len(history.items) == 1


def test_a_history_that_is_refused_with_and_without_the_inputs_is_refused() -> None:
    world = World()
    world.api.on_history = [refusal(400)] * 9
    with pytest.raises(RequestRefusedError):
        run(read_history(world.api.client(), Allowance.of(world.clock), model=BITDANCE_14B, since=START))
    assert len(world.api.histories) == 2


@pytest.mark.parametrize(("rows", "is_whole"), [([], True), ([{"id": "a/b"}], False)])
def test_a_history_with_a_row_that_cannot_be_read_is_not_whole(
    rows: list[dict[str, Any]], is_whole: bool
) -> None:
    world = World()
    world.api.on_history = [dated(envelope({"page": 1, "items": [{"id": "p-1"}, *rows]}))] * 2
    history = run(
        read_history(world.api.client(), Allowance.of(world.clock), model=BITDANCE_14B, since=START)
    )
    assert (len(history.items), history.is_whole) == (1, is_whole)


def completed_with(world: World, *rows: BillingRecord, history: History | None = None) -> History:
    """Complete a history by a bill; one record is known, and so are the times of interest."""
    client, period = world.api.client(), (START - 60, START + 60)
    return run(
        with_charged(
            client,
            history or History(()),
            Bill(rows),
            model=BITDANCE_14B,
            known=["known"],
            periods=[period],
            allowance=Allowance.of(world.clock),
        )
    )


def a_charge(prediction_id: str, *, after: float | None = None) -> BillingRecord:
    when = None if after is None else datetime.fromtimestamp(START + after, UTC)
    return BillingRecord(price=0.01, prediction_id=prediction_id, created_at=when)


@pytest.mark.parametrize(("charges", "is_whole"), [(MAX_ASKED, True), (MAX_ASKED + 1, False)])
def test_of_very_many_charges_that_the_history_does_not_show_a_hundred_are_asked_for(
    charges: int, is_whole: bool
) -> None:
    world = World()
    completed = completed_with(world, *(a_charge(f"p-{number}") for number in range(charges)))
    assert (len(completed.items), completed.is_whole) == (MAX_ASKED, is_whole)
    assert len(world.api.polls) == MAX_ASKED


def test_a_charge_of_another_time_and_one_that_the_records_know_are_not_asked_for() -> None:
    world = World()
    rows = a_charge("early", after=-61), a_charge("late", after=61), a_charge("known", after=0)
    assert completed_with(world, *rows).items == ()
    assert world.api.polls == []


@pytest.mark.parametrize(
    "answer", [refusal(404), refusal(403), refusal(500), envelope({"status": "completed"})]
)
def test_a_charge_that_cannot_be_asked_for_may_be_ours(answer: httpx.Response) -> None:
    world = World()
    world.api.on_poll = [answer]
    (item,) = completed_with(world, a_charge("p-1", after=5)).items
    assert (item.id, item.created_at, item.input) == ("p-1", datetime.fromtimestamp(START + 5, UTC), None)


@pytest.mark.parametrize(("spelled", "added"), [("wavespeed-ai/bitdance-14b", 1), (BITDANCE_14B, 0)])
def test_another_model_s_charge_is_left_out_only_if_the_api_calls_ours_as_we_do(
    spelled: str, added: int
) -> None:
    world = World()
    history = History((Prediction(id="known", model=spelled),))
    world.api.on_poll = [envelope({"id": "p-1", "model": "wavespeed-ai/bitdance-14b"})]
    completed = completed_with(world, a_charge("p-1"), history=history)
    assert len(completed.items) == 1 + added


@pytest.mark.parametrize(
    "row",
    [
        {"billing_type": "deduct", "price": None, "prediction": {"uuid": "p-1"}},
        {"billing_type": "deduct", "price": 0.01, "prediction": {"id": "p-1"}},
    ],
    ids=["without a price", "without a prediction"],
)
def test_a_bill_with_a_charge_that_cannot_be_read_shows_nothing(row: dict[str, Any]) -> None:
    world = World()
    world.api.on_bill = [envelope({"page": 1, "items": [row]})] * 2
    bill = run(read_bill(world.api.client(), datetime.fromtimestamp(START, UTC), Allowance.of(world.clock)))
    assert not bill.is_whole
    made = Prediction(id="known", created_at=datetime.fromtimestamp(START, UTC))
    assert controls(History((made,)), {"known"}, Bill((a_charge("known"),))) == (START,)
    assert controls(History((made,)), {"known"}, Bill((a_charge("known"),), is_whole=False)) == ()


@pytest.mark.parametrize("skew", [7200.0, -7200.0])
def test_a_bill_is_read_from_the_moment_on_that_the_apis_clock_has_for_ours(skew: float) -> None:
    requested: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        requested.append(json.loads(request.content)["start_time"])
        return httpx.Response(200, json={"code": 200, "data": {"items": []}})

    client = AsyncClient(ClientSettings("key-of-a-test"), transport=httpx.MockTransport(answer))
    start = datetime.fromtimestamp(START, UTC)
    run(read_bill(client, start, Allowance.of(World().clock), skew=skew))
    (asked,) = requested
    assert datetime.fromisoformat(asked) == start + timedelta(seconds=skew) - BILLING_MARGIN


def test_a_bill_that_never_comes_to_an_end_is_asked_for_a_hundred_pages() -> None:
    world = World()
    world.api.on_bill = [
        envelope({"page": page, "items": [{"uuid": f"b-{page}", "price": 0.01}]}) for page in range(1, 120)
    ]
    assert not run(
        read_bill(world.api.client(), datetime.fromtimestamp(START, UTC), Allowance.of(world.clock))
    ).is_whole


def test_a_history_of_an_api_whose_clock_is_not_known_is_not_whole() -> None:
    world = World()
    world.api.on_history = [httpx.Response(200, json={"code": 200, "data": {"items": []}})]
    assert not run(
        read_history(world.api.client(), Allowance.of(world.clock), model=BITDANCE_14B, since=START)
    ).is_whole


def large_rows(world: World, rows: int, *, fit: int) -> httpx.MockTransport:
    """Return an API whose pages of more than ``fit`` rows are too large to be read."""

    def answer(request: httpx.Request) -> httpx.Response:
        asked = json.loads(request.content)
        world.api.histories.append(asked)
        size = asked["page_size"]
        first = (asked["page"] - 1) * size
        if size > fit:
            return httpx.Response(200, content=b" " * (9 * 2**20))
        shown = [{"id": f"p-{number}", "price": 1} for number in range(first, min(first + size, rows))]
        if "billings" in request.url.path:
            shown = [{"uuid": row["id"], "price": 1, "prediction": {"uuid": row["id"]}} for row in shown]
        return dated(envelope({"items": shown}))

    return httpx.MockTransport(answer)


@pytest.mark.parametrize("fit", [100, 50, 25, 5, 1])
def test_a_page_that_is_too_large_is_asked_for_again_with_fewer_rows(fit: int) -> None:
    world = World()
    client = AsyncClient(ClientSettings("key-of-a-test"), transport=large_rows(world, 60, fit=fit))
    history = run(read_history(client, Allowance.of(world.clock), model=BITDANCE_14B, since=START))
    bill = run(read_bill(client, datetime.fromtimestamp(START, UTC), Allowance.of(world.clock)))
    assert [item.id for item in history.items] == [f"p-{number}" for number in range(60)]
    assert [row.prediction_id for row in bill.rows] == [f"p-{number}" for number in range(60)]
    assert history.is_whole
    assert bill.is_whole


def test_rows_that_become_large_are_asked_for_from_where_they_do() -> None:
    place = _Place()
    place.page = 3
    assert place.narrow()
    assert (place.page, place.size) == (5, 50)
    while place.narrow():
        assert (place.page - 1) * place.size == 200
    assert (place.page, place.size) == (201, 1)


def test_a_single_row_that_is_too_large_hides_the_history() -> None:
    world = World()
    client = AsyncClient(ClientSettings("key-of-a-test"), transport=large_rows(world, 60, fit=0))
    with pytest.raises(ResponseTooLargeError):
        run(read_history(client, Allowance.of(world.clock), model=BITDANCE_14B, since=START))
    assert len(world.api.histories) == 5


def test_rows_beyond_those_of_a_page_are_not_kept_and_the_history_is_not_whole() -> None:
    world = World()
    rows = [{"id": f"p-{number}"} for number in range(30_000)]
    world.api.on_history = [dated(envelope({"items": rows}))]
    history = run(
        read_history(world.api.client(), Allowance.of(world.clock), model=BITDANCE_14B, since=START)
    )
    assert (len(history.items), history.is_whole) == (100, False)


def test_of_large_pages_only_some_are_read_and_only_what_proves_something_is_kept() -> None:
    world = World()
    inputs = {"prompt": "x" * 2**20, "seed": 7, "images": [[[]]], "size": {"deep": []}}
    world.api.on_history = [
        dated(envelope({"items": [{"id": f"p-{page}", "input": inputs, "outputs": ["https://x"] * 9}]}))
        for page in range(100)
    ]
    history = run(
        read_history(world.api.client(), Allowance.of(world.clock), model=BITDANCE_14B, since=START)
    )
    assert len(history.items) == MAX_BYTES // 2**20
    assert not history.is_whole
    assert {(*(item.input or {}), *item.outputs) for item in history.items} == {("prompt", "seed")}


def test_a_slow_account_is_read_for_some_minutes_and_is_not_whole() -> None:
    world = World()
    client = world.api.client()
    send = client.send

    async def slowly(call: Any) -> Any:
        world.clock.now += 30
        return await send(call)

    client.send = slowly  # type: ignore[method-assign]
    world.api.on_history = [
        dated(envelope({"items": [{"id": f"p-{page}", "status": "completed"}]})) for page in range(99)
    ]
    started, allowance = world.clock.now, Allowance.of(world.clock)
    history = run(read_history(client, allowance, model=BITDANCE_14B, since=START))
    bill = run(read_bill(client, datetime.fromtimestamp(START, UTC), allowance))
    unknown = run(with_inputs(client, history, allowance))
    assert world.clock.now - started == MAX_SECONDS
    assert history.items == unknown.items
    assert (history.is_whole, bill.is_whole, world.api.polls) == (False, False, [])


def test_a_charge_of_what_no_prediction_is_called_is_a_row_that_cannot_be_read() -> None:
    world = World()
    row = {"uuid": "bill-1", "billing_type": "deduct", "price": 0.01, "prediction": {"uuid": "../balance"}}
    world.api.on_bill = [envelope({"items": [row]})]
    bill = run(read_bill(world.api.client(), datetime.fromtimestamp(START, UTC), Allowance.of(world.clock)))
    assert (bill.rows, bill.is_whole) == ((), False)


def test_a_history_of_many_rows_without_inputs_is_asked_for_some() -> None:
    world = World()
    world.api.echo = "poll"
    made = [Prediction(id=world.api.create({"prompt": "x", "seed": 1}).id) for _ in range(MAX_ASKED + 5)]
    found = run(with_inputs(world.api.client(), History(tuple(made)), Allowance.of(world.clock)))
    assert len(world.api.polls) == MAX_ASKED
    assert [item.id for item in found.items if item.input is None] == [item.id for item in made[MAX_ASKED:]]


@pytest.mark.parametrize(
    "date",
    [
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "Mon, 01 Jan 0001 00:00:00 GMT",
        "Thu, 01 Jan 1970 00:00:00 GMT",
    ],
)
def test_an_api_whose_clock_cannot_be_right_has_none(date: str) -> None:
    world = World()
    response = envelope({"items": [{"id": "p-1"}]})
    response.headers["date"] = date
    world.api.on_history = [response]
    history = run(
        read_history(world.api.client(), Allowance.of(world.clock), model=BITDANCE_14B, since=START)
    )
    assert [item.id for item in history.items] == ["p-1"]
    assert history.skew == 0.0
