"""One cell, played: an environment of its own with the wheel, and the tests against it.

The tests come from the source distribution without the package: they import what the wheel installed.
"""

from __future__ import annotations

import os
import re
import shutil
import tarfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from demo.processes import Component, ProcessDied, end
from tests.matrix.cells import Cell, constraints, interpreter, version_of

PACKAGE = "airflow_provider_bitdance"
PATIENCE = 3600.0
NO_AIRFLOW = ("bad_weather", "batch_engine", "s3_engine", "s3_storage")
"""Integration tests that run no Airflow: what they may meet in another version, the unit tests meet, too."""
MAIN_JOB = (
    "test_the_example_stores_what_it_buys_and_a_clear_buys_nothing",
    "test_a_task_killed_between_submission_and_storing_is_stored_once_and_billed_once",
    "test_bad_input_fails_before_any_request_and_without_retry",
)
PARTS = {
    "unit, contract, packaging": ["tests/unit", "tests/contract", "tests/packaging"],
    "in `dag.test()`": [
        "tests/integration",
        *(f"--ignore=tests/integration/test_{name}.py" for name in NO_AIRFLOW),
    ],
    "on a real Airflow": [
        *(f"tests/system/test_main_job.py::{name}" for name in MAIN_JOB),
        "tests/system/test_s3.py",
    ],
}
"""What is played in each cell: the columns of the table, and what pytest is given."""


@dataclass(frozen=True, slots=True)
class Count:
    """What came of the tests of one part."""

    passed: int
    failed: int
    skipped: int = 0
    known: int = 0

    def __str__(self) -> str:
        said = {
            "failed": self.failed,
            "passed": self.passed,
            "skipped": self.skipped,
            "known to fail": self.known,
        }
        return ", ".join(f"{number:,} {what}" for what, number in said.items() if number) or "none"


@dataclass(slots=True)
class Result:
    """What came of a cell.

    :ivar python: The interpreter's version; empty where there is none.
    :ivar counts: By part, as far as they were played.
    :ivar broken: Why it was not played to its end.
    """

    cell: Cell
    python: str = ""
    counts: dict[str, Count] = field(default_factory=dict)
    broken: str = ""
    seconds: float = 0.0

    @property
    def is_green(self) -> bool:
        return not self.broken and not any(count.failed for count in self.counts.values())


class Player:
    """Plays cells, each in a folder of its own.

    :param folder: Where those folders are; what was there of a cell is replaced.
    :param dist: The folder with the wheel and the source distribution.
    :param parts: What is played in each.
    """

    def __init__(self, folder: Path, dist: Path, parts: Mapping[str, list[str]] = PARTS) -> None:
        self._folder = folder
        self._parts = parts
        (self._wheel,) = dist.glob("*.whl")
        (self._sources,) = dist.glob("*.tar.gz")
        self._running: set[Component] = set()
        self._is_over = threading.Event()

    def play(self, cell: Cell) -> Result:
        """Build the cell's environment and run the tests in it; what goes wrong is in the result."""
        started = time.monotonic()
        python = interpreter(cell.python)
        result = Result(cell, version_of(python) if python else "")
        if python:
            home = self._folder / cell.name
            shutil.rmtree(home, ignore_errors=True)
            try:
                pins = constraints(cell.airflow)
                tree = self._unpack(home, pins)
                self._install(home, python, pins)
                for part, arguments in self._parts.items():
                    result.counts[part] = self._test(home, tree, part, arguments)
                    print(f"{cell.name}: {part}: {result.counts[part]}", flush=True)
            except ProcessDied as error:
                result.broken = str(error)
        result.seconds = time.monotonic() - started
        return result

    def stop(self) -> None:
        """End all that runs; nothing more is started."""
        self._is_over.set()
        end(list(self._running), grace=5)

    def _unpack(self, home: Path, pins: str) -> Path:
        with tarfile.open(self._sources) as archive:
            archive.extractall(home, filter="data")
        (tree,) = home.iterdir()
        shutil.rmtree(tree / PACKAGE)
        (tree / "constraints.txt").write_text(pins)
        return tree

    def _install(self, home: Path, python: str, pins: str) -> None:
        for name, argv in install_commands(home, python, pins, f"{self._wheel}[dev]").items():
            self._run(name, argv, home, home)

    def _test(self, home: Path, tree: Path, part: str, arguments: list[str]) -> Count:
        name = re.sub(r"\W+", "-", part).strip("-")
        report = home / f"{name}.xml"
        pytest = [str(home / "env" / "bin" / "python"), "-m", "pytest", "-q", f"--junitxml={report}"]
        try:
            self._run(name, [*pytest, *arguments], home, tree, {"BITDANCE_WHEEL": str(self._wheel)})
        except ProcessDied:
            if self._is_over.is_set() or not report.exists():
                raise
        return count(report)

    def _run(
        self, name: str, argv: list[str], home: Path, cwd: Path, env: Mapping[str, str] | None = None
    ) -> None:
        """Run a program to its end, with a log in the cell's folder.

        :raises ProcessDied: It failed.
        """
        if self._is_over.is_set():
            raise ProcessDied("Stopped")
        callers = {"PYTHONPATH", "VIRTUAL_ENV", "PYTEST_ADDOPTS"}
        inherited = {key: value for key, value in os.environ.items() if key not in callers}
        program = Component(name, argv, env=inherited | dict(env or {}), cwd=cwd, log=home / f"{name}.log")
        self._running.add(program)
        try:
            program.run(PATIENCE)
        finally:
            self._running.discard(program)


def install_commands(home: Path, python: str, pins: str, wheel: str) -> dict[str, list[str]]:
    """Return the commands, by name, that make ``env`` in ``home`` and install a wheel; by uv if present.

    :param pins: The text of a constraints file, which is written to ``home``.
    :param wheel: The wheel's path, with extras or without.
    """
    env, file = home / "env", home / "constraints.txt"
    file.write_text(pins)
    # Airflow by name, beside the wheel that needs it: a pre-release counts only where it is asked for.
    airflow = [pin for pin in pins.split() if re.match(r"apache-airflow(-core|-task-sdk)?==", pin)]
    needs = ["-c", str(file), wheel, *airflow]
    if uv := shutil.which("uv"):
        make = [uv, "venv", "--quiet", "--no-python-downloads", "--python", python, str(env)]
        install = [uv, "pip", "install", "--quiet", "--python", str(env / "bin" / "python"), *needs]
    else:
        make = [python, "-m", "venv", str(env)]
        install = [str(env / "bin" / "python"), "-m", "pip", "install", "--quiet", *needs]
    return {"venv": make, "install": install}


def count(report: Path) -> Count:
    """Return what pytest's JUnit report counts; an error before or after a test is a failure."""
    cases = list(ElementTree.parse(report).iter("testcase"))
    failed = sum(case.find("failure") is not None or case.find("error") is not None for case in cases)
    skips = [skipped.get("type") for case in cases if (skipped := case.find("skipped")) is not None]
    known = skips.count("pytest.xfail")
    return Count(len(cases) - failed - len(skips), failed, len(skips) - known, known)
