"""The connection's limits are the defaults of a batch's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airflow_provider_bitdance.local import LocalService
from airflow_provider_bitdance.operators.bitdance import BitDanceBatchOperator, BitDanceTextToImageOperator
from tests.builders import connection_to, context
from tests.unit.support import FakeClock

SECONDS = 20.0
"""So long takes an image."""


@pytest.fixture
def seconds(local: LocalService, clock: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what runs a batch of three and tells how long it took."""
    local.add_fault(on="submit", kind="latency", seconds=SECONDS)

    def run(connection: dict[str, object], **given: Any) -> float:
        monkeypatch.setenv("AIRFLOW_CONN_BITDANCE_DEFAULT", connection_to(local, **connection))
        items = ["A teapot", "A kettle", "A mug"]
        start = clock.now
        BitDanceBatchOperator(
            task_id="image", items=items, size="256*256", output_path=f"{tmp_path}/", **given
        ).execute(context())
        return clock.now - start

    return run


def test_a_batch_without_limits_buys_all_at_once(seconds: Any) -> None:
    assert seconds({}) < 2 * SECONDS


def test_a_batch_keeps_to_the_connection_s_images_in_flight(seconds: Any) -> None:
    assert seconds({"max_in_flight": 1}) >= 3 * SECONDS


def test_a_batch_keeps_to_the_connection_s_submissions_a_minute(seconds: Any) -> None:
    assert seconds({"requests_per_minute": 1}) >= 120


def test_the_operator_s_own_limits_go_before(seconds: Any) -> None:
    connection = {"max_in_flight": 1, "requests_per_minute": 1}

    assert seconds(connection, max_in_flight=100, requests_per_minute=100) < 2 * SECONDS


def test_limits_do_not_concern_a_task_of_one_image(
    local: LocalService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = connection_to(local, max_in_flight=1, requests_per_minute=1)
    monkeypatch.setenv("AIRFLOW_CONN_BITDANCE_DEFAULT", limits)

    for run_id in ("one", "two", "three"):
        BitDanceTextToImageOperator(
            task_id="image", prompt="A teapot", size="256*256", output_path=f"{tmp_path}/"
        ).execute(context(run_id=run_id))

    assert local.bill().billed == 3
