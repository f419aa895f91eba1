"""The engine under everything at once: ``machine.py`` says what happens, ``books.py`` what must hold.

``BITDANCE_MODEL_RUNS`` sets the number of runs, 50 rules each, and ``BITDANCE_MODEL_SEED`` another seed.
"""

from __future__ import annotations

import os

import hypothesis
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.machine import EngineMachine

RUNS = 250
RULES_A_RUN = 50
LEAST = 5_000

SETTINGS = settings(
    max_examples=RUNS,
    stateful_step_count=RULES_A_RUN,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def test_the_engine_keeps_its_promises_whatever_happens(capsys: pytest.CaptureFixture[str]) -> None:
    EngineMachine.rules_run = 0
    machine, chosen = EngineMachine, SETTINGS
    if "BITDANCE_MODEL_SEED" in os.environ:
        machine = hypothesis.seed(int(os.environ["BITDANCE_MODEL_SEED"]))(EngineMachine)
        chosen = settings(SETTINGS, derandomize=False)
    runs = int(os.environ.get("BITDANCE_MODEL_RUNS", RUNS))
    run_state_machine_as_test(machine, settings=settings(chosen, max_examples=runs))
    with capsys.disabled():
        print(f"\nmodel: {EngineMachine.rules_run} rules in {runs} runs")
    assert EngineMachine.rules_run >= LEAST * min(1, runs / RUNS)
