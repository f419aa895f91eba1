"""Keeps the service's app from starting threads of its own: the model runs one thread at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio.to_thread
import pytest


@pytest.fixture(autouse=True)
def _no_threads_in_the_app(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run_sync(func: Callable[..., Any], *args: Any, **_: Any) -> Any:
        return func(*args)

    monkeypatch.setattr(anyio.to_thread, "run_sync", run_sync)
