"""What the log of a job of several images says of how far it is."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from dataclasses import replace
from itertools import pairwise

import pytest

from airflow_provider_bitdance.engine import run_job
from airflow_provider_bitdance.engine.progress import JobProgress, Progress, Rate
from airflow_provider_bitdance.records import Planned
from tests.unit.support import OUTPUT, START, World, a_job, a_plan, a_wanted, refusal, run


def test_the_last_line_counts_an_image_whose_purchase_failed_last(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.api.on_post = [world.api.answer_rightly, world.api.answer_rightly, refusal(400)]
    wanted = [a_wanted(f"prompt {name}", key=name, name=name) for name in "abc"]
    with caplog.at_level(logging.INFO):
        run(run_job(world.context(is_batch=True, requests_per_minute=2), wanted))
    lines = [record.getMessage() for record in caplog.records if "stored" in record.getMessage()]
    assert lines[-1] == "2/3 stored, 1 failed, $0.02"


def progress_lines(caplog: pytest.LogCaptureFixture) -> list[tuple[float, str]]:
    """Return the lines that say how far a job is, each with its time by the world's clock."""
    found = [(record.created, record.getMessage()) for record in caplog.records]
    return [(moment, line) for moment, line in found if re.match(r"\d+/\d+ stored", line)]


def test_no_rate_and_no_time_left_is_said_in_the_first_minute(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(latency=5)
    monkeypatch.setattr(time, "time", world.clock.time)
    monkeypatch.setattr(time, "time_ns", lambda: int(world.clock.time() * 1e9))
    wanted = [a_wanted(f"prompt {n}", key=f"k{n}", name=f"k{n}") for n in range(60)]
    with caplog.at_level(logging.INFO):
        run(run_job(world.context(is_batch=True, max_in_flight=2), wanted))
    said = [
        moment - START for moment, line in progress_lines(caplog) if re.search(r"\d/min, about \d+ ", line)
    ]
    assert said
    assert min(said) >= 65


def each_minute(count: int, minutes: int) -> list[float]:
    """So many at the beginning of each minute, as an account's limit has it."""
    return [minute * 60 + number * 0.1 for minute in range(minutes) for number in range(count)]


@pytest.mark.parametrize(
    ("moments", "truth"),
    [
        (each_minute(30, 6), 30),
        ([number * 2.0 for number in range(180)], 30),
        ([number * 10.0 for number in range(100)], 6),
        # A slow start of two minutes, then four a second.
        ([number * 10.0 for number in range(12)] + [120 + number / 4 for number in range(3000)], 240),
    ],
    ids=["by the minute", "evenly", "slowly", "after a slow start"],
)
def test_a_rate_that_is_said_is_near_the_truth_and_does_not_jump(moments: list[float], truth: float) -> None:
    rate, said = Rate(), []
    for moment in moments:
        rate.stored(moment)
        if found := rate.per_minute(moment):
            said.append(found)
    assert said
    assert abs(said[-1] - truth) <= 0.1 * truth
    assert all(abs(later - earlier) <= 0.2 * max(earlier, truth) for earlier, later in pairwise(said))


def test_a_rate_needs_ten_images_and_a_minute() -> None:
    rate = Rate()
    for _ in range(9):
        rate.stored(0.0)
    assert rate.per_minute(600.0) == 0
    rate.stored(0.5)
    assert rate.per_minute(59.9) == 0
    assert rate.per_minute(60.0) == 1  # those of the first moment are a minute old


def test_a_rate_is_that_of_the_last_ten_minutes() -> None:
    rate = Rate()
    for number in range(1000):
        rate.stored(number / 10)
    rate.stored(900.0)
    assert rate.per_minute(900.0) == 0.1


def test_what_another_task_stores_counts_as_stored_and_is_said_to_be_reused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World(latency=60)
    wanted = [a_wanted(f"prompt {n}", key=f"k{n}", name=f"k{n}", named=True) for n in range(12)]

    async def both() -> None:
        first = world.context(job=a_job(task_id="one"), is_batch=True)
        other = asyncio.create_task(run_job(first, wanted))
        await world.clock.sleep(5)
        caplog.clear()
        second = world.context(job=a_job(task_id="two"), is_batch=True, timeout=900.0)
        await asyncio.gather(other, run_job(second, wanted))

    with caplog.at_level(logging.INFO):
        run(both())
    lines = [line for _, line in progress_lines(caplog)]
    assert lines[-1] == "12/12 stored (12 reused), $0.00"
    assert not any("another task" in record.getMessage() for record in caplog.records)


def test_images_that_another_task_makes_are_awaited_and_give_no_estimate(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World()
    context = world.context(job=a_job(task_id="two"))
    context.journal.claim(
        START, START, Planned(output=OUTPUT, images=tuple(a_plan(f"k{n}", stem=f"k{n}") for n in range(40)))
    )
    progress = Progress(context)
    for _ in range(20):
        world.clock.now += 6
        progress.rate.stored(world.clock.now)
    with caplog.at_level(logging.INFO):
        progress.report(failed=0, in_flight=0, awaited=9)
        progress.report(failed=0, in_flight=0, awaited=0, last=True)
    awaiting, buying = (line for _, line in progress_lines(caplog))
    assert awaiting == "0/40 stored, 9 awaited from other tasks, $0.00"
    assert buying.endswith(", 10/min, about 4 min left")


def shown_by(world: World, images: int, **policy: object) -> list[JobProgress]:
    """Run a job, and return what it shows of how far it is."""
    shown: list[JobProgress] = []
    wanted = [a_wanted(f"prompt {n}", key=f"k{n}", name=f"k{n}") for n in range(images)]
    run(run_job(replace(world.context(**policy), show_progress=shown.append), wanted))
    return shown


def test_a_batch_is_shown_every_ten_seconds_at_most_and_at_its_end() -> None:
    shown = shown_by(World(latency=5), 40, is_batch=True, max_in_flight=2)
    assert [first.at + 10 <= second.at for first, second in pairwise(shown[:-1])] == [True] * (len(shown) - 2)
    assert len(shown) > 5
    assert (shown[0].stored, shown[0].of) == (0, 40)
    assert (shown[-1].stored, shown[-1].in_flight, shown[-1].spent_usd) == (40, 0, 0.4)


def test_a_batch_shows_when_it_may_end_once_that_is_known() -> None:
    shown = shown_by(World(latency=5), 60, is_batch=True, max_in_flight=2)
    assert shown[0].expected_end is None
    ends = [each.expected_end for each in shown if each.expected_end is not None]
    assert ends
    assert all(abs(end - shown[-1].at) < 60 for end in ends)
    assert shown[-1].expected_end is None


def test_a_batch_of_one_is_shown_and_a_single_image_is_not() -> None:
    assert [each.stored for each in shown_by(World(), 1, is_batch=True)] == [0, 1]
    assert shown_by(World(), 1) == []
