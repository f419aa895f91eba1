"""The rows: each is one case, what it must reach, and how it is played.

Ratios compare runs of one row, on one service, with the same latencies. Where a row repeats, its ways take
turns, and medians are compared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks import airflow_rows, distance_rows, engine_rows, large_batch, limit_rows, thousand
from benchmarks.checks import Result
from benchmarks.lab import Lab


@dataclass(frozen=True, slots=True)
class Row:
    """One case.

    :param sleeps: It mostly waits, so that it is played at the same time as others that do.
    """

    name: str
    case: str
    play: Callable[[Lab], Result]
    sleeps: bool = False


COMPARISON = "ways"
"""The row that has nothing to reach: the table of it is in the docs."""

ROWS = [
    Row("2", "100 images, 100 in flight, engine alone, each latency profile", engine_rows.hundred_images),
    Row("4", "120 images at 60 a minute and 10 in flight, engine alone", engine_rows.explicit_limits),
    Row(
        "9",
        "300 images of 1 MB, 100 in flight, 5 s, the API near and 300 ms away, engine alone",
        distance_rows.far_api,
    ),
    Row("10", "the same, the API 300 ms away and the store 30 ms, engine alone", distance_rows.far_store),
    Row(
        "11",
        "2,000 images, 5 s, nothing configured, 429 above 100 in flight, engine alone",
        limit_rows.one_batch,
    ),
    Row(
        "12",
        "ten batches of 60, four at a time, nothing configured, 429 above 20 in flight, engine alone",
        limit_rows.ten_batches,
    ),
    Row(
        "14",
        "10,000 images of 5 s on S3, 100 in flight, killed at 90 % and taken over, engine alone",
        large_batch.play,
    ),
    Row("1", "1 image: engine alone on each latency profile; whole Dag run at 5 s", airflow_rows.one_image),
    Row("3", "1,000 images, 100 in flight, 5 s, whole Dag run", airflow_rows.thousand_images),
    Row(COMPARISON, "1 and 100 images of 5 s, what a user would take instead", airflow_rows.ways),
    # A hundred images of 1 MB that end at once are work: beside row 6 it measured that one, too.
    Row("5", "100 images of 60 s, 100 in flight, whole Dag run", airflow_rows.hundred_slow_images),
    Row(
        "6",
        "500 images of 60 s, 50 in flight, whole Dag run",
        airflow_rows.five_hundred_slow_images,
        sleeps=True,
    ),
    Row(
        "7",
        "tier bronze, 10 images of 5 s, nothing configured, whole Dag run",
        airflow_rows.bronze_account,
        sleeps=True,
    ),
    Row("8", "1,000 trigger rows, one triggerer, 30 s, against HttpSensor triggers", thousand.play),
]
"""In the order in which they are played: the engine alone before there is an Airflow, the triggerer last."""
