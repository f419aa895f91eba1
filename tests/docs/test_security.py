"""SECURITY.md: each row of its tables names tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

ROWS = [
    line
    for line in (ROOT / "SECURITY.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and not line.startswith(("| Attack", "| ---"))
]
TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


@pytest.mark.parametrize("row", ROWS)
def test_each_row_names_tests_that_are_there(row: str) -> None:
    named = TEST.findall(row)
    assert named, "a row of SECURITY.md names its test as `tests/…/test_x.py::test_y`"
    for file, test in named:
        assert f"def {test}(" in (ROOT / file).read_text(encoding="utf-8")
