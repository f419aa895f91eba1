"""A cleared task, and two tasks that want the same file: what is bought is shared, not bought twice."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, TypeVar

import pytest

from airflow_provider_bitdance.engine import Finished, JobContext, Waiting, run_job
from airflow_provider_bitdance.engine.context import MANY
from airflow_provider_bitdance.engine.destination_lock import DestinationLock, HeldError
from airflow_provider_bitdance.exceptions import (
    AuthenticationError,
    BitDanceError,
    DestinationBusyError,
    FencedError,
    InputError,
    NsfwError,
    PredictionTimeoutError,
    RecordUnreadableError,
    UnconfirmedPurchaseError,
)
from airflow_provider_bitdance.records import ImageState, Intended, Job, Planned, Status, Submitted
from airflow_provider_bitdance.records.events import Claimed, Entry
from airflow_provider_bitdance.records.reservations import Reservations
from tests.unit.support import (
    OUTPUT,
    RECORDS,
    Crash,
    Fuse,
    World,
    a_job,
    a_plan,
    a_receipt,
    a_wanted,
    refusal,
    run,
)

T = TypeVar("T")

FIRST, SECOND = a_job(task_id="first"), a_job(dag_id="other", task_id="second", run_id="run-2")
CLEARED = a_job(generation=1)
# A clear that has later iterations of a loop begin again makes new task instances of them, in a new region.
IN_LOOP, AGAIN_IN_LOOP = (a_job(iteration=f"1.019{region}{'0' * 28}") for region in "ab")


def go(world: World, job: Job | None = None, *, named: bool = False, **options: Any) -> Any:
    """Run one process of a job; return its outcome."""
    prompt = options.pop("prompt", "a lighthouse at dawn")
    wanted = a_wanted(prompt, seed=options.pop("seed", -1), named=named)
    return run(run_job(world.context(job=job, **options), [wanted]))


def result(outcome: Any) -> dict[str, Any]:
    assert isinstance(outcome, Finished)
    (found,) = outcome.results
    return found


def in_flight(world: World, job: Job | None = None, *, named: bool = False, **options: Any) -> None:
    """Leave a job behind that has bought its image and waits."""
    assert isinstance(go(world, job, named=named, defer_after=0.0, **options), Waiting)


def crash(step: str) -> None:
    raise Crash(step)


def free_at(world: World, seconds: float) -> str:
    """The time so many seconds from now, as a message has it."""
    return f"{datetime.fromtimestamp(world.clock.now + seconds, UTC):%Y-%m-%d %H:%M:%S}"


def shown(world: World) -> str:
    """The id of the prediction that the one stored image shows."""
    (stored,) = world.images.values()
    (made,) = [made for made in world.api.made.values() if made.picture == stored]
    return made.id


def finish(world: World, job: Job, *, first_try: int = 1) -> dict[str, Any]:
    """Run try after try of a job: one may run out of time while it waits for a dead task."""
    for try_number in range(first_try, first_try + 3):
        try:
            return result(go(world, job, named=True, try_number=try_number))
        except (PredictionTimeoutError, DestinationBusyError):
            continue
    raise AssertionError("never finished")


# A cleared task


@pytest.mark.parametrize("number", [1, 2])
def test_a_damaged_journal_is_moved_as_a_whole_and_then_what_is_stored_is_reused(number: int) -> None:
    world, wanted = World(), [a_wanted(name, key=name, name=name) for name in ("a", "b")]
    world.api.on_post = [refusal(400, "a is refused")]
    with contextlib.suppress(BitDanceError):
        run(run_job(world.context(is_batch=True), wanted))
    assert (len(world.images), world.api.billed) == (1, 1)
    entry = f"{RECORDS}/{a_job().folder}/{number:06}.json"
    world.disk[entry] = world.disk[entry][:-9]

    def clear() -> None:
        run(run_job(world.context(job=CLEARED, try_number=2, is_batch=True), wanted))

    with pytest.raises(RecordUnreadableError, match=r"is damaged.* any other record with its whole folder"):
        clear()
    for path in [path for path in world.disk if a_job().folder in path]:
        del world.disk[path]
    clear()
    assert (len(world.images), world.api.billed) == (2, 2)


@pytest.mark.parametrize("if_exists", ["reuse", "fail"])
def test_what_a_cleared_task_has_bought_is_adopted_with_its_seed(if_exists: str) -> None:
    world = World(latency=50)
    in_flight(world, drawn_seed=11)
    found = result(go(world, CLEARED, try_number=2, drawn_seed=22, if_exists=if_exists))
    assert world.api.billed == 1
    assert (found["seed"], found["reused"], found["estimated_cost_usd"]) == (11, False, 0.01)


def test_what_was_bought_is_adopted_where_fewer_retries_have_made_the_generation_a_lower_one() -> None:
    world = World(latency=50)
    in_flight(world, a_job(generation=3))
    result(go(world, a_job(generation=2), try_number=2))
    assert world.api.billed == 1


def test_the_last_generation_is_the_one_of_the_latest_try_whatever_its_number() -> None:
    world = World(latency=50)
    in_flight(world, a_job(generation=3), prompt="an owl")
    world.clock.now += 60
    in_flight(world, a_job(generation=2), try_number=2, prompt="a windmill")
    assert result(go(world, a_job(generation=4), try_number=3, prompt="a windmill"))
    assert world.api.billed == 2


def test_a_generation_of_a_deleted_run_with_the_same_id_is_not_taken_for_the_last_one() -> None:
    world = World(latency=50)
    in_flight(world, a_job(generation=7), try_number=6, prompt="an owl")
    world.clock.now += 60
    in_flight(world, a_job(generation=0), prompt="a windmill")
    assert result(go(world, a_job(generation=1), try_number=2, prompt="a windmill"))
    assert world.api.billed == 2


def test_a_number_that_comes_back_does_not_bring_an_old_plan_back() -> None:
    """``retries`` was 3, and then 1: ``max_tries`` goes from 3 to 2, and with the next clear to 3 again."""
    world = World(latency=50)
    world.api.on_post = [refusal(401, "Unauthorized")]
    with pytest.raises(AuthenticationError):
        go(world, a_job(generation=3))
    world.clock.now += 60
    in_flight(world, a_job(generation=2), try_number=2)
    world.clock.now += 60

    with pytest.raises(InputError, match="Clear the task again"):
        go(world, a_job(generation=3), try_number=3)

    assert result(go(world, a_job(generation=4), try_number=4))
    assert world.api.billed == 1


def test_a_clear_on_a_worker_whose_clock_is_behind_does_not_make_the_new_plan_an_old_one() -> None:
    world = World(latency=50)
    world.clock.now += 4
    in_flight(world)
    world.clock.now -= 3
    in_flight(world, CLEARED, try_number=2)
    world.clock.now += 5
    assert result(go(world, CLEARED, try_number=3))
    assert world.api.billed == 1


def test_a_damaged_journal_of_long_ago_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    world = World(latency=500)
    in_flight(world, a_job(generation=0))
    world.clock.now += 60
    in_flight(world, a_job(generation=1), try_number=2)
    entry = f"{RECORDS}/{a_job(generation=0).folder}/000001.json"
    world.disk[entry] = world.disk[entry][:-9]

    result(go(world, a_job(generation=2), try_number=3))

    assert world.api.billed == 1
    assert "is damaged" in caplog.text


def test_a_cleared_process_that_writes_at_the_moment_of_its_take_over_is_stopped_all_the_same() -> None:
    world = World(latency=50)
    first, wrote = world.context(), list[str]()
    plan = Planned(output=OUTPUT, images=(a_plan(),))
    first.journal.claim(world.clock.now + 600, world.clock.now, plan)

    def first_is_quicker(step: str) -> None:
        if step == "before create 000002" and not wrote:
            wrote.append(step)
            aside(lambda: first.journal.append(world.clock.now, Claimed(deadline=world.clock.now + 900)))

    result(go(world, CLEARED, try_number=2, step=first_is_quicker))
    with pytest.raises(FencedError):
        first.journal.check_unchanged()


def test_a_cleared_process_without_a_plan_is_stopped_also_where_an_older_one_has_a_plan() -> None:
    world = World(latency=50)
    in_flight(world)
    sleeper = world.context(job=CLEARED, try_number=2)
    sleeper.journal.claim(world.clock.now + 600, world.clock.now)
    world.clock.now += 1
    result(go(world, a_job(generation=2), try_number=3))
    with pytest.raises(FencedError):
        sleeper.journal.check_unchanged()


def test_what_was_adopted_of_an_adopted_image_stays_the_purchase_of_the_first_task() -> None:
    world = World(latency=2000)
    in_flight(world, FIRST, named=True)
    world.clock.now += 601
    in_flight(world, SECOND, named=True)
    world.clock.now += 1000
    cleared = result(go(world, SECOND.model_copy(update={"generation": 1}), named=True, try_number=2))
    assert world.api.billed == 1
    assert (cleared["reused"], cleared["estimated_cost_usd"]) == (True, 0.0)


def test_a_second_clear_adopts_what_the_first_adopted() -> None:
    world = World(latency=50)
    in_flight(world)
    in_flight(world, CLEARED, try_number=2)
    result(go(world, a_job(generation=2), try_number=3))
    assert world.api.billed == 1


def test_a_clear_that_never_got_to_its_plan_does_not_hide_what_was_bought() -> None:
    world = World(latency=50)
    in_flight(world)
    result(go(world, a_job(generation=5), try_number=6))
    assert world.api.billed == 1


@pytest.mark.parametrize("change", [{"if_exists": "regenerate"}, {"prompt": "a windmill"}])
def test_a_clear_that_wants_another_image_buys_and_says_what_stays_collectable(
    change: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    world = World(latency=50)
    in_flight(world)
    found = result(go(world, CLEARED, try_number=2, **change))
    assert (world.api.billed, found["prediction_id"]) == (2, "pred-2")
    assert "pred-1" in caplog.text
    assert "stay collectable for 7 days" in caplog.text


@pytest.mark.parametrize(("if_exists", "billed"), [("reuse", 1), ("regenerate", 2)])
def test_a_clear_after_success(if_exists: str, billed: int) -> None:
    world = World()
    result(go(world))
    found = result(go(world, CLEARED, try_number=2, if_exists=if_exists))
    assert (world.api.billed, found["reused"]) == (billed, if_exists == "reuse")
    assert shown(world) == found["prediction_id"] == f"pred-{billed}"


@pytest.mark.parametrize(
    ("step", "echo", "became", "billed", "possibly_paid"),
    [
        ("before POST", None, "lost", 1, 1),
        ("after POST", None, "lost", 2, 1),
        ("after POST", "history", "submitted", 1, 0),
    ],
)
def test_an_answer_that_a_clear_cut_off_is_looked_up(
    step: str, echo: Any, became: str, billed: int, possibly_paid: int
) -> None:
    world = World()
    world.api.echo = echo
    with pytest.raises(Crash):
        go(world, step=Fuse({"before POST": 3, "after POST": 4}[step]))
    found = result(go(world, CLEARED, try_number=2))
    assert world.event_names[:5] == ["claimed", "planned", "intended", "claimed", became]
    assert (world.api.billed, found["possibly_paid"]) == (billed, possibly_paid)


@pytest.mark.parametrize("if_exists", ["reuse", "regenerate"])
@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("at", range(1, 25))
@pytest.mark.parametrize(
    ("job", "cleared", "try_number"), [(a_job(), CLEARED, 2), (IN_LOOP, AGAIN_IN_LOOP, 1)], ids=["", "loop"]
)
def test_a_process_that_slept_through_a_clear_neither_buys_nor_spoils(
    job: Job, cleared: Job, try_number: int, at: int, named: bool, if_exists: str
) -> None:
    world = World()
    steps: list[str] = []
    found: list[dict[str, Any]] = []
    options: dict[str, Any] = {"try_number": try_number, "named": named, "if_exists": if_exists}

    def sleep_through_the_clear(step: str) -> None:
        steps.append(step)
        if len(steps) == at:
            found.append(elsewhere(world, cleared, **options))

    try:
        outcome = go(world, job, named=named, step=sleep_through_the_clear)
        assert isinstance(outcome, Finished)
    except BitDanceError as error:
        assert isinstance(error, FencedError | InputError)  # noqa: PT017
    if not found:
        found.append(result(go(world, cleared, **options)))
    assert len(world.api.posts) <= (1 if if_exists == "reuse" else 2) + world.unconfirmed
    # A sleep within the write itself cannot be excluded: see docs/internals/records.md.
    if at > len(steps) or not steps[at - 1].startswith("before replace"):
        assert shown(world) == found[0]["prediction_id"]
        receipt = world.context().receipts.find(a_wanted(named=named).destination)
        assert receipt is not None
        assert receipt.prediction_id == found[0]["prediction_id"]


@pytest.mark.parametrize("named", [False, True])
def test_an_iteration_that_begins_again_has_what_it_bought_before_and_is_refused_nothing(named: bool) -> None:
    world = World()
    in_flight(world, IN_LOOP, named=named)
    again = result(go(world, AGAIN_IN_LOOP, named=named))
    assert (world.api.billed, again["prediction_id"], again["reused"]) == (1, "pred-1", True)
    another = a_job(iteration=AGAIN_IN_LOOP.iteration.replace("019b", "019c"))
    changed = result(go(world, another, named=named, prompt="an owl", run_started_at=0.0))
    assert shown(world) == changed["prediction_id"] == "pred-2"


@pytest.mark.parametrize("named", [False, True])
def test_an_iteration_that_began_again_with_another_prompt_is_not_spoilt_by_the_earlier_one(
    named: bool,
) -> None:
    world = World()
    in_flight(world, IN_LOOP, named=named)
    again = result(go(world, AGAIN_IN_LOOP, named=named, prompt="an owl"))
    with pytest.raises(FencedError):
        go(world, IN_LOOP, named=named)
    with pytest.raises(FencedError):
        go(world, IN_LOOP, named=named, try_number=2, prompt="a windmill")
    assert (world.api.billed, shown(world)) == (2, again["prediction_id"])


def aside(work: Callable[[], T]) -> T:
    """Do something in another thread, with a loop of its own, as another worker would."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result(timeout=30)


def elsewhere(world: World, job: Job, **options: Any) -> dict[str, Any]:
    """Run a job to its end as another worker would."""
    return aside(lambda: result(go(world, job, **options)))


@pytest.mark.parametrize("older", [{"try_number": 1}, {"try_number": 1, "job": a_job(generation=0)}])
def test_a_process_that_slept_before_its_claim_does_not_claim_back(older: dict[str, Any]) -> None:
    world = World(latency=50)
    sleeper = world.context(**older)
    in_flight(world, try_number=2)
    sleeper.journal.load()
    with pytest.raises(FencedError):
        run(run_job(sleeper, [a_wanted()]))
    assert world.api.billed == 1


def test_a_failed_image_is_not_bought_by_a_sleeping_retry_after_a_clear() -> None:
    world = World(latency=50)
    world.api.next_changes = {"status": "failed", "code": 5000}
    with pytest.raises(BitDanceError):
        go(world)
    world.api.next_changes = {}
    sleeper = world.context(try_number=2)
    world.clock.now += 1
    found = result(go(world, CLEARED, try_number=3))
    sleeper.journal.load()
    with pytest.raises(FencedError):
        run(run_job(sleeper, [a_wanted(seed=-1)]))
    assert len(world.api.posts) == 2
    assert shown(world) == found["prediction_id"]


@pytest.mark.parametrize("adopts", [True, False])
def test_what_was_possibly_paid_before_a_clear_is_still_reported(adopts: bool) -> None:
    world = World(latency=50)
    with pytest.raises(Crash):
        go(world, step=Fuse(4))  # the POST is out, its answer is not read
    if adopts:
        in_flight(world, try_number=2)
    found = result(go(world, CLEARED, try_number=3))
    assert (world.api.billed, found["possibly_paid"]) == (2, 1)


def test_what_was_possibly_paid_is_still_reported_when_a_clear_reuses_the_image() -> None:
    world = World()
    with pytest.raises(Crash):
        go(world, step=Fuse(4))
    result(go(world, try_number=2))
    found = result(go(world, CLEARED, try_number=3))
    assert (found["reused"], found["possibly_paid"], world.api.billed) == (True, 1, 2)


@pytest.mark.parametrize("named", [False, True])
def test_a_user_who_was_asked_about_a_lost_response_has_the_image_bought_by_a_clear(named: bool) -> None:
    world = World()
    world.api.on_post = [world.api.lose_answer]
    with pytest.raises(UnconfirmedPurchaseError, match="clear the task to buy the image"):
        go(world, named=named, on_lost_response="fail")
    found = result(go(world, CLEARED, named=named, try_number=2, on_lost_response="fail"))
    assert (world.api.billed, found["possibly_paid"]) == (2, 1)
    assert shown(world) == found["prediction_id"] == "pred-2"


@pytest.mark.parametrize("kind", ["gone", "expired"])
def test_a_clear_buys_anew_what_can_no_longer_be_collected(kind: str) -> None:
    world = World(latency=50)
    in_flight(world)
    if kind == "gone":
        del world.api.made["pred-1"]
        world.clock.now += 100
    else:
        world.clock.now += 8 * 24 * 3600
        world.api.on_download = [refusal(404)] * 3
    with pytest.raises(BitDanceError) as lost:
        go(world, try_number=2)
    assert not lost.value.retry_helps
    with pytest.raises(type(lost.value)):
        go(world, try_number=3)
    result(go(world, CLEARED, try_number=4))
    assert len(world.api.posts) == 2


def test_a_flagged_picture_is_stored_after_a_clear_that_allows_it_and_not_bought_again() -> None:
    world = World()
    world.api.next_changes = {"nsfw": True}
    with pytest.raises(NsfwError):
        go(world)
    found = result(go(world, CLEARED, try_number=2, nsfw="allow"))
    assert (world.api.billed, found["nsfw"]) == (1, True)
    with pytest.raises(NsfwError, match="stored for the same request"):
        go(world, a_job(run_id="next"), nsfw="fail")


def test_a_run_that_was_deleted_and_made_again_goes_on() -> None:
    world = World(latency=50)
    in_flight(world, try_number=2)
    world.clock.now += 1
    result(go(world, try_number=1))
    assert world.api.billed == 1


# Two tasks that want the same file


def test_the_second_task_takes_the_prediction_that_the_first_has_bought() -> None:
    world = World(latency=50)
    in_flight(world, FIRST, named=True, drawn_seed=11)
    second = result(go(world, SECOND, named=True, drawn_seed=22))
    assert world.api.billed == 1
    assert (second["seed"], second["reused"], second["estimated_cost_usd"]) == (11, True, 0.0)
    first = result(go(world, FIRST, named=True))
    assert (first["prediction_id"], first["reused"]) == (second["prediction_id"], False)
    assert world.api.billed == 1


def test_two_runs_of_one_dag_that_want_one_file_buy_once() -> None:
    world = World(latency=50)
    in_flight(world, a_job(run_id="monday"), named=True)
    tuesday = result(go(world, a_job(run_id="tuesday"), named=True))
    monday = result(go(world, a_job(run_id="monday"), named=True))
    assert world.api.billed == 1
    assert tuesday["prediction_id"] == monday["prediction_id"] == shown(world)
    assert (monday["reused"], tuesday["reused"]) == (False, True)


def test_a_task_of_another_name_of_its_own_making_is_not_looked_at() -> None:
    world = World(latency=50)
    in_flight(world, FIRST)
    in_flight(world, SECOND)
    assert world.api.billed == 2
    assert not [path for path in world.disk if "/addresses/" in path]


@pytest.mark.parametrize("change", [{"prompt": "a windmill"}, {"if_exists": "regenerate"}])
def test_another_image_at_an_address_that_is_being_made_is_refused_with_both_names(
    change: dict[str, Any],
) -> None:
    world = World(latency=50)
    in_flight(world, FIRST, named=True)
    with pytest.raises(InputError) as refused:
        go(world, SECOND, named=True, **change)
    assert "covers.first of run run-1" in str(refused.value)
    assert "other.second of run run-2" in str(refused.value)
    assert len(world.api.posts) == 1


def test_once_the_first_is_stored_another_image_replaces_it() -> None:
    world = World()
    result(go(world, FIRST, named=True))
    second = result(go(world, SECOND, named=True, prompt="a windmill"))
    assert (world.api.billed, shown(world)) == (2, second["prediction_id"])


def test_an_image_that_was_replaced_is_not_given_out_as_the_first_tasks_result() -> None:
    world = World()
    result(go(world, FIRST, named=True))
    result(go(world, SECOND, named=True, prompt="a windmill"))
    with pytest.raises(BitDanceError, match="run run-2 of Dag other replaced it"):
        go(world, FIRST, named=True)
    assert world.api.billed == 2


def test_five_tasks_at_once_buy_one_image() -> None:
    world = World()
    jobs = [a_job(task_id=f"task_{number}") for number in range(5)]

    async def all_at_once() -> list[Any]:
        return await asyncio.gather(
            *(run_job(world.context(job=job), [a_wanted(named=True)]) for job in jobs)
        )

    found = [result(outcome) for outcome in run(all_at_once())]
    assert world.api.billed == 1
    assert {each["prediction_id"] for each in found} == {"pred-1"}
    assert sorted(each["reused"] for each in found) == [False, True, True, True, True]


@pytest.mark.parametrize("at", range(1, 25))
def test_wherever_the_first_task_dies_the_second_finishes_and_the_first_goes_on(at: int) -> None:
    world = World()
    died = True
    try:
        go(world, FIRST, named=True, step=Fuse(at))
        died = False
    except Crash:
        pass
    second = finish(world, SECOND)
    first = finish(world, FIRST, first_try=2)
    assert world.api.billed <= 1 + world.unconfirmed <= 2
    assert first["prediction_id"] == second["prediction_id"] == shown(world)
    assert died or second["reused"]


@pytest.mark.parametrize("at", range(1, 25))
def test_wherever_the_first_task_sleeps_it_buys_nothing_when_it_wakes_up(at: int) -> None:
    world = World()
    steps: list[str] = []
    found: list[dict[str, Any]] = []

    def sleep_until_the_second_is_done(step: str) -> None:
        steps.append(step)
        if len(steps) == at:
            world.clock.now += 601  # past the deadline: it is taken for dead
            found.append(elsewhere(world, SECOND, named=True))

    with contextlib.suppress(BitDanceError):
        go(world, FIRST, named=True, step=sleep_until_the_second_is_done)
    (image,) = world.images.values()
    assert world.api.billed <= 1 + world.unconfirmed <= 2
    assert image in [made.picture for made in world.api.made.values()]


def test_a_prediction_that_failed_for_both_is_bought_anew_by_one_and_shared_again() -> None:
    world = World(latency=50)
    world.api.next_changes = {"status": "failed", "code": 5000}
    in_flight(world, FIRST, named=True)
    world.api.next_changes = {}
    with pytest.raises(BitDanceError):
        go(world, SECOND, named=True)
    with pytest.raises(BitDanceError):
        go(world, FIRST, named=True)
    in_flight(world, FIRST, named=True, try_number=2)
    second = result(go(world, SECOND, named=True, try_number=2))
    assert (second["prediction_id"], second["reused"], len(world.api.posts)) == ("pred-2", True, 2)


def test_an_answer_that_comes_while_the_first_is_stopped_is_seen() -> None:
    world = World(latency=50)
    with pytest.raises(Crash):
        go(world, FIRST, named=True, step=Fuse(6))  # intended
    world.clock.now += 601
    first = world.context(job=FIRST)
    answered = []

    def answer_just_before_the_stop(step: str) -> None:
        if step == "before create 000003" and not answered:
            answered.append(step)
            event = Submitted(key="image", prediction_id=world.api.create({"seed": 4242}).id)
            entry = Entry(
                number=first.journal.state.number + 1,
                time=datetime.fromtimestamp(world.clock.now, UTC),
                writer=first.journal.state.owner,
                events=(event,),
            )
            path = f"{FIRST.folder}/{entry.number:06}.json"
            first.records.create(path, entry.model_dump_json().encode())

    second = result(go(world, SECOND, named=True, step=answer_just_before_the_stop))
    assert answered
    assert (second["reused"], world.api.billed) == (True, 1)


def test_a_failed_image_is_bought_by_the_second_and_shared_by_the_firsts_retry() -> None:
    world = World(latency=50)
    world.api.next_changes = {"status": "failed", "code": 5000}
    with pytest.raises(BitDanceError):
        go(world, FIRST, named=True)
    world.api.next_changes = {}
    retry = world.context(job=FIRST, try_number=2)
    in_flight(world, SECOND, named=True)
    retry.journal.load()
    first = result(run(run_job(retry, [a_wanted(seed=-1, named=True)])))
    second = result(go(world, SECOND, named=True))
    assert len(world.api.posts) == 2
    assert first["prediction_id"] == second["prediction_id"] == "pred-2"


def test_a_third_request_cannot_slip_in_while_one_that_has_taken_over_still_waits() -> None:
    world = World(latency=5000)
    in_flight(world, FIRST, named=True)
    world.clock.now += 601
    in_flight(world, SECOND, named=True)
    world.api.latency = 50
    result(go(world, FIRST, named=True, try_number=2))
    with pytest.raises(InputError, match=r"other\.second of run run-2"):
        go(world, a_job(task_id="third"), named=True, prompt="a windmill")
    result(go(world, SECOND, named=True))
    third = result(go(world, a_job(task_id="third", generation=1), named=True, prompt="a windmill"))
    assert shown(world) == third["prediction_id"]


@pytest.mark.parametrize("status", ["planned", "submitted"])
def test_a_dead_task_does_not_hold_an_address_beyond_its_deadline(
    status: str, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(latency=50)
    if status == "planned":
        world.api.on_post = [refusal(400, "Insufficient credits. Please top up.")]
        with pytest.raises(Crash):
            go(world, FIRST, named=True, step=lambda step: not world.api.posts or crash(step))
    else:
        in_flight(world, FIRST, named=True)
    with pytest.raises(InputError, match=f"its reservation ends at {free_at(world, 600)} UTC"):
        go(world, SECOND, named=True, prompt="a windmill")
    world.clock.now += 601
    job = a_job(run_id="tomorrow")
    found = result(go(world, job, named=True, prompt="a windmill"))
    assert shown(world) == found["prediction_id"]
    assert ("collectable for 7 days" in caplog.text) == (status == "submitted")


@pytest.mark.parametrize(
    ("answer", "try_number", "of_how_many", "is_free"),
    [
        (refusal(401, "Unauthorized"), 1, 3, True),
        (refusal(500, "Internal error"), 3, 3, True),
        (refusal(500, "Internal error"), 1, 3, False),
    ],
    ids=["no retry helps", "the last try", "a try is to come"],
)
def test_a_task_that_has_failed_for_good_frees_its_address_at_once(
    answer: Any, try_number: int, of_how_many: int, is_free: bool
) -> None:
    world = World(latency=50)
    world.api.on_post = [answer] * 9
    first = a_job(task_id="first", generation=of_how_many - 1)
    with pytest.raises(BitDanceError):
        go(world, first, named=True, try_number=try_number)
    world.api.on_post = []

    if is_free:
        result(go(world, SECOND, named=True, prompt="a windmill"))
        assert world.api.billed == 1
    else:
        with pytest.raises(InputError, match="is making a different image"):
            go(world, SECOND, named=True, prompt="a windmill")


def test_a_batch_that_has_failed_for_good_frees_its_addresses_at_once() -> None:
    world = World()
    world.api.on_post = [refusal(401, "Unauthorized")]
    wanted = [a_wanted(name, key=name, name=name, named=True) for name in ("a", "b")]
    failed = run(run_job(world.context(job=FIRST, is_batch=True, max_in_flight=1), wanted))
    assert isinstance(failed, Finished)
    assert isinstance(failed.stopped, AuthenticationError)

    other = [a_wanted("a windmill", key=name, name=name, named=True) for name in ("a", "b")]
    made = run(run_job(world.context(job=SECOND, is_batch=True), other))

    assert isinstance(made, Finished)
    assert len(made.stored) == 2


def test_a_task_with_a_paid_image_in_flight_keeps_its_address_also_where_it_has_failed_for_good() -> None:
    world = World(latency=50)
    in_flight(world, FIRST, named=True)
    world.api.on_poll = [refusal(401, "Unauthorized") for _ in range(9)]
    with pytest.raises(AuthenticationError):
        go(world, SECOND, named=True)  # has adopted the first one's prediction
    with pytest.raises(InputError):
        go(world, a_job(task_id="third", run_id="run-3"), named=True, prompt="a windmill")
    world.api.on_poll = []
    assert result(go(world, FIRST, named=True))


def test_a_task_that_failed_for_good_and_is_run_again_has_its_whole_time() -> None:
    world = World(latency=50)
    world.api.on_post = [refusal(401, "Unauthorized")]
    with pytest.raises(AuthenticationError):
        go(world, FIRST)
    assert result(go(world, FIRST))["prediction_id"]


@pytest.mark.parametrize("if_exists", ["reuse", "regenerate"])
def test_mapped_tasks_with_one_file_s_name_do_not_each_buy_an_image_and_keep_one(if_exists: str) -> None:
    world = World()
    began = world.clock.now
    result(go(world, a_job(map_index=0), named=True, run_started_at=began, if_exists=if_exists))
    world.clock.now += 60

    with pytest.raises(
        InputError, match=r"covers\.cover \[0\] of run run-1 has just stored a different image at"
    ) as refused:
        go(world, a_job(map_index=1), named=True, prompt="an owl", run_started_at=began, if_exists=if_exists)

    assert world.api.billed == 1
    assert "End output_path with a slash" in str(refused.value)


@pytest.mark.parametrize(
    ("jobs", "index"),
    [
        ([a_job(map_index=at) for at in (0, 1)], "{{ ti.map_index }}"),
        ([a_job(iteration=f"{at}.019a") for at in (0, 1)], "{{ loop.index }}"),
        (
            [a_job(iteration=f"{at}.019{at}", map_index=0) for at in (0, 1)],
            "{{ loop.index }}-{{ ti.map_index }}",
        ),
    ],
    ids=["mapped", "in a loop", "mapped in a loop"],
)
def test_the_refusal_of_one_file_s_name_says_which_index_tells_the_tasks_apart(
    jobs: list[Job], index: str
) -> None:
    world = World()
    result(go(world, jobs[0], named=True, run_started_at=0.0))
    with pytest.raises(InputError, match=f"or put {index} into the file name"):
        go(world, jobs[1], named=True, prompt="an owl", run_started_at=0.0)


@pytest.mark.parametrize(
    ("job", "run_began_after"),
    [(a_job(run_id="tomorrow"), 0.0), (a_job(map_index=1), 30.0)],
    ids=["another run", "the run was cleared, and its rows have moved"],
)
def test_what_another_run_has_made_is_replaced(job: Job, run_began_after: float) -> None:
    world = World()
    began = world.clock.now
    result(go(world, a_job(map_index=0), named=True, run_started_at=began))
    world.clock.now += 60

    made = result(go(world, job, named=True, prompt="an owl", run_started_at=began + run_began_after))

    assert shown(world) == made["prediction_id"]


def move_journal_away(world: World, job: Job) -> None:
    for path in [path for path in world.disk if job.folder in path]:
        del world.disk[path]


def test_where_an_owners_journal_was_moved_away_another_request_is_bought() -> None:
    world = World()
    result(go(world, FIRST, named=True))
    move_journal_away(world, FIRST)
    second = result(go(world, SECOND, named=True, prompt="a windmill"))
    assert (world.api.billed, second["reused"]) == (2, False)
    assert shown(world) == second["prediction_id"] == "pred-2"


def test_where_an_owners_journal_was_moved_away_the_picture_that_it_would_have_replaced_is_not_taken() -> (
    None
):
    world = World()
    result(go(world, a_job(task_id="before"), named=True, prompt="an owl"))
    in_flight(world, FIRST, named=True)
    move_journal_away(world, FIRST)
    second = result(go(world, SECOND, named=True))
    assert (world.api.billed, second["reused"]) == (3, False)
    assert shown(world) == second["prediction_id"] == "pred-3"


def test_what_an_owner_has_stored_since_the_plan_is_taken_also_where_its_journal_was_moved_away() -> None:
    world = World()

    def first_is_quicker(step: str) -> None:
        if step == "after create 000001" and not world.images:
            elsewhere(world, FIRST, named=True)
            move_journal_away(world, FIRST)

    second = result(go(world, SECOND, named=True, step=first_is_quicker))
    assert (world.api.billed, second["reused"], second["prediction_id"]) == (1, True, "pred-1")


@pytest.mark.parametrize("change", ["gone", "changed"])
def test_a_file_that_is_not_as_another_run_stored_it_is_bought_anew(change: str) -> None:
    world = World()
    result(go(world, a_job(run_id="monday"), named=True))
    path = f"{OUTPUT}/cover.png"
    if change == "gone":
        del world.disk[path]
    else:
        world.disk[path] = world.disk[path][:-1] + b"!"
    world.clock.now += 8 * 24 * 3600  # WaveSpeed does not keep it for longer than 7 days
    found = result(go(world, a_job(run_id="tuesday"), named=True))
    assert (world.api.billed, found["reused"]) == (2, False)
    assert shown(world) == found["prediction_id"] == "pred-2"


THIRD = a_job(task_id="third", run_id="run-3")


def test_a_picture_of_a_task_that_took_the_address_is_not_replaced_by_one_that_still_waited() -> None:
    world = World(latency=5000)
    in_flight(world, FIRST, named=True)
    world.clock.now += 601
    in_flight(world, SECOND, named=True)  # it takes over, and adopts
    world.clock.now += 601
    world.api.latency = 50
    third = result(go(world, THIRD, named=True, prompt="a windmill"))
    with pytest.raises(InputError, match=r"covers\.third of run run-3 is making a different image"):
        go(world, SECOND, named=True, try_number=2)
    assert shown(world) == third["prediction_id"] == "pred-2"


def test_a_receipt_of_a_task_that_took_the_address_during_a_write_is_not_replaced() -> None:
    world = World(latency=5000)
    in_flight(world, FIRST, named=True)
    world.clock.now += 601  # both sharers take over, and adopt
    sharer, numbers = a_job(task_id="sharer"), list[str]()
    thirds: list[dict[str, Any]] = []

    def others_are_quicker(step: str) -> None:
        if step == "before create 000002":
            numbers.append(step)
            if len(numbers) == 2:  # it has adopted, and reserves: the other sharer has the destination
                aside(lambda: in_flight(world, sharer, named=True))
                world.api.latency = 50
        elif step == "after replace cover.png" and not thirds:
            world.clock.now += 601  # the others are taken for dead
            thirds.append(elsewhere(world, THIRD, named=True, prompt="a windmill"))

    with pytest.raises(InputError, match=r"covers\.third of run run-3"):
        go(world, SECOND, named=True, timeout=5000.0, step=others_are_quicker)

    receipt = world.context().receipts.find(a_wanted(named=True).destination)
    assert receipt is not None
    assert receipt.prediction_id == shown(world) == thirds[0]["prediction_id"] == "pred-2"


@pytest.mark.parametrize("at", ["before download", "after create cover.png"])
def test_a_task_that_slept_past_its_lease_stores_nothing_where_another_task_makes_its_image(at: str) -> None:
    world = World()
    slept = list[str]()

    def sleep(step: str) -> None:
        if step == at and not slept:
            slept.append(step)
            world.clock.now += 601
            elsewhere(world, SECOND, named=True, prompt="a windmill")

    with pytest.raises(FencedError):
        go(world, FIRST, named=True, step=sleep)
    assert slept
    receipt = world.context().receipts.find(a_wanted(named=True).destination)
    assert receipt is not None
    assert receipt.prediction_id == shown(world) == "pred-2"


def test_a_receipt_says_under_which_reservation_its_image_was_made() -> None:
    world = World()
    result(go(world, FIRST, named=True))
    receipt = world.context().receipts.find(a_wanted(named=True).destination)
    assert receipt is not None
    assert receipt.reservation == 1


def test_a_task_past_its_lease_reads_whose_destination_it_is_although_nothing_is_there() -> None:
    world = World()
    slept = list[str]()

    def sleep(step: str) -> None:
        if step == "before download" and not slept:
            slept.append(step)
            world.clock.now += 601
            world.api.latency = 5000
            aside(lambda: in_flight(world, SECOND, named=True, prompt="a windmill"))

    with pytest.raises((InputError, FencedError)):
        go(world, FIRST, named=True, step=sleep)
    assert slept
    assert world.images == {}


def test_a_second_task_waits_no_longer_than_its_own_time() -> None:
    world = World()
    with pytest.raises(Crash):
        go(world, FIRST, named=True, step=Fuse(6), timeout=7 * 24 * 3600.0)
    start = world.clock.now
    with pytest.raises(DestinationBusyError) as busy:
        go(world, SECOND, named=True, timeout=60.0)
    assert busy.value.retry_helps
    assert 60 <= world.clock.now - start < 75
    assert len(world.api.posts) == 0


def test_the_stop_by_another_task_is_not_taken_for_ones_own_deadline() -> None:
    world = World(latency=50)
    with pytest.raises(Crash):
        go(world, FIRST, named=True, step=Fuse(5), try_number=2)
    world.clock.now += 601
    in_flight(world, SECOND, named=True, try_number=2)
    assert result(go(world, FIRST, named=True, try_number=2))["reused"]


def test_a_reservation_is_found_without_reading_all_that_came_before() -> None:
    world = World()
    for number in range(6):
        job = a_job(run_id=f"run-{number}")
        result(go(world, job, named=True, prompt=f"prompt {number}"))
    reads: list[str] = []
    context = world.context(job=a_job(run_id="last"))
    folder = context.records
    original = folder.read
    folder.read = lambda name: (reads.append(name), original(name))[1]  # type: ignore[method-assign]
    run(run_job(context, [a_wanted("prompt last", named=True)]))
    assert not [name for name in reads if name.endswith("000001.json") and "addresses/" in name]
    assert context.journal.state.having(Status.STORED)


@pytest.mark.parametrize("count", [2, MANY + 1])
def test_an_image_is_tried_again_once_another_task_has_stored_it_or_its_lease_has_ended(
    count: int,
) -> None:
    world = World()
    context = world.context()
    keys = [f"k{number}" for number in range(count)]
    plan = Planned(output=OUTPUT, images=tuple(a_plan(key, stem=key) for key in keys))
    context.journal.claim(world.clock.now + 600, world.clock.now, plan)
    lock = DestinationLock(context)
    lock.held = dict.fromkeys(keys, world.clock.now + 600)
    assert run(lock.freed()) == []
    context.receipts.write(context.destination_of(context.journal.state.images["k1"].plan), a_receipt())
    assert run(lock.freed()) == ["k1"]
    world.clock.now += 600
    assert run(lock.freed()) == [key for key in keys if key != "k1"]
    assert lock.held == {}


def test_a_task_that_waits_where_an_older_image_is_replaced_gives_its_worker_back() -> None:
    world = World(latency=50)
    result(go(world, a_job(run_id="older"), named=True, prompt="an owl"))
    in_flight(world, FIRST, named=True)
    start = world.clock.now
    assert isinstance(go(world, SECOND, named=True, defer_after=20.0, break_even=10.0), Waiting)
    assert world.clock.now - start == 20


# One lock, asked directly


def two_in_flight(world: World) -> JobContext:
    """Return a batch that has bought images at ``a`` and ``b`` and waits."""
    wanted = [a_wanted(key=name, name=name, named=True) for name in "ab"]
    context = world.context(job=FIRST, is_batch=True, defer_after=0.0)
    assert isinstance(run(run_job(context, wanted)), Waiting)
    return context


def locked(world: World, *, seed_of_b: int = 7, **policy: Any) -> tuple[DestinationLock, list[ImageState]]:
    """Return the lock of a second task that has planned images at the same destinations, and the images."""
    context = world.context(job=SECOND, is_batch=True, **policy)
    plans = [a_plan("a", stem="a"), a_plan("b", stem="b", seed=seed_of_b)]
    named = tuple(plan.model_copy(update={"named": True}) for plan in plans)
    context.journal.claim(world.clock.now + 6000, world.clock.now, Planned(output=OUTPUT, images=named))
    return DestinationLock(context), list(context.journal.state.images.values())


def test_what_a_known_holder_has_bought_is_adopted_once_its_lease_has_ended() -> None:
    world = World(latency=5000)
    bought = two_in_flight(world).journal.state.images
    lock, (a, b) = locked(world)

    async def take() -> bool:
        with pytest.raises(HeldError) as held:
            await lock.take(a)
        world.clock.now = held.value.until
        return await lock.take(b)

    assert run(take()) is False
    assert world.context(job=SECOND).journal.state.images["b"].prediction_id == bought["b"].prediction_id


@pytest.mark.parametrize("at", ["before its journal is read", "when its journal is claimed"])
def test_a_holder_that_has_extended_its_deadline_is_waited_for_and_not_stopped(at: str) -> None:
    world = World(latency=5000)
    first, moments = two_in_flight(world), list[str]()

    def extend() -> None:
        if moments:
            moments.clear()
            first.journal.append(world.clock.now, Claimed(deadline=world.clock.now + 300))

    lock, (a, _) = locked(world, step=lambda step: extend() if step.startswith("before create") else None)

    async def take() -> float:
        with pytest.raises(HeldError) as held:
            await lock.take(a)
        world.clock.now = held.value.until
        moments.append(at)
        if at == "before its journal is read":
            extend()
        with pytest.raises(HeldError) as again:
            await lock.take(a)
        return again.value.until

    assert run(take()) == world.clock.now + 300
    first.journal.check_unchanged()  # nobody has claimed it


def test_a_store_that_lists_another_tasks_reservation_late_is_read_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world, late = World(latency=5000), [True, True]
    two_in_flight(world)
    lock, (a, _) = locked(world)
    last = Reservations.last

    def lists_late(self: Reservations, *args: Any, **options: Any) -> Any:
        return None if late and late.pop() else last(self, *args, **options)

    monkeypatch.setattr(Reservations, "last", lists_late)
    with pytest.raises(HeldError):
        run(lock.take(a))
    assert late == []


@pytest.mark.parametrize("change", [{"if_exists": "regenerate"}, {"seed_of_b": 8}])
def test_nobody_waits_for_a_known_holders_image_that_cannot_be_the_own_result(change: dict[str, Any]) -> None:
    world = World(latency=5000)
    two_in_flight(world)
    lock, (a, b) = locked(world, **change)

    async def take() -> None:
        with contextlib.suppress(HeldError, InputError):
            await lock.take(a)
        with pytest.raises(InputError, match="is making a different image"):
            await lock.take(b)

    run(take())


def test_a_flagged_image_that_another_task_has_stored_meanwhile_is_not_the_result() -> None:
    world = World()
    world.api.next_changes = {"nsfw": True}
    lock, (a, _) = locked(world)
    wanted = [a_wanted(key="a", name="a", named=True)]
    assert isinstance(run(run_job(world.context(job=FIRST, nsfw="allow"), wanted)), Finished)
    with pytest.raises(NsfwError, match="stored for the same request"):
        run(lock.take(a))


@pytest.mark.parametrize("is_stored", [False, True])
def test_what_a_stopped_task_buys_after_it_has_come_back_is_shared_and_not_bought_again(
    is_stored: bool,
) -> None:
    world, seen = World(latency=50), list[str]()

    def dies_before_its_intent(step: str) -> None:
        if step == "before create 000002":
            raise Crash(step)

    with pytest.raises(Crash):
        go(world, FIRST, named=True, step=dies_before_its_intent)
    world.clock.now += 601

    def first_comes_back(step: str) -> None:
        if step == "before create 000002":
            seen.append(step)
            if len(seen) == 2:  # the first one's journal is claimed; next is the reservation
                aside(lambda: again(world, FIRST, named=True, try_number=2))

    again = go if is_stored else in_flight
    second = result(go(world, SECOND, named=True, step=first_comes_back))
    assert (world.api.billed, second["prediction_id"], second["reused"]) == (1, "pred-1", True)


def test_of_many_images_each_that_another_task_stores_is_read_when_it_is_tried_and_for_the_result() -> None:
    world, read = World(), list[str]()
    wanted = [a_wanted(f"prompt {n}", key=f"{n}", name=f"{n}", named=True) for n in range(MANY + 5)]
    second = world.context(job=SECOND)
    original = second.records.read

    def reading(name: str) -> bytes | None:
        data = original(name)
        read.extend([name] if data and name.startswith("receipts/") else [])
        return data

    second.records.read = reading  # type: ignore[method-assign]

    async def both() -> list[Any]:
        return await asyncio.gather(run_job(world.context(job=FIRST), wanted), run_job(second, wanted))

    first, second_outcome = run(both())
    assert len(first.stored) == len(second_outcome.stored) == world.api.billed == len(wanted)
    assert max(Counter(read).values(), default=0) <= 2


def test_what_another_task_claims_to_have_bought_is_not_adopted_where_it_is_another_image_of_ours() -> None:
    """The records of that task were changed, or a gateway repeated one response to both."""
    world = World(latency=5000)
    bought = two_in_flight(world).journal.state.images
    lock, (_, b) = locked(world)
    context = lock._context
    world.clock.now += 700

    async def take() -> list[bool]:
        await context.write(Intended(keys=("a",)))
        await context.write(Submitted(key="a", prediction_id=bought["b"].prediction_id))
        return [await lock.take(b)]

    assert run(take()) == [True]
    assert world.context(job=SECOND).journal.state.images["b"].status is Status.PLANNED


def test_what_another_run_has_stored_since_the_plan_gives_way_before_its_file_is_replaced() -> None:
    """Its receipt would speak of a picture that is not there if the process died between."""
    world = World()
    steps: list[str] = []

    def step(name: str) -> None:
        steps.append(name)
        if name == "before create 000001" and not world.images:
            run(run_job(world.context(job=a_job(run_id="run-2")), [a_wanted("another prompt", named=True)]))
            assert world.api.billed == 1

    outcome = run(run_job(world.context(step=step), [a_wanted(named=True)]))
    assert isinstance(outcome, Finished)
    assert world.api.billed == 2
    assert steps.index("after remove receipt") < steps.index("before replace cover.png")
