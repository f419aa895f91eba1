"""What the benchmarks count, on books that are written by hand."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from benchmarks.account import Books, Prediction, Request
from benchmarks.checks import at_least
from benchmarks.measure import (
    figures,
    held,
    in_flight_on_average,
    lags,
    most_a_minute,
    most_in_flight,
    quickest,
    while_all_buy,
)

START = datetime(2026, 11, 22, tzinfo=UTC)


def poll(prediction_id: str, time: float, port: int = 1) -> Request:
    return Request("GET", f"/api/v3/predictions/{prediction_id}/result", time, port)


def event(name: str, seconds: float, map_index: int | None = None) -> dict[str, Any]:
    when = (START + timedelta(seconds=seconds)).isoformat()
    return {"event": name, "when": when, "task_id": "images", "map_index": map_index}


def test_an_image_is_seen_with_the_first_look_after_its_completion() -> None:
    books = Books(
        [Prediction("a", "one", 0, 5), Prediction("b", "two", 0, 7)],
        [poll("a", 4), poll("a", 6), poll("b", 6), poll("a", 8)],
        billed=2,
        refused=0,
    )
    assert lags(books) == {"a": 1}


@pytest.mark.parametrize(
    ("times", "most"),
    [([], 0), ([0, 30, 59.9], 3), ([0, 60], 1), ([0, 1, 60, 60.5, 61.5], 3)],
)
def test_submissions_are_counted_in_any_sixty_seconds(times: list[float], most: int) -> None:
    assert most_a_minute(times) == most


def test_one_that_ends_as_the_next_begins_is_in_flight_no_more() -> None:
    spans = [(0, 5), (1, 3), (3, 6), (5, 9)]
    assert most_in_flight(Prediction("", "", *span) for span in spans) == 2


@pytest.mark.parametrize(
    ("limits", "seconds"),
    [
        ({"in_flight": 4}, 5),
        ({"in_flight": 2}, 10),
        ({"in_flight": 1}, 20),
        ({"in_flight": 4, "per_minute": 4}, 5),
        ({"in_flight": 4, "per_minute": 3}, 65),
        ({"in_flight": 4, "per_minute": 1}, 185),
        ({"in_flight": 1, "per_minute": 2}, 70),
        ({"in_flight": 4, "per_minute": 2, "windows_from": 30.0}, 35),
        ({"in_flight": 4, "per_minute": 1, "windows_from": 50.0}, 135),
    ],
)
def test_four_images_of_five_seconds_take_at_least(limits: Any, seconds: float) -> None:
    assert quickest([5.0] * 4, **limits) == seconds


def test_a_slot_is_held_while_the_task_runs_and_not_while_it_is_deferred() -> None:
    events = [
        event("running", 1),
        event("deferred", 4),
        event("running", 30),
        event("success", 32),
        event("running", 2, map_index=0),
        event("up_for_retry", 3, map_index=0),
        event("running", 10, map_index=0),
        event("success", 10.5, map_index=0),
    ]
    assert held(reversed(events)) == 3 + 2 + 1 + 0.5


def test_only_files_that_were_asked_for_count_as_stored(tmp_path: Path) -> None:
    for name, written in {"one.png": 8.5, "stranger.png": 9.0}.items():
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (written, written))
    books = Books(
        [Prediction("a", "one", 0, 8), Prediction("b", "two", 1, 9)],
        [Request("POST", "/api/v3/model", 0, 1), poll("a", 8.25, 1), poll("b", 8, 2), poll("b", 10, 3)],
        billed=2,
        refused=0,
    )
    found = figures(books, tmp_path, wall=10)
    assert (found.stored, found.billed, found.kept) == (1, 2, 0.5)
    assert (found.polls, found.connections, found.in_flight) == (1.5, 3, 2)
    assert found.seen == (0.25 + 1) / 2
    assert found.seen_share == (0.25 / 8 + 1 / 8) / 2


def test_the_books_of_one_image_hold_what_was_asked_about_it() -> None:
    books = Books(
        [Prediction("a", "one", 0, 5), Prediction("b", "two", 0, 5)],
        [poll("a", 1), poll("b", 1), Request("GET", "/outputs/a/1.png", 6, 1)],
        billed=2,
        refused=0,
    )
    alone = books.of("one")
    assert [image.id for image in alone.predictions] == ["a"]
    assert [request.path.split("/")[1] for request in alone.requests] == ["api", "outputs"]
    assert alone.billed == 1


def test_all_slots_buy_until_fewer_batches_than_slots_have_something_to_buy() -> None:
    spans = {"a-1": (0, 5), "b-1": (1, 6), "a-2": (5, 9), "b-2": (7, 12), "c-1": (8, 13), "c-2": (11, 16)}
    books = Books([Prediction("", name, *span) for name, span in spans.items()], [], billed=6, refused=0)
    assert while_all_buy(books, 2) == (0, 7)
    assert while_all_buy(books, 1) == (0, 11)


def test_what_is_in_flight_on_average_counts_only_the_time_between_the_moments() -> None:
    spans = [(0, 4), (2, 6), (9, 20)]
    assert in_flight_on_average([Prediction("", "", *span) for span in spans], 2, 10) == (2 + 4 + 1) / 8


@pytest.mark.parametrize(("measured", "ok"), [(0.89, False), (0.9, True), (1.0, True)])
def test_what_must_not_be_below_a_number(measured: float, ok: bool) -> None:
    check = at_least("share", measured, 0.9)
    assert (check.ok, check.must) == (ok, "share ≥ 0.9")
