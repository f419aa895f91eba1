"""How far a batch is, in Airflow's task state store: a help that no task depends on."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from airflow_provider_bitdance.engine.progress import JobProgress
from airflow_provider_bitdance.local import LocalService
from airflow_provider_bitdance.operators.bitdance import BitDanceBatchOperator, BitDanceTextToImageOperator
from airflow_provider_bitdance.operators.progress_row import PROGRESS_KEY, ProgressRow
from tests.builders import context
from tests.unit.support import START


class Store:
    """Airflow's store, as a task's context has it; on an event loop it refuses, as Airflow does."""

    def __init__(self, before: Callable[[], None] = lambda: None) -> None:
        self.rows: list[dict[str, Any]] = []
        self.threads: set[int] = set()
        self.calls = 0
        self._before = before

    def set(self, key: str, value: dict[str, Any]) -> None:
        self.calls += 1
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        self._before()
        assert key == PROGRESS_KEY
        self.rows.append(json.loads(json.dumps(value)))
        self.threads.add(threading.get_ident())


def progress(stored: int, **changes: Any) -> JobProgress:
    fields = {"reused": 0, "in_flight": 2, "awaited": 0, "failed": 1, "spent_usd": 0.04, "at": START}
    return JobProgress(stored=stored, of=9, **{**fields, **changes})


def show(row: ProgressRow, *shown: JobProgress) -> None:
    async def run() -> None:
        for each in shown:
            row.show(each)

    asyncio.run(run())


def test_a_row_says_how_far_a_batch_is() -> None:
    store = Store()
    show(ProgressRow(store, Mock()), progress(3, expected_end=START + 90))
    assert store.rows == [
        {
            "stored": 3,
            "of": 9,
            "reused": 0,
            "in_flight": 2,
            "failed": 1,
            "estimated_cost_usd": 0.04,
            "updated_at": "2026-05-28T20:26:40+00:00",
            "expected_end": "2026-05-28T20:28:10+00:00",
        }
    ]


def test_a_row_is_written_by_a_thread_and_the_latest_comes_last() -> None:
    store = Store()
    show(ProgressRow(store, Mock()), *(progress(stored) for stored in range(9)))
    assert threading.get_ident() not in store.threads
    assert store.rows[-1]["stored"] == 8


def test_a_store_that_fails_is_logged_once_and_left_alone() -> None:
    def fail() -> None:
        raise OSError("no supervisor")

    store, log = Store(fail), Mock()
    show(ProgressRow(store, log), progress(1), progress(2), progress(3))
    assert (store.calls, log.debug.call_count) == (1, 1)
    assert log.warning.call_count == log.info.call_count == 0


def batch(output: Path) -> BitDanceBatchOperator:
    items = [{"key": f"k{number}", "prompt": f"A fox {number}"} for number in range(4)]
    return BitDanceBatchOperator(task_id="batch", items=items, output_path=f"{output}/", size="256*256")


def test_a_batch_keeps_its_row_to_the_end(local: LocalService, tmp_path: Path) -> None:
    store = Store()
    batch(tmp_path).execute({**context(), "task_state_store": store})
    assert (store.rows[0]["stored"], store.rows[-1]["stored"], store.rows[-1]["of"]) == (0, 4, 4)
    assert store.rows[-1]["estimated_cost_usd"] == 0.04


def test_a_batch_needs_no_store_and_none_that_works(local: LocalService, tmp_path: Path) -> None:
    def fail() -> None:
        raise OSError("no supervisor")

    result = batch(tmp_path).execute({**context(), "task_state_store": Store(fail)})
    assert batch(tmp_path).execute(context())["stored"] == result["stored"] == 4


def test_one_image_has_no_row(local: LocalService, tmp_path: Path) -> None:
    store = Store()
    operator = BitDanceTextToImageOperator(
        task_id="image", prompt="A fox", output_path=f"{tmp_path}/", size="256*256"
    )
    operator.execute({**context(), "task_state_store": store})
    assert store.calls == 0
