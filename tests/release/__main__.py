"""`python -m tests.release`: is a release whole, and does it work where nothing else is installed?

Builds the wheel from the source distribution, checks both, runs the source distribution's tests against the
wheel, resolves that beside other packages on each Airflow, and follows the README to a first image in empty
environments. It exits with 1 at the first check that fails; logs and environments stay in .release/.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.matrix.cells import AIRFLOWS, ROOT, Cell
from tests.matrix.play import PARTS, Player
from tests.release.contents import Release
from tests.release.first_image import CLEAN, first_image
from tests.release.neighbours import NEIGHBOURS, resolve

FOLDER = ROOT / ".release"
TESTS = "unit, contract, packaging"


def main() -> int:
    argparse.ArgumentParser(prog="python -m tests.release", description=__doc__).parse_args()
    shutil.rmtree(FOLDER, ignore_errors=True)
    dist = FOLDER / "dist"
    neighbours = {
        f"it resolves beside {len(NEIGHBOURS)} other packages on Airflow {airflow}": partial(
            resolve, airflow, dist
        )
        for airflow in AIRFLOWS
    }
    first_images = {f"first image: {clean}": partial(first_image, clean, dist, FOLDER) for clean in CLEAN}
    steps: dict[str, Callable[[], None]] = {
        "wheel and source distribution are built": lambda: _run("build", "--outdir", str(dist), str(ROOT)),
        "twine finds no fault in the metadata": lambda: _run("twine", "check", "--strict", *_files(dist)),
        "version, changelog and contents agree": lambda: Release.of(dist, ROOT).check(),
        "the source distribution's tests pass on the wheel": lambda: _test(dist),
        **neighbours,
        **first_images,
    }
    for what, step in steps.items():
        started = time.monotonic()
        try:
            step()
        except (AssertionError, OSError, subprocess.CalledProcessError) as error:
            print(f"FAILED: {what}: {error}", flush=True)
            return 1
        print(f"ok: {what} ({time.monotonic() - started:.0f} s)", flush=True)
    return 0


def _files(dist: Path) -> list[str]:
    return [str(file) for file in dist.iterdir()]


def _run(module: str, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", module, *arguments], check=True, stdout=subprocess.DEVNULL)


def _test(dist: Path) -> None:
    cell = Cell("3.3.2", "3.11")
    result = Player(FOLDER, dist, {TESTS: PARTS[TESTS]}).play(cell)
    assert result.python, f"no Python {cell.python} here"
    assert result.is_green, f"{result.broken or result.counts[TESTS]}; see {FOLDER / cell.name}"


if __name__ == "__main__":
    sys.exit(main())
