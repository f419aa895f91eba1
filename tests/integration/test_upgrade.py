"""A task that was deferred under 0.1.0 comes back under today's version, and buys nothing more.

The code of 0.1.0 is taken from the repository's history, as its wheel has it, and runs in a process of its
own. Where there is no history, as in a source distribution, these tests are skipped;
``tests/unit/test_golden.py`` plays the records, the triggers and the events of 0.1.0 in any case.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_bitdance import __version__
from airflow_provider_bitdance.local import LocalService
from airflow_provider_bitdance.operators.bitdance import BitDanceBatchOperator, BitDanceTextToImageOperator
from tests.builders import context, posts
from tests.unit.support import FakeClock

ROOT = Path(__file__).parents[2]
PACKAGE = "airflow_provider_bitdance"
SECOND_VERSION = '__version__ = "0.2.0"'
"""With the commit that has this line first, 0.1.0 ends."""
DEFER = """
import json, sys
from types import SimpleNamespace

from airflow.providers.common.compat.sdk import TaskDeferred

import airflow_provider_bitdance
from airflow_provider_bitdance.clock import Clock
from airflow_provider_bitdance.operators import bitdance

assert airflow_provider_bitdance.__version__ == "0.1.0", airflow_provider_bitdance.__file__
kind, options, ti, now = json.loads(sys.argv[1])
Clock.time = lambda self: now
try:
    getattr(bitdance, kind)(**options).execute({"ti": SimpleNamespace(**ti)})
except TaskDeferred as deferred:
    path, arguments = deferred.trigger.serialize()
    method, kwargs = deferred.method_name, deferred.kwargs
    print("KEPT", json.dumps({"trigger": path, "arguments": arguments, "method": method, "kwargs": kwargs}))
"""
"""What a worker of 0.1.0 does, and what Airflow keeps of it in its database."""


def git(*arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=True).stdout


@pytest.fixture(scope="module")
def first_version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the package as 0.1.0 has it."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("the repository's history is not there")
    found = git("log", "--format=%H", f"-S{SECOND_VERSION}", "--", f"{PACKAGE}/__init__.py").split()
    if not found:
        pytest.skip("the repository's history does not go back to 0.1.0")
    folder = tmp_path_factory.mktemp("0.1.0")
    with tarfile.open(fileobj=io.BytesIO(git("archive", f"{found[-1].decode()}~1", PACKAGE))) as archive:
        archive.extractall(folder, filter="data")
    return folder


def deferred_under_0_1_0(folder: Path, kind: str, options: dict[str, Any], now: float) -> dict[str, Any]:
    """Run a task under 0.1.0 until it defers, at a time of the tests' clock; return what Airflow keeps."""
    done = subprocess.run(
        [sys.executable, "-c", DEFER, json.dumps([kind, options, vars(context()["ti"]), now])],
        env={**os.environ, "PYTHONPATH": str(folder)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    (kept,) = [line for line in done.stdout.splitlines() if line.startswith("KEPT ")] or [""]
    assert kept, done.stderr
    found: dict[str, Any] = json.loads(kept.removeprefix("KEPT "))
    return found


def event_of(kept: dict[str, Any]) -> dict[str, Any]:
    """Run the trigger under today's version, as a restarted triggerer does."""
    module, _, name = kept["trigger"].rpartition(".")
    trigger = getattr(import_module(module), name)(**kept["arguments"])

    async def events() -> list[dict[str, Any]]:
        return [event.payload async for event in trigger.run()]

    (event,) = asyncio.run(events())
    return event


@pytest.mark.parametrize(
    ("kind", "own", "images"),
    [
        (BitDanceTextToImageOperator, {"prompt": "A fox"}, 1),
        (BitDanceBatchOperator, {"items": ["A fox", "A hare"]}, 2),
    ],
)
def test_a_task_that_0_1_0_deferred_is_completed_and_buys_nothing(
    local: LocalService,
    clock: FakeClock,
    tmp_path: Path,
    first_version: Path,
    kind: Any,
    own: dict[str, Any],
    images: int,
) -> None:
    options = {"task_id": "image", "output_path": f"{tmp_path}/", "size": "256*256", "retries": 2, **own}
    waiting = {**options, "deferrable": True, "defer_after": 0}
    kept = deferred_under_0_1_0(first_version, kind.__name__, waiting, clock.now)
    assert posts(local) == images
    assert __version__ != "0.1.0"

    resume = getattr(kind(**waiting), kept["method"])
    result = resume(context(), event=event_of(kept), **kept["kwargs"] or {})

    assert posts(local) == images
    assert len(list(tmp_path.glob("*.png"))) == images
    assert result["estimated_cost_usd"] == images / 100
