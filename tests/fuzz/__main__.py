"""`python -m tests.fuzz`: fuzz all targets or some, for minutes, and save what breaks a rule.

It exits with 1 where a fault was found. The seed that it prints plays the same examples again; --replay plays
saved files alone.
"""

from __future__ import annotations

import argparse
import os
import pickle
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz import cases, worker

CHILD = "BITDANCE_FUZZ_CHILD"


def main() -> int:
    given = _arguments()
    if os.environ.get(CHILD):
        return worker.work(given, Path(os.environ[CHILD]))
    until = time.monotonic() + 60 * given.minutes
    number, faults = given.seed, 0
    print(f"fuzz: seed {given.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="bitdance-fuzz-") as home:
        pending = Path(home) / "pending"
        while True:
            code = _run_child(given, number, max(0.0, until - time.monotonic()), pending)
            if code in (0, worker.FAULTS):
                return int(bool(code or faults))
            # Killed by the watchdog, by the system for memory, or by a fault in C: the case says where.
            faults += 1
            if given.planted or given.list:
                return 1
            _save_pending(given, pending, code)
            number += 1
            if time.monotonic() > until or faults > 5:
                return 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="only these (default: all)")
    parser.add_argument("--minutes", type=float, default=10.0, help="in all (default: 10)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--corpus", type=Path, default=cases.CORPUS, help="where faults are saved")
    parser.add_argument(
        "--replay", nargs="+", type=Path, default=[], metavar="FILE", help="play these and stop"
    )
    parser.add_argument("--planted", action="store_true", help="look for planted faults and stop")
    parser.add_argument("--list", action="store_true", help="list the targets and stop")
    return parser.parse_args()


def _run_child(given: argparse.Namespace, number: int, seconds: float, pending: Path) -> int:
    arguments = [*given.targets, "--minutes", str(seconds / 60), "--seed", str(number)]
    arguments += ["--corpus", str(given.corpus)]
    arguments += ["--replay", *map(str, given.replay)] if given.replay else []
    arguments += [f"--{name}" for name in ("planted", "list") if getattr(given, name)]
    command = [sys.executable, "-m", "tests.fuzz", *arguments]
    return subprocess.run(command, env={**os.environ, CHILD: str(pending)}, check=False).returncode


def _save_pending(given: argparse.Namespace, pending: Path, code: int) -> None:
    how = "hangs, or ends its process" if code > 0 else f"ends its process by signal {-code}"
    if not pending.exists():
        print(f"fuzz: FAULT: it {how} before the first example")
        return
    target, case = pickle.loads(pending.read_bytes())
    saved = cases.save(given.corpus, target, how, case)
    print(f"fuzz: FAULT in {target}: {how}; {saved or 'its case is too large to keep'}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
