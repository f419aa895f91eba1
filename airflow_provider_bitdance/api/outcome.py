"""What became of a submission: the table on which money depends.

A POST is sent again by itself only where :attr:`Outcome.NOT_CREATED` says that no task can exist. The wire
cases behind each error are in ``protocol.py`` (answers) and ``client.py`` (no answer); docs/costs.md names
the source of each row.
"""

from __future__ import annotations

from enum import StrEnum

from airflow_provider_bitdance.api import errors

__all__ = ["OUTCOMES", "Outcome", "outcome_of"]


class Outcome(StrEnum):
    """Whether a task was created, and so charged."""

    CREATED = "created"
    NOT_CREATED = "not created"
    REFUSED = "refused"
    UNKNOWN = "unknown"


OUTCOMES: dict[type[errors.BitDanceError], Outcome] = {
    # Certainly not created, and the same POST may succeed later: it is sent again.
    errors.NotSentError: Outcome.NOT_CREATED,
    errors.RateLimitError: Outcome.NOT_CREATED,
    # Certainly not created, and the same POST would be refused again.
    errors.AuthenticationError: Outcome.REFUSED,
    errors.InsufficientCreditError: Outcome.REFUSED,
    errors.RequestRefusedError: Outcome.REFUSED,
    errors.NotFoundError: Outcome.REFUSED,
    # The task may exist and be charged: the account's history is asked before anything is sent.
    errors.ServerError: Outcome.UNKNOWN,
    errors.LostAnswerError: Outcome.UNKNOWN,
    errors.GarbledAnswerError: Outcome.UNKNOWN,
}
"""By the very class of the error that a submission ended with."""


def outcome_of(error: errors.BitDanceError | None) -> Outcome:
    """Return what became of a submission.

    :param error: What it raised; ``None`` where it was answered with a prediction.
    """
    return Outcome.CREATED if error is None else OUTCOMES.get(type(error), Outcome.UNKNOWN)
