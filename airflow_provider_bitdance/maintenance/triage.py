"""Triage: what is to be done for images that are bought, or about to be, and not stored. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_provider_bitdance.engine.output import KEPT_BY_WAVESPEED
from airflow_provider_bitdance.maintenance.report import CollectStatus
from airflow_provider_bitdance.maintenance.scan import JobRecord, Records
from airflow_provider_bitdance.records import ImageState, PlannedImage, Status

KEPT_SECONDS = KEPT_BY_WAVESPEED.total_seconds()
NOT_OURS = (CollectStatus.SUPERSEDED, CollectStatus.ANOTHER_API)
CLEARED = "the task was cleared and planned again afterwards: this image would replace the newer one"


@dataclass(frozen=True, slots=True)
class Triage:
    """One job with open images.

    :param outcome: ``DUE`` where they are to be collected, else why they are not.
    """

    record: JobRecord
    outcome: CollectStatus
    why: str = ""


def triage(records: Records, *, api_host: str, now: float, include_running: bool) -> list[Triage]:
    """Return what is to be done, for each job that has open images.

    :param api_host: Host of the API in use.
    :param now: Unix time.
    :param include_running: Collect also what a task may still wait for.
    """
    jobs = (record for record in records.jobs if record.open_images)
    found = [_triage(records, record, api_host, now, include_running) for record in jobs]
    return [job for job in found if not (job.outcome in NOT_OURS and _is_over(records, job.record, now))]


def _triage(records: Records, record: JobRecord, api_host: str, now: float, include_running: bool) -> Triage:
    left = record.state.lease_end(now) - now
    if records.has_later(record):
        return Triage(record, CollectStatus.SUPERSEDED, CLEARED)
    if not all(is_of(api_host, image.plan) for image in record.open_images):
        return Triage(record, CollectStatus.ANOTHER_API, f"it was not bought from {api_host}")
    if left > 0 and not include_running:
        return Triage(
            record, CollectStatus.RUNNING, (f"its task may still wait for it, for up to {left:.0f} s")
        )
    return Triage(record, CollectStatus.DUE)


def open_since(image: ImageState) -> float:
    """Return when an open image was bought, or was about to be, in Unix time."""
    return image.submitted_at if image.status is Status.SUBMITTED else image.intended_at


def bought_as(image: ImageState) -> str:
    """Return the prediction of an open image; empty where the response to its purchase has not come."""
    return image.prediction_id if image.status is Status.SUBMITTED else ""


def _is_over(records: Records, record: JobRecord, now: float) -> bool:
    """Say whether images that are not to be collected here are no matter any more.

    Another job has adopted the prediction and takes care of it, or WaveSpeed keeps the output no longer.
    """
    elsewhere = {name for other in records.jobs if other is not record for name in other.predictions}
    return all(
        bought_as(image) in elsewhere or now - open_since(image) > KEPT_SECONDS
        for image in record.open_images
    )


def is_of(api_host: str, plan: PlannedImage) -> bool:
    """Whether an image was requested from the API at a host."""
    requested = plan.request.model_copy(update={"seed": plan.seed_asked})
    return requested.fingerprint(api_host) == plan.fingerprint
