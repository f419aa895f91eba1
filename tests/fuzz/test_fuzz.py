"""A minute of fuzzing in each run of the tests; the corpus comes first.

The seed follows from the package's code: each change meets new examples and the same code the same ones, so
that a run that fails also fails when it is started again. ``make fuzz`` takes a new seed each time.

Half of the targets are here and half in ``test_fuzz_inputs.py``: each file is one process's of pytest-xdist.
BITDANCE_FUZZ_SECONDS says how long all of them take together; BITDANCE_FUZZ_SEED takes another seed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SECONDS = float(os.environ.get("BITDANCE_FUZZ_SECONDS", "60"))
FILES = 2


def seed() -> int:
    """Return the number that the package's code stands for."""
    number = 0
    for path in sorted((ROOT / "airflow_provider_bitdance").rglob("*.py")):
        number = zlib.crc32(path.read_bytes(), number)
    return number


def fuzz(*arguments: str) -> str:
    """Run the fuzzer in a process of its own, and return what it says."""
    command = [sys.executable, "-m", "tests.fuzz", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    said = f"{done.stdout}{done.stderr}"
    assert done.returncode == 0, said
    return said


def fuzz_for_a_while(tmp_path: Path, capsys: pytest.CaptureFixture[str], *targets: str) -> None:
    minutes, number = SECONDS / FILES / 60, os.environ.get("BITDANCE_FUZZ_SEED") or seed()
    said = fuzz(*targets, "--minutes", str(minutes), "--corpus", str(tmp_path), "--seed", str(number))
    with capsys.disabled():
        print(f"\n{said}", end="")


def test_no_record_makes_a_task_or_a_command_do_what_it_may_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fuzz_for_a_while(tmp_path, capsys, "records", "tasks", "commands")
