"""Keeps the package and the service's app from starting threads: the model runs one thread at a time."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

import anyio.to_thread
import pytest

from airflow_provider_bitdance.records import journal as journal_module


class AtOnce(Executor):
    """An executor that does what it is given itself, before it goes on."""

    def __init__(self, *_: object) -> None:
        """Have no threads."""

    def submit(self, work: Callable[..., Any], /, *args: Any, **options: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(work(*args, **options))
        except Exception as error:
            done.set_exception(error)
        return done


@pytest.fixture(autouse=True)
def _no_other_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run_sync(func: Callable[..., Any], *args: Any, **_: Any) -> Any:
        return func(*args)

    monkeypatch.setattr(anyio.to_thread, "run_sync", run_sync)
    monkeypatch.setattr(journal_module, "ThreadPoolExecutor", AtOnce)
