"""`python -m tests.matrix`: all cells, or those that are named; it exits with 1 where a test fails.

Each cell keeps its folder in .matrix/, with the logs of all that ran.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from tests.matrix import report
from tests.matrix.cells import CELLS, ROOT, Cell, named
from tests.matrix.play import Player, Result

FOLDER = ROOT / ".matrix"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.matrix", description=__doc__)
    names = ", ".join((CELLS[0].name, CELLS[0].airflow, CELLS[0].python))
    parser.add_argument("names", nargs="*", metavar="CELL", help=f"only these cells: {names}, …")
    parser.add_argument("--at-once", type=int, default=2, help="cells at the same time (default: 2)")
    given = parser.parse_args()
    try:
        cells = named(given.names)
    except ValueError as error:
        parser.error(str(error))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _play(cells, given.at_once)
    except KeyboardInterrupt:
        print("Stopped.", flush=True)
        return 130


def _play(cells: list[Cell], at_once: int) -> int:
    player = Player(FOLDER, _build(FOLDER / "dist"))
    results = []
    pool = ThreadPoolExecutor(at_once)
    try:
        for future in as_completed([pool.submit(player.play, cell) for cell in cells]):
            results.append(future.result())
            _log(results[-1])
            report.write(results[-1:])
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        player.stop()
        raise
    finally:
        pool.shutdown()
    print(f"Written to {report.DOCUMENT.relative_to(ROOT)}.", flush=True)
    return 0 if all(result.is_green for result in results) else 1


def _build(folder: Path) -> Path:
    """Build the wheel and the source distribution of this checkout, and return their folder."""
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-d", str(folder)], cwd=ROOT, check=True)
    return folder


def _log(result: Result) -> None:
    name = result.cell.name
    if not result.python:
        print(f"{name}: no Python {result.cell.python} here", flush=True)
    elif result.broken:
        print(f"{name}: BROKEN: {result.broken}", flush=True)
    else:
        state = "green" if result.is_green else f"RED, see {FOLDER / name}"
        print(f"{name}: {state}, {result.seconds / 60:.0f} minutes", flush=True)


if __name__ == "__main__":
    sys.exit(main())
