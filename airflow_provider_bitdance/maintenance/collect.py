"""Collect: stores what a job has bought and its own task did not, as a process of that job.

It claims the job's journal, so a process of the task that is still alive stops, and a later try goes on from
what is written here. It looks, downloads and stores with the engine's own steps, and never buys.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from airflow_provider_bitdance.api.answers import Prediction
from airflow_provider_bitdance.api.errors import BitDanceError, FencedError
from airflow_provider_bitdance.engine import Bench
from airflow_provider_bitdance.engine.lost import settle_intents
from airflow_provider_bitdance.engine.store import KEPT_BY_WAVESPEED, settle
from airflow_provider_bitdance.journal import ImageState, Status
from airflow_provider_bitdance.lookout import Lookout, wait_for
from airflow_provider_bitdance.maintenance.outlook import bought_as
from airflow_provider_bitdance.maintenance.report import Outcome

PATIENCE = 10.0
"""Seconds to wait for a prediction: what is at rest has long ended, but a look may fail and be repeated."""


@dataclass(frozen=True, slots=True)
class Collected:
    """What became of one image.

    :param detail: Where it lies, or why it is not stored.
    """

    prediction_id: str
    outcome: Outcome
    detail: str


async def collect(bench: Bench) -> dict[str, Collected]:
    """Settle the open images of a job, and return what became of each, by its key. Buys nothing.

    :param bench: Of this job, as a new process of its own; the journal is loaded.
    """
    journal = bench.journal
    before = {image.plan.key: image for image in journal.state.having(Status.INTENDED, Status.SUBMITTED)}
    done: dict[str, Collected] = {}
    stopped = Outcome.LEFT, "the prediction has not ended yet"
    try:
        await _take_over(bench)
        for image, prediction in await _ended(bench):
            done[image.plan.key] = await _settle_one(bench, image, prediction)
    except FencedError:
        stopped = Outcome.RUNNING, "its own task goes on with it"
    except BitDanceError as error:
        stopped = Outcome.LEFT, error.what
    return {
        key: done.get(key) or _standing(journal.state.images[key], image, *stopped)
        for key, image in before.items()
    }


async def _take_over(bench: Bench) -> None:
    """Become the job's writer, and find out what became of what it was about to buy."""
    # The deadline stays: what is at rest is still at rest when this process ends, and its task's is its own.
    await asyncio.to_thread(bench.journal.claim, bench.journal.state.deadline, bench.clock.time())
    await settle_intents(bench, bench.journal)


async def _ended(bench: Bench) -> list[tuple[ImageState, Prediction]]:
    """Return the images whose predictions have ended."""
    bought = bench.journal.state.having(Status.SUBMITTED)
    ended = await wait_for(
        Lookout(bench.client, schedule=bench.policy.poll, clock=bench.clock),
        {image.prediction_id: image.submitted_at for image in bought},
        until=bench.clock.time() + PATIENCE,
    )
    return [(image, ended[image.prediction_id]) for image in bought if image.prediction_id in ended]


async def _settle_one(bench: Bench, image: ImageState, prediction: Prediction) -> Collected:
    """Store one image, unless that would do harm; an error is written down by the engine, or leaves it."""
    age = bench.clock.time() - image.submitted_at
    # The engine takes such a one for deleted. Here it may belong to the account of another connection.
    if prediction.status == "deleted" and age < KEPT_BY_WAVESPEED.total_seconds():
        why = "this account does not know the prediction: deleted, or bought with another key"
        return Collected(prediction.id, Outcome.LEFT, why)
    receipt = await asyncio.to_thread(bench.receipts.find, bench.address_of(image.plan))
    if (
        receipt
        and receipt.prediction_id != prediction.id
        and receipt.stored_at.timestamp() > image.submitted_at
    ):
        why = f"a newer image lies at its address: {receipt.uri}"
        return Collected(prediction.id, Outcome.SUPERSEDED, why)
    try:
        await settle(bench, image, prediction)
    except FencedError:
        raise
    except BitDanceError as error:
        failed = bench.journal.state.images[image.plan.key].status is Status.FAILED
        return Collected(prediction.id, Outcome.FAILED if failed else Outcome.LEFT, error.what)
    receipt = await asyncio.to_thread(bench.receipts.find, bench.address_of(image.plan))
    return Collected(prediction.id, Outcome.STORED, receipt.uri if receipt else "")


def _standing(image: ImageState, before: ImageState, outcome: Outcome, why: str) -> Collected:
    """Tell what became of an image that was not settled."""
    if image.status is Status.PLANNED and image.possibly_paid > before.possibly_paid:
        return Collected("", Outcome.POSSIBLY_PAID, image.reason)
    if image.status is Status.PLANNED:
        return Collected("", Outcome.NOT_CREATED, "the purchase did not happen")
    return Collected(bought_as(image), outcome, why)
