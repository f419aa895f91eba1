"""The other half of the minute: what the API and the user give."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.targets import ROOMS
from tests.fuzz.test_fuzz import fuzz_for_a_while


def test_no_answer_url_picture_or_item_does_what_it_may_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fuzz_for_a_while(tmp_path, capsys, *(ROOMS.keys() - {"records", "tasks", "commands"}))
