"""The model finds what it is there for: each planted bug makes it fail, most within its usual runs."""

from __future__ import annotations

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.machine import BatchMachine, EngineMachine
from tests.model.planted import BATCH_PLANTS, PLANTS, Plant
from tests.model.test_engine import BATCH_SETTINGS, SETTINGS

PATIENCE = 4
CASES = [
    pytest.param(machine, chosen, plant, finding, id=plant.__name__)
    for machine, chosen, plants in (
        (EngineMachine, SETTINGS, PLANTS),
        (BatchMachine, BATCH_SETTINGS, BATCH_PLANTS),
    )
    for plant, finding in plants.items()
]


@pytest.mark.parametrize(("machine", "chosen", "plant", "finding"), CASES)
def test_the_model_fails_when(
    machine: type[EngineMachine],
    chosen: settings,
    plant: Plant,
    finding: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plant(monkeypatch)
    EngineMachine.rules_run = 0
    # Threads decide when a process dies, so the same examples do not always meet the rarest bug.
    runs = PATIENCE * chosen.max_examples
    quick = settings(
        chosen, max_examples=runs, phases=[Phase.generate], report_multiple_bugs=False, print_blob=False
    )
    with pytest.raises(AssertionError, match=finding) as failure:
        run_state_machine_as_test(machine, settings=quick)
    with capsys.disabled():
        said = str(failure.value).splitlines()[0]
        print(f"\nmodel: {plant.__name__}: after {EngineMachine.rules_run} rules: {said}")
