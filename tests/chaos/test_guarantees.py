"""docs/internals/guarantees.md speaks of tests and rows that there are, and its numbers keep the rules."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.chaos import report
from tests.chaos.rows import ROWS, Row
from tests.chaos.scene import Outcome

ROOT = Path(__file__).parents[2]
TEXT = report.DOCUMENT.read_text()
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TEXT)))


def measured() -> dict[str, Outcome]:
    """The outcomes that the document shows."""
    table = TEXT.split(report.BEGIN)[1].split(report.END)[0]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return {
        name: Outcome(*map(int, numbers[:6]), float(numbers[6]))
        for name, *numbers in (cells for cells in lines if len(cells) == len(report.HEAD) + 1)
        if numbers[0].isdecimal()
    }


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_each_test_that_it_names_is_there(file: str, name: str) -> None:
    tree = ast.parse((ROOT / file).read_text())
    defined = [
        node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert name in defined


def test_each_line_names_a_test() -> None:
    promises = TEXT.split("## What is promised")[1].split("## Measured")[0]
    lines = [line for line in promises.splitlines() if line.startswith("| ") and "---" not in line]
    lines = [line for line in lines if not line.endswith("shown by |")]
    assert len(lines) > 15
    assert [line for line in lines if "::test_" not in line] == []


def test_the_table_is_of_the_rows_that_there_are() -> None:
    assert list(measured()) == [row.name for row in ROWS]


def test_what_was_measured_keeps_the_rules() -> None:
    outcomes = measured()
    broken = {row.name: row.broken_rules(outcomes[row.name]) for row in ROWS if row.name in outcomes}
    assert [name for name, rules in broken.items() if rules] == []


@pytest.mark.parametrize(
    ("lost", "numbers", "broken"),
    [
        (0, (2, 2, 2, 0, 0), []),
        (0, (2, 1, 2, 0, 0), ["stored = asked"]),
        (0, (2, 2, 2, 0, 1), ["no wrong picture"]),
        (0, (2, 2, 3, 0, 0), ["billed <= asked + possibly paid"]),
        (0, (2, 2, 3, 1, 0), ["possibly paid = 0"]),
        (2, (2, 2, 4, 2, 0), []),
        (2, (2, 2, 4, 1, 0), ["billed <= asked + possibly paid"]),
        (2, (2, 2, 5, 3, 0), ["possibly paid <= 2"]),
    ],
)
def test_a_row_that_breaks_a_rule_says_so(lost: int, numbers: tuple[int, ...], broken: list[str]) -> None:
    row = Row("one", lambda _: None, "two", lost=lost)
    assert row.broken_rules(Outcome(*numbers, tries=2, seconds=1.0)) == broken


def test_only_what_the_history_does_not_show_may_be_possibly_paid_once_a_kill_or_eight_times_in_a_batch() -> (
    None
):
    assert {row.name: row.lost for row in ROWS if row.lost} == {
        "intent written · echo": 2,
        "intent written · no echo": 1,
        "request sent, response not read · no echo": 2,
        "prompt: request sent, response not read · echo": 2,
        "prompt: request sent, response not read · no echo": 2,
        "batch: killed at 10 %, 50 %, 90 % stored": 24,
        "batch: 8 responses not read · no echo": 8,
        "batch: service SIGKILL, restarted": 8,
    }


def test_the_table_is_put_between_the_marks_and_replaces_the_last_one(tmp_path: Path) -> None:
    document = tmp_path / "guarantees.md"
    document.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    outcome = Outcome(asked=2, stored=2, billed=2, possibly_paid=0, wrong=0, tries=4, seconds=12.4)
    report.write(report.markdown({ROWS[0].name: outcome}, "Today."), document)
    text = document.read_text()
    assert "old" not in text
    assert text.startswith(f"before\n{report.BEGIN}\nToday.\n")
    assert f"| {ROWS[0].name} | 2 | 2 | 2 | 0 | 0 | 4 | 12 | {ROWS[0].asked} |" in text
    assert text.endswith(f"{report.END}\nafter\n")
