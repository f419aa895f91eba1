"""One try of a big batch, engine only, as a process of its own: it can be killed, and its memory is its own.

    python -m tests.integration.batch_process JSON

JSON holds the arguments of `one_try`. Prints "entering" before it enters the job, and at its end what it
measured, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import logging
import resource
import sys
import threading
import time
from pathlib import Path
from typing import Any

from airflow_provider_bitdance.engine import Finished, JobContext, Policy, Wanted, run_job
from airflow_provider_bitdance.polling.policy import PollPolicy
from airflow_provider_bitdance.records import Journal
from airflow_provider_bitdance.storage import LocalFolder
from airflow_provider_bitdance.storage.naming import parse_destination
from airflow_provider_bitdance.wavespeed.client import AsyncClient, ClientSettings
from tests.unit.support import a_request, a_writer


class CountingFolder(LocalFolder):
    """A folder that counts what is asked of it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.calls = 0
        self._counting = threading.Lock()

    def _count(self) -> None:
        with self._counting:
            self.calls += 1

    def create(self, name: str, data: bytes) -> None:
        self._count()
        super().create(name, data)

    def replace(self, name: str, data: bytes) -> None:
        self._count()
        super().replace(name, data)

    def read(self, name: str) -> bytes | None:
        self._count()
        return super().read(name)

    def size(self, name: str) -> int | None:
        self._count()
        return super().size(name)

    def remove(self, name: str) -> None:
        self._count()
        super().remove(name)

    def names(self, below: str) -> list[str]:
        self._count()
        return super().names(below)


def prompt_of(number: int) -> str:
    return f"picture {number} of a big batch"


def wanted(images: int, folder: Path) -> list[Wanted]:
    return [
        Wanted(
            f"k-{number}",
            a_request(prompt_of(number), seed=-1, size="256*256"),
            parse_destination(f"{folder}/k-{number}", default_stem=""),
        )
        for number in range(images)
    ]


def peak_mb() -> int:
    """Return the most memory that this process had; getrusage may tell that of the one which started it."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


async def one_try(
    *, url: str, api_key: str, folder: Path, images: int, try_number: int, max_in_flight: int | None = None
) -> dict[str, Any]:
    """Enter the job, and return what it cost to read its state and to do the rest."""
    records = CountingFolder(folder / ".bitdance")
    journal = Journal(records, a_writer(try_number=try_number))
    journal.load()
    loaded, stored_before = records.calls, sum(image.receipt != "" for image in journal.state.images.values())
    print("entering", flush=True)
    async with AsyncClient(ClientSettings(api_key, base_url=url)) as client:
        context = JobContext(
            client=client,
            journal=journal,
            records=records,
            images=LocalFolder(folder),
            policy=Policy(max_in_flight=max_in_flight, poll=PollPolicy(interval=0.5)),
            log=logging.getLogger("bitdance.batch"),
            started_at=time.time(),
        )
        start = time.monotonic()
        outcome = await run_job(context, wanted(images, folder))
        seconds = time.monotonic() - start
    used = resource.getrusage(resource.RUSAGE_SELF)
    assert isinstance(outcome, Finished)
    return {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "stored": len(outcome.results),
        "stored_before": stored_before,
        "possibly_paid": sum(result["possibly_paid"] for result in outcome.results),
        "calls_to_load": loaded,
        "calls": records.calls,
        "entries": journal.state.number,
        "peak_mb": peak_mb(),
    }


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    print(json.dumps(asyncio.run(one_try(**{**given, "folder": Path(given["folder"])}))), flush=True)
