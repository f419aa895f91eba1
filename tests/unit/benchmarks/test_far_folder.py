"""The folder that is far away: slower, and otherwise the same."""

from __future__ import annotations

import pytest

from benchmarks import far_folder
from tests.unit.support import MemoryFolder


def test_each_operation_takes_its_time_and_does_what_it_does_nearby(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(far_folder.time, "sleep", slept.append)
    near = MemoryFolder({}, "mem://disk")
    far = far_folder.FarFolder(near, 0.03)  # type: ignore[arg-type]
    far.create("a/b", b"1")
    far.replace("a/b", b"22")
    assert (far.read("a/b"), far.size("a/b"), far.names("a")) == (b"22", 2, ["a/b"])
    far.remove("a/b")
    assert far.read("a/b") is None
    assert slept == [0.03] * 7
