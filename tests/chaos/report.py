"""The table of what came of the rows, for the terminal and for docs/internals/guarantees.md."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.chaos.rows import ROWS, Row
from tests.chaos.scene import Outcome
from tests.document import marks, write_between

DOCUMENT = Path(__file__).parents[2] / "docs" / "internals" / "guarantees.md"
COMMAND = "make chaos"
BEGIN, END = marks(COMMAND)
HEAD = ("fault", "asked", "stored", "billed", "possibly paid", "wrong picture", "tries", "seconds")


def cells(name: str, outcome: Outcome) -> tuple[str, ...]:
    """Return one line of the table."""
    numbers = (
        outcome.asked,
        outcome.stored,
        outcome.billed,
        outcome.possibly_paid,
        outcome.wrong,
        outcome.tries,
    )
    return (name, *map(str, numbers), f"{outcome.seconds:.0f}")


def line(values: tuple[str, ...]) -> str:
    """Return a line for the terminal."""
    first, *rest = values
    return f"{first:<44}" + "".join(
        f"{value:>{len(head) + 2}}" for value, head in zip(rest, HEAD[1:], strict=True)
    )


def markdown(outcomes: Mapping[str, Outcome], setting: str, rows: Iterable[Row] = ROWS) -> str:
    """Return the table for the document."""
    head = (*HEAD, "the images")
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(HEAD) - 1) + " --- |"]
    lines += [
        "| " + " | ".join((*cells(row.name, outcomes[row.name]), _words(row, outcomes[row.name]))) + " |"
        for row in rows
        if row.name in outcomes
    ]
    return "\n".join([setting, "", *lines])


def _words(row: Row, outcome: Outcome) -> str:
    return f"{row.asked}; {outcome.note}" if outcome.note else row.asked


def write(table: str, document: Path = DOCUMENT, command: str = COMMAND) -> None:
    """Put a table between the document's markers."""
    write_between(command, table, document)
