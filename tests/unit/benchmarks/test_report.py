"""The tables and the plot, from figures that are written by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import plot, report
from benchmarks.checks import Check, Result, all_there, worst
from benchmarks.measure import Figures
from benchmarks.rows import COMPARISON, ROWS, Row

SECOND = next(row for row in ROWS if row.name == "2")
WAYS = next(row for row in ROWS if row.name == COMPARISON)


def a_run(wall: float = 7.0, *, stored: int = 100, billed: int = 100) -> Figures:
    return Figures(
        wall=wall,
        stored=stored,
        billed=billed,
        refused=0,
        polls=2.0,
        seen=0.2,
        seen_share=0.04,
        kept=0.3,
        connections=10,
        in_flight=100,
        a_minute=100,
        slot_seconds=6.0,
    )


@pytest.fixture
def documents(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in ("DOCUMENT", "FIGURES", "PLOT"):
        monkeypatch.setattr(report, name, tmp_path / getattr(report, name).name)
    marks = [f"{mark.format(what)}\n" for what in ("rows", "ways") for mark in (report.BEGIN, report.END)]
    report.DOCUMENT.write_text("before\n" + "".join(marks) + "after\n")
    return tmp_path


def keep(row: Row, result: Result) -> None:
    report.keep({row.name: report.entry(row, result, "Postgres", 60)})


@pytest.mark.parametrize(
    ("check", "ok"),
    [
        (Check("wall", 1.1, 1.1), True),
        (Check("wall", 1.11, 1.1), False),
        (Check("stored", 10, 10, exactly=True), True),
        (Check("stored", 9, 10, exactly=True), False),
        (Check("not measured", math.nan, 1), False),
    ],
)
def test_a_criterion_is_reached_or_missed(check: Check, ok: bool) -> None:
    assert check.ok is ok
    assert ("**misses**" in check.reached) is not ok


def test_the_worst_case_is_named() -> None:
    assert worst("wall", {"2 s": 1.2, "40 s": 1.01}, 1.15).reached == "1.2 (2 s) **misses**"


def test_an_image_that_is_missing_or_bought_twice_is_told() -> None:
    assert all_there({"ours": [a_run()], "theirs": [a_run()]}, 100).ok
    assert all_there({"ours": [a_run(stored=99)], "theirs": [a_run(billed=102)]}, 100).measured == 3


def test_a_row_that_is_played_again_replaces_itself_alone(documents: Path) -> None:
    keep(ROWS[0], Result([Check("wall / asyncio", 1.5, 1.15)]))
    keep(ROWS[1], Result([Check("in flight", 10, 10)]))
    keep(ROWS[0], Result([Check("wall / asyncio", 1.05, 1.15)]))
    text = report.DOCUMENT.read_text()
    lines = [line for line in text.splitlines() if line.startswith(("| 2 ", "| 4 "))]
    assert len(lines) == 2
    assert "| wall / asyncio ≤ 1.15 | 1.05 | ok |" in lines[0]
    assert text.startswith("before\n")
    assert text.endswith("after\n")


def test_every_single_run_is_kept(documents: Path) -> None:
    keep(SECOND, Result([Check("wall", 1, 2)], {"engine, 5 s": [a_run(6.0), a_run(7.0)]}))
    kept = json.loads(report.FIGURES.read_text())["2"]
    assert [run["wall"] for run in kept["runs"]["engine, 5 s"]] == [6.0, 7.0]


def test_the_comparison_has_a_table_and_a_picture(documents: Path) -> None:
    runs = {f"{way}, 100 images": [a_run()] for way in ("this provider", "SDK in <task>")}
    keep(WAYS, Result([], runs | {"this provider, 1 image": [a_run(stored=1)]}))
    text = report.DOCUMENT.read_text()
    assert "| 100 images | this provider | 7.0 | 0.06 | 2.0 | 0.20 | 0.30 | 100 | 10 |" in text
    assert "| ways |" not in text
    drawn = ElementTree.parse(report.PLOT).getroot()
    bars = drawn.findall("{http://www.w3.org/2000/svg}rect")
    assert len(bars) == len(runs) * len(plot.PANELS)
