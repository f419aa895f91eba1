"""What a job may spend: counted before the first purchase and before each further one."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_bitdance.engine import Finished, Waiting, Wanted, run_job
from airflow_provider_bitdance.engine.budget import check_purchase, usd
from airflow_provider_bitdance.engine.destination_lock import DestinationLock
from airflow_provider_bitdance.engine.purchase import buy
from airflow_provider_bitdance.engine.rate_limiter import RateLimiter
from airflow_provider_bitdance.exceptions import (
    BitDanceError,
    BudgetError,
    InsufficientCreditError,
    PredictionFailedError,
)
from airflow_provider_bitdance.records import Intended, Journal, Planned
from airflow_provider_bitdance.wavespeed.models import BITDANCE_14B
from tests.unit.support import (
    OUTPUT,
    RECORDS,
    Crash,
    FakeAPI,
    Fuse,
    MemoryFolder,
    World,
    a_job,
    a_plan,
    a_request,
    a_wanted,
    envelope,
    refusal,
    run,
)
from tests.wire import httpx


@pytest.fixture
def world() -> World:
    return World()


def three() -> list[Wanted]:
    return [a_wanted(f"prompt {name}", key=name, name=name) for name in "abc"]


def go(world: World, wanted: list[Wanted] | None = None, **context: Any) -> Finished | Waiting:
    return run(run_job(world.context(**context), wanted or [a_wanted()]))


def test_what_a_replaced_process_notes_while_its_intent_is_settled_is_all_that_the_budget_pays(
    world: World,
) -> None:
    world.api.on_history = [envelope({"page": 1, "items": []})] * 4
    sleeper = world.context(step=Fuse(4))
    with pytest.raises(Crash):
        run(run_job(sleeper, [a_wanted()]))

    def wake_up(step: str) -> None:
        if step == "before history":
            awake = Journal(MemoryFolder(world.disk, RECORDS), sleeper.journal.owner)
            awake.note(world.clock.now, key="image", prediction_id="pred-1", intent=1)

    finished = go(world, try_number=2, step=wake_up, max_cost_usd=0.01)
    assert [result["prediction_id"] for result in finished.results] == ["pred-1"]
    assert (world.api.billed, world.unconfirmed) == (1, 0)


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        (0.0, "3 images to buy cost about $0.03, but max_cost_usd is $0.00"),
        (0.029, "3 images to buy cost about $0.03, but max_cost_usd is $0.029"),
    ],
)
def test_a_plan_over_the_budget_is_refused_before_the_first_purchase(
    world: World, limit: float, said: str
) -> None:
    with pytest.raises(BudgetError) as refused:
        go(world, three(), max_cost_usd=limit)
    assert said in str(refused.value)
    assert str(refused.value).endswith("A retry does not help. Nothing was charged for it.")
    assert (world.api.posts, world.disk) == ([], {})


def test_a_plan_at_the_budget_is_bought(world: World) -> None:
    assert isinstance(go(world, three(), max_cost_usd=0.03), Finished)


def test_what_is_there_already_costs_nothing_of_the_budget(world: World) -> None:
    go(world, three())
    assert isinstance(go(world, three(), job=a_job(run_id="another"), max_cost_usd=0.0), Finished)


def test_what_is_possibly_paid_counts(world: World) -> None:
    world.api.on_post = [world.api.lose_answer]
    with pytest.raises(
        BudgetError, match=r"spent, \$0\.01; another image costs about \$0\.01, but .* \$0\.015"
    ):
        go(world, max_cost_usd=0.015)
    assert world.api.billed == 1


def test_what_failed_counts_for_it_may_not_be_refunded(world: World) -> None:
    world.api.next_changes = {"status": "failed", "code": 5000}
    with pytest.raises(PredictionFailedError):
        go(world, max_cost_usd=0.01)
    with pytest.raises(BudgetError, match="Raise max_cost_usd, or clear the task, which restarts the count"):
        go(world, max_cost_usd=0.01, try_number=2)
    assert world.api.billed == 1
    world.api.next_changes = {}
    assert isinstance(go(world, max_cost_usd=0.01, try_number=3, job=a_job(generation=1)), Finished)


def test_of_two_purchases_at_once_a_budget_for_one_allows_one_while_the_store_is_slow(world: World) -> None:
    opened = threading.Event()

    def wait_until_opened(name: str) -> None:
        if name == "before create 000002":  # the intent
            assert opened.wait(timeout=30)

    context = world.context(max_cost_usd=0.01, step=wait_until_opened)
    plan = Planned(output=OUTPUT, images=(a_plan("a", stem="a"), a_plan("b", stem="b")))
    context.journal.claim(world.clock.now + 600, world.clock.now, plan)

    async def both_ask_before_the_store_opens() -> list[Any]:
        purchases = [
            asyncio.create_task(buy(context, key, limiter=RateLimiter(), lock=DestinationLock(context)))
            for key in "ab"
        ]
        await asyncio.sleep(0)
        opened.set()
        return await asyncio.gather(*purchases, return_exceptions=True)

    first, second = run(both_ask_before_the_store_opens())

    assert first is None
    assert isinstance(second, BudgetError)
    assert world.api.billed == 1


def test_a_plan_over_the_balance_is_refused_where_it_is_looked_at(world: World) -> None:
    world.api.balance = 0.02
    with pytest.raises(BudgetError, match=r"3 images .* about \$0\.03, but the account's balance is \$0\.02"):
        go(world, three(), check_balance=True)
    assert world.api.posts == []
    assert isinstance(go(world, three()), Finished)


def test_the_apis_price_is_asked_once_for_each_size(world: World) -> None:
    world.api.price = 0.02
    with pytest.raises(BudgetError, match=r"cost about \$0\.06"):
        go(world, three(), live_price=True, max_cost_usd=0.05)
    finished = go(world, three(), live_price=True)
    assert isinstance(finished, Finished)
    assert [result["estimated_cost_usd"] for result in finished.results] == [0.02] * 3


def test_credit_that_runs_out_in_the_middle_keeps_what_is_stored_and_says_what_is_missing(
    world: World,
) -> None:
    answers = [world.api.answer_rightly, world.api.answer_rightly, refusal(400, "Insufficient credits.")]
    world.api.on_post = list(answers)
    with pytest.raises(InsufficientCreditError) as stopped:
        go(world, three(), max_in_flight=1)
    assert sorted(world.images) == ["a.png", "b.png"]
    assert "2 of 3 images are stored; the rest costs about $0.01." in str(stopped.value)
    finished = go(world, three(), try_number=2)
    assert isinstance(finished, Finished)
    assert world.api.billed == 3


def test_what_was_bought_before_the_credit_ran_out_is_stored_before_the_task_fails() -> None:
    """In this process: one that came back from the triggerer would begin to buy again."""
    world = World(latency=100)
    world.api.on_post = [world.api.answer_rightly, *(refusal(402) for _ in range(9))]
    with pytest.raises(InsufficientCreditError, match="1 of 3 images are stored"):
        go(world, three(), defer_after=5.0)
    assert len(world.images) == 1


def test_a_transient_error_in_the_middle_loses_nothing_that_is_bought(world: World) -> None:
    world.api.on_post = [world.api.answer_rightly, *(refusal(429, Retry_After="9999") for _ in range(9))]
    with pytest.raises(BitDanceError, match="1 of 3 images are stored") as stopped:
        go(world, three(), max_in_flight=1)
    assert stopped.value.retry_helps
    assert list(world.images) == ["a.png"]


@pytest.mark.parametrize(
    ("amount", "written"),
    [(0, "$0.00"), (0.1 + 0.2, "$0.30"), (0.005, "$0.005"), (12.3456, "$12.3456"), (1e-6, "$0.000001")],
)
def test_amounts_have_cents_and_what_they_have_more(amount: float, written: str) -> None:
    assert usd(amount) == written


@pytest.mark.parametrize("quoted", [0.0, 1e-9])
def test_a_quote_below_the_known_price_counts_as_that(world: World, quoted: float) -> None:
    world.api.price = quoted
    with pytest.raises(BudgetError, match=r"cost about \$0\.03, but max_cost_usd is \$0\.02"):
        go(world, three(), live_price=True, max_cost_usd=0.02)
    assert world.api.billed == 0


def of_model(path: str, **request: Any) -> Wanted:
    wanted = a_wanted(key=str(request or path), name=f"{len(str(request))}-{abs(hash(str(request)))}")
    return replace(wanted, request=a_request().model_copy(update={"model": path, **request}))


@pytest.mark.parametrize(
    ("model", "policy", "price"),
    [
        ("wavespeed-ai/flux-dev", {}, 0.012),
        ("recraft-ai/recraft-v4/text-to-image", {}, 0.04),
        ("wavespeed-ai/flux-dev", {"prices": {"wavespeed-ai/flux-dev": 0.02}}, 0.02),
        ("wavespeed-ai/flux-dev", {"prices": {BITDANCE_14B: 0.5}}, 0.012),
        ("wavespeed-ai/flux-dev", {"live_price": True}, 0.07),
        ("other/model", {}, 0.07),
        ("other/model", {"prices": {"other/model": 0.03}}, 0.03),
        ("other/model", {"prices": {BITDANCE_14B: 0.01}}, 0.07),
    ],
)
def test_a_model_costs_what_the_connection_says_else_what_is_known_of_it_else_what_the_api_quotes(
    world: World, model: str, policy: dict[str, Any], price: float
) -> None:
    world.api.price = 0.07
    expected = f"cost about {usd(price)}, but max_cost_usd is"
    with pytest.raises(BudgetError, match=re.escape(expected)):
        go(world, [of_model(model)], max_cost_usd=0.001, **policy)
    assert world.api.billed == 0


@pytest.mark.parametrize("limit", [None, 0.01])
@pytest.mark.parametrize("quoted", [0.0, 1e-9])
def test_a_quote_of_nothing_is_no_price(world: World, quoted: float, limit: float | None) -> None:
    world.api.price = quoted
    with pytest.raises(BudgetError, match="which would leave spending unlimited") as refused:
        go(world, [of_model("other/model")], max_cost_usd=limit)
    assert "model_prices" in str(refused.value)
    assert world.api.billed == 0


def test_who_says_that_a_model_is_free_is_believed_unless_there_is_a_limit(world: World) -> None:
    free = {"other/model": 0.0}
    with pytest.raises(BudgetError, match="which would leave spending unlimited"):
        go(world, [of_model("other/model")], prices=free, max_cost_usd=0.01)
    finished = go(world, [of_model("other/model")], prices=free)
    assert isinstance(finished, Finished)
    assert [result["estimated_cost_usd"] for result in finished.results] == [0.0]


@pytest.mark.parametrize(
    "response", [refusal(400, "model not found"), refusal(404), envelope({"price": "?"})]
)
def test_a_model_without_a_price_is_refused(world: World, response: httpx.Response) -> None:
    world.api.on_price = [response]
    with pytest.raises(BudgetError, match="The API quotes no price for other/model") as refused:
        go(world, [of_model("other/model")])
    assert "model_prices" in str(refused.value)
    assert world.api.billed == 0


def test_a_batch_asks_for_at_most_a_hundred_prices(world: World) -> None:
    def wanted(images: int) -> list[Wanted]:
        return [of_model("other/model", inputs={"steps": step}) for step in range(images)]

    with pytest.raises(BudgetError, match="would have to quote 101 prices"):
        go(world, wanted(101))
    assert world.api.quotes == []
    assert world.api.billed == 0
    with pytest.raises(BudgetError, match=r"cost about \$1\.00"):
        go(world, wanted(100), max_cost_usd=0.5)
    assert len(world.api.quotes) == 100


def test_a_purchase_whose_intent_was_written_a_moment_ago_counts_once(world: World) -> None:
    context = world.context(max_cost_usd=0.02)
    plan = Planned(output=OUTPUT, images=(a_plan("a", stem="a"), a_plan("b", stem="b")))
    context.journal.claim(world.clock.now + 600, world.clock.now, plan, Intended(keys=("a",)))
    context.coordination.starting.add("a")  # its coroutine has not gone on yet
    check_purchase(context, context.journal.state.images["b"])


@pytest.mark.parametrize("cents", range(1, 30))
def test_so_many_times_a_cent_are_so_many_cents(world: World, cents: int) -> None:
    context = world.context(max_cost_usd=cents / 100)
    context.journal.claim(world.clock.now + 600, world.clock.now, Planned(output=OUTPUT, images=(a_plan(),)))
    context.journal.state = replace(context.journal.state, spent=(cents - 1) * 10_000)
    check_purchase(context, context.journal.state.images["image"])


def test_what_was_lost_before_a_clear_does_not_keep_the_cleared_task_from_buying(world: World) -> None:
    context = world.context(on_lost_response="fail")
    plan = a_plan().model_copy(update={"possibly_paid": 1})
    context.journal.claim(world.clock.now + 600, world.clock.now, Planned(output=OUTPUT, images=(plan,)))
    check_purchase(context, context.journal.state.images["image"])


def test_a_purchase_that_is_done_counts_once(world: World) -> None:
    context = world.context(max_cost_usd=0.02)
    plan = Planned(output=OUTPUT, images=(a_plan("a", stem="a"), a_plan("b", stem="b")))
    context.journal.claim(world.clock.now + 600, world.clock.now, plan)
    for key in "ab":
        run(buy(context, key, limiter=RateLimiter(), lock=DestinationLock(context)))
    assert world.api.billed == 2


class PricedBySize(FakeAPI):
    """Charges 4 cents for a large image, and 1 for any other."""

    def _answer(self, kind: str, request: httpx.Request) -> httpx.Response:
        if kind == "price":
            is_large = json.loads(request.content)["inputs"]["size"] == "1536*1536"
            self.price = 0.04 if is_large else 0.01
        return super()._answer(kind, request)


@pytest.mark.parametrize("sizes", [("1024*1024", "1536*1536"), ("1536*1536", "1024*1024")])
def test_each_size_has_its_own_price(world: World, sizes: tuple[str, str]) -> None:
    world.api = PricedBySize(world.clock)
    wanted = [replace(a_wanted(key=size, name=size[:4]), request=a_request(size=size)) for size in sizes]
    finished = go(world, wanted, live_price=True)
    assert isinstance(finished, Finished)
    expected = {"1024*1024": 0.01, "1536*1536": 0.04}
    assert {result["size"]: result["estimated_cost_usd"] for result in finished.results} == expected
