"""Collect: stores what a job has bought and its own task did not, as a process of that job.

It claims the job's journal, so a process of the task that is still alive stops, and a later try goes on from
what is written here. It polls, downloads and stores with the engine's own steps, and never buys.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass

from airflow_provider_bitdance.engine import JobContext
from airflow_provider_bitdance.engine.download import collect_output
from airflow_provider_bitdance.engine.lost_response_decisions import ARRIVES_WITHIN
from airflow_provider_bitdance.engine.lost_responses import resolve_intents
from airflow_provider_bitdance.engine.output import KEPT_BY_WAVESPEED
from airflow_provider_bitdance.engine.restore import PATIENCE
from airflow_provider_bitdance.exceptions import BitDanceError, FencedError
from airflow_provider_bitdance.maintenance.report import CollectStatus
from airflow_provider_bitdance.maintenance.triage import bought_as
from airflow_provider_bitdance.polling.poller import Poller, wait_for
from airflow_provider_bitdance.records import ImageState, Status
from airflow_provider_bitdance.records.receipts import Receipt
from airflow_provider_bitdance.wavespeed.responses import Prediction


@dataclass(frozen=True, slots=True)
class Collected:
    """What became of one image.

    :param detail: Where it is, or why it is not stored.
    """

    prediction_id: str
    outcome: CollectStatus
    detail: str


async def collect(context: JobContext, keys: Collection[str]) -> dict[str, Collected]:
    """Collect open images of a job, and return what became of each, by its key. Buys nothing.

    :param context: Of this job, as a new process of its own; the journal is loaded.
    :param keys: Those to collect; what became of a lost response is written down for all.
    """
    journal = context.journal
    found = journal.state.having(Status.INTENDED, Status.SUBMITTED)
    open_images = [image.plan.key for image in found if image.plan.key in keys]
    done: dict[str, Collected] = {}
    stopped = CollectStatus.LEFT, "the prediction has not ended yet"
    try:
        # The deadline stays: when this process ends, nobody waits for the job, and its task sets its own.
        now = context.clock.time()
        deadline = journal.state.lease_end(now)
        await asyncio.to_thread(journal.claim, deadline, now)
        await resolve_intents(context, journal, may_arrive=now < deadline + ARRIVES_WITHIN)
        bought = [image for image in journal.state.having(Status.SUBMITTED) if image.plan.key in keys]
        ended = await wait_for(
            Poller(context.client, policy=context.policy.poll, clock=context.clock),
            {image.prediction_id: image.submitted_at for image in bought},
            until=context.clock.time() + PATIENCE,
        )
        for image in bought:
            if image.prediction_id in ended:
                done[image.plan.key] = await _collect_one(context, image, ended[image.prediction_id])
    except FencedError:
        stopped = CollectStatus.RUNNING, "its task is still working on it"
    except BitDanceError as error:
        stopped = CollectStatus.LEFT, error.what
    return {key: done.get(key) or _standing(journal.state.images[key], *stopped) for key in open_images}


async def _collect_one(context: JobContext, image: ImageState, prediction: Prediction) -> Collected:
    """Store one image, unless that would do harm; an error is written down by the engine, or leaves it."""
    age = context.clock.time() - image.submitted_at
    # The engine takes such a one for deleted. Here it may belong to the account of another connection.
    if prediction.status == "deleted" and age < KEPT_BY_WAVESPEED.total_seconds():
        why = "the account does not show the prediction: it was deleted, or bought with another key"
        return Collected(prediction.id, CollectStatus.LEFT, why)
    newer = await asyncio.to_thread(_newer_image, context, image)
    if newer is not None:
        why = f"a newer image is at its destination: {newer.uri}"
        return Collected(prediction.id, CollectStatus.SUPERSEDED, why)
    try:
        receipt = await collect_output(context, image, prediction)
    except FencedError:
        raise
    except BitDanceError as error:
        failed = context.journal.state.images[image.plan.key].status is Status.FAILED
        return Collected(prediction.id, CollectStatus.FAILED if failed else CollectStatus.LEFT, error.what)
    return Collected(prediction.id, CollectStatus.STORED, receipt.uri)


def _newer_image(context: JobContext, image: ImageState) -> Receipt | None:
    """Return the receipt of an image that was stored at the destination since, if its file is still there.

    Also where that has been changed: it may be somebody's work.
    """
    receipt = context.receipts.find(context.destination_of(image.plan))
    if receipt is None or receipt.prediction_id == image.prediction_id:
        return None
    is_newer = receipt.stored_at.timestamp() > image.submitted_at
    return receipt if is_newer and context.images.size(receipt.file) is not None else None


def _standing(image: ImageState, outcome: CollectStatus, why: str) -> Collected:
    """Return what became of an image that was not collected."""
    if image.status is Status.PLANNED:
        return Collected("", CollectStatus.POSSIBLY_PAID, image.reason)
    return Collected(bought_as(image), outcome, why)
