"""How far a batch is, as a row of Airflow's task state store, which its UI shows. A help: nothing reads it.

Airflow has such a store from 3.3 on. To write to it takes a request to Airflow, from a thread: on an event
loop Airflow refuses it.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from threading import Lock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_bitdance.engine.progress import JobProgress

PROGRESS_KEY = "bitdance_progress"


class ProgressRow:
    """The row of one task instance.

    :param store: The task state store of the task's context; ``None`` where this Airflow has none.
    """

    def __init__(self, store: Any, log: Any) -> None:
        self._store = store
        self._log = log
        self._latest: JobProgress | None = None
        self._turn = Lock()

    def show(self, progress: JobProgress) -> None:
        """Have the row written by a thread of the event loop, which waits for it at its end."""
        self._latest = progress
        if self._store is not None:
            asyncio.get_running_loop().run_in_executor(None, self._write)

    def _write(self) -> None:
        with self._turn:
            if self._store is None or self._latest is None:
                return
            try:
                self._store.set(PROGRESS_KEY, _row(self._latest))
            except Exception:
                self._store = None  # no task depends on it
                self._log.debug("Airflow's task state store did not accept the progress", exc_info=True)


def _row(progress: JobProgress) -> dict[str, Any]:
    end = {} if progress.expected_end is None else {"expected_end": _moment(progress.expected_end)}
    return {
        "stored": progress.stored,
        "of": progress.of,
        "reused": progress.reused,
        "in_flight": progress.in_flight,
        "failed": progress.failed,
        "estimated_cost_usd": progress.spent_usd,
        "updated_at": _moment(progress.at),
        **end,
    }


def _moment(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).isoformat(timespec="seconds")
