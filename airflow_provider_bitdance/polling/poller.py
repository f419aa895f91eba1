"""Polls predictions until they end, for all who wait in a process. The only part of polling with I/O.

It only reads, so worker and trigger share it and may both run. What is polled next is for ``scheduler.py``.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from airflow_provider_bitdance.clock import Clock
from airflow_provider_bitdance.exceptions import (
    BitDanceError,
    LostResponseError,
    NotFoundError,
    RateLimitError,
    UnknownPathError,
)
from airflow_provider_bitdance.polling.latency import AT_ONCE, TELLING, Latencies
from airflow_provider_bitdance.polling.policy import MINUTE, PollPolicy, is_refusal
from airflow_provider_bitdance.polling.scheduler import PollScheduler
from airflow_provider_bitdance.redaction import shorten
from airflow_provider_bitdance.wavespeed.client import AsyncClient
from airflow_provider_bitdance.wavespeed.responses import Prediction

log = logging.getLogger(__name__)
SLOW_AFTER = 2.0
"""Seconds after which a poll gives its place to another. There are as many places for slow ones; beyond those
it is cut off: responses that drip must not keep the others from being polled."""
Ending = asyncio.Future[Prediction | None]
"""Becomes the prediction when it has ended, ``None`` when nobody waits any more; raises if polling failed."""


@dataclass(slots=True, eq=False)
class Subscription:
    """What one job, or one trigger, waits for.

    :ivar ended: By id the predictions that have; one that the API no longer knows as "deleted".
    :ivar error: Why polling one of them failed.
    """

    kind: Latencies
    waiting: dict[str, Ending] = field(default_factory=dict)
    ended: dict[str, Prediction] = field(default_factory=dict)
    error: BaseException | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    is_closed: bool = False

    def resolve(self, id_: str, outcome: Prediction | BaseException | None) -> None:
        """Take note of how a prediction ended."""
        future = self.waiting.pop(id_, None)
        self.changed.set()
        if future is None or future.done():
            return  # nobody waits for it any more, or who did was cancelled
        if isinstance(outcome, BaseException):
            self.error = outcome
            future.set_exception(outcome)
            future.exception()  # not everybody asks the future
        else:
            self.ended |= {id_: outcome} if outcome else {}
            future.set_result(outcome)


class Poller:
    """Polls for all subscribers through one client, which is open as long as there are any.

    :ivar outage: Why the last polls failed; ``None`` as long as the API answers.
    """

    def __init__(
        self, client: AsyncClient, *, policy: PollPolicy | None = None, clock: Clock | None = None
    ) -> None:
        self.clock = clock or Clock()
        self.outage: BitDanceError | None = None
        self.scheduler = PollScheduler(policy or PollPolicy())
        self._client = client
        self._singles = Latencies(is_single=True)
        self._subscribers: dict[str, list[Subscription]] = {}
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._gate = asyncio.Semaphore(AT_ONCE)
        self._slow: set[str] = set()  # under way, and not counted
        self._changed = asyncio.Event()
        self._driver: asyncio.Task[None] | None = None
        self._unknown: set[str] = set()  # the last poll was a 404
        self._failures = 0  # of all polls, in a row
        self._warned_at, self._is_warned = -math.inf, False

    def subscribe(self, *, is_single: bool = False) -> Subscription:
        """Return a new subscription; those for one prediction only share what is learned."""
        return Subscription(self._singles if is_single else Latencies())

    def add(self, subscription: Subscription, id_: str, submitted_at: float) -> Ending:
        """Poll a prediction, submitted at a Unix time, until it ends. Free.

        One that the subscription waits for already is waited for once, and ends for all who ask.
        """
        if (known := subscription.waiting.get(id_)) is not None:
            return known
        future: Ending = asyncio.get_running_loop().create_future()
        subscription.waiting[id_] = future
        if subscription.is_closed:
            subscription.resolve(id_, None)
            return future
        subscribers = self._subscribers.setdefault(id_, [])
        if not subscribers:
            self.scheduler.add(id_, submitted_at, subscription.kind, now=self.clock.time())
        subscribers.append(subscription)
        self._changed.set()
        if self._driver is None or self._driver.done():
            self._driver = asyncio.get_running_loop().create_task(self._drive())
        return future

    async def poll_all(self, subscription: Subscription) -> None:
        """Poll for the last time what was not polled a moment ago."""
        for id_ in subscription.waiting:
            if self.scheduler.take_last(id_, now=self.clock.time()):
                self._start(id_)
        if polls := [poll for id_, poll in self._under_way.items() if id_ in subscription.waiting]:
            await asyncio.wait(polls)

    def close(self, subscription: Subscription) -> None:
        """Poll no longer for a subscription."""
        subscription.is_closed = True
        for id_ in list(subscription.waiting):
            self._subscribers[id_].remove(subscription)
            if not self._subscribers[id_]:
                self._end(id_, None)
            subscription.resolve(id_, None)
        self._changed.set()

    async def _drive(self) -> None:
        try:
            while self._subscribers:
                self._changed.clear()
                for id_ in self.scheduler.take(self.clock.time(), most=self._places()):
                    self._start(id_)
                is_full = self._places() <= 0
                pause = math.inf if is_full else self.scheduler.next_due() - self.clock.time()
                await self.clock.wait_for(self._changed, max(pause, 0.0))
        except Exception as error:
            for id_ in list(self._subscribers):
                self._end(id_, error)  # or they would wait for ever

    def _places(self) -> int:
        return AT_ONCE - (len(self._under_way) - len(self._slow))

    @asynccontextmanager
    async def _place(self, id_: str) -> AsyncIterator[None]:
        """Hold one of the places for polls, or, when it has taken long, one of those for slow ones.

        :raises LostResponseError: There was none.
        """

        def make_way() -> None:
            if len(self._slow) >= AT_ONCE:
                limit.reschedule(loop.time())
                return
            self._slow.add(id_)
            self._gate.release()
            self._changed.set()

        loop = asyncio.get_running_loop()
        await self._gate.acquire()
        timer = loop.call_later(SLOW_AFTER, make_way)
        try:
            async with asyncio.timeout(None) as limit:
                yield
        except TimeoutError:
            raise LostResponseError(
                f"The response to a poll of {id_} was slow while {AT_ONCE} others were"
            ) from None
        finally:
            timer.cancel()
            if id_ in self._slow:
                self._slow.remove(id_)
            else:
                self._gate.release()

    def _start(self, id_: str) -> None:
        self._under_way[id_] = asyncio.get_running_loop().create_task(self._poll(id_))

    async def _poll(self, id_: str) -> None:
        try:
            async with self._place(id_):
                prediction = await self._client.get_prediction(id_)
            self._take_prediction(id_, prediction)
        except BitDanceError as error:
            self._take_failure(id_, error)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._end(id_, error)  # whoever waits has to know
        finally:
            self._under_way.pop(id_, None)
            self._changed.set()

    def _take_prediction(self, id_: str, prediction: Prediction) -> None:
        self._take_response()
        self._unknown.discard(id_)
        self.scheduler.polled(id_, ended=prediction.is_terminal, now=self.clock.time())
        if prediction.is_terminal:
            self._end(id_, prediction)

    def _take_failure(self, id_: str, error: BitDanceError) -> None:
        now, requested = self.clock.time(), error.retry_after if isinstance(error, RateLimitError) else None
        refused = is_refusal(error)
        refused_for = self.scheduler.failed(id_, requested=requested, now=now, refused=refused)
        is_unknown = id_ in self._unknown
        self._unknown.discard(id_)
        if not isinstance(error, NotFoundError) or isinstance(error, UnknownPathError):
            self._take_outage(error, now)
            if refused_for >= MINUTE:
                self._end(id_, error)
        elif id_ in self._subscribers:  # else nobody waits for it any more
            # A prediction just made may be unknown for a moment, and one 404 may be a gateway's.
            if is_unknown and self.scheduler.age(id_, now=now) > MINUTE:
                self._end(id_, Prediction(id=id_, status="deleted", error="the API does not know it"))
            else:
                self._unknown.add(id_)

    def _take_outage(self, error: BitDanceError, now: float) -> None:
        """Tell of an outage, and not of each poll that fails."""
        self.outage, self._failures = error, self._failures + 1
        if self._failures >= TELLING and not self._is_warned and now >= self._warned_at + MINUTE:
            self._warned_at, self._is_warned = now, True
            log.warning("Polling keeps failing and is retried: %s", shorten(error.what, 300))

    def _take_response(self) -> None:
        if self._is_warned:
            log.info("The API responds again")
        self.outage, self._failures, self._is_warned = None, 0, False

    def _end(self, id_: str, outcome: Prediction | BaseException | None) -> None:
        self.scheduler.remove(id_)
        self._unknown.discard(id_)
        for subscription in self._subscribers.pop(id_, []):
            subscription.resolve(id_, outcome)


async def wait_for(
    poller: Poller, pending: Mapping[str, float], *, until: float, enough: int | None = None
) -> dict[str, Prediction]:
    """Poll predictions until enough have ended, by default all, or the time is over; return those. Free.

    :param pending: Prediction ids, each with the Unix time of its submission.
    :param until: Unix time of the last poll.
    :raises BitDanceError: Polls are refused, and have been for a minute.
    """
    subscription = poller.subscribe(is_single=len(pending) == 1)
    for id_, submitted_at in pending.items():
        poller.add(subscription, id_, submitted_at)
    enough = min(len(pending), len(pending) if enough is None else enough)
    try:
        while len(subscription.ended) < enough:
            subscription.changed.clear()
            left = until - poller.clock.time()
            if left <= 0:
                await poller.poll_all(subscription)
                break
            await poller.clock.wait_for(subscription.changed, left)
            if subscription.error is not None:
                raise subscription.error
    finally:
        poller.close(subscription)
    return subscription.ended
