"""What the log of a job of several images says of how far it is."""

from __future__ import annotations

import logging

import pytest

from airflow_provider_bitdance.engine import run_job
from tests.unit.support import World, a_wanted, refusal, run


def test_the_last_line_counts_an_image_whose_purchase_failed_last(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.api.on_post = [world.api.answer_rightly, world.api.answer_rightly, refusal(400)]
    wanted = [a_wanted(f"prompt {name}", key=name, name=name) for name in "abc"]
    with caplog.at_level(logging.INFO):
        run(run_job(world.context(is_batch=True, requests_per_minute=2), wanted))
    lines = [record.getMessage() for record in caplog.records if "stored" in record.getMessage()]
    assert lines[-1] == "2/3 stored, 1 failed, $0.02"
