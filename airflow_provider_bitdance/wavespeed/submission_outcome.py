"""What became of a submission: the table on which money depends.

A POST is sent again by itself only if :attr:`SubmissionOutcome.NOT_CREATED` says that no prediction can
exist. The wire cases behind each error are in ``response_errors.py`` (responses) and ``http.py`` (no
response); docs/operations/costs.md names the source of each row.
"""

from __future__ import annotations

from enum import StrEnum

from airflow_provider_bitdance import exceptions
from airflow_provider_bitdance.wavespeed.response_errors import GAVE_UP


class SubmissionOutcome(StrEnum):
    """Whether a task was created, and so charged."""

    CREATED = "created"
    NOT_CREATED = "not created"
    REFUSED = "refused"
    UNKNOWN = "unknown"


SUBMISSION_OUTCOMES: dict[type[exceptions.BitDanceError], SubmissionOutcome] = {
    # Certainly not created, and the same POST may succeed later: it is sent again.
    exceptions.NotSentError: SubmissionOutcome.NOT_CREATED,
    exceptions.RateLimitError: SubmissionOutcome.NOT_CREATED,
    # Certainly not created, and the same POST would be refused again.
    exceptions.AuthenticationError: SubmissionOutcome.REFUSED,
    exceptions.InsufficientCreditError: SubmissionOutcome.REFUSED,
    exceptions.RequestRefusedError: SubmissionOutcome.REFUSED,
    exceptions.NotFoundError: SubmissionOutcome.REFUSED,
    exceptions.UnknownPathError: SubmissionOutcome.REFUSED,
    # The task may exist and be charged: the account's history is searched before anything is sent.
    exceptions.ServerError: SubmissionOutcome.UNKNOWN,
    exceptions.LostResponseError: SubmissionOutcome.UNKNOWN,
    exceptions.GarbledResponseError: SubmissionOutcome.UNKNOWN,
    exceptions.ResponseTooLargeError: SubmissionOutcome.UNKNOWN,
}
"""By the very class of the error that a submission ended with."""


def submission_outcome(error: exceptions.BitDanceError | None) -> SubmissionOutcome:
    """Return what became of a submission.

    :param error: What it raised; ``None`` if the response was a prediction.
    """
    return (
        SubmissionOutcome.CREATED
        if error is None
        else SUBMISSION_OUTCOMES.get(type(error), SubmissionOutcome.UNKNOWN)
    )


def may_arrive(error: exceptions.BitDanceError) -> bool:
    """Say of a submission whose outcome is unknown whether it may still arrive at the API.

    A gateway that gave up (408, 460, 499, 502 to 599) may hold it and hand it on, as whatever
    broke a connection may.
    """
    status = error.status if isinstance(error, exceptions.APIError) else None
    is_gateway = status is not None and (status in GAVE_UP or 502 <= status < 600)
    return isinstance(error, exceptions.LostResponseError) or is_gateway
