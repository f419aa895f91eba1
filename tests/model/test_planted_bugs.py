"""The model finds what it is there for: each planted bug makes it fail within its usual number of rules."""

from __future__ import annotations

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.machine import EngineMachine
from tests.model.planted import PLANTS, Plant
from tests.model.test_engine import SETTINGS


@pytest.mark.parametrize(("plant", "finding"), PLANTS.items(), ids=lambda of: getattr(of, "__name__", ""))
def test_the_model_fails_when(
    plant: Plant, finding: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(monkeypatch)
    EngineMachine.rules_run = 0
    quick = settings(SETTINGS, phases=[Phase.generate], report_multiple_bugs=False, print_blob=False)
    with pytest.raises(AssertionError, match=finding) as failure:
        run_state_machine_as_test(EngineMachine, settings=quick)
    with capsys.disabled():
        said = str(failure.value).splitlines()[0]
        print(f"\nmodel: {plant.__name__}: after {EngineMachine.rules_run} rules: {said}")
