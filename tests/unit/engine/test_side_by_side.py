"""Images of one job that are bought at the same time leave each other's purchases alone."""

from __future__ import annotations

from airflow_provider_bitdance.engine import Finished, run_job
from tests.unit.support import World, a_wanted, refusal, run


def test_a_lost_response_says_nothing_of_a_purchase_that_is_still_under_way() -> None:
    """While one answer is looked for in the history, another image waits to send its POST again."""
    world = World()
    world.api.on_post = [refusal(503), refusal(429, retry_after="5")]
    wanted = [a_wanted(f"prompt {name}", key=name, name=name) for name in "ab"]
    outcome = run(run_job(world.context(), wanted))
    assert isinstance(outcome, Finished)
    assert outcome.failures == {}
    assert (len(outcome.stored), world.api.billed) == (2, 2)
    assert (world.unconfirmed, world.settle()) == (1, 0)
