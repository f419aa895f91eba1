"""The engine under everything at once: ``machine.py`` says what happens, ``books.py`` what must hold.

``BITDANCE_MODEL_RUNS`` sets the number of runs, 50 rules each, and ``BITDANCE_MODEL_SEED`` another seed.
"""

from __future__ import annotations

import os

import hypothesis
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.machine import BatchMachine, EngineMachine

RUNS, BATCH_RUNS = 250, 16
RULES_A_RUN = 50
LEAST, BATCH_LEAST = 5_000, 320

SETTINGS = settings(
    max_examples=RUNS,
    stateful_step_count=RULES_A_RUN,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
BATCH_SETTINGS = settings(SETTINGS, max_examples=BATCH_RUNS)


@pytest.mark.parametrize(
    ("machine", "chosen", "least"),
    [(EngineMachine, SETTINGS, LEAST), (BatchMachine, BATCH_SETTINGS, BATCH_LEAST)],
    ids=["a few images", "a large batch"],
)
def test_the_engine_keeps_its_promises_whatever_happens(
    machine: type[EngineMachine], chosen: settings, least: int, capsys: pytest.CaptureFixture[str]
) -> None:
    EngineMachine.rules_run = 0
    usual = chosen.max_examples
    if "BITDANCE_MODEL_SEED" in os.environ:
        machine = hypothesis.seed(int(os.environ["BITDANCE_MODEL_SEED"]))(machine)
        chosen = settings(chosen, derandomize=False)
    share = int(os.environ.get("BITDANCE_MODEL_RUNS", RUNS)) / RUNS
    runs = max(1, round(usual * share))
    run_state_machine_as_test(machine, settings=settings(chosen, max_examples=runs))
    with capsys.disabled():
        print(f"\nmodel: {machine.__name__}: {EngineMachine.rules_run} rules in {runs} runs")
    assert EngineMachine.rules_run >= least * min(1, runs / usual)
