"""The table of what came of the rows, for terminal and internals/benchmarks.md, and the figures behind it.

A row that is played again replaces what is known of it, and of it alone.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from airflow_provider_bitdance import __version__
from benchmarks import plot
from benchmarks.checks import Check, Result
from benchmarks.measure import Figures
from benchmarks.rows import COMPARISON, Row

DOCS = Path(__file__).parents[1] / "docs" / "internals"
DOCUMENT, FIGURES, PLOT = DOCS / "benchmarks.md", DOCS / "benchmarks.json", DOCS / "benchmarks.svg"
BEGIN, END = "<!-- made by make bench: {} begin -->", "<!-- made by make bench: {} end -->"
HEAD = "| # | case | must reach | measured | ok |\n| --- | --- | --- | --- | --- |"
WAYS_HEAD = (
    "| | way | wall, s | slot-seconds an image | polls an image | seen late, s | stored late, s | billed "
    "| TCP connections |\n| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
)

Known = dict[str, Any]
"""What the file of figures holds: by row, its checks, runs, notes and setting."""


def entry(row: Row, result: Result, database: str, seconds: float) -> Known:
    """Return what is kept of a row that was played."""
    return {
        "case": row.case,
        "checks": [asdict(check) for check in result.checks],
        "runs": {way: [asdict(run) for run in runs] for way, runs in result.runs.items()},
        "notes": result.notes,
        "setting": {
            "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M}",
            "version": __version__,
            "airflow": version("apache-airflow-core"),
            "python": platform.python_version(),
            "database": database,
            "cores": os.cpu_count(),
            "seconds": round(seconds),
        },
    }


def keep(entries: Mapping[str, Known]) -> None:
    """Add rows to the file of figures, and make the tables and the plot of the document anew."""
    known: Known = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    known |= json.loads(json.dumps(entries))
    FIGURES.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
    text = DOCUMENT.read_text()
    text = _between(text, "rows", "\n".join([HEAD, *lines(known)]) + f"\n\n{_settings(known)}")
    if COMPARISON in known:
        runs = _runs(known[COMPARISON])
        text = _between(text, "ways", "\n".join([WAYS_HEAD, *map(_way_line, runs, runs.values())]))
        PLOT.write_text(plot.svg(runs))
    DOCUMENT.write_text(text)


def lines(known: Known) -> list[str]:
    """Return the table's lines, in the order of the rows' numbers."""
    return [line(name, known[name]) for name in sorted(known, key=_number) if known[name]["checks"]]


def _number(name: str) -> tuple[int, str]:
    return (int(name) if name.isdecimal() else 0), name


def line(name: str, row: Known) -> str:
    """Return one line of the table."""
    checks = [Check(**check) for check in row["checks"]]
    cells = (
        name,
        row["case"],
        "<br>".join(check.must for check in checks),
        "<br>".join(check.reached for check in checks),
        "ok" if all(check.ok for check in checks) else "**misses**",
    )
    return f"| {' | '.join(cells)} |"


def told(row: Row, result: Result) -> str:
    """Return the same for the terminal."""
    said = [f"\n{row.name}  {row.case}"]
    said += [f"   {'ok  ' if check.ok else 'MISS'} {check.must}: {check.reached}" for check in result.checks]
    for way, runs in result.runs.items():
        shown = ", ".join(
            f"{name} {_median(runs, name):.3g}"
            for name in Figures.__slots__
            if _median(runs, name) is not None
        )
        said.append(f"        {way} ({len(runs)}): {shown}")
    said += [f"        {name}: {figure:.4g}" for name, figure in result.notes.items()]
    return "\n".join(said)


def _runs(row: Known) -> dict[str, list[Figures]]:
    return {way: [Figures(**run) for run in runs] for way, runs in row["runs"].items()}


def _way_line(name: str, runs: list[Figures]) -> str:
    way, _, images = name.partition(", ")
    slots = (_median(runs, "slot_seconds") or 0) / max(1, runs[0].stored)
    figures = [f"{_median(runs, 'wall'):.1f}", f"{slots:.2f}", f"{_median(runs, 'polls'):.1f}"]
    figures += [f"{_median(runs, what):.2f}" for what in ("seen", "kept")]
    figures += [f"{_median(runs, what):.0f}" for what in ("billed", "connections")]
    return f"| {images} | {way} | {' | '.join(figures)} |"


def _median(runs: list[Figures], name: str) -> float | None:
    found = [figure for run in runs if (figure := getattr(run, name)) is not None]
    return median(found) if found else None


def _settings(known: Known) -> str:
    settings = [row["setting"] for row in known.values()]
    dates = sorted(setting["date"] for setting in settings)
    last = max(settings, key=lambda setting: (bool(setting["database"]), setting["date"]))
    return (
        f"`make bench`, {dates[0]} to {dates[-1]} UTC: version {last['version']}, "
        f"Airflow {last['airflow']} on {last['database'] or 'no database'}, LocalExecutor, "
        f"Python {last['python']}, {last['cores']} cores. "
        f"Every single run is in [benchmarks.json](benchmarks.json)."
    )


def _between(text: str, what: str, made: str) -> str:
    before, rest = text.split(BEGIN.format(what))
    _, after = rest.split(END.format(what))
    return f"{before}{BEGIN.format(what)}\n{made}\n{END.format(what)}{after}"
