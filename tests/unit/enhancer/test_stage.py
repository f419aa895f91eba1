"""The stage: prompts are bought before images, each once, within budget and rate limit."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import re
import threading
from typing import Any

import pytest

from airflow_provider_bitdance.engine import Finished, JobContext, Wanted
from airflow_provider_bitdance.enhancer import enhance_prompts, missing_prompts
from airflow_provider_bitdance.exceptions import (
    BitDanceError,
    BudgetError,
    EnhancedPromptError,
    GarbledResponseError,
    InputError,
    InsufficientCreditError,
    ItemsFailedError,
    LostResponseError,
    ModerationError,
    NotSentError,
    Paid,
    PredictionFailedError,
    PredictionTimeoutError,
    RateLimitError,
    RecordUnreadableError,
    RequestRefusedError,
    StorageError,
    TaskKilledError,
    UnconfirmedPurchaseError,
)
from airflow_provider_bitdance.records.enhanced_prompts import EnhancedPrompts, PromptAttempt, PromptKey
from airflow_provider_bitdance.wavespeed.models import PROMPT_OPTIMIZER
from tests.unit.enhancer.support import (
    ENHANCED,
    IMAGE_USD,
    KEY,
    PROMPT,
    STYLE,
    TEXT_USD,
    attempts,
    state_of,
    task,
    wanted,
)
from tests.unit.support import (
    API_HOST,
    RECORDS,
    Fuse,
    MemoryFolder,
    World,
    a_job,
    a_receipt,
    a_wanted,
    a_writer,
    refusal,
    run,
)
from tests.wire import httpx

MANY = [f"prompt {number}" for number in range(100)]


@pytest.fixture
def world() -> World:
    return World(latency=1.0)


def finished(context: JobContext, items: list[Wanted] | None = None) -> list[dict[str, Any]]:
    outcome = run(task(context, items))
    assert isinstance(outcome, Finished)
    return outcome.results


def failed(context: JobContext, items: list[Wanted] | None = None) -> BitDanceError:
    with pytest.raises(BitDanceError) as caught:
        run(task(context, items))
    assert not context.journal.load().images
    return caught.value


def lost(request: httpx.Request) -> httpx.Response:
    raise httpx.ReadTimeout("lost")


# What is sent, recorded and found again


def test_the_plan_the_request_and_the_receipt_have_the_enhanced_prompt_and_the_original_one(
    world: World,
) -> None:
    context = world.context()
    (result,) = finished(context)
    assert [body["prompt"] for body in world.api.posts] == [ENHANCED]
    ((body, _),) = world.api.enhanced
    assert body == {"text": PROMPT, "mode": "image", "style": STYLE, "enable_sync_mode": False}
    plan = state_of(context).images["image"].plan
    receipt = context.receipts.find(a_wanted().destination)
    assert receipt is not None
    for record in (plan, receipt):
        assert (record.prompt_asked, record.request.prompt) == (PROMPT, ENHANCED)
        assert record.enhancement is not None
        assert (record.enhancement.style, record.enhancement.prediction_id) == (STYLE, "pred-1")
        assert (record.enhancement.estimated_cost_usd, record.enhancement.possibly_paid) == (TEXT_USD, 0)
    assert result["estimated_cost_usd"] == IMAGE_USD + TEXT_USD
    assert (result["possibly_paid"], result["prompts_possibly_paid"]) == (0, 0)
    assert state_of(context).spent_usd == IMAGE_USD + TEXT_USD


def test_the_fingerprint_is_of_the_original_prompt_and_the_style(world: World) -> None:
    finished(context := world.context())
    original = wanted()[0].request
    fingerprint = state_of(context).images["image"].plan.fingerprint
    assert fingerprint == original.fingerprint(API_HOST, enhance_prompt=STYLE)
    assert fingerprint != original.fingerprint(API_HOST)


def test_a_rerun_and_a_cleared_task_cost_nothing(world: World) -> None:
    finished(world.context())
    for job in (a_job(run_id="run-2"), a_job(generation=3)):
        (result,) = finished(world.context(job=job))
        assert (result["reused"], result["estimated_cost_usd"]) == (True, 0.0)
    assert world.api.billed == 2


@pytest.mark.parametrize("waits", [False, True], ids=["reused", "adopted"])
def test_a_text_that_was_enhanced_again_is_not_said_to_be_that_of_an_older_image(waits: bool) -> None:
    world = World(latency=60)
    run(task(world.context(**({"defer_after": 0, "break_even": 0} if waits else {}))))
    for path in [path for path in world.disk if "/prompts/" in path]:
        del world.disk[path]  # as the docs say
    world.api.next_changes = {"outputs": ["a wholly new text"]}
    context = world.context(job=a_job(generation=1), try_number=2)

    finished(context)

    plan, receipt = state_of(context).images["image"].plan, context.receipts.find(a_wanted().destination)
    assert receipt is not None
    for record in (plan, receipt):
        assert record.request.prompt == ENHANCED
        assert record.enhancement is not None
        assert record.enhancement.prediction_id == "pred-1"
    assert plan.enhancement is not None
    assert plan.enhancement.estimated_cost_usd == TEXT_USD


def test_another_image_of_the_text_costs_no_second_text(world: World) -> None:
    finished(world.context())
    (result,) = finished(
        world.context(job=a_job(task_id="other")), [a_wanted(PROMPT, name="other", seed=8, style=STYLE)]
    )
    assert world.api.billed_texts == 1
    assert result["estimated_cost_usd"] == IMAGE_USD


@pytest.mark.parametrize("other", [PromptKey(PROMPT, "anime", API_HOST), PromptKey("a cat", STYLE, API_HOST)])
def test_another_text_or_style_is_another_purchase(world: World, other: PromptKey) -> None:
    finished(world.context())
    item = a_wanted(other.text, name="other", style=other.style)
    finished(world.context(job=a_job(task_id="other")), [item])
    assert world.api.billed_texts == 2
    assert other.folder != KEY.folder


def test_without_a_style_nothing_is_enhanced(world: World) -> None:
    (result,) = finished(world.context(), wanted(style=None))
    assert (world.api.enhanced, result["prompts_possibly_paid"]) == ([], 0)
    assert [body["prompt"] for body in world.api.posts] == [PROMPT]


def test_images_of_one_prompt_buy_one_text_and_the_first_of_them_bears_its_cost(world: World) -> None:
    items = [a_wanted(PROMPT, key=f"v{n}", name=f"v{n}", seed=n, style=STYLE) for n in range(3)]
    results = finished(world.context(is_batch=True), items)
    assert world.api.billed_texts == 1
    assert [result["estimated_cost_usd"] for result in results] == [
        IMAGE_USD + TEXT_USD,
        IMAGE_USD,
        IMAGE_USD,
    ]


def test_a_retry_follows_the_plan_and_does_not_call_it_changed(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(BaseException, match="before POST"):
        run(task(world.context(step=Fuse(13))))
    (result,) = finished(world.context(try_number=2))
    assert world.api.made[result["prediction_id"]].body["prompt"] == ENHANCED
    assert (world.api.billed_texts, "now requests" in caplog.text) == (1, False)


def test_the_log_shows_both_prompts_cut_short(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    finished(world.context(), [a_wanted("long " * 100, style=STYLE)])
    (line,) = [record.getMessage() for record in caplog.records if "Prompt enhanced" in record.message]
    assert len(re.findall("'(long ){15}", line)) == 2
    assert len(line) < 220


# Lost responses


def test_a_lost_response_is_possibly_paid_and_the_text_bought_again_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.api.on_enhance = [world.api.lose_answer]
    (result,) = finished(context := world.context())
    assert (world.api.billed_texts, result["possibly_paid"], result["prompts_possibly_paid"]) == (2, 0, 1)
    assert state_of(context).spent_usd == IMAGE_USD + 2 * TEXT_USD
    assert result["estimated_cost_usd"] == IMAGE_USD + TEXT_USD
    assert "An enhanced prompt is possibly paid, $0.001" in caplog.text
    assert world.api.histories == []


def test_after_two_lost_responses_the_try_ends_and_says_what_may_be_charged(world: World) -> None:
    world.api.on_enhance = [world.api.lose_answer, lost]
    error = failed(world.context())
    assert isinstance(error, LostResponseError)
    assert (error.retry_helps, error.paid) == (True, Paid.POSSIBLY)
    assert "up to $0.002 may have been charged for prompts, but nothing for images" in str(error)
    (result,) = finished(world.context(try_number=2))
    assert (world.api.billed_texts, result["prompts_possibly_paid"]) == (2, 2)


def test_a_person_decides_about_a_lost_response_where_the_user_wants_that(world: World) -> None:
    world.api.on_enhance = [world.api.lose_answer]
    error = failed(world.context(on_lost_response="fail"))
    assert isinstance(error, UnconfirmedPurchaseError)
    assert not error.retry_helps
    again = failed(world.context(try_number=2, on_lost_response="fail"))
    assert isinstance(again, UnconfirmedPurchaseError)
    assert len(world.api.enhanced) == 1
    finished(world.context(job=a_job(generation=4), try_number=3, on_lost_response="fail"))  # cleared
    assert world.api.billed_texts == 2


def test_a_response_that_repeats_another_one_is_a_lost_one(world: World) -> None:
    """A cache before the API would give two prompts one text."""
    repeated = {"code": 200, "data": {"id": "pred-1", "status": "created"}}
    world.api.on_enhance = [world.api.answer_rightly, httpx.Response(200, json=repeated)]
    context = world.context(is_batch=True)
    outcome = finished(context, wanted("first", "second"))
    sent = {body["prompt"] for body in world.api.posts}
    assert sent == {f"first, {STYLE}", f"second, {STYLE}"}
    assert sum(result["prompts_possibly_paid"] for result in outcome) == 1


def test_an_outcome_that_cannot_be_written_leaves_the_purchase_possibly_paid(world: World) -> None:
    def break_disk(step: str) -> None:
        if step == "before create 1.outcome":
            raise StorageError("the store is away")

    error = failed(world.context(step=break_disk))
    assert isinstance(error, StorageError)
    assert error.paid is Paid.POSSIBLY
    (result,) = finished(world.context(try_number=2))
    assert (world.api.billed_texts, result["prompts_possibly_paid"]) == (2, 1)


@pytest.mark.parametrize("error", [StorageError("time-out"), FileExistsError("1.intent")])
def test_an_intent_that_was_written_though_its_write_seemed_to_fail_is_this_process_s(
    world: World, error: Exception
) -> None:
    """The store's response is lost, or its client repeats the write and meets its own."""
    failures = [error]

    def written_all_the_same(step: str) -> None:
        if step == "after create 1.intent" and failures:
            raise failures.pop()

    (result,) = finished(world.context(step=written_all_the_same, on_lost_response="fail"))
    assert (world.api.billed_texts, result["prompts_possibly_paid"]) == (1, 0)


# What is refused or fails


def test_a_refused_submission_is_free_and_not_sent_again(world: World) -> None:
    world.api.on_enhance = [refusal(400, "invalid request body")]
    error = failed(world.context())
    assert isinstance(error, RequestRefusedError)
    assert (error.paid, error.retry_helps) == (Paid.NO, False)
    assert str(error).endswith("Nothing was charged.")
    (attempt,) = attempts(world)
    assert not attempt.is_charged


def test_no_credit_stops_all_prompts_and_no_image_is_bought(world: World) -> None:
    world.api.on_enhance = [refusal(400, "Insufficient credits. Please top up.")] * len(MANY)
    error = failed(world.context(is_batch=True), wanted(*MANY))
    assert isinstance(error, InsufficientCreditError)
    assert len(world.api.enhanced) <= 8
    assert world.api.posts == []


def test_a_prediction_that_failed_is_bought_again_by_the_next_try_only(world: World) -> None:
    world.api.on_enhance = [world.api.answer_failing(status="failed", error="no GPU")]
    error = failed(world.context())
    assert isinstance(error, PredictionFailedError)
    assert "A retry buys the prompt again" in str(error)
    assert world.api.billed_texts == 1
    (result,) = finished(world.context(try_number=2))
    assert (world.api.billed_texts, result["prompts_possibly_paid"]) == (2, 1)


def test_a_prediction_that_failed_is_not_bought_again_where_the_user_does_not_want_that(world: World) -> None:
    world.api.on_enhance = [world.api.answer_failing(status="failed", error="no GPU")]
    failed(world.context())
    error = failed(world.context(try_number=2, retry_failed=False))
    assert not error.retry_helps
    assert world.api.billed_texts == 1


def test_a_moderated_prompt_is_never_bought_again(world: World) -> None:
    moderated = {"status": "failed", "error": "Content flagged as potentially sensitive", "code": 1200}
    world.api.on_enhance = [world.api.answer_failing(**moderated)]
    for job in (a_job(), a_job(generation=3), a_job(run_id="run-2")):
        error = failed(world.context(job=job))
        assert isinstance(error, ModerationError)
        assert not error.retry_helps
    assert world.api.billed_texts == 1


def test_a_prediction_that_the_api_does_not_know_any_more_is_bought_again(world: World) -> None:
    failed_late = world.context(timeout=1.0)
    world.api.latency = 100.0
    assert isinstance(failed(failed_late), PredictionTimeoutError)
    world.api.made.clear()
    world.api.latency = 1.0
    world.clock.now += 8 * 24 * 3600
    finished(world.context(try_number=2))
    assert world.api.billed_texts == 1  # of those that it still knows


def test_a_text_that_takes_long_is_waited_for_by_the_next_try(world: World) -> None:
    world.api.latency = 100.0
    error = failed(world.context(timeout=30.0))
    assert isinstance(error, PredictionTimeoutError)
    assert (error.retry_helps, error.paid) == (True, Paid.YES)
    assert "about $0.001 was charged for prompts, but nothing for images" in str(error)
    finished(world.context(try_number=2))
    assert world.api.billed_texts == 1


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("", "has no visible text"),
        ("\u200b", "has no visible text"),
        ("see https://d2h7.cloudfront.net/output/1.png", "has a URL"),
        ("x" * 32_769, "has 32769 characters"),
    ],
)
def test_what_is_no_prompt_is_not_sent(world: World, output: str, said: str) -> None:
    world.api.on_enhance = [world.api.answer_failing(outputs=[output])]
    error = failed(world.context())
    assert isinstance(error, EnhancedPromptError)
    assert said in str(error)
    assert "about $0.001 was charged for prompts" in str(error)
    assert "cloudfront" not in str(error)
    failed(world.context(try_number=2))
    assert world.api.billed_texts == 1


def test_several_prompts_that_fail_are_one_error_and_the_others_are_kept(world: World) -> None:
    moderated = {"status": "failed", "error": "Content flagged as potentially sensitive", "code": 1200}
    bad = world.api.answer_failing(**moderated)
    world.api.on_enhance = [bad, bad]
    error = failed(world.context(is_batch=True), wanted("one", "two", "three"))
    assert isinstance(error, ItemsFailedError)
    assert "2 of 3 prompts could not be enhanced" in str(error)
    assert "so no image is bought" in str(error)
    assert not error.retry_helps
    found = EnhancedPrompts(MemoryFolder(world.disk, RECORDS)).find
    assert sum(found(PromptKey(text, STYLE, API_HOST)) is not None for text in ("one", "two", "three")) == 1


def test_a_fault_of_ours_in_one_text_lets_the_responses_of_the_others_arrive(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = EnhancedPrompts.find

    def broken(records: EnhancedPrompts, key: PromptKey) -> Any:
        if key.text == "one" and attempts(world, PromptKey("two", STYLE, API_HOST)):
            raise ZeroDivisionError
        return find(records, key)

    monkeypatch.setattr(EnhancedPrompts, "find", broken)
    with pytest.raises(ZeroDivisionError):
        run(task(world.context(is_batch=True), wanted("one", "two")))
    for text in ("one", "two"):
        assert all(attempt.outcome for attempt in attempts(world, PromptKey(text, STYLE, API_HOST)))


def test_a_plan_that_could_not_be_read_again_is_refused(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_bitdance.enhancer.stage.MAX_BATCH", 40)
    error = failed(world.context())
    assert isinstance(error, InputError)
    assert "Split the items" in str(error)


# Budget


def test_prompts_and_images_together_are_checked_before_the_first_prompt_is_bought(world: World) -> None:
    items = wanted("one", "two", "three")
    error = failed(world.context(is_batch=True, max_cost_usd=0.032), items)
    assert isinstance(error, BudgetError)
    assert "3 prompts to enhance and 3 images to buy cost about $0.033, but max_cost_usd is $0.032" in str(
        error
    )
    assert str(error).endswith("Nothing was charged.")
    assert (world.api.billed, attempts(world)) == (0, [])
    finished(world.context(is_batch=True, max_cost_usd=0.033), items)


def test_what_the_account_cannot_pay_for_is_refused_before_the_first_prompt(world: World) -> None:
    world.api.balance = 0.0105
    error = failed(world.context(check_balance=True))
    assert isinstance(error, BudgetError)
    assert "but the account's balance is $0.0105" in str(error)
    assert world.api.billed == 0


def test_a_lost_response_does_not_take_the_money_of_the_images(world: World) -> None:
    world.api.on_enhance = [world.api.lose_answer]
    error = failed(world.context(max_cost_usd=0.0115))
    assert isinstance(error, BudgetError)
    assert "max_cost_usd leaves $0.0005 besides the images" in str(error)
    assert world.api.billed == 1


def test_what_earlier_tries_spent_on_prompts_counts(world: World) -> None:
    world.api.on_enhance = [world.api.lose_answer, world.api.lose_answer]
    failed(world.context())
    error = failed(world.context(try_number=2, max_cost_usd=0.0125))
    assert isinstance(error, BudgetError)
    assert "; $0.002 was already spent" in str(error)
    finished(world.context(try_number=2, max_cost_usd=0.013))


def test_a_text_that_is_there_leaves_the_whole_budget_to_the_images(world: World) -> None:
    finished(world.context())
    item = a_wanted(PROMPT, name="other", seed=8, style=STYLE)
    finished(world.context(job=a_job(task_id="other"), max_cost_usd=IMAGE_USD), [item])


def test_the_price_of_the_connection_counts(world: World) -> None:
    error = failed(world.context(max_cost_usd=0.014, prices={PROMPT_OPTIMIZER: 0.005}))
    assert "cost about $0.015" in str(error)


def test_an_error_of_the_image_says_what_its_prompt_cost(world: World) -> None:
    world.api.on_post = [refusal(400, "invalid request body")]
    with pytest.raises(RequestRefusedError) as caught:
        run(task(world.context()))
    assert str(caught.value).endswith(
        "Nothing was charged for the image; up to $0.001 was charged for its prompt."
    )


def test_an_estimate_counts_the_texts_that_are_missing(world: World) -> None:
    items = [*wanted("one", "two", "one"), *wanted(style=None)]
    records = MemoryFolder(world.disk, RECORDS)
    assert run(missing_prompts(records, items, API_HOST)) == 2
    run(enhance_prompts(world.context(is_batch=True), items))
    assert run(missing_prompts(records, items, API_HOST)) == 0


# Rate limits, outages, and the end of the task


def test_a_429_is_waited_out_without_an_intent(world: World) -> None:
    world.api.on_enhance = [refusal(429, "slow down"), refusal(429, "slow down")]
    (result,) = finished(world.context())
    assert (world.api.billed_texts, result["prompts_possibly_paid"]) == (1, 0)
    assert [attempt.is_charged for attempt in attempts(world)] == [False, False, True]
    sent = [at for _, at in world.api.enhanced]
    assert sent[1] - sent[0] >= 1.0
    assert sent[2] - sent[1] >= 2.0
    ends = [attempt.outcome.time.timestamp() for attempt in attempts(world) if attempt.outcome]
    assert ends == pytest.approx(sent)


def test_what_has_begun_when_a_429_comes_is_not_sent_under_its_intent(world: World) -> None:
    refused, both_begun, begun = threading.Event(), threading.Event(), itertools.count(1)

    def refuse(_: httpx.Request) -> httpx.Response:
        refused.set()
        return refusal(429, "slow down")

    def hold_the_second(step: str) -> None:
        number = next(begun) if step == "after create 1.intent" else 0
        if number == 1:
            assert both_begun.wait(10)
        if number == 2:
            both_begun.set()
            assert refused.wait(10)

    world.api.on_enhance = [refuse]
    finished(world.context(is_batch=True, max_in_flight=8, step=hold_the_second), wanted("one", "two"))
    first, second, *_ = [at for _, at in world.api.enhanced]
    assert second - first >= 1.0
    both = [attempts(world, PromptKey(text, STYLE, API_HOST)) for text in ("one", "two")]
    reasons = {each[0].outcome.reason for each in both if each[0].outcome}
    assert "the rate limit" in reasons
    assert world.api.billed_texts == 2


def test_a_429_that_does_not_end_ends_the_try_within_its_timeout(world: World) -> None:
    world.api.on_enhance = [refusal(429, "slow down")] * 100
    begun = world.clock.now
    error = failed(world.context(timeout=300.0))
    assert isinstance(error, RateLimitError)
    assert (error.paid, error.retry_helps) == (Paid.NO, True)
    assert world.clock.now - begun <= 300.0


def test_an_api_that_cannot_be_reached_is_tried_some_times(world: World) -> None:
    world.api.on_enhance = [httpx.ConnectError("refused")] * 2
    finished(world.context())
    world.api.on_enhance = [httpx.ConnectError("refused")] * 10
    error = failed(world.context(job=a_job(task_id="b")), [a_wanted("another", name="b", style=STYLE)])
    assert isinstance(error, NotSentError)
    assert (error.paid, len(world.api.on_enhance)) == (Paid.NO, 5)


def test_the_rate_limit_is_kept_by_prompts_and_images_together(world: World) -> None:
    finished(world.context(is_batch=True, requests_per_minute=10), wanted(*MANY[:12]))
    sent = sorted([at for _, at in world.api.enhanced] + [made.created for made in images(world)])
    assert len(sent) == 24
    assert all(later - first >= 60.0 for first, later in zip(sent, sent[10:], strict=False))


def images(world: World) -> list[Any]:
    return [made for made in world.api.made.values() if "style" not in made.body]


def test_no_more_prompts_are_in_flight_than_the_user_allows(world: World) -> None:
    finished(world.context(is_batch=True, max_in_flight=3), wanted(*MANY[:12]))
    begun = [at for _, at in world.api.enhanced]
    # Each ends after a second, and is polled after two at the earliest.
    assert all(later - first >= 1.0 for first, later in zip(begun, begun[3:], strict=False))


def test_hundreds_of_prompts_cost_no_busy_waiting(world: World) -> None:
    items = wanted(*MANY)
    run(enhance_prompts(world.context(is_batch=True, max_in_flight=20), items))
    seconds = max(at for _, at in world.api.enhanced) - min(at for _, at in world.api.enhanced)
    assert world.api.billed_texts == len(MANY)
    assert len(world.clock.slept) <= 6 * seconds + 5 * len(MANY)


def test_what_another_task_buys_is_waited_for_without_reading_the_records_all_the_time(world: World) -> None:
    records = EnhancedPrompts(MemoryFolder(world.disk, RECORDS))
    begin_elsewhere(world)
    context = world.context()
    begun = world.clock.now
    finished(context)
    assert world.clock.now - begun >= 180.0  # it never came: bought again when its lease has ended
    assert [attempt.is_of(context.journal.job) for attempt in records.attempts(KEY)] == [False, True]
    assert len(world.clock.slept) < 60


def begin_elsewhere(world: World, **changes: Any) -> None:
    """Leave the intent of a task that died right after it."""
    died = world.context(job=a_job(run_id="run-0"), step=Fuse(2))
    with pytest.raises(BaseException, match=r"after create 1\.intent"):
        run(task(died))
    if changes:
        path = f"{RECORDS}/{KEY.folder}/1.intent.json"
        world.disk[path] = json.dumps(json.loads(world.disk[path]) | changes).encode()


def test_a_killed_task_buys_nothing_more_and_the_next_one_finds_what_it_bought(world: World) -> None:
    killed = asyncio.Event()

    def kill(step: str) -> None:
        if step == "before poll":
            killed.set()

    error = failed(
        world.context(is_batch=True, step=kill, killed=killed, max_in_flight=2), wanted(*MANY[:20])
    )
    assert isinstance(error, TaskKilledError)
    assert "was charged for prompts, but nothing for images" in str(error)
    assert world.api.billed_texts == 2
    finished(world.context(is_batch=True, try_number=2), wanted(*MANY[:20]))
    assert world.api.billed_texts == 20


def test_a_task_that_is_killed_before_it_begins_buys_nothing(world: World) -> None:
    killed = asyncio.Event()
    killed.set()
    assert isinstance(failed(world.context(killed=killed)), TaskKilledError)
    assert world.api.billed == 0


def test_a_process_that_sleeps_after_its_intent_does_not_send_it(world: World) -> None:
    def sleep(step: str) -> None:
        if step == "after create 1.intent":
            world.clock.now += 3600

    finished(world.context(step=sleep))
    first, second = attempts(world)
    assert (first.is_charged, second.is_charged, world.api.billed_texts) == (False, True, 1)


# Records are data


@pytest.mark.parametrize("until", [1e10, 3e10])
def test_a_forged_lease_is_not_waited_for(world: World, until: float) -> None:
    begin_elsewhere(world, until=until)
    begun = world.clock.now
    finished(world.context())
    assert world.clock.now - begun < 60


def forge(world: World, name: str, **changes: Any) -> None:
    finished(world.context())
    path = f"{RECORDS}/{KEY.folder}/{name}.json"
    world.disk[path] = json.dumps(json.loads(world.disk[path]) | changes).encode()


@pytest.mark.parametrize("enhanced", ["", "\u200b", "see www.example.com", "x" * 32_769])
def test_a_forged_text_is_not_sent(world: World, enhanced: str) -> None:
    forge(world, "text", enhanced=enhanced)
    error = failed(world.context(job=a_job(task_id="b")), [a_wanted(PROMPT, name="b", style=STYLE)])
    assert isinstance(error, EnhancedPromptError | RecordUnreadableError)
    assert world.api.billed == 2


def test_a_text_of_another_prompt_stops_the_task(world: World) -> None:
    forge(world, "text", text="another")
    error = failed(world.context(job=a_job(task_id="b")), [a_wanted(PROMPT, name="b", style=STYLE)])
    assert isinstance(error, RecordUnreadableError)
    assert world.api.billed == 2


def forge_purchase(world: World, prediction_id: str) -> None:
    begin_elsewhere(world)
    records = EnhancedPrompts(MemoryFolder(world.disk, RECORDS))
    (intent,) = [attempt.intent for attempt in records.attempts(KEY)]
    outcome = {"format": 2, "time": intent.time.isoformat(), "prediction_id": prediction_id}
    world.disk[f"{RECORDS}/{KEY.folder}/1.outcome.json"] = json.dumps(outcome).encode()


def test_a_forged_purchase_of_something_else_gives_no_prompt(world: World) -> None:
    image = world.api.create({"prompt": "somebody's", "size": "512*512", "seed": 1})
    forge_purchase(world, image.id)
    error = failed(world.context())
    assert isinstance(error, EnhancedPromptError)
    assert image.outputs[0] not in str(error)


def echoes(world: World, body: dict[str, Any]) -> str:
    """Return a purchase of the enhancer whose text the API echoes."""
    made = world.api.create(body)
    data = {"id": made.id, "status": "completed", "outputs": made.outputs, "input": body}
    world.api.on_poll = [httpx.Response(200, json={"code": 200, "data": data})] * 2
    return made.id


def test_a_forged_purchase_of_another_text_gives_no_prompt(world: World) -> None:
    forge_purchase(world, echoes(world, {"text": "somebody's secret", "style": STYLE}))
    error = failed(world.context())
    assert isinstance(error, GarbledResponseError)
    assert error.retry_helps
    assert "secret" not in str(error)
    assert not [path for path in world.disk if path.endswith("/text.json")]


def test_an_echo_of_this_text_is_no_reason_to_refuse_it(world: World) -> None:
    forge_purchase(world, echoes(world, {"text": f" {PROMPT}", "style": STYLE, "mode": "image"}))
    finished(world.context())
    assert world.api.billed_texts == 1


def test_a_response_that_shows_another_text_is_a_lost_one(world: World) -> None:
    """A cache before the API repeats a response of another process; its id is in no record of this one."""
    shown = {"text": "somebody's", "style": STYLE}
    other = world.api.create(shown)
    data = {"id": other.id, "status": "created", "input": shown}
    world.api.on_enhance = [httpx.Response(200, json={"code": 200, "data": data})]
    (result,) = finished(world.context())
    assert [body["prompt"] for body in world.api.posts] == [ENHANCED]
    assert result["prompts_possibly_paid"] == 1


def test_a_response_astray_does_not_take_the_prediction_from_the_prompt_that_it_is_of(world: World) -> None:
    """A gateway hands the same response to two requests, and to the wrong one first."""
    texts = {"first", "second"}

    def astray(request: httpx.Request) -> httpx.Response:
        (other,) = texts - {json.loads(request.content)["text"]}
        shown = {"text": other, "style": STYLE}
        made = world.api.create(shown)
        response = httpx.Response(
            200, json={"code": 200, "data": {"id": made.id, "status": "created", "input": shown}}
        )
        world.api.on_enhance.insert(0, response)
        return response

    world.api.on_enhance = [astray]
    outcome = finished(world.context(is_batch=True), wanted(*sorted(texts)))
    assert {body["prompt"] for body in world.api.posts} == {f"{text}, {STYLE}" for text in texts}
    assert sum(result["prompts_possibly_paid"] for result in outcome) == 1
    assert len(world.api.enhanced) == 3


def test_intents_that_say_they_cost_nothing_do_not_raise_the_budget(world: World) -> None:
    world.api.on_enhance = [lost] * 8
    limit = IMAGE_USD + 3 * TEXT_USD
    failed(world.context(max_cost_usd=limit))
    for path in [path for path in world.disk if path.endswith(".intent.json")]:
        world.disk[path] = json.dumps(json.loads(world.disk[path]) | {"estimated_cost_usd": 0}).encode()
    error = failed(world.context(try_number=2, max_cost_usd=limit))
    assert isinstance(error, BudgetError | LostResponseError)
    assert len(world.api.enhanced) <= 3


def test_two_texts_of_a_replaced_process_and_its_successor_are_one(world: World) -> None:
    """The first one counts, for images are made of it."""
    finished(world.context())
    records = EnhancedPrompts(MemoryFolder(world.disk, RECORDS))
    records.write(KEY, "another", prediction_id="pred-9", owner=a_writer(), now=world.clock.now)
    found = records.find(KEY)
    assert found is not None
    assert (found.enhanced, found.prediction_id) == (ENHANCED, "pred-1")


def test_an_image_that_is_reused_with_a_text_that_was_bought_counts_the_text(world: World) -> None:
    """The records of prompts were deleted, and the image was not."""
    finished(world.context())
    for path in [path for path in world.disk if "/prompts/" in path]:
        del world.disk[path]
    (result,) = finished(world.context(job=a_job(run_id="run-2")))
    assert (result["reused"], result["estimated_cost_usd"]) == (True, TEXT_USD)


def test_no_summary_of_an_image_without_enhancement_changes() -> None:
    summary = a_receipt().summary(receipt="r", reused=False, possibly_paid=1)
    assert (summary["estimated_cost_usd"], summary["prompts_possibly_paid"]) == (0.01, 0)


def test_an_attempt_says_of_which_job_it_is(world: World) -> None:
    begin_elsewhere(world)
    (attempt,) = attempts(world)
    assert isinstance(attempt, PromptAttempt)
    assert (attempt.is_of(a_job(run_id="run-0")), attempt.is_of(a_job())) == (True, False)


def test_an_intent_is_written_for_each_submission_and_no_more() -> None:
    world = World(latency=1.0)
    context = world.context(is_batch=True, timeout=86_400.0)
    send = context.client.send

    @world.clock.stands_still_during  # else the deadline of the task is the next thing that is due
    async def others_go_on() -> None:
        for _ in range(50):
            await asyncio.sleep(0)

    async def with_others_under_way(call: Any) -> Any:
        await others_go_on()
        return await send(call)

    context.client.send = with_others_under_way  # type: ignore[method-assign]
    run(enhance_prompts(context, wanted(*(f"prompt {number}" for number in range(6)))))

    intents = [name for name in world.disk if name.endswith("intent.json")]
    assert (len(world.api.enhanced), len(intents)) == (6, 6)
