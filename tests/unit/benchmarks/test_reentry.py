"""The measure of a re-entry writes a journal as the engine does, and reads it."""

from __future__ import annotations

import pytest

from benchmarks import reentry


@pytest.mark.parametrize("rate", reentry.RATES, ids=lambda rate: rate.name)
def test_a_line_says_how_many_entries_were_read(rate: reentry.Rate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reentry, "OPERATION_SECONDS", 0.0)
    line = reentry.measure(rate, images=40, done=36, connections=10)
    entries, _, operations, *_ = line.removeprefix(rate.name).split()
    assert 36 < int(entries) <= 1 + 3 * 36
    assert int(operations) >= int(entries)
