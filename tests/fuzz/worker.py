"""The worker: the process that fuzzes, with an Airflow that has nothing and a network that leads nowhere."""

from __future__ import annotations

import argparse
import faulthandler
import logging
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tests.fuzz import cases

if TYPE_CHECKING:
    from tests.fuzz.fuzzer import Fuzzer

FAULTS = 3
"""The exit code where faults were found: Python's own is 1, also where a process hangs."""
HANG_SECONDS = 120
"""Real seconds after which one round of examples hangs; a busy machine is slow, but not that slow."""


def work(given: argparse.Namespace, pending: Path) -> int:
    """Play the corpus, then examples until the time is up; :data:`FAULTS` where there were some."""
    sys.dont_write_bytecode = True  # what is imported late would be written beside its source
    with tempfile.TemporaryDirectory(prefix="bitdance-fuzz-airflow-") as home:
        _prepare(Path(home))
        from tests.fuzz.targets import ROOMS

        if given.list:
            print("\n".join(ROOMS))
            return 0
        if given.planted:
            from tests.fuzz.planted import find_all

            return FAULTS if find_all(given.targets, given.seed) else 0
        unknown = set(given.targets) - ROOMS.keys()
        if unknown:
            raise SystemExit(f"no such target: {', '.join(sorted(unknown))}; --list lists them")
        return _fuzz(given, given.targets or list(ROOMS), pending)


def _prepare(home: Path) -> None:
    """Set what has to be set before Airflow is imported: nothing of the caller's Airflow counts."""
    for name in [name for name in os.environ if name.lstrip("_").startswith("AIRFLOW")]:
        del os.environ[name]
    os.environ.update(
        AIRFLOW_HOME=str(home),
        AIRFLOW__CORE__LOAD_EXAMPLES="False",
        AIRFLOW__LOGGING__LOGGING_LEVEL="CRITICAL",
        AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{home}/airflow.db",
        AIRFLOW_CONN_BITDANCE_DEFAULT='{"conn_type": "bitdance", "password": "unused"}',
    )
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)


def _fuzz(given: argparse.Namespace, names: Sequence[str], pending: Path) -> int:
    from tests.fuzz.fuzzer import Fuzzer
    from tests.fuzz.meter import set_backstop
    from tests.fuzz.sandbox import Sandbox
    from tests.fuzz.targets import load

    sandbox = Sandbox()
    fuzzers = {name: Fuzzer(load(name), sandbox, pending=pending) for name in names}
    set_backstop()
    until = time.monotonic() + 60 * given.minutes
    for file in given.replay or sorted(cases.CORPUS.glob("*.json")):
        target, case = cases.load(file)
        if target in fuzzers:
            _watch()
            fuzzers[target].replay(case)
            _tell(fuzzers[target], given.corpus)
    number, spent = given.seed, dict.fromkeys(names, 0.0)
    while not given.replay and time.monotonic() < until:
        name = min(spent, key=lambda each: spent[each])
        started = time.monotonic()
        _watch()
        fuzzers[name].fuzz(number)
        _tell(fuzzers[name], given.corpus)
        spent[name] += time.monotonic() - started
        number += 1
    faulthandler.cancel_dump_traceback_later()
    for name, fuzzer in fuzzers.items():
        fuzzer.close()
        print(f"fuzz: {name}: {fuzzer.examples} examples in {spent[name]:.0f} s, {fuzzer.faults} faults")
    return FAULTS if any(fuzzer.faults for fuzzer in fuzzers.values()) else 0


def _watch() -> None:
    faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)


def _tell(fuzzer: Fuzzer, corpus: Path) -> None:
    """Say at once what was found, and save it: a later example may end the process."""
    for found in fuzzer.take_found():
        saved = cases.save(corpus, found.target, found.fault.kind, found.case)
        where = saved or "its case is too large to keep"
        print(f"fuzz: FAULT in {found.target}: {found.fault}\n      {where}", flush=True)
