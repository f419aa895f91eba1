"""The fuzzer finds what it is there for: each planted fault, within a bounded number of examples."""

from __future__ import annotations

import pytest

from tests.fuzz.planted import PLANTS
from tests.fuzz.targets import ROOMS
from tests.fuzz.test_fuzz import fuzz


def test_each_target_has_a_planted_fault() -> None:
    assert {plant.target for plant in PLANTS} == ROOMS.keys()


def test_each_planted_fault_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    said = fuzz("--planted", "--seed", "1")
    with capsys.disabled():
        print(f"\n{said}", end="")
    assert said.count("after") == len(PLANTS)
