"""The client on httpx2, which Airflow 3.4 brings instead of httpx: some tests of the wire, once more.

``BITDANCE_TEST_HTTPX=httpx2`` before ``make test`` runs any of them so; ``make matrix`` runs all on Airflow
3.4.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTS = (
    *("tests/unit/wavespeed/test_bodies.py", "tests/unit/wavespeed/test_environment.py"),
    # It starts processes of its own, one for each library.
    *("-k", "not logs_an_outputs_url"),
)


def test_the_client_does_on_httpx2_what_it_does_on_httpx() -> None:
    pytest.importorskip("httpx2", reason="httpx2 is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0", *TESTS],
        cwd=ROOT,
        env={**os.environ, "BITDANCE_TEST_HTTPX": "httpx2"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    assert "passed" in done.stdout
