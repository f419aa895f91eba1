"""The books: charges and refunds of each prediction, and what they add up to by model and by day.

Pure functions over predictions, deleted ones too: who deletes a prediction has paid for it all the same.
The shapes are those of https://wavespeed.ai/docs/docs-common-api/billings and
https://wavespeed.ai/docs/docs-common-api/usage.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Literal

from airflow_provider_bitdance.local.catalogue import MODELS
from airflow_provider_bitdance.local.inputs import BillingQuery, UsageQuery
from airflow_provider_bitdance.local.prediction import Prediction, Status


@dataclass(frozen=True, slots=True)
class Record:
    """One entry: what was charged for a prediction, or given back.

    :param uuid: the same each time.
    :param billing_type: ``deduct`` or ``refund``.
    :param price: USD, never negative.
    :param created_at: seconds since the epoch.
    :param order_uuid: shared by a charge and its refund.
    :param prediction_id: of the prediction.
    :param model: its model id.
    :param status: its status now.
    """

    uuid: str
    billing_type: Literal["deduct", "refund"]
    price: Decimal
    created_at: float
    order_uuid: str
    prediction_id: str
    model: str
    status: Status


@dataclass(slots=True)
class ModelUsage:
    """What was asked of one model. ``cost_usd`` leaves out what was refunded; ``count`` does not."""

    model: str
    kind: str
    unit_price: Decimal
    cost_usd: Decimal = Decimal(0)
    count: int = 0
    last_used: str = ""


@dataclass(slots=True)
class DayUsage:
    """What was asked on one day (UTC, YYYY-MM-DD), by model id: USD and count."""

    date: str
    models: dict[str, tuple[Decimal, int]]

    @property
    def cost_usd(self) -> Decimal:
        """USD, without what was refunded."""
        return sum((cost for cost, _ in self.models.values()), Decimal(0))

    @property
    def count(self) -> int:
        """Predictions made."""
        return sum(count for _, count in self.models.values())


@dataclass(frozen=True, slots=True)
class Usage:
    """What was asked in a span of time. Days without a prediction are left out."""

    models: list[ModelUsage]
    days: list[DayUsage]
    cost_usd: Decimal
    requests: int
    succeeded: int


def refunded_at(task: Prediction, refund_after: float) -> float:
    """Tell when a prediction's charge is given back; infinity for never.

    :param task: the prediction.
    :param refund_after: seconds from failure to refund.
    """
    return task.due_at + refund_after if task.failure else math.inf


def billing(
    tasks: Iterable[Prediction], query: BillingQuery, now: float, *, refund_after: float
) -> tuple[list[Record], bool]:
    """List one page of charges and refunds, newest first unless the query says otherwise.

    :param tasks: all predictions in the order of their submission, deleted ones too.
    :param query: which of their records.
    :param now: what is refunded later is not in the books yet.
    :param refund_after: seconds from failure to refund.
    :return: the page, and whether there are more.
    """
    if query.access_key_uuid is not None:
        return [], False
    found = [record for record in _records(tasks, now, refund_after) if _matches(record, query)]
    # Stable: of what happened at the same moment, the earlier submission comes first, or last when reversed.
    found.sort(key=lambda record: record.created_at)
    if query.sort == "created_at DESC":
        found.reverse()
    first = (query.page - 1) * query.page_size
    return found[first : first + query.page_size], len(found) > first + query.page_size


def usage(tasks: Iterable[Prediction], query: UsageQuery, now: float, *, refund_after: float) -> Usage:
    """Add up what was submitted in a span of time.

    :param tasks: all predictions in the order of their submission, deleted ones too.
    :param query: the span, and a model or all of them.
    :param now: what is refunded later still costs.
    :param refund_after: seconds from failure to refund.
    """
    models: dict[str, ModelUsage] = {}
    days: dict[str, DayUsage] = {}
    succeeded = 0
    for task in tasks:
        if not query.start_time <= task.created_at <= query.end_time:
            continue
        if query.model_uuid not in (None, task.model):
            continue
        cost = Decimal(0) if now >= refunded_at(task, refund_after) else task.price
        date = f"{datetime.fromtimestamp(task.created_at, UTC):%Y-%m-%d}"
        model = models.setdefault(task.model, ModelUsage(task.model, MODELS[task.model].kind, task.price))
        model.cost_usd, model.count, model.last_used = model.cost_usd + cost, model.count + 1, date
        day = days.setdefault(date, DayUsage(date, {}))
        spent, count = day.models.get(task.model, (Decimal(0), 0))
        day.models[task.model] = (spent + cost, count + 1)
        succeeded += task.status(now) == "completed"
    return Usage(
        models=sorted(models.values(), key=lambda model: model.model),
        days=sorted(days.values(), key=lambda day: day.date),
        cost_usd=sum((model.cost_usd for model in models.values()), Decimal(0)),
        requests=sum(model.count for model in models.values()),
        succeeded=succeeded,
    )


def _records(tasks: Iterable[Prediction], now: float, refund_after: float) -> Iterator[Record]:
    for task in tasks:
        yield _record(task, "deduct", task.created_at, now)
        refunded = refunded_at(task, refund_after)
        if refunded <= now:
            yield _record(task, "refund", refunded, now)


def _record(task: Prediction, billing_type: Literal["deduct", "refund"], at: float, now: float) -> Record:
    return Record(
        uuid=_uuid(task.id, billing_type),
        billing_type=billing_type,
        price=task.price,
        created_at=at,
        order_uuid=_uuid(task.id, "order"),
        prediction_id=task.id,
        model=task.model,
        status=task.status(now),
    )


def _matches(record: Record, query: BillingQuery) -> bool:
    return (
        query.billing_type in (None, record.billing_type)
        and query.model_uuid in (None, record.model)
        and (query.prediction_uuids is None or record.prediction_id in query.prediction_uuids)
        and (query.start_time is None or record.created_at >= query.start_time)
        and (query.end_time is None or record.created_at <= query.end_time)
    )


def _uuid(prediction_id: str, what: str) -> str:
    return hashlib.sha256(f"{prediction_id}:{what}".encode()).hexdigest()[:32]
