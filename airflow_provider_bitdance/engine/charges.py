"""Charges: what an error that ends a job says of money, where it knows only of one image or one record.

"Nothing was charged for it" is wrong of a job that has bought other images, or this one
in an earlier process.
"""

from __future__ import annotations

from airflow_provider_bitdance.engine.budget import usd
from airflow_provider_bitdance.exceptions import BitDanceError, Paid, PredictionError
from airflow_provider_bitdance.records import JobState, Status
from airflow_provider_bitdance.records.events import Enhancement

__all__ = ["with_charges", "with_charges_of_one"]


def with_charges(error: BitDanceError, state: JobState) -> BitDanceError:
    """Say in an error about a whole job what the job has been charged, as its journal knows it."""
    images = state.images.values()
    enhanced = [image.plan.enhancement for image in images if image.plan.enhancement is not None]
    possibly = sum(image.unconfirmed * image.plan.estimated_cost_usd for image in images)
    possibly = round(possibly + sum(made.possibly_paid_usd for made in enhanced), 6)
    certain = round(state.spent_usd - possibly, 6)
    what = "images and prompts" if any(made.spent_usd for made in enhanced) else "images"
    if certain:
        more = f", and possibly {usd(possibly)} more" if possibly else ""
        words = f"So far, about {usd(certain)} was charged for this task's {what}{more}"
        return error.with_verdict(paid=Paid.YES, paid_in_words=words)
    if possibly:
        words = f"So far, up to {usd(possibly)} may have been charged for this task's {what}"
        return error.with_verdict(
            paid=Paid.YES if error.paid is Paid.YES else Paid.POSSIBLY, paid_in_words=words
        )
    if any(image.bought_by is not None and image.status is Status.SUBMITTED for image in images):
        words = "This task was charged nothing, but waits for images that are paid for"
        return error.with_verdict(paid=Paid.YES, paid_in_words=words)
    return error.with_verdict(paid=Paid.NO, paid_in_words="Nothing was charged")


def with_charges_of_one(error: BitDanceError, state: JobState) -> BitDanceError:
    """Say in an error that ends a job of one image whether that is bought; of several, as for a whole job."""
    if len(state.images) > 1:
        return with_charges(error, state)
    if error.paid is not Paid.NO:
        return error
    for image in state.images.values():
        if not isinstance(error, PredictionError):
            if image.status in (Status.SUBMITTED, Status.STORED) and not image.reused:
                return error.with_verdict(paid=Paid.YES)
            if image.unconfirmed:
                return error.with_verdict(paid=Paid.POSSIBLY)
        if image.plan.enhancement is not None and image.plan.enhancement.spent_usd:
            return error.with_verdict(paid_in_words=_only_the_prompt(image.plan.enhancement))
    return error


def _only_the_prompt(made: Enhancement) -> str:
    """Say what was charged where the image was not."""
    prompt = (
        "was charged for its prompt" if made.estimated_cost_usd else "may have been charged for its prompt"
    )
    return f"Nothing was charged for the image; up to {usd(made.spent_usd)} {prompt}"
