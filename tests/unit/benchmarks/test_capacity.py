"""What many images a day need, as the docs have it."""

from __future__ import annotations

import pytest

from benchmarks import capacity


def test_the_page_has_the_table_that_follows_from_todays_figures() -> None:
    assert f"{capacity.BEGIN}\n{capacity.tables()}\n{capacity.END}" in capacity.DOCUMENT.read_text()


@pytest.mark.parametrize(
    ("a_day", "tier"), [(2_880, "Bronze"), (2_881, "Silver"), (720_000, "Silver"), (720_001, "Gold")]
)
def test_the_smallest_tier_that_takes_so_many_is_named(a_day: int, tier: str) -> None:
    assert capacity.tier(a_day) == tier


def test_images_that_take_longer_hold_a_slot_for_longer() -> None:
    """Those of 12.4 s, 100 in flight, take 124 s a thousand at least."""
    assert 124 < capacity.batch_seconds() < 150
