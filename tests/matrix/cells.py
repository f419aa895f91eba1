"""The cells of the matrix, an Airflow and a Python each: which interpreter one takes, and which packages."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PINS = Path(__file__).with_name("pins")
AIRFLOWS = ("3.1.8", "3.2.2", "3.3.2", "3.4.0b2")
"""The oldest that is supported, the last of each minor version, and the newest pre-release on PyPI."""
PYTHONS = ("3.11", "3.12", "3.13", "3.14")


@dataclass(frozen=True, slots=True)
class Cell:
    """One Airflow on one Python."""

    airflow: str
    python: str

    @property
    def name(self) -> str:
        return f"{self.airflow}-{self.python}"


CELLS = tuple(
    Cell(airflow, python)
    for airflow in AIRFLOWS
    for python in PYTHONS
    # Airflow 3.1 does not install on Python 3.14.
    if (airflow, python) != ("3.1.8", "3.14")
)


def named(names: Sequence[str]) -> list[Cell]:
    """Return the cells of these names; an Airflow's or a Python's number names a row or a column.

    :raises ValueError: A name names none.
    """
    for name in names:
        if not any(name in (cell.name, cell.airflow, cell.python) for cell in CELLS):
            raise ValueError(f"No cell {name!r}. There are: {', '.join(cell.name for cell in CELLS)}")
    return [cell for cell in CELLS if not names or {cell.name, cell.airflow, cell.python}.intersection(names)]


def interpreter(python: str) -> str | None:
    """Return an interpreter of this version that runs, or ``None``; none is downloaded."""
    return next(
        (program for program in _candidates(python) if version_of(program).startswith(f"{python}.")), None
    )


def version_of(program: str) -> str:
    """Return an interpreter's version, or nothing where it does not run."""
    return _output(program, "-c", "import platform; print(platform.python_version())").strip()


def _candidates(python: str) -> Iterator[str]:
    yield from os.environ.get("PYTHONS", "").split()
    yield from filter(None, (shutil.which(f"python{python}"),))
    # pyenv's own python3.12 on the PATH runs only where that version is switched on.
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    yield from map(str, sorted(pyenv.glob(f"versions/{python}*/bin/python"), reverse=True))
    if uv := shutil.which("uv"):
        yield from _output(uv, "python", "find", "--no-python-downloads", python).split()


def _output(*command: str) -> str:
    """Return what a command writes, or nothing where it fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""


def constraints(airflow: str, *, pins: Path = PINS) -> str:
    """Return the packages' versions: those of constraints.txt, but for what this Airflow needs otherwise."""
    usual = _pinned(ROOT / "constraints.txt")
    other = pins / f"{airflow}.txt"
    versions = usual | (_pinned(other) if other.exists() else {})
    return "".join(f"{name}=={version}\n" for name, version in versions.items())


def _pinned(file: Path) -> dict[str, str]:
    lines = (line for line in file.read_text().splitlines() if not line.startswith("#"))
    return dict(line.split("==") for line in lines)
