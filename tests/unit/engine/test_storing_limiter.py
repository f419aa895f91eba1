"""How many images are stored at once: as many as the distances ask for, within a bound on memory."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from statistics import median

import pytest

from airflow_provider_bitdance.engine import run_job, storing_limiter
from airflow_provider_bitdance.engine.storing_limiter import FEW, STORED_BYTES, StoringLimiter
from airflow_provider_bitdance.wavespeed.models import BITDANCE_14B, largest_file
from tests.unit.support import Crash, FakeClock, World, a_wanted, run

GENEROUS = 10.0
MOST = STORED_BYTES // largest_file(BITDANCE_14B)


def stored(images: int, took: Callable[[int], float]) -> tuple[list[int], float]:
    """Store so many; return how many were under way as each began, and the seconds that all took.

    :param took: Returns an image's seconds where so many are under way.
    """
    clock, begun, under_way = FakeClock(), list[int](), 0
    limiter = StoringLimiter({BITDANCE_14B}, clock=clock)

    async def image() -> None:
        nonlocal under_way
        async with limiter.place():
            under_way += 1
            begun.append(under_way)
            await clock.sleep(took(under_way))
            under_way -= 1

    async def all_images() -> float:
        start = clock.time()
        await asyncio.gather(*(image() for _ in range(images)))
        return clock.time() - start

    return begun, run(all_images())


def test_where_all_is_near_few_are_stored_at_once_and_none_is_later_for_it() -> None:
    # 25 ms of CPU and 40 ms of the disk each: two at once use the CPU, and more wait for each other.
    begun, seconds = stored(300, lambda count: max(0.065, 0.025 * count))
    assert median(begun) <= 2 * FEW
    assert max(begun) < MOST / 2
    assert seconds < 1.1 * 300 * 0.025


def test_where_all_is_far_away_as_many_are_stored_at_once_as_fit_into_memory() -> None:
    begun, seconds = stored(300, lambda count: max(1.0, 0.025 * count))
    assert max(begun) == MOST
    assert seconds < 1.5 * 300 * 1.0 / MOST


def test_where_it_has_become_slow_some_are_stored_all_the_same() -> None:
    number = itertools.count()
    begun, _ = stored(300, lambda _: 0.1 if next(number) < 100 else 10.0)
    assert max(begun[:100]) == MOST
    assert begun[-1] == FEW


@pytest.mark.parametrize("hung", [FEW, MOST - 1])
def test_downloads_that_hang_keep_no_others_from_being_stored(
    monkeypatch: pytest.MonkeyPatch, hung: int
) -> None:
    monkeypatch.setattr(storing_limiter, "STUCK_AFTER", 0.0)

    async def play() -> None:
        limiter, end = StoringLimiter({BITDANCE_14B}, clock=FakeClock()), asyncio.Event()

        async def hang() -> None:
            async with limiter.place():
                await end.wait()

        async with asyncio.TaskGroup() as group:
            for _ in range(hung):
                group.create_task(hang())
            await asyncio.sleep(0)
            async with asyncio.timeout(GENEROUS), limiter.place():
                end.set()

    run(play())


@pytest.mark.parametrize("jump", [0.0, -3600.0], ids=["still", "set back"])
def test_a_clock_that_jumps_does_not_make_all_later_ones_look_slow(jump: float) -> None:
    number = itertools.count()
    begun, _ = stored(100, lambda _: storing_limiter.QUICKEST if next(number) else jump)
    assert max(begun) == MOST


@pytest.mark.parametrize(("fit", "most"), [(0.5, 1), (2, 2), (9, 9)])
def test_no_more_are_stored_at_once_than_fit_into_memory(
    monkeypatch: pytest.MonkeyPatch, fit: float, most: int
) -> None:
    monkeypatch.setattr(storing_limiter, "STORED_BYTES", int(fit * largest_file(BITDANCE_14B)))
    begun, _ = stored(100, lambda _: 1.0)
    assert max(begun) == most


def test_what_another_process_has_stored_needs_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    world, places = World(), list[StoringLimiter]()
    place = StoringLimiter.place
    monkeypatch.setattr(StoringLimiter, "place", lambda limiter: places.append(limiter) or place(limiter))

    def step(name: str) -> None:
        if name == "after create receipt":
            raise Crash(name)

    with pytest.raises(Crash):
        run(run_job(world.context(step=step), [a_wanted()]))
    assert len(places) == 1
    run(run_job(world.context(try_number=2), [a_wanted()]))
    assert (world.api.billed, len(world.images), len(places)) == (1, 1, 1)
