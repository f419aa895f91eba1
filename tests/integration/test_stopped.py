"""A batch that Airflow stops, as its task runner does: a signal's handler calls ``on_kill`` in the midst."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from airflow_provider_bitdance.exceptions import TaskKilledError
from airflow_provider_bitdance.local import LocalService, Options, running_service
from airflow_provider_bitdance.operators.bitdance import BitDanceBatchOperator
from tests.builders import context

IMAGES = 400


def stop_this_process(service: LocalService, *, after: int) -> None:
    while service.bill().submitted < after:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGUSR1)


def test_a_batch_that_is_stopped_ends_and_the_next_try_buys_only_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def batch() -> BitDanceBatchOperator:
        items = [f"fox {number}" for number in range(IMAGES)]
        return BitDanceBatchOperator(
            task_id="image", items=items, size="256*256", output_path=f"{tmp_path}/", max_in_flight=100
        )

    with running_service(Options(latency=0.2, pictures="fast", balance_usd=1000)) as service:
        monkeypatch.setenv("AIRFLOW_CONN_BITDANCE_DEFAULT", service.connection)
        task = batch()
        before = signal.signal(signal.SIGUSR1, lambda *_: task.on_kill())
        killer = threading.Thread(target=stop_this_process, args=(service,), kwargs={"after": 40})
        killer.start()
        try:
            with pytest.raises(TaskKilledError, match="more are bought but not stored; the rest costs about"):
                task.execute(context())
        finally:
            killer.join()
            signal.signal(signal.SIGUSR1, before)
        bought = service.bill().billed
        result = batch().execute(context(try_number=2))

        assert 40 <= bought < IMAGES / 2
        assert (result["stored"], service.bill().billed) == (IMAGES, IMAGES)
