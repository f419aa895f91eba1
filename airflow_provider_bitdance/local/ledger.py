"""The account's money: what each prediction cost, what was refunded, and the bill.

A prediction is charged when it is made, and a failure is refunded when it ends. Deleted predictions stay in
the ledger: who deletes a prediction has paid for it all the same. Not locked; the service does that.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from airflow_provider_bitdance.local.inputs import BillingQuery
from airflow_provider_bitdance.local.prediction import Prediction


@dataclass(frozen=True, slots=True)
class Bill:
    """What the service was asked for and what it charged.

    ``billed`` are the charges that stand: submitted without refunded. ``refused`` are the HTTP 429 of the
    limits.
    """

    submitted: int
    billed: int
    refunded: int
    completed: int
    failed: int
    in_flight: int
    cost_usd: float
    balance_usd: float
    refused: int


@dataclass(frozen=True, slots=True)
class Record:
    """One entry of the billing records: a charge or a refund.

    :param billing_type: ``deduct`` or ``refund``.
    :param created_at: seconds since the epoch.
    :param prediction: what it is for.
    """

    billing_type: Literal["deduct", "refund"]
    created_at: float
    prediction: Prediction


class Ledger:
    """All predictions ever submitted, in that order, and what they cost.

    :param credit: USD at the start.
    :param refused: submissions that the limits have refused so far.
    """

    def __init__(self, credit: float, *, refused: int) -> None:
        self.predictions: dict[str, Prediction] = {}
        self.refused = refused
        self._credit = Decimal(str(credit))
        self._spent = Decimal(0)
        self._submitted = self._completed = self._failed = 0
        # What is still to come, the next one first, so that a bill costs nothing when nothing happened.
        self._to_come: list[tuple[float, int, Prediction]] = []

    def enter(self, prediction: Prediction) -> None:
        """Take in a new prediction, to be charged when it is made: now, or later."""
        self.predictions[prediction.id] = prediction
        # The number decides between what happens together: a charge (odd) comes before its end (even).
        number = 2 * len(self.predictions)
        heapq.heappush(self._to_come, (prediction.created_at, number - 1, prediction))
        if prediction.due_at < math.inf:
            heapq.heappush(self._to_come, (prediction.due_at, number, prediction))

    def balance(self, now: float) -> Decimal:
        """Return the credit left, in USD."""
        self._settle(now)
        return self._credit - self._spent

    def bill(self, now: float) -> Bill:
        """Count what was asked for and what it cost."""
        balance, submitted = self.balance(now), self._submitted
        return Bill(
            submitted=submitted,
            billed=submitted - self._failed,
            refunded=self._failed,
            completed=self._completed,
            failed=self._failed,
            in_flight=submitted - self._completed - self._failed,
            cost_usd=float(self._spent),
            balance_usd=float(balance),
            refused=self.refused,
        )

    def records(self, query: BillingQuery, now: float) -> tuple[list[Record], bool]:
        """List one page of charges and refunds, newest first.

        :param query: which records.
        :param now: what is refunded later is not recorded yet.
        :return: the page, and whether there are more.
        """
        found = [record for record in self._all_records(now) if _matches(record, query)]
        # Stable: of what happened at the same moment, the later submission comes first.
        found.sort(key=lambda record: record.created_at)
        found.reverse()
        first = (query.page - 1) * query.page_size
        return found[first : first + query.page_size], len(found) > first + query.page_size

    def _settle(self, now: float) -> None:
        """Charge and count what was made and what ended since the last time, and refund the failures."""
        while self._to_come and self._to_come[0][0] <= now:
            _, number, prediction = heapq.heappop(self._to_come)
            if number % 2:
                self._submitted += 1
                self._spent += prediction.price
            elif prediction.failure is None:
                self._completed += 1
            else:
                self._failed += 1
                self._spent -= prediction.price

    def _all_records(self, now: float) -> Iterator[Record]:
        for prediction in self.predictions.values():
            if prediction.created_at <= now:
                yield Record("deduct", prediction.created_at, prediction)
            if prediction.failure and prediction.due_at <= now:
                yield Record("refund", prediction.due_at, prediction)


def _matches(record: Record, query: BillingQuery) -> bool:
    return (
        query.billing_type in (None, record.billing_type)
        and query.model_uuid in (None, record.prediction.model)
        and (query.prediction_uuids is None or record.prediction.id in query.prediction_uuids)
        and (query.start_time is None or record.created_at >= query.start_time)
        and (query.end_time is None or record.created_at <= query.end_time)
    )
