"""The state of the local service: predictions, money and the event log. No HTTP here.

Nothing runs in the background. What a prediction's status is, and what was refunded, follows from the clock
at the moment somebody looks, so a test that moves its own clock needs no sleep.
"""

from __future__ import annotations

import heapq
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
from typing import Final, Literal

from airflow_provider_bitdance.local import faults
from airflow_provider_bitdance.local.inputs import HistoryQuery, ImageInputs, Refused
from airflow_provider_bitdance.local.plan import FaultPlan

PRICES: Final = {"wavespeed-ai/bitdance-14b/text-to-image": Decimal("0.01")}
"""USD per image, by model id."""

WEEK: Final = 7 * 24 * 3600.0
HISTORY_SECONDS: Final = WEEK
LOG_LENGTH: Final = 100_000

PictureFormat = Literal["png", "jpeg", "webp"]
Status = Literal["created", "processing", "completed", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a local service behaves.

    :param api_key: the one key it accepts.
    :param latency: seconds from submit to completion: one number, or lowest and highest.
    :param balance_usd: credit at the start.
    :param picture_format: what the outputs are.
    :param output_ttl: seconds after completion for which an output can be downloaded.
    :param echo_inputs: whether history items carry the inputs. The documented API does not do so.
    :param seed: of latencies and of the seeds drawn for requests that ask for -1.
    """

    api_key: str = "local-key"
    latency: float | tuple[float, float] = 0.0
    balance_usd: float = 100.0
    picture_format: PictureFormat = "png"
    output_ttl: float = WEEK
    echo_inputs: bool = False
    seed: int = 0


@dataclass(slots=True, kw_only=True)
class Prediction:
    """One task, as the service knows it."""

    id: str
    model: str
    inputs: ImageInputs
    seed: int
    price: Decimal
    created_at: float
    started_at: float
    due_at: float
    failure: faults.Failed | None = None
    nsfw: bool = False
    reads: int = 0
    downloads: int = 0

    def status(self, now: float) -> Status:
        """Tell the status at a moment."""
        if now >= self.due_at:
            return "failed" if self.failure else "completed"
        return "processing" if now >= self.started_at else "created"


@dataclass(frozen=True, slots=True)
class Bill:
    """What the service was asked for and what it charged.

    ``billed`` are the charges that stand: submitted without refunded.
    """

    submitted: int
    billed: int
    refunded: int
    completed: int
    failed: int
    in_flight: int
    cost_usd: float
    balance_usd: float


@dataclass(slots=True)
class Event:
    """A request that came in. ``status`` is None until it is answered, and for ever after a reset."""

    method: str
    path: str
    time: float
    status: int | None = None


class Service:
    """Predictions, bill, faults and event log of one local service.

    :param options: how it behaves.
    :param clock: seconds since the epoch. Tests give one that they move by hand.
    """

    def __init__(self, options: Options, *, clock: Callable[[], float] = time.time) -> None:
        self.options = options
        self.clock = clock
        # Requests come on the server's thread, downloads on its pool, and tests look from their own.
        self._lock = threading.RLock()
        self.reset()

    def reset(self) -> None:
        """Forget everything: predictions, bill, faults, log."""
        with self._lock:
            self.faults = FaultPlan()
            self.log: deque[Event] = deque(maxlen=LOG_LENGTH)
            self._predictions: dict[str, Prediction] = {}
            self._unfinished: list[tuple[float, int, Prediction]] = []
            self._submitted = self._completed = self._failed = 0
            self._charged = self._given_back = Decimal(0)

    def submit(self, model: str, inputs: ImageInputs, shape: faults.Shape | None = None) -> Prediction:
        """Make a prediction and charge for it.

        :param model: model id.
        :param inputs: checked inputs.
        :param shape: the rule that decides how it will go.
        :raises Refused: unknown model, or not enough credit.
        """
        price = self.price(model)
        with self._lock:
            now = self.clock()
            if self._balance(now) < price:
                raise Refused(400, "Insufficient credits. Please top up your account to continue.")
            self._submitted += 1
            self._charged += price
            prediction = self._drawn(model, inputs, shape, price, now)
            self._predictions[prediction.id] = prediction
            if prediction.due_at < math.inf:
                heapq.heappush(self._unfinished, (prediction.due_at, self._submitted, prediction))
            return prediction

    def price(self, model: str) -> Decimal:
        """Tell what one image costs in USD.

        :raises Refused: HTTP 404 for an unknown model.
        """
        if model not in PRICES:
            raise Refused(404, f"Model not found: {model}")
        return PRICES[model]

    def find(self, prediction_id: str) -> Prediction:
        """Look up a prediction.

        :raises Refused: HTTP 404 when there is none, or when it is older than seven days.
        """
        prediction = self._predictions.get(prediction_id)
        if prediction is None or self.clock() - prediction.created_at > HISTORY_SECONDS:
            raise Refused(404, "Prediction not found")
        return prediction

    def output(self, prediction_id: str, name: str) -> Prediction:
        """Look up the prediction that an output file belongs to.

        :raises Refused: HTTP 404 when there is no such file, not yet or no more.
        """
        prediction, now = self.find(prediction_id), self.clock()
        ready = prediction.status(now) == "completed" and now - prediction.due_at <= self.options.output_ttl
        if not ready or name != f"1.{self.options.picture_format}":
            raise Refused(404, "File not found")
        return prediction

    def count_download(self, prediction: Prediction) -> None:
        """Count that a whole picture was handed out."""
        with self._lock:
            prediction.downloads += 1

    def history(self, query: HistoryQuery) -> list[Prediction]:
        """List one page of predictions, newest first, of the past seven days."""
        first = (query.page - 1) * query.page_size
        with self._lock:
            return list(islice(self._matching(query, self.clock()), first, first + query.page_size))

    def delete(self, ids: list[str]) -> int:
        """Delete predictions; unknown ids are ignored. A running one is charged all the same."""
        with self._lock:
            return sum(self._predictions.pop(prediction_id, None) is not None for prediction_id in ids)

    def balance(self) -> Decimal:
        """Tell the credit left, in USD."""
        with self._lock:
            return self._balance(self.clock())

    def bill(self) -> Bill:
        """Count what was asked for and what it cost."""
        with self._lock:
            balance = self._balance(self.clock())
            return Bill(
                submitted=self._submitted,
                billed=self._submitted - self._failed,
                refunded=self._failed,
                completed=self._completed,
                failed=self._failed,
                in_flight=self._submitted - self._completed - self._failed,
                cost_usd=float(self._charged - self._given_back),
                balance_usd=float(balance),
            )

    def predictions(self) -> list[Prediction]:
        """List all predictions that were not deleted, oldest first."""
        with self._lock:
            return list(self._predictions.values())

    def _drawn(
        self, model: str, inputs: ImageInputs, shape: faults.Shape | None, price: Decimal, now: float
    ) -> Prediction:
        """Draw what is left to chance, from the service's seed and the submission's number."""
        chance = random.Random(f"{self.options.seed}:{self._submitted}")
        latency, seed = _latency(self.options.latency, chance), chance.randrange(2**31)
        if isinstance(shape, faults.Latency):
            latency = shape.seconds
        elif isinstance(shape, faults.NeverFinish):
            latency = math.inf
        return Prediction(
            id=uuid.uuid4().hex,
            model=model,
            inputs=inputs,
            seed=seed if inputs.seed == -1 else inputs.seed,
            price=price,
            created_at=now,
            started_at=now + min(0.2, latency / 10),
            due_at=now + latency,
            failure=shape if isinstance(shape, faults.Failed) else None,
            nsfw=isinstance(shape, faults.Nsfw),
        )

    def _balance(self, now: float) -> Decimal:
        self._finish_due(now)
        return Decimal(str(self.options.balance_usd)) - self._charged + self._given_back

    def _finish_due(self, now: float) -> None:
        """Count the predictions that ended since the last look, and refund the failed ones."""
        while self._unfinished and self._unfinished[0][0] <= now:
            prediction = heapq.heappop(self._unfinished)[2]
            if prediction.failure is None:
                self._completed += 1
            else:
                self._failed += 1
                self._given_back += prediction.price

    def _matching(self, query: HistoryQuery, now: float) -> Iterator[Prediction]:
        oldest = max(now - HISTORY_SECONDS, query.created_after or -math.inf)
        newest = math.inf if query.created_before is None else query.created_before
        for prediction in reversed(self._predictions.values()):
            if prediction.created_at < oldest:
                return
            if prediction.created_at > newest or query.model not in (None, prediction.model):
                continue
            if query.status in (None, prediction.status(now)):
                yield prediction


def _latency(latency: float | tuple[float, float], chance: random.Random) -> float:
    lowest, highest = latency if isinstance(latency, tuple) else (latency, latency)
    return chance.uniform(lowest, highest)
