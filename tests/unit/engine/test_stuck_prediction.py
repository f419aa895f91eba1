"""A prediction that never ends holds up no other image for longer than a try."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_bitdance.engine import Waiting, run_job
from tests.unit.support import World, a_wanted, refusal, run


def never_ends(world: World, prediction_id: str) -> None:
    explained = world.api._explained

    def stuck(made: Any, *, echo: bool = False) -> dict[str, Any]:
        said = explained(made, echo=echo)
        return said | {"status": "processing", "outputs": []} if made.id == prediction_id else said

    world.api._explained = stuck  # type: ignore[method-assign]


@pytest.mark.parametrize("fields", [{}, {"defer_after": 15.0, "break_even": 13.0}], ids=["waits", "defers"])
def test_an_account_that_was_full_once_is_tried_anew_by_the_next_try(fields: dict[str, float]) -> None:
    world = World()
    never_ends(world, "pred-1")
    world.api.on_post = [world.api.answer_rightly, refusal(429)]
    wanted = [a_wanted(f"p{number}", key=f"k{number}", name=f"k{number}") for number in range(4)]
    for try_number in (1, 2, 3):
        for _ in range(100):
            context = world.context(try_number=try_number, is_batch=True, timeout=600.0, **fields)
            outcome = run(run_job(context, wanted))
            if not isinstance(outcome, Waiting):
                break
            # The trigger: what it polls never ends, so it comes back by time.
            is_by_time = not outcome.enough and outcome.resume_at > world.clock.now
            back = outcome.resume_at if is_by_time else outcome.deadline
            world.clock.now = max(world.clock.now + 10, min(back, outcome.deadline))
        world.clock.now += 60

    assert world.api.billed == 4
