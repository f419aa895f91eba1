"""Batches without limits of their own find that of the account and share it: simulated, means of runs."""

from __future__ import annotations

from statistics import mean

import pytest

from tests.unit.engine.shared_account import Played, Scene, Simulation

TEN_BATCHES = {"limit": 20, "batches": 10, "images": 60, "slots": 4}
SEEDS = range(12)


def played(scene: Scene) -> Played:
    """Return the means over some seeds."""
    runs = [Simulation(scene, seed=seed).play() for seed in SEEDS]
    return Played(
        mean(run.share for run in runs), mean(run.refused for run in runs), mean(run.slowest for run in runs)
    )


@pytest.mark.parametrize("limit", [20, 100])
def test_one_batch_finds_the_limit_of_its_account_soon_and_stays_there(limit: int) -> None:
    result = played(Scene(limit=limit, images=20 * limit))
    assert result.share >= 0.9
    assert result.refused <= 0.03


@pytest.mark.parametrize("round_trip", [0.02, 0.3])
def test_ten_batches_in_four_slots_use_up_what_the_account_admits_and_are_seldom_refused(
    round_trip: float,
) -> None:
    result = played(Scene(**TEN_BATCHES, round_trip=round_trip))
    assert result.share >= 0.9
    assert result.refused <= 0.05


@pytest.mark.parametrize("apart", [0.0, 1.0])
def test_no_batch_is_much_slower_than_the_others_also_where_the_first_one_had_taken_it_all(
    apart: float,
) -> None:
    result = played(Scene(**TEN_BATCHES, apart=apart))
    assert result.share >= 0.9
    assert result.slowest >= 0.5


def test_what_another_batch_leaves_free_is_found() -> None:
    """The second one has little to buy; the first one is to be back at the limit long before its end."""
    simulation = Simulation(Scene(limit=40, batches=2, images=0, slots=2), seed=1)
    for batch, images in zip(simulation.batches, (2400, 160), strict=True):
        batch.left = images
    simulation.play()
    end = max(end for _, end, batch in simulation.accepted if batch is simulation.batches[1])
    in_flight = sum(begin <= end + 150 < end_of for begin, end_of, _ in simulation.accepted)
    assert in_flight >= 0.9 * 40
