"""`python -m benchmarks`: measure this provider against what a user would take instead; about an hour.

Exits with 1 where a row could not be played. That one misses what it must reach is a result, in the table.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby

from benchmarks import report
from benchmarks.lab import Lab
from benchmarks.rows import ROWS, Row
from demo.homes import temporary_home

_one_writer = threading.Lock()


def main() -> int:
    """Play the rows that are asked for, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = [row.name for row in ROWS]
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(names)}; default: all")
    parser.add_argument(
        "--quick", action="store_true", help="small sizes, to see that it works; keeps nothing"
    )
    parser.add_argument("--keep", action="store_true", help="keep the folder with all logs")
    given = parser.parse_args()
    if unknown := set(given.rows) - set(names):
        parser.error(f"no row {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    rows = [row for row in ROWS if not given.rows or row.name in given.rows]
    try:
        with temporary_home("bench", keep=given.keep) as home, Lab(home, quick=given.quick) as lab:
            return _play_all(lab, rows)
    except KeyboardInterrupt:
        print("Stopped.", flush=True)
        return 130


def _play_all(lab: Lab, rows: list[Row]) -> int:
    played = 0
    for sleep, some in groupby(rows, key=lambda row: row.sleeps):
        together = list(some)
        played += _play_together(lab, together) if sleep else sum(_play(lab, row) for row in together)
    print(f"\n{played} of {len(rows)} rows played.", flush=True)
    return 0 if played == len(rows) else 1


def _play_together(lab: Lab, rows: list[Row]) -> int:
    with ThreadPoolExecutor(len(rows)) as pool:
        try:
            return sum(pool.map(lambda row: _play(lab, row), rows))
        except BaseException:
            lab.over.set()
            raise


def _play(lab: Lab, row: Row) -> bool:
    started = time.monotonic()
    print(f"Playing {row.name}: {row.case} …", flush=True)
    try:
        result = row.play(lab)
    except Exception:
        print(f"\n{row.name} could not be played to its end\n{traceback.format_exc()}", flush=True)
        return False
    seconds = time.monotonic() - started
    print(f"{report.told(row, result)}\n        {seconds:.0f} s in all\n", flush=True)
    if not lab.quick:
        with _one_writer:
            report.keep({row.name: report.entry(row, result, lab.database, seconds)})
    return True


if __name__ == "__main__":
    sys.exit(main())
