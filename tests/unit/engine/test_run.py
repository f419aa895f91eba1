"""The one way into a job: first try, retry, resume and take-over."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_bitdance.engine import Finished, Waiting, run_job
from airflow_provider_bitdance.engine.run import CLAIM_TRIES
from airflow_provider_bitdance.exceptions import (
    AuthenticationError,
    BitDanceError,
    FencedError,
    InputError,
    ModerationError,
    NsfwError,
    Paid,
    PredictionFailedError,
    PredictionGoneError,
    PredictionRefusedError,
    PredictionTimeoutError,
    RateLimitError,
    RecordUnreadableError,
)
from airflow_provider_bitdance.records import Status
from tests.unit.support import OUTPUT, START, World, a_job, a_receipt, a_wanted, refusal, run
from tests.wire import httpx


@pytest.fixture
def world() -> World:
    return World()


def go(world: World, *wanted: Any, **context: Any) -> Any:
    return run(run_job(world.context(**context), list(wanted) or [a_wanted()]))


def results(outcome: Finished | Waiting) -> list[dict[str, Any]]:
    assert isinstance(outcome, Finished)
    return outcome.results


def test_one_image_from_the_plan_to_the_store(world: World) -> None:
    (result,) = results(go(world))
    assert result["uri"] == f"{OUTPUT}/cover.png"
    assert (result["prediction_id"], result["seed"], result["reused"]) == ("pred-1", 7, False)
    assert (result["possibly_paid"], result["estimated_cost_usd"]) == (0, 0.01)
    assert world.images == {"cover.png": world.api.made["pred-1"].picture}


def test_one_image_without_a_deferral_takes_three_writes_of_the_journal(world: World) -> None:
    go(world)
    assert world.entry_count == 3
    assert world.event_names == ["claimed", "planned", "intended", "submitted", "stored"]


def test_one_image_takes_one_post_and_no_more_looks_than_needed(world: World) -> None:
    go(world)
    assert len(world.api.posts) == 1
    assert world.api.polls[0] == ("pred-1", START + 2)
    assert len(world.api.polls) == 2
    assert len(world.api.downloads) == 1


def test_a_drawn_seed_is_sent_and_told(world: World) -> None:
    (result,) = results(go(world, a_wanted(seed=-1), drawn_seed=4242))
    assert world.api.posts[0]["seed"] == result["seed"] == 4242


def test_a_finished_job_that_is_entered_again_buys_nothing(world: World) -> None:
    first = results(go(world))
    assert results(go(world, try_number=2)) == first
    assert world.api.billed == 1
    assert len(world.api.polls) == 2


def test_the_same_request_in_another_run_is_free_and_told_as_reused(world: World) -> None:
    first = results(go(world))[0]
    again = results(go(world, job=a_job(run_id="run-2")))[0]
    assert world.api.billed == 1
    assert again == first | {"reused": True, "estimated_cost_usd": 0.0}


@pytest.mark.parametrize("between", [["a"], ["a", "b, but another"]], ids=["removed", "another prompt"])
def test_a_row_that_changes_at_one_clear_and_is_back_at_the_next_is_not_bought_again(
    world: World, between: list[str]
) -> None:
    def wanted(prompts: list[str]) -> list[Any]:
        return [a_wanted(prompt, key=prompt[0], name=prompt[0]) for prompt in prompts]

    batch: dict[str, Any] = {"is_batch": True, "timeout": 60}
    world.api.latency = 1e5
    for number, prompts in enumerate((["a", "b"], between)):
        go(world, *wanted(prompts), job=a_job(generation=number), try_number=number + 1, **batch)
        world.clock.now += 100
    billed, world.api.latency = world.api.billed, 1

    go(world, *wanted(["a", "b"]), job=a_job(generation=2), try_number=3, **batch)

    assert world.api.billed == billed
    assert world.images["b.png"] == world.api.made["pred-2"].picture


def test_regenerate_buys_once_a_generation_and_not_again_in_a_retry(world: World) -> None:
    go(world)
    policy: dict[str, Any] = {"if_exists": "regenerate"}
    cleared = a_job(generation=1)
    go(world, job=cleared, **policy)
    assert world.api.billed == 2
    go(world, job=cleared, try_number=2, **policy)
    assert world.api.billed == 2
    assert world.images == {"cover.png": world.api.made["pred-2"].picture}


def test_regenerate_withdraws_the_old_receipt_before_its_file_is_replaced(world: World) -> None:
    go(world)
    steps: list[str] = []
    go(world, job=a_job(generation=1), if_exists="regenerate", step=steps.append)
    assert steps.index("after remove receipt") < steps.index("before replace cover.png")


def test_fail_refuses_before_anything_is_written_or_bought(world: World) -> None:
    world.context().images.replace("cover.jpg", b"somebody's")
    with pytest.raises(InputError):
        go(world, if_exists="fail")
    assert world.api.posts == []
    assert world.entry_count == 0


def test_fail_does_not_refuse_the_image_that_an_earlier_try_stored(world: World) -> None:
    go(world, if_exists="fail")
    assert len(results(go(world, if_exists="fail", try_number=2))) == 1


# Deferral and deadlines


def test_what_takes_long_is_handed_over_with_ids_and_without_the_prompt(world: World) -> None:
    world.api.latency = 100
    outcome = go(world, defer_after=20.0, timeout=300.0)
    now = world.clock.now
    assert outcome == Waiting({"pred-1": START}, deadline=START + 300, now=now, enough=1, resume_at=now)
    assert START < outcome.now <= START + 20
    assert a_wanted().request.prompt not in json.dumps(dataclasses.asdict(outcome))


def test_what_is_done_soon_is_not_handed_over(world: World) -> None:
    assert len(results(go(world, defer_after=20.0))) == 1


def test_defer_after_nothing_hands_over_without_a_look(world: World) -> None:
    assert isinstance(go(world, defer_after=0.0), Waiting)
    assert world.api.polls == []


def test_a_resume_stores_what_was_bought(world: World) -> None:
    world.api.latency = 100
    go(world, defer_after=20.0)
    world.clock.now += 100
    (result,) = results(go(world, defer_after=20.0))
    assert (result["prediction_id"], world.api.billed) == ("pred-1", 1)


def test_a_resume_of_the_same_try_keeps_the_deadline(world: World) -> None:
    world.api.latency = 1000
    go(world, defer_after=20.0, timeout=300.0)
    world.clock.now += 100
    resumed = go(world, defer_after=20.0, timeout=300.0)
    assert resumed.deadline == START + 300


def test_a_new_try_has_a_deadline_of_its_own(world: World) -> None:
    world.api.latency = 1000
    go(world, defer_after=20.0, timeout=300.0)
    world.clock.now = START + 250
    resumed = go(world, try_number=2, defer_after=20.0, timeout=300.0)
    assert resumed.deadline == START + 250 + 300


@pytest.mark.parametrize("defer_after", [None, 20.0])
def test_a_resume_after_the_deadline_looks_once_and_times_out(
    world: World, defer_after: float | None
) -> None:
    world.api.latency = 1000
    go(world, defer_after=20.0, timeout=300.0)
    world.clock.now = START + 305
    polls = len(world.api.polls)
    with pytest.raises(PredictionTimeoutError):
        go(world, defer_after=defer_after, timeout=300.0)
    assert len(world.api.polls) == polls + 1


@pytest.mark.parametrize("timeout", [10, 17.5, 44, 60, 60.5, 90, 105, 110, 600])
def test_without_a_deferral_the_time_ends_in_an_error_whenever_the_last_look_was(
    world: World, timeout: float
) -> None:
    world.api.latency = 9999
    with pytest.raises(PredictionTimeoutError, match=r"pred-1.*collectable for 7 days") as caught:
        go(world, timeout=timeout)
    assert world.clock.now <= START + timeout
    assert caught.value.retry_helps


def test_the_try_after_a_time_out_looks_again_and_buys_nothing(world: World) -> None:
    world.api.latency = 50
    with pytest.raises(PredictionTimeoutError):
        go(world, timeout=30.0)
    (result,) = results(go(world, try_number=2, timeout=30.0))
    assert (result["prediction_id"], world.api.billed) == ("pred-1", 1)


# Retries


def test_a_failed_prediction_is_bought_anew_by_the_next_try_and_not_by_this_one(world: World) -> None:
    world.api.next_changes = {"status": "failed", "code": 5000, "error": "no GPU"}
    with pytest.raises(PredictionFailedError, match="no GPU"):
        go(world)
    assert world.api.billed == 1
    world.api.next_changes = {}
    (result,) = results(go(world, try_number=2))
    assert (result["prediction_id"], result["possibly_paid"]) == ("pred-2", 0)
    assert world.images == {"cover.png": world.api.made["pred-2"].picture}


def test_with_retry_failed_off_a_next_try_buys_nothing_and_says_that_a_retry_does_not_help(
    world: World,
) -> None:
    world.api.next_changes = {"status": "failed", "code": 5000, "error": "no GPU"}
    for try_number in (1, 2):
        with pytest.raises(PredictionFailedError, match="no GPU") as caught:
            go(world, try_number=try_number, retry_failed=False)
        assert not caught.value.retry_helps
    assert world.api.billed == 1


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"status": "failed", "code": 1200}, ModerationError),
        ({"status": "failed", "code": 1401}, PredictionRefusedError),
        ({"status": "cancelled"}, PredictionGoneError),
        ({"nsfw": True}, NsfwError),
    ],
)
def test_what_failed_for_good_is_told_again_by_the_next_try_which_buys_nothing(
    world: World, changes: dict[str, Any], error: type[Exception]
) -> None:
    world.api.next_changes = changes
    with pytest.raises(error):
        go(world)
    disk, calls = dict(world.disk), len(world.api.polls)
    with pytest.raises(error) as caught:
        go(world, try_number=2)
    assert type(caught.value) is error
    assert world.api.billed == 1
    assert len(world.api.polls) == calls
    assert world.disk == disk


def test_a_cleared_task_asks_anew_for_what_failed_for_good(world: World) -> None:
    world.api.next_changes = {"status": "failed", "code": 1200}
    with pytest.raises(ModerationError):
        go(world)
    world.api.next_changes = {}
    assert len(results(go(world, job=a_job(generation=1)))) == 1


def test_a_lost_response_is_counted_and_the_image_is_bought_anew(world: World) -> None:
    world.api.on_post = [world.api.lose_answer]
    (result,) = results(go(world))
    assert (result["possibly_paid"], result["prediction_id"], world.api.billed) == (1, "pred-2", 2)


def test_a_refusal_is_not_counted(world: World) -> None:
    world.api.on_post = [refusal(401)]
    with pytest.raises(AuthenticationError):
        go(world)
    (result,) = results(go(world, try_number=2))
    assert (result["possibly_paid"], world.api.billed) == (0, 1)


def test_a_resumed_job_does_what_was_planned_and_not_what_the_templates_say_now(world: World) -> None:
    world.api.on_post = [refusal(429, Retry_After="3600")]
    with pytest.raises(RateLimitError):
        go(world, a_wanted("the first prompt", seed=-1), drawn_seed=11)
    (result,) = results(
        go(world, a_wanted("another prompt", name="elsewhere", seed=-1), try_number=2, drawn_seed=22)
    )
    assert [post["prompt"] for post in world.api.posts] == ["the first prompt"] * 2
    assert [post["seed"] for post in world.api.posts] == [11, 11]
    assert result["uri"] == f"{OUTPUT}/cover.png"


def test_a_resumed_job_needs_nothing_of_what_is_wanted_now(world: World) -> None:
    world.api.latency = 100
    go(world, defer_after=5.0)
    world.clock.now += 100
    assert len(results(run(run_job(world.context(), [])))) == 1


def test_a_receipt_that_is_gone_when_the_job_ends_is_said_and_nothing_is_bought(world: World) -> None:
    go(world)
    world.context().receipts.withdraw(a_wanted().destination)
    with pytest.raises(RecordUnreadableError, match=r"its receipt .* is missing"):
        go(world, try_number=2)
    assert world.api.billed == 1


@pytest.mark.parametrize(
    ("polls", "changes", "paid"),
    [
        ([refusal(401)] * 9, {}, Paid.YES),
        ([], {"status": "failed", "code": 5000}, Paid.NO),
        ([], {"nsfw": True}, Paid.YES),
    ],
)
def test_an_error_after_the_purchase_says_whether_the_image_is_paid_for(
    world: World, polls: list[Any], changes: dict[str, Any], paid: Paid
) -> None:
    world.api.on_poll = polls
    world.api.next_changes = changes
    with pytest.raises(BitDanceError) as caught:
        go(world)
    assert caught.value.paid is paid


OUTAGES: dict[str, Callable[[], httpx.Response]] = {
    "503": lambda: refusal(503),
    "a gateway's page": lambda: httpx.Response(504, text="<html>gateway time-out</html>"),
    "an unknown route": lambda: httpx.Response(404, text="404 page not found"),
}


@pytest.mark.parametrize("name", OUTAGES)
@pytest.mark.parametrize("defer_after", [None, 20.0])
def test_an_outage_of_the_polls_of_200_s_does_not_cost_the_image(
    world: World, name: str, defer_after: float | None
) -> None:
    def poll(request: httpx.Request) -> httpx.Response:
        is_away = world.clock.now < START + 200
        return OUTAGES[name]() if is_away else world.api.polled(request)

    world.api.on_poll = [poll] * 1000
    outcome = go(world, defer_after=defer_after)
    while isinstance(outcome, Waiting):
        world.clock.now += 30
        outcome = go(world, defer_after=defer_after)
    assert len(results(outcome)) == world.api.billed == 1
    assert world.clock.now >= START + 200


# Several images


def test_several_images_of_one_job_each_show_their_own_prompt(world: World) -> None:
    wanted = [a_wanted(f"prompt {name}", key=name, name=name) for name in "abcd"]
    stored = results(go(world, *wanted))
    assert [result["uri"] for result in stored] == [f"{OUTPUT}/{name}.png" for name in "abcd"]
    for result, item in zip(stored, wanted, strict=True):
        assert world.api.made[result["prediction_id"]].body["prompt"] == item.request.prompt
    assert world.api.billed == 4


def test_several_images_are_waited_for_side_by_side(world: World) -> None:
    world.api.latency = 60
    go(world, *(a_wanted(key=name, name=name) for name in "abcd"))
    assert world.clock.now - START < 80


def test_of_several_images_only_those_that_are_not_there_are_bought(world: World) -> None:
    go(world, a_wanted(name="b"))
    wanted = [a_wanted(key=name, name=name) for name in "abc"]
    stored = results(go(world, *wanted, job=a_job(run_id="run-2")))
    assert [result["reused"] for result in stored] == [False, True, False]
    assert world.api.billed == 3


def test_when_all_is_reused_one_write_of_the_journal_is_enough(world: World) -> None:
    go(world)
    before = world.entry_count
    go(world, job=a_job(run_id="run-2"))
    assert world.entry_count == before + 1


def test_the_images_that_ended_are_stored_although_another_is_handed_over(world: World) -> None:
    def slow(name: str) -> None:
        if name == "after POST" and len(world.api.made) == 2:
            world.api.made["pred-2"].created += 500

    wanted = [a_wanted(key=name, name=name) for name in "ab"]
    outcome = go(world, *wanted, defer_after=20.0, step=slow)
    assert list(outcome.pending) == ["pred-2"]
    assert list(world.images) == ["a.png"]


# Other processes


def test_a_process_that_lost_the_race_for_the_claim_goes_on_with_the_winners_plan(world: World) -> None:
    """It read the journal before the other wrote: its own plan and its own prompt come too late."""
    late = world.context(try_number=2)
    world.api.on_post = [refusal(429, Retry_After="3600")]
    with pytest.raises(RateLimitError):
        go(world, a_wanted("the first prompt"))
    run(run_job(late, [a_wanted("the late prompt")]))
    assert [post["prompt"] for post in world.api.posts] == ["the first prompt"] * 2
    assert world.event_names.count("planned") == 1


def test_a_process_that_never_gets_the_claim_gives_up_and_buys_nothing(world: World) -> None:
    go(world)
    busy = iter(range(100))

    def always_ahead(name: str) -> None:
        if name.startswith("before create"):
            next(busy)
            world.context(try_number=2).journal.claim(START, START)

    with pytest.raises(FencedError, match="Too many processes"):
        go(world, try_number=2, step=always_ahead)
    assert next(busy) == CLAIM_TRIES
    assert world.api.billed == 1


def test_what_became_of_an_intent_of_another_process_is_found_out_before_the_image_is_bought(
    world: World,
) -> None:
    from airflow_provider_bitdance.engine.plan import plan

    context = world.context()
    context.journal.claim(START + 600, START, *run(plan(context, [a_wanted()])))
    (result,) = results(go(world, try_number=2))
    assert (result["possibly_paid"], world.settle()) == (1, 0)
    assert world.event_names[:6] == ["claimed", "planned", "intended", "claimed", "lost", "intended"]


def test_the_journal_holds_no_output_url_and_no_key(world: World) -> None:
    go(world)
    written = b"".join(world.disk[path] for path in world.disk if path.endswith(".json"))
    assert b"/outputs/" not in written
    assert b"wsk-" not in written


def test_a_warning_is_logged_for_an_image_of_another_run(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    data = b"x" * 500
    world.context().images.replace("cover.png", data)
    world.context().receipts.write(a_wanted().destination, a_receipt(data))
    with caplog.at_level(logging.WARNING):
        go(world, job=a_job(run_id="run-9"))
    assert "which run run-1 of" in caplog.text


def test_every_image_is_stored_when_the_job_is_finished(world: World) -> None:
    context = world.context()
    run(run_job(context, [a_wanted(key=name, name=name) for name in "ab"]))
    assert {image.status for image in context.journal.state.images.values()} == {Status.STORED}
