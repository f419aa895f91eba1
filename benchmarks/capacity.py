"""What 10,000, 100,000 and 1,000,000 images a day need, on paper: `python -m benchmarks.capacity`.

Nothing is measured here: each figure follows from one that a command has measured, or from WaveSpeed's
limits. Writes the tables of docs/operations/capacity.md.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from benchmarks.lab import ROOT
from benchmarks.report import FIGURES

DOCUMENT = ROOT / "docs" / "operations" / "capacity.md"
BEGIN = "<!-- made by python -m benchmarks.capacity: begin -->"
END = "<!-- made by python -m benchmarks.capacity: end -->"
A_DAY = (10_000, 100_000, 1_000_000)
DAY, MINUTE = 86_400, 60
IMAGE_SECONDS = 12.4
"""A published figure for BitDance (benchmarks/account.py)."""
IN_FLIGHT = 100
BATCH = 1000

PRICE_USD = 0.01
CPU_SECONDS = 0.043
"""Of an image on S3, with everything: `make cluster ARGS=speed`, docs/operations/celery.md."""
WRITES = 4
"""Of the store, an image of a batch: file, receipt, reservation, and a share of the journal
(tests/unit/engine/test_store_operations.py)."""
WRITE_USD = 0.005 / 1000
"""S3 Standard in us-east-1, PUT: https://aws.amazon.com/s3/pricing/, as third parties quote it."""
IMAGE_BYTES = 0.92e6
"""Of the benchmarks' images (`--pictures photo`)."""
RECORD_BYTES = 4e3
XCOM_BYTES = 133e3
"""Of a batch of 1,000 with 24 previews: `python -m benchmarks.previews`."""
TIERS = (
    ("Bronze", 2, 2, "a new account"),
    ("Silver", 500, 100, "a top-up of $100"),
    ("Gold", 3000, 2000, "$1,000"),
    ("Ultra", 5000, 5000, "$10,000"),
)
"""Images a minute, tasks in flight, and what it takes: https://wavespeed.ai/docs/account-levels. Two versions
of that page contradict each other; these are the lower figures."""


@dataclass(frozen=True, slots=True)
class Need:
    """A row of the table.

    :param of: Says what so many images a day need.
    """

    what: str
    of: Callable[[int], str]
    source: str


def batch_seconds() -> float:
    """Return how long a batch of 1,000 holds its slot: measured with images of 5 s, which were waited for."""
    runs = json.loads(FIGURES.read_text())["3"]["runs"].values()
    measured = median(run["slot_seconds"] for found in runs for run in found)
    return float(measured) + (IMAGE_SECONDS - 5) * BATCH / IN_FLIGHT


def tier(a_day: int) -> str:
    """Return the smallest tier that takes so many images a day, spread evenly."""
    return next(name for name, a_minute, *_ in TIERS if a_minute * DAY / MINUTE >= a_day)


def _slots(a_day: int) -> str:
    return f"{math.ceil(a_day / BATCH * batch_seconds() / DAY)}"


NEEDS = (
    Need("price of the images", lambda n: f"${n * PRICE_USD:,.0f}", "[costs](costs.md)"),
    Need("submissions a minute", lambda n: f"{n * MINUTE / DAY:,.0f}", "spread over 24 hours"),
    Need("tier of the account", tier, "WaveSpeed's limits of images a minute, below"),
    Need("in flight", lambda n: f"{n * IMAGE_SECONDS / DAY:,.0f}", f"images of {IMAGE_SECONDS} s"),
    Need("batches of 1,000 images", lambda n: f"{n // BATCH:,}", "one task instance each"),
    Need("worker slots", _slots, f"`make bench ARGS=3`: {IN_FLIGHT} in flight; worker waits, not deferred"),
    Need("CPU cores of workers", lambda n: f"{n * CPU_SECONDS / DAY:.2f}", '`make cluster ARGS="speed"`'),
    Need("triggers at once, deferred", _slots, "a batch is one trigger"),
    Need("writes to the store", lambda n: f"{WRITES * n:,}", "`tests/unit/engine/test_store_operations.py`"),
    Need("their price on S3", lambda n: f"${WRITES * n * WRITE_USD:,.2f}", "$0.005 per 1,000 (us-east-1)"),
    Need("images", lambda n: f"{n * IMAGE_BYTES / 1e9:,.0f} GB", "0.92 MB each"),
    Need("records", lambda n: f"{n * RECORD_BYTES / 1e9:.2f} GB", "4 kB each; `records prune`"),
    Need(
        "XComs in Airflow's database",
        lambda n: f"{n / BATCH * XCOM_BYTES / 1e6:,.1f} MB",
        "`python -m benchmarks.previews`; none with `previews=0`",
    ),
    Need("task instances, if mapped instead", lambda n: f"{n:,}", "one row per image, and its XComs"),
)


def tiers() -> str:
    """Return in Markdown what an account takes, tier by tier."""
    lines = ["| tier | images a minute | in flight | reached by |", "| --- | ---: | ---: | --- |"]
    return "\n".join([*lines, *(f"| {n} | {m:,} | {f:,} | {by} |" for n, m, f, by in TIERS)])


def needs() -> str:
    """Return in Markdown what so many images a day need."""
    head = " | ".join(f"{n:,}" for n in A_DAY)
    lines = [f"| images/day | {head} | follows from |", f"| --- |{' ---: |' * len(A_DAY)} --- |"]
    for need in NEEDS:
        lines.append(f"| {need.what} | {' | '.join(map(need.of, A_DAY))} | {need.source} |")
    return "\n".join(lines)


def tables() -> str:
    """Return what the page shows."""
    return f"{needs()}\n\n{tiers()}"


def main() -> None:
    """Write the tables into the page."""
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    DOCUMENT.write_text(f"{before}{BEGIN}\n{tables()}\n{END}{after}")
    print(tables())


if __name__ == "__main__":
    main()
