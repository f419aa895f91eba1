"""The state of the local service: predictions, money, limits and the event log. No HTTP here.

Nothing runs in the background. How long a prediction takes, and when a queue lets it in, is decided when it
is submitted; its status, and what was refunded, follow from the clock at the moment of a request. So a test
that moves its own clock needs no sleep.
"""

from __future__ import annotations

import math
import operator
import random
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from typing import Final

from airflow_provider_bitdance.local import catalogue, faults, latency
from airflow_provider_bitdance.local.database import Database
from airflow_provider_bitdance.local.fault_plan import FaultPlan
from airflow_provider_bitdance.local.inputs import (
    BillingQuery,
    FluxDevInputs,
    HistoryQuery,
    ImageInputs,
    Inputs,
    OptimizerInputs,
    PictureFormat,
    Refused,
)
from airflow_provider_bitdance.local.ledger import Bill, Ledger, Record
from airflow_provider_bitdance.local.limits import Gate
from airflow_provider_bitdance.local.options import Options
from airflow_provider_bitdance.local.prediction import Prediction

LOG_LENGTH: Final = 100_000
WEEK: Final = 7 * 24 * 3600.0
"""Seconds for which the API shows a prediction and its output."""


@dataclass(slots=True)
class Event:
    """A request that came in. ``status`` is None until it is answered, and for ever after a reset.

    :param port: the client's, another one for each TCP connection; 0 where there is none.
    """

    method: str
    path: str
    time: float
    status: int | None = None
    port: int = 0


class Service:
    """Predictions, bill, faults and event log of one local service.

    :param options: how it behaves. With ``state`` it starts from that file; the event log is not kept there.
    :param clock: seconds since the epoch. Tests give one that they move by hand.
    :raises StateError: when the state file cannot be used.
    """

    def __init__(self, options: Options, *, clock: Callable[[], float] = time.time) -> None:
        self.options = options
        self.clock = clock
        # Requests come on the server's thread, downloads on its pool, and tests look from their own.
        self._lock = threading.RLock()
        self._latency = latency.of(options.latency)
        self._history_lag = latency.of(options.history_lag)
        self._database = Database(options.state)
        self._load()

    def reset(self) -> None:
        """Forget everything: predictions, bill, faults, log."""
        with self._lock:
            self._database.clear()
            self._load()

    def submit(
        self,
        model: str,
        inputs: Inputs,
        fault: faults.PredictionFault | None = None,
        *,
        late: float = 0.0,
    ) -> Prediction:
        """Make a prediction and charge for it.

        :param model: model id.
        :param inputs: checked inputs of that model.
        :param fault: the rule that decides how it will go.
        :param late: seconds until it is made and charged. Limits and credit are those of now.
        :raises Refused: unknown model, above the limits, or not enough credit. Nothing is charged then.
        """
        price = catalogue.find(model).price
        with self._lock:
            now = self.clock()
            admitted_at = self._admit(now)
            if self._ledger.balance(now) < price:
                raise Refused(400, "Insufficient credits. Please top up your account to continue.")
            prediction = self._make(model, inputs, fault, created_at=now + late, admitted_at=admitted_at)
            # First the database: what cannot be written is not charged, and what was answered is written.
            self._database.add_prediction(prediction)
            self._enter(prediction)
            return prediction

    def find(self, prediction_id: str) -> Prediction:
        """Look up a prediction.

        :raises Refused: HTTP 404 when there is none, or when it is older than seven days.
        """
        prediction, now = self._ledger.predictions.get(prediction_id), self.clock()
        if prediction is None or not prediction.exists(now) or now - prediction.created_at > WEEK:
            raise Refused(404, "task not found")
        return prediction

    def output(self, prediction_id: str, name: str) -> Prediction:
        """Look up the prediction that an output file belongs to.

        :raises Refused: HTTP 404 when there is no such file, not yet or no more.
        """
        prediction = self.find(prediction_id)
        is_picture = not isinstance(prediction.inputs, OptimizerInputs)
        is_ready = prediction.status(self.clock()) == "completed"
        if not (is_ready and is_picture and name == f"1.{prediction.picture_format}"):
            raise Refused(404, "File not found")
        return prediction

    def count_read(self, prediction: Prediction) -> None:
        """Count that a result was requested."""
        with self._lock:
            self._database.count_read(prediction.id)
            prediction.reads += 1

    def history(self, query: HistoryQuery) -> list[Prediction]:
        """List one page of predictions, newest first, of the past seven days."""
        first = (query.page - 1) * query.page_size
        with self._lock:
            return list(islice(self._matching(query, self.clock()), first, first + query.page_size))

    def delete(self, ids: list[str]) -> int:
        """Delete predictions and return how many there were; unknown ids are ignored.

        A running one is charged all the same and holds its slot until it would have ended, for the real
        service does not promise that deleting stops it.
        """
        with self._lock:
            known = (self._ledger.predictions.get(each) for each in dict.fromkeys(ids))
            now = self.clock()
            found = [prediction for prediction in known if prediction and prediction.exists(now)]
            self._database.delete_predictions([prediction.id for prediction in found])
            for prediction in found:
                prediction.deleted = True
            return len(found)

    def balance(self) -> Decimal:
        """Return the credit left, in USD."""
        with self._lock:
            return self._ledger.balance(self.clock())

    def bill(self) -> Bill:
        """Count what was asked for and what it cost."""
        with self._lock:
            return self._ledger.bill(self.clock())

    def billing(self, query: BillingQuery) -> tuple[list[Record], bool]:
        """List one page of charges and refunds, and say whether there are more."""
        with self._lock:
            return self._ledger.records(query, self.clock())

    def predictions(self) -> list[Prediction]:
        """List all predictions that were not deleted, oldest first."""
        with self._lock:
            now = self.clock()
            return [each for each in self._by_age() if each.exists(now)]

    def _load(self) -> None:
        stored = self._database.load()
        self.faults = FaultPlan(self._database, stored.rules, seed=self.options.seed)
        self.log: deque[Event] = deque(maxlen=LOG_LENGTH)
        self._gate = Gate(self.options.limits())
        self._ledger = Ledger(self.options.balance_usd, refused=stored.refused)
        for prediction in stored.predictions:
            self._enter(prediction)

    def _enter(self, prediction: Prediction) -> None:
        self._ledger.enter(prediction)
        self._gate.take(prediction.admitted_at, prediction.due_at)

    def _admit(self, now: float) -> float:
        """Return when a task that comes now starts.

        :raises Refused: HTTP 429 above the limits, unless tasks queue there.
        """
        if self.options.above_limit == "queue":
            return self._gate.first_start(now)
        exceeded = self._gate.exceeded(now)
        if exceeded:
            self._database.add_refusal()
            self._ledger.refused += 1
            raise Refused(429, exceeded)
        return now

    def _make(
        self,
        model: str,
        inputs: Inputs,
        fault: faults.PredictionFault | None,
        *,
        created_at: float,
        admitted_at: float,
    ) -> Prediction:
        """Make a prediction, and draw what of it is left to chance."""
        fault = self._too_small(inputs) or fault
        seconds, seed, lag = self._draw(fault)
        return Prediction(
            id=uuid.uuid4().hex,
            model=model,
            inputs=inputs,
            seed=seed if inputs.seed == -1 else inputs.seed,
            price=catalogue.find(model).price,
            picture_format=self._format(inputs),
            created_at=created_at,
            admitted_at=admitted_at,
            due_at=max(created_at, admitted_at) + seconds,
            listed_at=created_at + lag,
            fault=fault,
        )

    def _draw(self, fault: faults.PredictionFault | None) -> tuple[float, int, float]:
        """Draw latency, seed and lag; they follow from the service's seed and the submission's number."""
        chance = random.Random(f"{self.options.seed}:{len(self._ledger.predictions) + 1}")
        seconds, seed = self._latency.draw(chance), chance.randrange(2**31)
        if isinstance(fault, faults.Latency):
            seconds = fault.seconds
        elif isinstance(fault, faults.NeverFinish):
            seconds = math.inf
        lag = self._history_lag.draw(chance)
        return seconds, seed, math.inf if chance.random() < self.options.history_drop else lag

    def _too_small(self, inputs: Inputs) -> faults.Failed | None:
        """Return the failure of an image below the minimum of pixels."""
        if not isinstance(inputs, ImageInputs):
            return None
        least = max(self.options.min_pixels or 0, inputs.least_pixels)
        if math.prod(inputs.sides()) >= least:
            return None
        # The words of Seedream V4.5, of 2026. Its error code is not known, so it is that of any failure.
        error = f"image size must be at least {least} pixels"
        return faults.Failed(on="submit", kind="failed", error=error)

    def _format(self, inputs: Inputs) -> PictureFormat:
        if self.options.pictures == "drawn" and isinstance(inputs, FluxDevInputs):
            return inputs.output_format
        return self.options.picture_format

    def _matching(self, query: HistoryQuery, now: float) -> Iterator[Prediction]:
        oldest = max(now - WEEK, query.created_after or -math.inf)
        newest = math.inf if query.created_before is None else query.created_before
        if self._matches_nothing(query):
            return
        for prediction in reversed(self._by_age()):
            if prediction.created_at < oldest:
                return
            if not prediction.exists(now) or prediction.listed_at > now or prediction.created_at > newest:
                continue
            if query.model in (None, prediction.model) and query.status in (None, prediction.status(now)):
                yield prediction

    def _matches_nothing(self, query: HistoryQuery) -> bool:
        """Whether a query has the filter that matches nothing."""
        given = {"honest": None, "model": query.model, "date": query.created_after}
        return given[self.options.history_filter] is not None

    def _by_age(self) -> list[Prediction]:
        """List all predictions, the oldest first; those that were late are not in order of submission."""
        return sorted(self._ledger.predictions.values(), key=operator.attrgetter("created_at"))
