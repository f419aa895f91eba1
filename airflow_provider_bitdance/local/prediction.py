"""One task as the service knows it. Its status follows from the clock at the moment of the request."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from airflow_provider_bitdance.local import faults
from airflow_provider_bitdance.local.inputs import Inputs, PictureFormat

Status = Literal["created", "processing", "completed", "failed"]


@dataclass(slots=True, kw_only=True)
class Prediction:
    """One task.

    :param id: drawn at random; all else is drawn from the service's seed.
    :param model: model id.
    :param inputs: as they were requested.
    :param seed: the seed that was really used.
    :param price: USD charged at submit.
    :param picture_format: of the output.
    :param created_at: when it was made and charged, in seconds since the epoch, as all moments here. It is
        later than its submission where a fault says so, and until then nobody sees it.
    :param admitted_at: when it took its slot: as it was submitted, or when a queue let it in.
    :param due_at: when it ends; infinity for never.
    :param listed_at: when the history begins to show it; infinity for never.
    :param fault: the rule that decided how it will go.
    :param reads: how often its result was requested.
    :param deleted: whether the client deleted it.
    """

    id: str
    model: str
    inputs: Inputs
    seed: int
    price: Decimal
    picture_format: PictureFormat
    created_at: float
    admitted_at: float
    due_at: float
    listed_at: float
    fault: faults.PredictionFault | None = None
    reads: int = 0
    deleted: bool = False

    @property
    def failure(self) -> faults.Failed | None:
        """How it will fail; None when it will not."""
        return self.fault if isinstance(self.fault, faults.Failed) else None

    @property
    def nsfw(self) -> bool:
        """Whether its picture will be flagged."""
        return isinstance(self.fault, faults.Nsfw)

    @property
    def started_at(self) -> float:
        """When work on it begins."""
        return max(self.created_at, self.admitted_at)

    def exists(self, now: float) -> bool:
        """Whether a client can see it."""
        return self.created_at <= now and not self.deleted

    def status(self, now: float) -> Status:
        """Return the status at a moment."""
        if now < self.started_at:
            return "created"
        if now >= self.due_at:
            return "failed" if self.failure else "completed"
        # The real service shows "created" for a moment even when nothing is in the way.
        moment = min(0.2, (self.due_at - self.started_at) / 10)
        return "processing" if now >= self.started_at + moment else "created"
