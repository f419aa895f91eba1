"""A process may die anywhere: at every store write and every API call, before it and after it.

Each test kills the first process at one point (some kill a second one too), has fresh processes go on from
what lies on the disk, and compares the bill with what is stored.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_bitdance.engine import Finished, JobContext, Waiting, Wanted, run_job
from airflow_provider_bitdance.exceptions import BitDanceError, FencedError, StorageError
from airflow_provider_bitdance.records import Journal
from airflow_provider_bitdance.storage import LocalFolder
from airflow_provider_bitdance.storage.naming import parse_destination
from tests.unit.support import (
    OUTPUT,
    RECORDS,
    Crash,
    Fuse,
    MemoryFolder,
    World,
    a_receipt,
    a_wanted,
    a_writer,
    envelope,
    run,
)

POINTS = [
    "before create 000001",
    "after create 000001",
    "before POST",
    "after POST",
    "before create 000002",
    "after create 000002",
    "before poll",
    "after poll",
    "before poll",
    "after poll",
    "before download",
    "after download",
    "before create cover.png",
    "after create cover.png",
    "before create receipt",
    "after create receipt",
    "before create 000003",
    "after create 000003",
]
"""The steps of one image, in order: entry 1 claims, plans and intends, 2 has the id, 3 is the end."""

UNSENT = POINTS[1:3]
"""Here the intent is written, and nothing is bought."""
UNANSWERED = POINTS[3:5]
"""Here the image is bought, and nothing on the disk says so."""

LIMIT = 20


def go(world: World, *, crash_at: int = 0, wanted: list[Wanted] | None = None, **context: Any) -> Any:
    """Run one process; return its outcome, or ``None`` where it died."""
    fuse = Fuse(crash_at)
    try:
        return run(run_job(world.context(step=fuse, **context), wanted or [a_wanted()]))
    except Crash:
        return None


def finish(world: World, *, first_try: int = 2, **context: Any) -> list[dict[str, Any]]:
    """Run process after process, each a new try, until one has finished."""
    for try_number in range(first_try, first_try + LIMIT):
        outcome = go(world, try_number=try_number, **context)
        if isinstance(outcome, Finished):
            return outcome.results
    raise AssertionError("never finished")


def check(world: World, results: list[dict[str, Any]]) -> None:
    """Compare what is stored, what the results say and what was billed."""
    stored = world.images
    assert {result["uri"] for result in results} == {f"{OUTPUT}/{name}" for name in stored}
    for result in results:
        made = world.api.made[result["prediction_id"]]
        assert stored[result["uri"].removeprefix(f"{OUTPUT}/")] == made.picture
        assert result["seed"] == made.body["seed"]
    lost = world.event_names.count("lost")
    assert lost == sum(result["possibly_paid"] for result in results)
    assert world.api.billed <= len(results) + lost


def test_the_points_of_this_test_are_all_that_there_are() -> None:
    fuse = Fuse()
    run(run_job(World().context(step=fuse), [a_wanted()]))
    assert fuse.steps == POINTS


@pytest.mark.parametrize("echo", [None, "history", "poll"])
@pytest.mark.parametrize("at", range(len(POINTS)), ids=lambda at: f"{at + 1} {POINTS[at]}")
def test_after_a_crash_anywhere_the_image_is_stored_once_and_the_bill_is_explained(
    at: int, echo: Any
) -> None:
    world = World()
    world.api.echo = echo
    assert go(world, crash_at=at + 1) is None
    (result,) = finish(world)
    check(world, [result])
    unproven = POINTS[at] in UNANSWERED and echo is None
    assert world.api.billed == (2 if unproven else 1)
    assert result["possibly_paid"] == (1 if unproven or POINTS[at] in UNSENT else 0)
    assert world.settle() == (1 if unproven else 0)


@pytest.mark.parametrize("at", range(len(POINTS)), ids=lambda at: f"{at + 1} {POINTS[at]}")
def test_after_a_crash_on_a_real_disk_too(at: int, tmp_path: Path) -> None:
    world = World()
    wanted = Wanted("image", a_wanted().request, parse_destination(f"{tmp_path}/out/", default_stem="cover"))

    def process(try_number: int, fuse: Fuse) -> JobContext:
        context = world.context(try_number=try_number, step=fuse)
        folder = Stepping(tmp_path / "out" / ".bitdance", fuse)
        journal = Journal(folder, a_writer(try_number=try_number))
        journal.load()
        return JobContext(
            client=context.client,
            journal=journal,
            records=folder,
            images=Stepping(tmp_path / "out", fuse),
            policy=context.policy,
            log=context.log,
            started_at=world.clock.now,
            clock=world.clock,
        )

    with pytest.raises(Crash):
        run(run_job(process(1, Fuse(at + 1)), [wanted]))
    outcome = run(run_job(process(2, Fuse()), [wanted]))
    assert isinstance(outcome, Finished)
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    images = [path for path in files if ".bitdance" not in path.parts]
    assert [path.read_bytes() for path in images] == [
        world.api.made[outcome.results[0]["prediction_id"]].picture
    ]
    assert [path for path in files if path.suffix not in {".json", ".png"}] == []
    assert world.api.billed == (2 if POINTS[at] in UNANSWERED else 1)


class Stepping(LocalFolder):
    """A real folder with the fuse's points."""

    def __init__(self, path: Path, fuse: Fuse) -> None:
        super().__init__(path)
        self._fuse = fuse

    def create(self, name: str, data: bytes) -> None:
        self._fuse(f"before create {name}")
        super().create(name, data)
        self._fuse(f"after create {name}")

    def replace(self, name: str, data: bytes) -> None:
        self._fuse(f"before replace {name}")
        super().replace(name, data)
        self._fuse(f"after replace {name}")


@settings(max_examples=75)
@given(st.lists(st.integers(1, len(POINTS)), max_size=5), st.sampled_from([None, "history", "poll"]))
def test_after_several_crashes_in_a_row(crashes: list[int], echo: Any) -> None:
    world = World()
    world.api.echo = echo
    for try_number, crash_at in enumerate(crashes, start=1):
        go(world, crash_at=crash_at, try_number=try_number)
    check(world, finish(world, first_try=len(crashes) + 1))


@pytest.mark.parametrize("at", range(1, 2 * len(POINTS)))
def test_after_a_crash_among_several_images(at: int) -> None:
    world = World()
    wanted = [a_wanted(f"prompt {name}", key=name, name=name) for name in "abc"]
    go(world, crash_at=at, wanted=wanted)
    results = finish(world, wanted=wanted)
    assert [Path(result["uri"]).stem for result in results] == ["a", "b", "c"]
    for result, item in zip(results, wanted, strict=True):
        assert world.api.made[result["prediction_id"]].body["prompt"] == item.request.prompt
    check(world, results)
    assert world.event_names.count("lost") <= len(wanted)


@pytest.mark.parametrize("at", range(1, len(POINTS) + 5))
def test_after_a_crash_while_an_older_image_of_another_format_is_replaced(at: int) -> None:
    """The old file may stay behind, as a file without a receipt; the new one is whole and recorded."""
    world = World()
    context = world.context()
    context.images.replace("cover.jpg", b"old")
    context.receipts.write(
        a_wanted().destination, a_receipt(file="cover.jpg", bytes=3, fingerprint="another")
    )
    go(world, crash_at=at)
    (result,) = finish(world)
    made = world.api.made[result["prediction_id"]]
    assert world.images["cover.png"] == made.picture
    receipt = world.context().receipts.find(a_wanted().destination)
    assert receipt is not None
    assert receipt.prediction_id == made.id
    assert world.api.billed <= 1 + result["possibly_paid"]


@pytest.mark.parametrize("at", range(1, 13))
def test_after_a_crash_of_a_process_that_came_back_from_the_triggerer(at: int) -> None:
    world = World(latency=100)
    first = go(world, defer_after=5.0)
    assert isinstance(first, Waiting)
    world.clock.now += 100
    go(world, crash_at=at, defer_after=5.0)
    results = finish(world, defer_after=5.0)
    check(world, results)
    assert (world.api.billed, results[0]["possibly_paid"]) == (1, 0)


@pytest.mark.parametrize("at", range(1, len(POINTS) + 1))
def test_a_process_that_was_only_paused_does_nothing_more_once_another_has_taken_over(at: int) -> None:
    """The zombie: it stops at a point, another process does the whole job, then it wakes up."""
    world = World()
    results: list[dict[str, Any]] = []

    def sleep_through_the_other(step: str) -> None:
        steps.append(step)
        if len(steps) == at:
            results.extend(finish_elsewhere(world))

    steps: list[str] = []
    context = world.context(step=sleep_through_the_other)
    try:
        outcome = run(run_job(context, [a_wanted()]))
    except BitDanceError as error:
        assert isinstance(error, FencedError)  # noqa: PT017
    else:
        assert isinstance(outcome, Finished)
        assert outcome.results[0]["prediction_id"] == results[0]["prediction_id"]
    receipt = world.context().receipts.find(a_wanted().destination)
    assert receipt is not None
    assert world.images["cover.png"] == world.api.made[receipt.prediction_id].picture
    assert world.api.billed <= 1 + world.unconfirmed
    # What it bought after it was replaced, or before and could not write down, is written down, too.
    late = POINTS[at - 1] in ("before POST", *UNANSWERED)
    assert (world.api.billed, world.settle()) == (1 + late, late)


def finish_elsewhere(world: World) -> list[dict[str, Any]]:
    """Run the job to its end in another thread's loop, as another worker would."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: finish(world)).result(timeout=30)


@pytest.mark.parametrize(
    ("at", "billed"),
    [
        ("before history", 1),  # it is found before anything is bought again
        ("before poll", 1),  # also while the search looks at what the history shows without inputs
        ("before replace receipt", 2),
        ("after create 000005", 2),
    ],
)
def test_a_note_that_is_left_while_another_process_goes_on_is_in_that_ones_result(
    at: str, billed: int
) -> None:
    world = World()
    sleeper = bought_unseen(world)

    def wake_up(step: str) -> None:
        if step == at:
            awake = Journal(MemoryFolder(world.disk, RECORDS), sleeper.journal.owner)
            awake.note(world.clock.now, key="image", prediction_id="pred-1", intent=1)

    outcome = run(run_job(world.context(try_number=2, step=wake_up), [a_wanted()]))
    assert isinstance(outcome, Finished)
    result = outcome.results[0]
    assert (result["prediction_id"], result["possibly_paid"]) == (f"pred-{billed}", billed - 1)
    assert world.api.billed == billed


def test_notes_that_cannot_be_read_keep_nobody_from_finishing() -> None:
    world = World()
    bought_unseen(world)
    context = world.context(try_number=2)
    context.journal._folder = NoNotes(world.disk, RECORDS)
    assert isinstance(run(run_job(context, [a_wanted()])), Finished)


def bought_unseen(world: World) -> JobContext:
    """Return a process that stopped after its POST; the history shows the purchase to nobody for a while."""
    world.api.on_history = [envelope({"page": 1, "items": []})] * 4
    stopped = world.context(step=Fuse(4))
    with pytest.raises(Crash):
        run(run_job(stopped, [a_wanted()]))
    return stopped


class NoNotes(MemoryFolder):
    """A store that cannot list notes now."""

    def names(self, below: str) -> list[str]:
        raise StorageError("the store is away")


def test_many_processes_at_once_buy_one_image() -> None:
    world = World()

    async def all_at_once() -> list[Any]:
        benches = [world.context(try_number=number) for number in range(1, 6)]
        return await asyncio.gather(
            *(run_job(context, [a_wanted()]) for context in benches), return_exceptions=True
        )

    outcomes = run(all_at_once())
    assert all(isinstance(outcome, Finished | FencedError) for outcome in outcomes)
    results = finish(world, first_try=9)
    check(world, results)
