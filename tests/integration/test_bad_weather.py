"""Two hundred images, one job each, while every fifth request meets a transient fault of some kind.

Real sockets to the local service, real files, the engine as an operator runs it with ``retries=4``. Service
and engine share a clock that runs twenty times as fast, so that pauses cost little.
"""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_bitdance.clock import Clock
from airflow_provider_bitdance.engine import Finished, JobContext, Policy, Wanted, run_job
from airflow_provider_bitdance.exceptions import BitDanceError
from airflow_provider_bitdance.local import LocalService, Options, running_service
from airflow_provider_bitdance.local.echo import Echo
from airflow_provider_bitdance.local.pictures import labels
from airflow_provider_bitdance.maintenance.reconcile import Reconciliation
from airflow_provider_bitdance.polling.policy import PollPolicy
from airflow_provider_bitdance.records import Journal
from airflow_provider_bitdance.storage import LocalFolder
from airflow_provider_bitdance.storage.naming import parse_destination
from airflow_provider_bitdance.wavespeed.client import AsyncClient, ClientSettings
from tests.unit.support import a_job, a_request, a_writer

IMAGES = 200
AT_ONCE = 25
TRIES = 5
FAULTY = 0.24
"""The chance of a request to meet a fault. Some kinds pass by some requests, so that at least 0.2 do."""
SPEED = 20.0
SEED = 20261122
"""Of the service's dice, which decide who meets which fault."""

HTTP = [
    {"kind": "status", "status": 429, "retry_after": 1},
    {"kind": "status", "status": 429},
    {"kind": "status", "status": 500, "body": "json"},
    {"kind": "status", "status": 502, "body": "html"},
    {"kind": "status", "status": 503, "body": "empty"},
    {"kind": "reset"},
    {"kind": "slow", "seconds": 1.5},
]
"""Kinds for any request; the slow answer comes after the client's time-out."""
JSON = [
    {"kind": "truncated_json"},
    {"kind": "envelope", "code": 500},
    {"kind": "drip", "seconds": 0.2},
]
AFTER_CREATION = [{**rule, "after_create": True} for rule in (*HTTP[2:6], JSON[1]) if rule["kind"] != "slow"]
WEATHER: dict[str, list[dict[str, Any]]] = {
    "submit": [*HTTP, *JSON, *AFTER_CREATION, {"kind": "no_id"}],
    "result": [
        *HTTP,
        *JSON,
        {"kind": "not_found"},
        {"kind": "unknown_status"},
        {"kind": "null_outputs"},
    ],
    "output": [*HTTP, {"kind": "truncated"}, {"kind": "not_whole"}, {"kind": "wrong_type"}],
    "history": [*HTTP, *JSON],
}
CLIENT_TIMEOUT = 1.0


class FastClock(Clock):
    """A clock on which a pause takes a twentieth of its time."""

    def __init__(self) -> None:
        self.start = time.monotonic()
        self.base = time.time()

    def time(self) -> float:
        return self.base + (time.monotonic() - self.start) * SPEED

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / SPEED)


def spoil(service: LocalService) -> None:
    """Let each kind be met once, and then each request meet a fault with the same probability."""
    for point, rules in WEATHER.items():
        for rule in rules:
            service.add_fault(on=point, times=1, **rule)
        share = FAULTY / len(rules)
        for earlier, rule in enumerate(rules):
            # The first rule that applies wins, so each one's chance is among those that no earlier one took.
            service.add_fault(on=point, probability=share / (1 - earlier * share), **rule)


def wanted(index: int, folder: Path) -> Wanted:
    request = a_request(f"image number {index} of a very long night", seed=-1, size="256*256")
    return Wanted("image", request, parse_destination(f"{folder}/", default_stem=f"image-{index}"))


async def make(index: int, folder: Path, service: LocalService, clock: FastClock) -> dict[str, Any]:
    """Run one job as Airflow does: try after try, each a process of its own."""
    records, images = LocalFolder(folder / ".bitdance"), LocalFolder(folder)
    job = a_job(map_index=index)
    for try_number in range(1, TRIES + 1):
        journal = Journal(records, a_writer(try_number=try_number, job=job))
        await asyncio.to_thread(journal.load)
        settings = ClientSettings(service.api_key, base_url=service.url, timeout=CLIENT_TIMEOUT)
        async with AsyncClient(settings) as client:
            context = JobContext(
                client=client,
                journal=journal,
                records=records,
                images=images,
                policy=Policy(poll=PollPolicy(interval=2.0)),
                log=logging.getLogger("bitdance.weather"),
                started_at=clock.time(),
                clock=clock,
            )
            try:
                outcome = await run_job(context, [wanted(index, folder)])
            except BitDanceError as error:
                if error.retry_helps:
                    continue
                raise
            assert isinstance(outcome, Finished)
            return outcome.results[0]
    raise AssertionError(f"image {index} was not made in {TRIES} tries")


async def make_all(folder: Path, service: LocalService, clock: FastClock) -> list[dict[str, Any]]:
    places = asyncio.Semaphore(AT_ONCE)

    async def one(index: int) -> dict[str, Any]:
        async with places:
            return await make(index, folder, service, clock)

    return await asyncio.gather(*(one(index) for index in range(IMAGES)))


def settled(folder: Path, service: LocalService, clock: FastClock) -> int:
    """Buy one more image when the weather is better, and return what is still possibly paid an hour later."""
    service.service.faults.clear()
    clock.base += 3600
    asyncio.run(make(IMAGES, folder, service, clock))
    clock.base += 3600
    for _ in range(2):
        settings = ClientSettings(service.api_key, base_url=service.url)
        report = Reconciliation(
            client=AsyncClient(settings),
            records=LocalFolder(folder / ".bitdance"),
            open_folder=lambda uri: LocalFolder(Path(uri.removeprefix("file://"))),
            outputs=(str(folder),),
            since=datetime.fromtimestamp(clock.time() - 4 * 3600, UTC),
            clock=clock,
        ).run()
    return len(report.possibly_paid)


@pytest.mark.parametrize("echo", [False, True], ids=["no echo", "history echoes inputs"])
def test_every_image_is_stored_once_and_every_charge_is_explained(tmp_path: Path, echo: bool) -> None:
    clock = FastClock()
    shown: Echo = "intact" if echo else "none"
    options = Options(latency=(3, 8), history_echo=shown, seed=SEED, pictures="fast")
    with running_service(options, clock=clock.time) as service:
        spoil(service)
        results = asyncio.run(make_all(tmp_path, service, clock))
        bill = service.bill()
        faults = [(planned.rule, planned.applied) for planned in service.service.faults.all()]
        asked = len(service.requests())
        left = settled(tmp_path, service, clock)
    for index, result in enumerate(results):
        picture = Path(result["uri"].removeprefix("file://")).read_bytes()
        assert labels(picture).prompt == wanted(index, tmp_path).request.prompt
        assert labels(picture).seed == result["seed"]
    possibly_paid = sum(result["possibly_paid"] for result in results)
    met = sum(applied for _, applied in faults)
    print(f"seed {SEED}: {met} of {asked} requests met a fault; billed {bill.billed}, {possibly_paid=}")
    assert len({result["uri"] for result in results}) == IMAGES
    assert bill.billed <= IMAGES + possibly_paid
    assert not [rule for rule, applied in faults if rule.times and not applied], "every kind is met"
    assert met / asked > 0.18, "of about 1,200 requests 0.2 are faulty, give or take 0.01"
    assert left == bill.billed - IMAGES
    if echo:
        assert (bill.billed, left) == (IMAGES, 0)
