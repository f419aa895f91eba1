"""Runs tests against a copy of the package with one change in it. The checkout is never written to.

Most of a pytest's start is the import of others' packages: 7 s of processor time. So the process that starts
the runs imports them once, and each run is a fork of it that drops our own modules and imports them anew from
its copy.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import cache_from_source
from multiprocessing.connection import wait
from pathlib import Path

import pytest

from tests.mutants.mutations import PACKAGE, ROOT, Mutation

OURS = (PACKAGE, "tests")
COPIED = (PACKAGE, "tests", "docs", "pyproject.toml")
AT_ONCE = 2
SECONDS = 120.0
"""For the test files of a mutation; the slowest take 75 s on a machine that does other things, too."""
SECONDS_FOR_ALL = 900.0
WRONG_PACKAGE = 70
"""Exit status of a run that has not tested its copy."""


class Verdict(StrEnum):
    """What became of a mutation."""

    NOTICED = "noticed"
    TIMED_OUT = "noticed: time-out"
    SURVIVED = "SURVIVED"
    BROKEN = "NOT RUN"

    @property
    def is_noticed(self) -> bool:
        """Whether a test failed, or came to no end."""
        return self in (Verdict.NOTICED, Verdict.TIMED_OUT)


@dataclass(frozen=True, slots=True)
class Run:
    """One run of some test files against one mutation.

    :param said: The last lines of pytest.
    """

    mutation: Mutation
    verdict: Verdict
    seconds: float
    said: str


@dataclass(slots=True)
class _Started:
    mutation: Mutation
    process: multiprocessing.context.ForkProcess
    folder: Path
    begun: float
    limit: float


def warm_up() -> None:
    """Import what the tests import, so that each run need not."""
    importlib.import_module("tests.conftest")


def run_all(
    mutations: list[Mutation],
    tests_of: Callable[[Mutation], tuple[str, ...]],
    *,
    root: Path = ROOT,
    at_once: int = AT_ONCE,
    seconds: float = SECONDS,
) -> Iterator[Run]:
    """Run tests against each mutation, some at a time, and yield what came of them as they end.

    :param tests_of: The test files, relative to the root, that are run for a mutation.
    :param root: What is copied: the package, its tests and pyproject.toml.
    :param seconds: What takes longer is stopped, and counts as noticed.
    """
    left = list(reversed(mutations))
    started: dict[int, _Started] = {}
    try:
        while left or started:
            while left and len(started) < at_once:
                mutation = left.pop()
                run = _start(mutation, tests_of(mutation), root, seconds)
                started[run.process.sentinel] = run
            wait(list(started), timeout=1.0)
            for sentinel, run in list(started.items()):
                is_late = time.monotonic() - run.begun > run.limit
                if run.process.is_alive() and not is_late:
                    continue
                yield _end(started.pop(sentinel), is_late=is_late)
    finally:
        for run in started.values():
            _end(run, is_late=True)


def _copy(root: Path, mutation: Mutation) -> Path:
    changed = mutation.apply((root / PACKAGE / mutation.module).read_text())
    folder = Path(tempfile.mkdtemp(prefix="bitdance-mutant-"))
    for name in COPIED:
        if not (root / name).exists():
            continue
        if (root / name).is_dir():  # with the compiled files: they are found by the time of the source
            shutil.copytree(root / name, folder / name)
        else:
            shutil.copy2(root / name, folder)
    module = folder / PACKAGE / mutation.module
    module.write_text(changed)
    Path(cache_from_source(str(module))).unlink(missing_ok=True)
    return folder


def _start(mutation: Mutation, tests: tuple[str, ...], root: Path, seconds: float) -> _Started:
    folder = _copy(root, mutation)
    process = multiprocessing.get_context("fork").Process(target=_run_tests, args=(folder, tests))
    process.start()
    return _Started(mutation, process, folder, time.monotonic(), seconds)


def _end(run: _Started, *, is_late: bool) -> Run:
    if run.process.is_alive():
        _kill_group(run.process)
    run.process.join()
    output = run.folder / "output"
    said = output.read_text(errors="replace") if output.exists() else ""
    shutil.rmtree(run.folder, ignore_errors=True)
    verdict = Verdict.TIMED_OUT if is_late else _verdict(run.process.exitcode, said)
    lines = [line for line in said.splitlines() if line.strip()]
    return Run(run.mutation, verdict, time.monotonic() - run.begun, "\n".join(lines[-12:]))


def _kill_group(process: multiprocessing.context.ForkProcess) -> None:
    """Stop a run with all that it has started: it leads a process group of its own."""
    assert process.pid is not None
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:  # it has not come as far as that
        process.kill()


def _verdict(status: int | None, said: str) -> Verdict:
    """Say what a pytest's end means. A module that cannot even be imported is a mistake in the list."""
    if status == pytest.ExitCode.OK:
        return Verdict.SURVIVED
    if status == pytest.ExitCode.TESTS_FAILED and "ERROR collecting" not in said:
        return Verdict.NOTICED
    return Verdict.BROKEN


def _run_tests(folder: Path, tests: tuple[str, ...]) -> None:
    """Run in the fork: test the copy in ``folder``, and end with pytest's exit status."""
    os.setsid()
    sys.stdout = sys.stderr = output = (folder / "output").open("w", buffering=1)
    os.dup2(output.fileno(), 1)
    os.dup2(output.fileno(), 2)
    os.chdir(folder)
    (folder / "tmp").mkdir()
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder / "tmp")
    for name in [name for name in sys.modules if name.partition(".")[0] in OURS]:
        del sys.modules[name]
    sys.path[:] = [str(folder), *(path for path in sys.path if path and Path(path) != ROOT)]
    importlib.invalidate_caches()
    # What is imported already cannot be rewritten for better messages: pytest says so for each plugin.
    quiet = ("-W", "ignore::pytest.PytestAssertRewriteWarning")
    options = ("-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--rootdir", str(folder), *quiet)
    status = int(pytest.main([*options, *tests]))
    package = sys.modules.get(PACKAGE)
    is_copy = package is None or Path(package.__file__ or "").is_relative_to(folder)
    sys.stdout.flush()
    os._exit(status if is_copy else WRONG_PACKAGE)
