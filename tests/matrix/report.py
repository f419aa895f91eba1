"""The table of internals/versions.md: a line a cell. A cell played again replaces its own line only."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from tests.document import between, write_between
from tests.matrix.cells import CELLS, ROOT
from tests.matrix.play import PARTS, Result

COMMAND = "make matrix"
DOCUMENT = ROOT / "docs" / "internals" / "versions.md"
HEAD = ("Airflow", "Python", *PARTS, "minutes", "played on")
RULE = "| --- | --- |" + " --- |" * len(PARTS) + " ---: | --- |"


def line(result: Result) -> str:
    """Return a cell's line of the table."""
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    if not result.python:
        cells = [f"{result.cell.python}: not here", *("" for _ in PARTS), ""]
    else:
        counts = [str(result.counts[part]) if part in result.counts else "not played" for part in PARTS]
        cells = [result.python, *counts, f"{result.seconds / 60:.0f}"]
    return f"| {result.cell.airflow} | {' | '.join(cells)} | {today} |"


def known(document: Path = DOCUMENT) -> dict[str, str]:
    """Return the document's lines by the cell's name."""
    matches = (re.match(r"\| (\S+) \| (\d+\.\d+)", text) for text in between(COMMAND, document).splitlines())
    return {f"{match[1]}-{match[2]}": match.string for match in matches if match}


def write(results: Iterable[Result], document: Path = DOCUMENT) -> None:
    """Put the lines of the cells that were played into the document's table."""
    lines = known(document) | {result.cell.name: line(result) for result in results}
    ordered = [lines[cell.name] for cell in CELLS if cell.name in lines]
    write_between(COMMAND, "\n".join([f"| {' | '.join(HEAD)} |", RULE, *ordered]), document)
