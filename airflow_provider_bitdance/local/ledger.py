"""What follows from the submissions: money, slots of the limits, and counts of what ended.

A submission settles when it ends and when it is refunded. Heaps hold what is still to come, so that a look
costs nothing when nothing happened. Not locked; the service does that.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

from airflow_provider_bitdance.local import books
from airflow_provider_bitdance.local.inputs import Refused
from airflow_provider_bitdance.local.limits import Gate, window_end
from airflow_provider_bitdance.local.options import Options
from airflow_provider_bitdance.local.prediction import Prediction


@dataclass(frozen=True, slots=True)
class Bill:
    """What the service was asked for and what it charged.

    ``billed`` are the charges that stand: submitted without refunded. ``refused`` are the HTTP 429 of the
    limits. The peaks are the most tasks that ever held a slot at once, and that ever started in one minute
    of the clock.
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
    peak_in_flight: int
    peak_per_minute: int


class Timeline:
    """Predictions in the order in which something will happen to them."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Prediction]] = []
        self._added = 0

    def add(self, at: float, prediction: Prediction) -> None:
        """Add a prediction.

        :param at: when it happens; infinity for never.
        :param prediction: to whom.
        """
        if at < math.inf:
            self._added += 1
            heapq.heappush(self._heap, (at, self._added, prediction))

    def until(self, now: float) -> Iterator[Prediction]:
        """Take out those to whom it happened by now."""
        while self._heap and self._heap[0][0] <= now:
            yield heapq.heappop(self._heap)[2]


class Ledger:
    """All predictions ever submitted, deleted ones too, in that order; their slots, and what they cost.

    :param options: of the service.
    """

    def __init__(self, options: Options) -> None:
        self.gate = Gate(options.limits())
        self.predictions: dict[str, Prediction] = {}
        self.refused = 0
        self._options = options
        self._credit = Decimal(str(options.balance_usd))
        self._spent = Decimal(0)
        self._completed = self._failed = self._refunded = 0
        self._unfinished = Timeline()
        self._refunds = Timeline()

    def admit(self, now: float) -> float:
        """Tell when a task that comes now starts.

        :raises Refused: HTTP 429 above the limits, unless tasks queue there.
        """
        if self._options.above_limit == "queue":
            return self.gate.first_start(now)
        exceeded = self.gate.exceeded(now)
        if exceeded:
            self.refused += 1
            wait = math.ceil(window_end(now) - now) if self._options.retry_after else None
            raise Refused(429, exceeded, retry_after=wait)
        return now

    def enter(self, prediction: Prediction) -> None:
        """Charge for a new prediction and give it its slot."""
        self.predictions[prediction.id] = prediction
        self._spent += prediction.price
        self.gate.take(prediction.admitted_at, prediction.due_at)
        self._unfinished.add(prediction.due_at, prediction)
        self._refunds.add(books.refunded_at(prediction, self._options.refund_after), prediction)

    def balance(self, now: float) -> Decimal:
        """Tell the credit left, in USD."""
        self._look(now)
        return self._credit - self._spent

    def bill(self, now: float) -> Bill:
        """Count what was asked for and what it cost."""
        self._look(now)
        submitted = len(self.predictions)
        return Bill(
            submitted=submitted,
            billed=submitted - self._refunded,
            refunded=self._refunded,
            completed=self._completed,
            failed=self._failed,
            in_flight=submitted - self._completed - self._failed,
            cost_usd=float(self._spent),
            balance_usd=float(self._credit - self._spent),
            refused=self.refused,
            peak_in_flight=self.gate.peak_in_flight,
            peak_per_minute=self.gate.peak_per_minute,
        )

    def _look(self, now: float) -> None:
        """Take in what happened since the last look."""
        self.gate.look(now)
        for prediction in self._unfinished.until(now):
            if prediction.failure is None:
                self._completed += 1
            else:
                self._failed += 1
        for prediction in self._refunds.until(now):
            self._refunded += 1
            self._spent -= prediction.price
