"""The state of the local service: predictions, money, limits and the event log. No HTTP here.

Nothing runs in the background. How long a prediction takes, and when a queue lets it in, is settled when it
is submitted; what its status is, and what was refunded, follows from the clock at the moment somebody looks.
So a test that moves its own clock needs no sleep.
"""

from __future__ import annotations

import hashlib
import math
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

from airflow_provider_bitdance.local import books, catalogue, faults, latency
from airflow_provider_bitdance.local.inputs import (
    BillingQuery,
    FluxDevInputs,
    HistoryQuery,
    Inputs,
    OptimizerInputs,
    PictureFormat,
    Refused,
    UsageQuery,
)
from airflow_provider_bitdance.local.ledger import Bill, Ledger, Timeline
from airflow_provider_bitdance.local.options import WEEK, Options
from airflow_provider_bitdance.local.plan import FaultPlan
from airflow_provider_bitdance.local.prediction import Prediction
from airflow_provider_bitdance.local.state_file import StateEvent, StateFile, from_prediction, to_prediction

__all__ = ["Bill", "Event", "Options", "Prediction", "Service"]

LOG_LENGTH: Final = 100_000


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
    :raises DamagedStateError: when the state file cannot be replayed.
    """

    def __init__(self, options: Options, *, clock: Callable[[], float] = time.time) -> None:
        self.options = options
        self.clock = clock
        # Requests come on the server's thread, downloads on its pool, and tests look from their own.
        self._lock = threading.RLock()
        self._latency = latency.of(options.latency)
        self._file = StateFile(options.state) if options.state else None
        self.restored = False
        self._forget()
        if self._file:
            self._restore(self._file)

    @property
    def webhook_secret(self) -> str:
        """What webhooks are signed with: another one for each key."""
        return f"whsec_{hashlib.sha256(self.options.api_key.encode()).hexdigest()[:32]}"

    def reset(self) -> None:
        """Forget everything: predictions, bill, faults, log."""
        with self._lock:
            if self._file:
                self._file.clear()
            self._forget()

    def submit(
        self, model: str, inputs: Inputs, shape: faults.Shape | None = None, *, webhook: str | None = None
    ) -> Prediction:
        """Make a prediction and charge for it.

        :param model: model id.
        :param inputs: checked inputs of that model.
        :param shape: the rule that decides how it will go.
        :param webhook: where to tell that it ended.
        :raises Refused: unknown model, above the limits, or not enough credit. Nothing is charged then.
        """
        price = catalogue.find(model).price
        with self._lock:
            now = self.clock()
            try:
                admitted_at = self._ledger.admit(now)
            except Refused:
                self._note({"event": "refused"})
                raise
            if self._ledger.balance(now) < price:
                raise Refused(400, "Insufficient credits. Please top up your account to continue.")
            takes, seed = self._draw(shape)
            task = Prediction(
                id=uuid.uuid4().hex,
                model=model,
                inputs=inputs,
                seed=seed if inputs.seed == -1 else inputs.seed,
                price=price,
                picture_format=self._format(inputs),
                created_at=now,
                admitted_at=admitted_at,
                due_at=admitted_at + takes,
                shape=shape,
                webhook=webhook,
            )
            if self._file:
                self._file.append(from_prediction(task))
            self._enter(task)
            return task

    def find(self, prediction_id: str) -> Prediction:
        """Look up a prediction.

        :raises Refused: HTTP 404 when there is none, or when it is older than seven days.
        """
        prediction = self._predictions.get(prediction_id)
        if prediction is None or self.clock() - prediction.created_at > WEEK:
            raise Refused(404, "Prediction not found")
        return prediction

    def output(self, prediction_id: str, name: str) -> Prediction:
        """Look up the prediction that an output file belongs to.

        :raises Refused: HTTP 404 when there is no such file, not yet or no more.
        """
        prediction, now = self.find(prediction_id), self.clock()
        ready = prediction.status(now) == "completed" and now - prediction.due_at <= self.options.output_ttl
        is_picture = not isinstance(prediction.inputs, OptimizerInputs)
        if not (ready and is_picture and name == f"1.{prediction.picture_format}"):
            raise Refused(404, "File not found")
        return prediction

    def count_read(self, prediction: Prediction) -> None:
        """Count that a result was asked for."""
        with self._lock:
            self._note({"event": "read", "id": prediction.id})
            prediction.reads += 1

    def count_download(self, prediction: Prediction) -> None:
        """Count that a whole picture was handed out."""
        with self._lock:
            self._note({"event": "download", "id": prediction.id})
            prediction.downloads += 1

    def history(self, query: HistoryQuery) -> list[Prediction]:
        """List one page of predictions, newest first, of the past seven days."""
        first = (query.page - 1) * query.page_size
        with self._lock:
            return list(islice(self._matching(query, self.clock()), first, first + query.page_size))

    def delete(self, ids: list[str]) -> int:
        """Delete predictions; unknown ids are ignored.

        A running one is charged all the same and holds its slot until it would have ended, for the real
        service does not promise that deleting stops it. Its webhook is not sent.
        """
        with self._lock:
            found = [
                prediction_id for prediction_id in dict.fromkeys(ids) if prediction_id in self._predictions
            ]
            if found:
                self._note({"event": "delete", "ids": found})
            for prediction_id in found:
                self._predictions.pop(prediction_id).deleted = True
            return len(found)

    def webhooks_due(self, now: float) -> list[Prediction]:
        """Hand out the predictions that ended and named a webhook, each once, and deleted ones never.

        :param now: the moment.
        """
        with self._lock:
            due = [task for task in self._webhooks.until(now) if not (task.deleted or task.told)]
            if due:
                self._note({"event": "told", "ids": [task.id for task in due]})
            for task in due:
                task.told = True
            return due

    def balance(self) -> Decimal:
        """Tell the credit left, in USD."""
        with self._lock:
            return self._ledger.balance(self.clock())

    def bill(self) -> Bill:
        """Count what was asked for and what it cost."""
        with self._lock:
            return self._ledger.bill(self.clock())

    def billing(self, query: BillingQuery) -> tuple[list[books.Record], bool]:
        """List one page of charges and refunds, and tell whether there are more."""
        with self._lock:
            tasks, after = self._ledger.predictions.values(), self.options.refund_after
            return books.billing(tasks, query, self.clock(), refund_after=after)

    def usage(self, query: UsageQuery) -> books.Usage:
        """Add up a span of time by model and by day."""
        with self._lock:
            tasks, after = self._ledger.predictions.values(), self.options.refund_after
            return books.usage(tasks, query, self.clock(), refund_after=after)

    def predictions(self) -> list[Prediction]:
        """List all predictions that were not deleted, oldest first."""
        with self._lock:
            return list(self._predictions.values())

    def _draw(self, shape: faults.Shape | None) -> tuple[float, int]:
        """Draw latency and seed; they follow from the service's seed and the submission's number."""
        chance = random.Random(f"{self.options.seed}:{len(self._ledger.predictions) + 1}")
        takes, seed = self._latency.draw(chance), chance.randrange(2**31)
        if isinstance(shape, faults.Latency):
            takes = shape.seconds
        elif isinstance(shape, faults.NeverFinish):
            takes = math.inf
        return takes, seed

    def _format(self, inputs: Inputs) -> PictureFormat:
        if self.options.pictures == "drawn" and isinstance(inputs, FluxDevInputs):
            return inputs.output_format
        return self.options.picture_format

    def _enter(self, prediction: Prediction) -> None:
        """Take in a new prediction, live and on replay."""
        self._ledger.enter(prediction)
        self._predictions[prediction.id] = prediction
        if prediction.webhook:
            self._webhooks.add(prediction.due_at, prediction)

    def _matching(self, query: HistoryQuery, now: float) -> Iterator[Prediction]:
        oldest = max(now - WEEK, query.created_after or -math.inf)
        newest = math.inf if query.created_before is None else query.created_before
        for prediction in reversed(self._predictions.values()):
            if prediction.created_at < oldest:
                return
            if prediction.created_at > newest or query.model not in (None, prediction.model):
                continue
            if query.status in (None, prediction.status(now)):
                yield prediction

    def _forget(self) -> None:
        self.faults = FaultPlan(self.options.seed, self._note)
        self.log: deque[Event] = deque(maxlen=LOG_LENGTH)
        self._predictions: dict[str, Prediction] = {}
        self._ledger = Ledger(self.options)
        self._webhooks = Timeline()

    def _note(self, event: StateEvent) -> None:
        """Write a change to the state file, before it is made and answered."""
        if self._file:
            self._file.append(event)

    def _restore(self, file: StateFile) -> None:
        for number, event in file.events():
            try:
                self._replay(event)
            except (ValueError, LookupError, TypeError) as bad:
                raise file.damaged(number, f"the event {event['event']!r} cannot be replayed") from bad
            self.restored = True

    def _replay(self, event: StateEvent) -> None:
        tasks = self._ledger.predictions
        match event["event"]:
            case "submit":
                self._enter(to_prediction(event))
            case "read":
                tasks[event["id"]].reads += 1
            case "download":
                tasks[event["id"]].downloads += 1
            case "delete":
                for prediction_id in event["ids"]:
                    self._predictions.pop(prediction_id).deleted = True
            case "told":
                for prediction_id in event["ids"]:
                    tasks[prediction_id].told = True
            case "refused":
                self._ledger.refused += 1
            case _:
                self.faults.replay(event)
