"""Latency as a mixture of ranges."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_bitdance.local.latency import Latency, Range, of, parse


@pytest.mark.parametrize(
    ("text", "ranges"),
    [
        ("2", [(100, 2, 2)]),
        ("0", [(100, 0, 0)]),
        ("1-12", [(100, 1, 12)]),
        ("0.5-0.5", [(100, 0.5, 0.5)]),
        ("100%:3", [(100, 3, 3)]),
        ("80%:4.5-5.5,20%:36-44", [(80, 4.5, 5.5), (20, 36, 44)]),
        ("99.5%:1,0.5%:60", [(99.5, 1, 1), (0.5, 60, 60)]),
        ("33.3%:1,33.3%:2,33.4%:3-4", [(33.3, 1, 1), (33.3, 2, 2), (33.4, 3, 4)]),
    ],
)
def test_a_text_is_read_as_ranges(text: str, ranges: list[tuple[float, float, float]]) -> None:
    assert parse(text) == of(text) == Latency(tuple(Range(*part) for part in ranges))


@pytest.mark.parametrize(
    "text",
    [
        *("", "x", "-1", "12-1", "1-", "-", "nan", "inf", "1-inf", "1,2", "80%:1", "80%:1,30%:2"),
        *("0%:1,100%:2", "120%:1,-20%:2", "80%,20%:1", "80%:1,20%", "80%:1,20%:", "80:1,20:2"),
        *("80%:1;20%:2", "80%:1,"),
    ],
)
def test_any_other_text_is_refused_with_the_forms_that_are_allowed(text: str) -> None:
    with pytest.raises(ValueError, match=r"^latency '.*; allowed: 2, 1-12 or 80%:4\.5-5\.5,20%:36-44$"):
        parse(text)


@pytest.mark.parametrize("latency", [-1.0, (3.0, 2.0), float("nan"), float("inf"), (0.0, float("inf"))])
def test_numbers_that_are_no_range_are_refused(latency: float | tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="not a range of seconds"):
        of(latency)


def test_numbers_mean_what_their_text_means() -> None:
    assert of(2) == of("2")
    assert of((1, 12)) == of("1-12")


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e6)), min_size=1, max_size=5), st.integers())
def test_what_is_drawn_lies_in_one_of_the_ranges(bounds: list[tuple[float, float]], seed: int) -> None:
    ranges = tuple(Range(100 / len(bounds), min(pair), max(pair)) for pair in bounds)
    drawn = Latency(ranges).draw(random.Random(seed))
    # uniform() may round outside by a hair.
    assert any(part.low - 1e-6 <= drawn <= part.high + 1e-6 for part in ranges)


def test_ranges_are_drawn_as_often_as_their_shares_say() -> None:
    chance = random.Random(7)
    drawn = [parse("80%:4.5-5.5,20%:36-44").draw(chance) for _ in range(5_000)]
    assert all(4.5 <= seconds <= 5.5 or 36 <= seconds <= 44 for seconds in drawn)
    assert 0.78 < sum(seconds < 6 for seconds in drawn) / len(drawn) < 0.82


def test_the_same_dice_draw_the_same() -> None:
    mixture = parse("50%:1-2,50%:3-4")
    first, second = ([mixture.draw(dice) for _ in range(20)] for dice in (random.Random(1), random.Random(1)))
    assert first == second
