"""What internals/versions.md says was played, and the parts of `make matrix` that need no environment."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest

from airflow_provider_bitdance import version_compat
from tests.document import marks
from tests.matrix import report
from tests.matrix.cells import AIRFLOWS, CELLS, PYTHONS, ROOT, Cell, constraints, interpreter, named
from tests.matrix.play import PARTS, Count, Result, count

TEXT = report.DOCUMENT.read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CELL = Cell("3.3.2", "3.12")


def test_the_table_is_of_cells_that_there_are_and_of_each_airflow() -> None:
    played = list(report.known())
    assert played == [cell.name for cell in CELLS if cell.name in played]
    assert {name.partition("-")[0] for name in played} == set(AIRFLOWS)


def test_what_the_table_shows_is_green() -> None:
    lines = report.known().values()
    assert [line for line in lines if "failed" in line or "not played" in line] == []


def test_what_differs_between_versions_is_named() -> None:
    differs = re.findall(r"AIRFLOW_VERSION >= \((\d), (\d)\)", Path(version_compat.__file__).read_text())
    section = TEXT.split("## What differs")[1]
    assert differs
    assert [f"{major}.{minor}" for major, minor in differs if f"{major}.{minor}" not in section] == []
    assert "version_compat.py" in section


def test_the_project_says_the_same_versions() -> None:
    classifiers = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if "Python :: 3." in line]
    assert tuple(classifiers) == PYTHONS
    assert PROJECT["requires-python"] == f">={PYTHONS[0]}"
    oldest = AIRFLOWS[0].rpartition(".")[0]
    assert f"apache-airflow>={oldest},<4" in PROJECT["dependencies"]
    for said in (f"Airflow {oldest}", f"{PYTHONS[0]} to {PYTHONS[-1]}"):
        assert said in TEXT


@pytest.mark.parametrize("airflow", AIRFLOWS)
def test_each_airflow_has_the_versions_of_its_packages(airflow: str) -> None:
    pins = constraints(airflow).splitlines()
    names = [pin.split("==")[0] for pin in pins]
    assert f"apache-airflow=={airflow}" in pins
    assert f"apache-airflow-core=={airflow}" in pins
    assert len(names) == len(set(names)) > 100


@pytest.mark.parametrize(
    ("names", "cells"),
    [
        ([], list(CELLS)),
        (["3.3.2-3.12"], [CELL]),
        (["3.12"], [Cell(airflow, "3.12") for airflow in AIRFLOWS]),
        (["3.14"], [Cell(airflow, "3.14") for airflow in AIRFLOWS[1:]]),
        (["3.3.2", "3.3.2-3.12"], [Cell("3.3.2", python) for python in PYTHONS]),
    ],
)
def test_a_cell_a_row_or_a_column_is_played_by_its_name(names: list[str], cells: list[Cell]) -> None:
    assert named(names) == cells


def test_what_is_left_out_is_there() -> None:
    left_out = [name.partition("=")[2] for names in PARTS.values() for name in names if name[:2] == "--"]
    assert left_out
    assert [name for name in left_out if not (ROOT / name).exists()] == []


def test_a_name_that_names_nothing_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match=r"No cell '3\.9'. There are: 3\.1\.8-3\.11, "):
        named(["3.11", "3.9"])


def test_the_first_interpreter_that_runs_and_is_of_that_version_is_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PYTHONS", f"{tmp_path}/not-there /bin/false {sys.executable}")
    assert interpreter(f"3.{sys.version_info.minor}") == sys.executable
    assert interpreter("3.0") is None


def test_the_counts_are_those_of_pytest(tmp_path: Path) -> None:
    file = tmp_path / "report.xml"
    file.write_text(
        """<testsuites><testsuite>
        <testcase name="a"/><testcase name="b"/>
        <testcase name="c"><failure/></testcase><testcase name="d"><error/></testcase>
        <testcase name="e"><skipped type="pytest.skip"/></testcase>
        <testcase name="f"><skipped type="pytest.xfail"/></testcase>
        </testsuite></testsuites>"""
    )
    assert count(file) == Count(passed=2, failed=2, skipped=1, known=1)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (Count(1200, 0), "1,200 passed"),
        (Count(1200, 2, skipped=1, known=3), "2 failed, 1,200 passed, 1 skipped, 3 known to fail"),
        (Count(0, 0), "none"),
    ],
)
def test_a_count_names_what_there_is(number: Count, text: str) -> None:
    assert str(number) == text


ALL = dict.fromkeys(PARTS, Count(7, 0))


@pytest.mark.parametrize(
    ("result", "green"),
    [
        (Result(CELL, "3.12.1", ALL), True),
        (Result(CELL), True),
        (Result(CELL, "3.12.1", {**ALL, next(iter(PARTS)): Count(7, 1)}), False),
        (Result(CELL, "3.12.1", {}, broken="install ended with exit code 1."), False),
    ],
)
def test_a_cell_is_green_where_nothing_failed_and_nothing_was_cut_short(result: Result, green: bool) -> None:
    assert result.is_green == green


def test_a_cell_that_is_played_again_replaces_its_line_and_no_other(tmp_path: Path) -> None:
    document = tmp_path / "versions.md"
    begin, end = marks(report.COMMAND)
    document.write_text(f"before\n{begin}\n{end}\nafter\n")
    other = Cell("3.1.8", "3.11")
    report.write([Result(CELL, "3.12.1", {}, seconds=60), Result(other, "3.11.7", ALL, seconds=90)], document)
    report.write([Result(CELL, "3.12.1", ALL, seconds=610), Result(Cell("3.3.2", "3.13"))], document)
    text = document.read_text()
    assert [line.split(" | ")[:3] for line in report.known(document).values()] == [
        ["| 3.1.8", "3.11.7", "7 passed"],
        ["| 3.3.2", "3.12.1", "7 passed"],
        ["| 3.3.2", "3.13: not here", ""],
    ]
    assert text.startswith(f"before\n{begin}\n| Airflow | Python |")
    assert text.endswith(f"{end}\nafter\n")
