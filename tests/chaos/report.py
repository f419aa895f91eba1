"""The table of what came of the rows, for the terminal and for docs/internals/guarantees.md."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.chaos.rows import ROWS
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


def markdown(outcomes: Mapping[str, Outcome], setting: str) -> str:
    """Return the table for the document."""
    head = (*HEAD, "the images")
    rows = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(HEAD) - 1) + " --- |"]
    rows += [
        "| " + " | ".join((*cells(row.name, outcomes[row.name]), row.asked)) + " |"
        for row in ROWS
        if row.name in outcomes
    ]
    return "\n".join([setting, "", *rows])


def write(table: str, document: Path = DOCUMENT) -> None:
    """Put a table between the document's markers."""
    write_between(COMMAND, table, document)
