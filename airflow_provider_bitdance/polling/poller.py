"""Wait: looks at predictions until they end. Only reads, so worker and trigger share it and may both run.

One lookout looks for all who wait in its process. When to look is decided in ``scheduler.py``.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from airflow_provider_bitdance.clock import Clock
from airflow_provider_bitdance.exceptions import BitDanceError, NotFoundError, RateLimitError
from airflow_provider_bitdance.polling.policy import PollPolicy
from airflow_provider_bitdance.polling.scheduler import PollScheduler, Subscriber
from airflow_provider_bitdance.wavespeed.client import AsyncClient
from airflow_provider_bitdance.wavespeed.responses import Prediction

TROUBLE_FROM = 3
"""So many looks have to fail one after another before the log tells of it."""
TOLD_EVERY = 60.0
"""Seconds between two warnings of an outage, at the least."""
log = logging.getLogger(__name__)

READS_AT_ONCE = 16
SHORTEST_SLEEP = 0.01
"""Seconds between two rounds of looks: with the bound above it, what the API gets of us has a limit."""


class Poller:
    """Looks at predictions for all that wait for them, through one client.

    :param client: Open as long as somebody waits.
    :param schedule: The pauses between looks.
    :ivar trouble: Why the last looks failed; ``None`` as long as the API answers.
    """

    def __init__(
        self, client: AsyncClient, *, schedule: PollPolicy | None = None, clock: Clock | None = None
    ) -> None:
        self.clock = clock or Clock()
        self.looks = PollScheduler(schedule or PollPolicy())
        self._client = client
        self._watches: dict[str, list[Subscription]] = {}
        self._unknown: dict[str, int] = {}  # 404s in a row
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self.trouble: BitDanceError | None = None
        self._failures = 0  # of all looks, in a row
        self._is_told = False
        self._told_at = -math.inf
        self._news = asyncio.Event()
        self._driver: asyncio.Task[None] | None = None

    def watch(self, *, is_single: bool = False) -> Subscription:
        """Return a new watch.

        :param is_single: It is for one prediction only.
        """
        return Subscription(self, Subscriber(is_single=is_single))

    def add(self, watch: Subscription, prediction_id: str, submitted_at: float) -> None:
        """Look at a prediction until it ends, for one more watch."""
        watches = self._watches.setdefault(prediction_id, [])
        if not watches:
            self.looks.add(prediction_id, submitted_at, watch.watcher, now=self.clock.time())
        watches.append(watch)
        self._news.set()
        if self._driver is None or self._driver.done():
            self._driver = asyncio.get_running_loop().create_task(self._drive())

    def leave(self, watch: Subscription) -> None:
        """Look no longer for a watch."""
        for prediction_id in watch.waiting:
            watches = self._watches[prediction_id]
            watches.remove(watch)
            if not watches:
                self._forget(prediction_id)
        self._news.set()

    async def poll_once_more(self, watch: Subscription) -> None:
        """Look at the predictions of a watch that were not looked at a moment ago, while such looks help."""
        before = -1
        while watch.waiting and len(watch.ended) > before:
            before = len(watch.ended)
            for prediction_id in watch.waiting:
                self.looks.hasten(prediction_id, now=self.clock.time())
            self._look_at_what_is_due()
            if mine := [task for id_, task in self._under_way.items() if id_ in watch.waiting]:
                await asyncio.wait(mine)

    async def poll_all(self, watch: Subscription) -> None:
        """Look at each prediction of a watch once, unless there was a look a moment ago."""
        gate = asyncio.Semaphore(READS_AT_ONCE)

        async def look(prediction_id: str) -> None:
            async with gate:
                if under_way := self._under_way.get(prediction_id):
                    await asyncio.wait([under_way])
                elif self.looks.is_stale(prediction_id, now=self.clock.time()) and self.looks.take_one(
                    prediction_id, now=self.clock.time()
                ):
                    await self._look(prediction_id)

        await asyncio.gather(*(look(prediction_id) for prediction_id in list(watch.waiting)))

    async def _drive(self) -> None:
        """Look at what is due, as long as somebody waits for something."""
        try:
            while self._watches:
                self._news.clear()
                self._look_at_what_is_due()
                is_full = len(self._under_way) >= READS_AT_ONCE
                pause = float("inf") if is_full else self.looks.next_due() - self.clock.time()
                await self.clock.wait_for(self._news, max(pause, SHORTEST_SLEEP))
        except Exception as error:
            for prediction_id in list(self._watches):
                self._end(prediction_id, error)  # or they would wait for ever

    def _look_at_what_is_due(self) -> None:
        free = READS_AT_ONCE - len(self._under_way)
        for prediction_id in self.looks.take(self.clock.time(), most=free):
            look = asyncio.get_running_loop().create_task(self._look(prediction_id))
            self._under_way[prediction_id] = look

    async def _look(self, prediction_id: str) -> None:
        try:
            prediction = await self._client.get_prediction(prediction_id)
        except BitDanceError as error:
            self._take_failure(prediction_id, error)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._end(prediction_id, error)  # whoever waits has to know
        else:
            self._take_response()
            self._unknown.pop(prediction_id, None)
            self.looks.seen(prediction_id, ended=prediction.is_terminal, now=self.clock.time())
            if prediction.is_terminal:
                self._end(prediction_id, prediction)
        finally:
            self._under_way.pop(prediction_id, None)
            self._news.set()

    def _take_failure(self, prediction_id: str, error: BitDanceError) -> None:
        asked = error.retry_after if isinstance(error, RateLimitError) else None
        schedule = self.looks.schedule
        failures = self.looks.failed(prediction_id, asked=asked, now=self.clock.time())
        if not isinstance(error, NotFoundError):
            self._take_trouble(error)
        if prediction_id not in self._watches:
            return  # nobody waits for it any more
        unknown = self._unknown.pop(prediction_id, 0)
        if isinstance(error, NotFoundError):
            # A prediction just made may be unknown for a moment, and one 404 may be a gateway's.
            self._unknown[prediction_id] = unknown + 1
            age = self.looks.age(prediction_id, now=self.clock.time())
            if age > schedule.not_found_grace and unknown:
                gone = Prediction(id=prediction_id, status="deleted", error="the API does not know it")
                self._end(prediction_id, gone)
        elif not error.retry_helps or failures >= schedule.failures:
            self._end(prediction_id, error)

    def _take_trouble(self, error: BitDanceError) -> None:
        """Tell of an outage, and not of each look that fails."""
        self.trouble = error
        self._failures += 1
        now = self.clock.time()
        if self._failures >= TROUBLE_FROM and not self._is_told and now - self._told_at >= TOLD_EVERY:
            self._is_told, self._told_at = True, now
            log.warning("It cannot be asked whether images are ready; it is tried again: %s", error.what)

    def _take_response(self) -> None:
        if self._is_told:
            log.info("The API answers again")
        self.trouble, self._failures, self._is_told = None, 0, False

    def _end(self, prediction_id: str, outcome: Prediction | BaseException) -> None:
        watches = self._watches.get(prediction_id, [])
        self._forget(prediction_id)
        for watch in watches:
            watch.take(prediction_id, outcome)

    def _forget(self, prediction_id: str) -> None:
        self._watches.pop(prediction_id, None)
        self.looks.remove(prediction_id)
        self._unknown.pop(prediction_id, None)


@dataclass(slots=True, eq=False)
class Subscription:
    """What one job, or one trigger, waits for.

    :ivar waiting: The predictions that have not ended, by id.
    :ivar ended: Those that have, by id; one that the API no longer knows as "deleted".
    :ivar changed: Set when one more has ended.
    :ivar error: Why looking at one of them failed for good.
    """

    poller: Poller
    watcher: Subscriber
    waiting: dict[str, asyncio.Future[Prediction | None]] = field(default_factory=dict)
    ended: dict[str, Prediction] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    error: BaseException | None = None
    is_closed: bool = False

    def add(self, prediction_id: str, submitted_at: float) -> asyncio.Future[Prediction | None]:
        """Wait for one prediction. Free.

        :param submitted_at: Unix time.
        :return: Becomes the prediction when it has ended, nothing when the watch is closed before, and raises
            a :class:`BitDanceError` where looking failed for good, or too often one after another.
        """
        future = asyncio.get_running_loop().create_future()
        if self.is_closed:
            future.set_result(None)
        else:
            self.waiting[prediction_id] = future
            self.poller.add(self, prediction_id, submitted_at)
        return future

    def take(self, prediction_id: str, outcome: Prediction | BaseException) -> None:
        """Take note of how a prediction ended."""
        future = self.waiting.pop(prediction_id)
        if isinstance(outcome, BaseException):
            self.error = outcome
            if not future.done():
                future.set_exception(outcome)
                future.exception()  # not everybody asks the future
        else:
            self.ended[prediction_id] = outcome
            if not future.done():
                future.set_result(outcome)
        self.changed.set()

    async def finish(self, *, at_all: bool = False) -> None:
        """Look once more, then close.

        :param at_all: At each of them, whatever the others show.
        """
        await (self.poller.poll_all(self) if at_all else self.poller.poll_once_more(self))
        self.close()

    def close(self) -> None:
        """Wait no longer."""
        self.poller.leave(self)
        self.is_closed = True
        waiting, self.waiting = self.waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_result(None)
        self.changed.set()


async def wait_for(
    poller: Poller, pending: Mapping[str, float], *, until: float, enough: int | None = None
) -> dict[str, Prediction]:
    """Look at predictions until enough have ended or the time is over. Free.

    :param pending: Prediction ids, each with the Unix time of its submission.
    :param until: Unix time of the last look.
    :param enough: How many; all by default. Fewer means that somebody is pressed for the first ones.
    :return: The predictions that ended, by id; one that the API no longer knows as "deleted".
    :raises BitDanceError: Looking failed for good, or too often one after another.
    """
    watch = poller.watch(is_single=len(pending) == 1)
    enough = len(pending) if enough is None else min(enough, len(pending))
    watch.watcher.is_pressed = enough < len(pending)
    for prediction_id, submitted_at in pending.items():
        watch.add(prediction_id, submitted_at)
    try:
        while len(watch.ended) < enough:
            watch.changed.clear()
            left = until - poller.clock.time()
            if left <= 0:
                await watch.finish()
                break
            await poller.clock.wait_for(watch.changed, left)
            if watch.error is not None:
                raise watch.error
    finally:
        watch.close()
    return watch.ended
