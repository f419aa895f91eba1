"""`python -m tests.chaos`: every fault on one real Airflow; it exits with 1 where a row breaks its rules."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import signal
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from airflow_provider_bitdance import __version__
from demo import postgres
from demo.homes import temporary_home
from tests.chaos import report
from tests.chaos.rows import ROWS, Row
from tests.chaos.scene import DAG_ID, Outcome
from tests.chaos.stage import PERIODS, Stage

ROOT = Path(__file__).parents[2]
DAG_FILE = ROOT / "tests" / "system" / "dags" / "mortal.py"
AT_ONCE = 5
"""Rows that play at the same time, of those that kill only what is their own."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="PART", help="only rows whose name holds one of these")
    parser.add_argument("--sqlite", action="store_true", help="SQLite, also where there is Postgres")
    parser.add_argument("--keep", action="store_true", help="keep the folder with all logs and records")
    given = parser.parse_args()
    rows = [row for row in ROWS if not given.names or any(part in row.name for part in given.names)]
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        with temporary_home("chaos", keep=given.keep) as home:
            return _play_all(home, rows, sqlite=given.sqlite, whole=not given.names)
    except KeyboardInterrupt:
        print("Stopped.", flush=True)
        return 130


def _play_all(home: Path, rows: list[Row], *, sqlite: bool, whole: bool) -> int:
    started = time.monotonic()
    with ExitStack() as stack:
        env, database = _database(stack, home, sqlite=sqlite)
        dags = home / "dags"
        dags.mkdir()
        shutil.copy(DAG_FILE, dags)
        print(f"Starting Airflow {version('apache-airflow-core')} on {database} …", flush=True)
        airflow = stack.enter_context(
            Stage(home / "airflow", dags_folder=dags, env={**env, **PERIODS}, parallelism=8)
        )
        # Before the Airflow stops, so that no row waits for it.
        stack.callback(Stage.over.set)
        airflow.wait_for_dag(DAG_ID)
        print(f"Ready after {time.monotonic() - started:.0f} s.\n\n{report.line(report.HEAD)}", flush=True)
        outcomes, failures = _play(airflow, home, rows)
    for name, why in failures.items():
        print(f"\nBroken: {name}: {why}", flush=True)
    seconds = time.monotonic() - started
    print(
        f"\n{len(outcomes)} of {len(rows)} rows played, {len(failures)} broken, {seconds:.0f} s.", flush=True
    )
    if whole and not failures:
        report.write(report.markdown(outcomes, _setting(database, seconds)))
        print(f"Written to {report.DOCUMENT.relative_to(ROOT)}.", flush=True)
    return 1 if failures else 0


def _play(airflow: Stage, home: Path, rows: list[Row]) -> tuple[dict[str, Outcome], dict[str, str]]:
    """Play the rows that can at the same time, then the others one by one."""
    outcomes: dict[str, Outcome] = {}
    failures: dict[str, str] = {}
    for alone in (False, True):
        pool = ThreadPoolExecutor(1 if alone else AT_ONCE)
        try:
            playing = {
                pool.submit(row.play, airflow, home / "rows"): row for row in rows if row.alone == alone
            }
            for future in as_completed(playing):
                row = playing[future]
                try:
                    outcome = outcomes[row.name] = future.result()
                except Exception as error:
                    failures[row.name] = f"{type(error).__name__}: {error}"
                    print(f"{row.name}: not played to its end", flush=True)
                    continue
                print(report.line(report.cells(row.name, outcome)), flush=True)
                if broken := row.broken_rules(outcome):
                    failures[row.name] = ", ".join(broken)
        except BaseException:
            Stage.over.set()
            raise
        finally:
            pool.shutdown(cancel_futures=True)
    return outcomes, failures


def _database(stack: ExitStack, home: Path, *, sqlite: bool) -> tuple[Mapping[str, str], str]:
    why_not = "asked for" if sqlite else postgres.why_not()
    if why_not:
        return {}, f"SQLite ({why_not})"
    server = stack.enter_context(postgres.running_postgres(home / "postgres.log"))
    return {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": server.uri}, f"Postgres {postgres.version()}"


def _setting(database: str, seconds: float) -> str:
    airflow, python = version("apache-airflow-core"), platform.python_version()
    return (
        f"`make chaos` of {datetime.now(UTC):%Y-%m-%d}: version {__version__}, Airflow {airflow},\n"
        f"Python {python}, {database}, LocalExecutor, {os.cpu_count()} cores, {seconds:.0f} s in all."
    )


if __name__ == "__main__":
    sys.exit(main())
