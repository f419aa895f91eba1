"""Triage: what is to be done for images that are bought, or about to be, and not stored. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from airflow_provider_bitdance.engine.output import KEPT_BY_WAVESPEED
from airflow_provider_bitdance.maintenance.report import CollectStatus
from airflow_provider_bitdance.maintenance.scan import JobRecord, Records
from airflow_provider_bitdance.records import ImageState, PlannedImage, Status

KEPT_SECONDS = KEPT_BY_WAVESPEED.total_seconds()
NOT_OURS = (CollectStatus.SUPERSEDED, CollectStatus.ANOTHER_API)
CLEARED = "the task was cleared and planned again afterwards, and requests another image there"


@dataclass(frozen=True, slots=True)
class Triage:
    """Open images of one job for which the same is to be done.

    :param outcome: ``DUE`` where they are to be collected, else why they are not.
    """

    record: JobRecord
    images: tuple[ImageState, ...]
    outcome: CollectStatus
    why: str = ""


def triage(records: Records, *, api_host: str, now: float, include_running: bool) -> list[Triage]:
    """Return what is to be done, for all open images of each job that has some.

    :param api_host: Host of the API in use.
    :param now: Unix time.
    :param include_running: Collect also what a task may still wait for.
    """
    found = []
    for record in (record for record in records.jobs if record.open_images):
        replaced = _replaced(records, record)
        others = tuple(image for image in record.open_images if image.plan.key not in replaced)
        outcome, why = _outcome(record, others, api_host, now, include_running)
        found.append(Triage(record, others, outcome, why))
        found.append(Triage(record, tuple(replaced.values()), CollectStatus.SUPERSEDED, CLEARED))
    current = (_without_what_is_over(records, job, now) if job.outcome in NOT_OURS else job for job in found)
    return [job for job in current if job.images]


def _replaced(records: Records, record: JobRecord) -> dict[str, ImageState]:
    """Return, by key, the open images of a job for which a job after a clear has a plan: it has adopted the
    prediction, or has one of its own for the destination. A row that was removed at the clear is none."""
    later = records.later_than(record)
    adopted = {name for job in later for name in job.predictions}
    planned = {identity for job in later for identity in job.destinations}
    return {
        image.plan.key: image
        for image in record.open_images
        if image.prediction_id in adopted or record.destination_of(image).identity in planned
    }


def _outcome(
    record: JobRecord, images: Iterable[ImageState], api_host: str, now: float, include_running: bool
) -> tuple[CollectStatus, str]:
    """Return what is to be done for those images of a job that nothing later replaces, and why."""
    if not all(is_of(api_host, image.plan) for image in images):
        return CollectStatus.ANOTHER_API, f"it was not bought from {api_host}"
    left = record.state.lease_end(now) - now
    if left > 0 and not include_running:
        return CollectStatus.RUNNING, f"its task may still wait for it, for up to {left:.0f} s"
    return CollectStatus.DUE, ""


def open_since(image: ImageState) -> float:
    """Return when an open image was bought, or was about to be, in Unix time."""
    return image.submitted_at if image.status is Status.SUBMITTED else image.intended_at


def bought_as(image: ImageState) -> str:
    """Return the prediction of an open image; empty where the response to its purchase has not come."""
    return image.prediction_id if image.status is Status.SUBMITTED else ""


def _without_what_is_over(records: Records, job: Triage, now: float) -> Triage:
    """Leave out images that are not to be collected here and are no matter any more.

    Another job has adopted the prediction and takes care of it, or WaveSpeed keeps the output no longer.
    """
    elsewhere = {name for other in records.jobs if other is not job.record for name in other.predictions}
    current = (image for image in job.images if bought_as(image) not in elsewhere)
    return replace(job, images=tuple(image for image in current if now - open_since(image) <= KEPT_SECONDS))


def is_of(api_host: str, plan: PlannedImage) -> bool:
    """Whether an image was requested from the API at a host."""
    style = plan.enhancement.style if plan.enhancement else None
    return plan.asked.fingerprint(api_host, enhance_prompt=style) == plan.fingerprint
