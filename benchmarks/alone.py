"""The engine against the script, both in this process and without Airflow.

Neither pays for imports or for the TLS context, which a process builds once: `warm_up` has done so.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import ssl
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar
from uuid import uuid4

from airflow_provider_bitdance.engine import Finished, JobContext, Policy, Wanted, run_job
from airflow_provider_bitdance.records import Job, Journal, Owner
from airflow_provider_bitdance.storage import Folder, LocalFolder
from airflow_provider_bitdance.storage.naming import parse_destination
from airflow_provider_bitdance.wavespeed.client import AsyncClient, ClientSettings
from airflow_provider_bitdance.wavespeed.image_request import ImageRequest
from benchmarks.account import Account
from benchmarks.asyncio_script import make_images
from benchmarks.far_folder import FarFolder
from benchmarks.measure import Figures, figures

T = TypeVar("T")
THREADS = 48
"""As many as the operator gives the engine."""
RETRIES = 2


class HasKey(Protocol):
    """Where an API is, and the key for it: an account, or what a process knows of it."""

    @property
    def url(self) -> str:
        """The API's address."""

    @property
    def api_key(self) -> str:
        """The key."""


@dataclass(frozen=True, slots=True)
class Key:
    """What a process knows of the account of another one."""

    url: str
    api_key: str


Way = Callable[[Account, Sequence[str], Path, int], Awaitable[None]]
Store = Callable[[Path], tuple[Folder, Folder]]


def nearby(folder: Path) -> tuple[Folder, Folder]:
    """Return folders for images and for records on the local disk."""
    return LocalFolder(folder), LocalFolder(folder / ".bitdance")


def far_away(folder: Path, *, seconds: float) -> tuple[Folder, Folder]:
    """Return the same, where each operation takes so many seconds more."""
    images, records = nearby(folder)
    return FarFolder(images, seconds), FarFolder(records, seconds)


async def by_engine(
    account: HasKey,
    prompts: Sequence[str],
    folder: Path,
    in_flight: int | None,
    *,
    store: Store = nearby,
    run_id: str | None = None,
    try_number: int = 1,
    **policy: Any,
) -> None:
    """Make an image of each prompt with this provider's engine.

    :param in_flight: ``None`` lets it find out.
    :param store: Opens the folders of images and of records.
    :param run_id: Of the job, where another process may go on with it.
    :param policy: More options of a batch.
    """
    images, records = store(folder)
    job = Job(
        dag_id="benchmark", run_id=run_id or uuid4().hex, task_id="images", map_index=-1, generation=RETRIES
    )
    writer = Owner(job=job, try_number=try_number, host="benchmark", pid=os.getpid(), token=uuid4().hex)
    journal = Journal(records, writer)
    journal.load()
    wanted = [
        Wanted(prompt, ImageRequest(prompt=prompt), parse_destination(f"{folder}/{prompt}", default_stem=""))
        for prompt in prompts
    ]
    many = {"max_in_flight": in_flight, "is_batch": True} | policy
    async with AsyncClient(ClientSettings(account.api_key, base_url=account.url)) as client:
        context = JobContext(
            client=client,
            journal=journal,
            records=records,
            images=images,
            policy=Policy(**many) if len(prompts) > 1 else Policy(),
            log=logging.getLogger("benchmarks.engine"),
            started_at=time.time(),
        )
        outcome = await run_job(context, wanted)
    assert isinstance(outcome, Finished)
    assert not outcome.failures


async def by_script(account: Account, prompts: Sequence[str], folder: Path, in_flight: int) -> None:
    """Make an image of each prompt with the script."""
    await make_images(account.url, account.api_key, prompts, folder, at_once=in_flight, verify=_tls())


WAYS: dict[str, Way] = {"engine": by_engine, "asyncio": by_script}


async def timed(work: Awaitable[None]) -> float:
    """Return how many seconds it takes."""
    start = time.perf_counter()
    await work
    return time.perf_counter() - start


def run(work: Awaitable[T]) -> T:
    """Run on an event loop with as many threads as the operator has."""

    async def with_threads() -> T:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS))
        return await work

    return asyncio.run(with_threads())


def play(way: Way, account: Account, images: int, in_flight: int) -> Figures:
    """Let one way make so many images on an account that is reset first, and count."""
    account.reset()
    prompts = [f"image-{number:04}" for number in range(images)]
    with tempfile.TemporaryDirectory(prefix="bitdance-bench-") as name:
        folder = Path(name)
        before = time.process_time()
        wall = run(timed(way(account, prompts, folder, in_flight)))
        cpu = time.process_time() - before
        return replace(figures(account.books(), folder, wall=wall), cpu_seconds=cpu)


def warm_up(home: Path) -> None:
    """Let each way import what it needs, on an account that nobody counts."""
    with Account(home / "warm-up", "--latency", "0.1") as account:
        for way in WAYS.values():
            play(way, account, 2, 2)


@functools.cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()
