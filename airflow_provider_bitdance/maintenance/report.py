"""What a reconciliation found: plain values, with a form for programs. ``render.py`` has that for people."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Any

from airflow_provider_bitdance.maintenance.scan import Finding
from airflow_provider_bitdance.records import Job


class CollectStatus(StrEnum):
    """What became of an image that was bought, or about to be, and not stored.

    ``LEFT`` is the one that needs a person: it should have been stored, and could not be.
    """

    STORED = "stored"
    """Downloaded and stored where its plan says."""
    FAILED = "failed"
    """It gave no image, or its output has expired."""
    POSSIBLY_PAID = "possibly paid"
    """The response was lost, and nothing proves what became of it."""
    RUNNING = "running"
    """Its task may still wait for it."""
    SUPERSEDED = "superseded"
    """The task was cleared and planned again, or a newer image is stored there."""
    ANOTHER_API = "another API"
    """Bought from another API than this connection's."""
    LEFT = "left"
    """It could not be stored."""
    DUE = "due"
    """Would be collected, if this were not a dry run."""


@dataclass(frozen=True, slots=True)
class OpenImage:
    """An image that its job had bought, or had begun to buy, without a stored file or a final failure.

    :param prompt: At most 80 characters of it.
    :param prediction_id: Empty where the response to the purchase never came.
    :param days_left: Days for which WaveSpeed still keeps the output.
    :param detail: Where the image is, or why it is not stored.
    """

    job: Job
    key: str
    prompt: str
    prediction_id: str
    estimated_cost_usd: float
    days_left: float
    outcome: CollectStatus
    detail: str = ""


class Verdict(StrEnum):
    """What the account's history proves about a purchase whose response was lost."""

    BOUGHT = "bought"
    """It created a prediction, which was charged."""
    NOT_CREATED = "not created"
    """It created none, and was not charged."""
    UNKNOWN = "cannot be determined"
    """It stays possibly paid."""


@dataclass(frozen=True, slots=True)
class PossiblyPaid:
    """A purchase whose response was lost.

    :param intent: Which intent of the image it was, counted from 1.
    :param prompt: At most 80 characters of it.
    :param at: When the job began to buy it.
    :param prediction_id: The prediction that it created, if that is proven.
    :param reason: Why the verdict is this one; if it cannot be determined, what the task found.
    """

    job: Job
    key: str
    intent: int
    prompt: str
    at: datetime
    estimated_cost_usd: float
    verdict: Verdict
    prediction_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class UntrackedPrediction:
    """A prediction of the account that no record has: another program's, or a lost purchase.

    :param prompt: At most 80 characters of it, if the history shows inputs.
    """

    prediction_id: str
    model: str
    status: str
    age_days: float
    prompt: str


@dataclass(frozen=True, slots=True)
class Cost:
    """What one Dag bought on one day (UTC), and what the account paid for that.

    :param real_usd: Charges minus refunds.
    :param unbilled: How many of these predictions are not yet on the bill.
    """

    dag_id: str
    day: date
    predictions: int
    estimated_usd: float
    real_usd: float
    unbilled: int


@dataclass(frozen=True, slots=True)
class Unattributed:
    """What the account paid for predictions that no record has."""

    predictions: int
    real_usd: float


@dataclass(frozen=True, slots=True)
class Report:
    """What a reconciliation found and did.

    :param records: The records path.
    :param dry_run: Nothing was changed.
    """

    records: str
    since: datetime
    until: datetime
    dry_run: bool
    jobs: int
    receipts: int
    open_images: tuple[OpenImage, ...]
    possibly_paid: tuple[PossiblyPaid, ...]
    untracked: tuple[UntrackedPrediction, ...]
    costs: tuple[Cost, ...]
    unattributed: Unattributed
    findings: tuple[Finding, ...]

    @property
    def estimated_usd(self) -> float:
        """The cost of the period's images, estimated from the records."""
        return round(sum(cost.estimated_usd for cost in self.costs), 6)

    @property
    def real_usd(self) -> float:
        """What the account paid for them: charges minus refunds."""
        return round(sum(cost.real_usd for cost in self.costs), 6)

    @property
    def needs_attention(self) -> bool:
        """Whether something is paid for and could not be stored, or a record is damaged."""
        return bool(self.findings) or any(image.outcome is CollectStatus.LEFT for image in self.open_images)

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain JSON values, with the totals.

        :return: The fields by name, and ``estimated_usd``, ``real_usd``, ``needs_attention``. Times are
            ISO 8601 in UTC, outcomes and verdicts their texts.
        """
        totals = {"estimated_usd": self.estimated_usd, "real_usd": self.real_usd}
        return {**plain(self), **totals, "needs_attention": self.needs_attention}


def plain(value: object) -> Any:
    """Return a value of this package as plain JSON: dicts, lists, text and numbers."""
    return json.loads(json.dumps(value, default=_as_json))


def _as_json(value: Any) -> Any:
    if isinstance(value, Job):
        return value.model_dump()
    return value.isoformat() if isinstance(value, date) else asdict(value)
