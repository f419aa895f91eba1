"""The pump: buys, waits and stores, all images of a job at once, as fast as the account takes them.

One coroutine an image, from its purchase to its receipt; a dispatcher starts them at the pace that the
account admits. An image that fails stops the others only where the policy says so. What stops all of them (no
credit, a bad key, a store that fails) ends the buying, and what is bought is stored all the same.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from datetime import UTC, datetime

from airflow_provider_bitdance.engine.context import JobContext
from airflow_provider_bitdance.engine.destination_lock import DestinationLock, HeldError
from airflow_provider_bitdance.engine.download import collect_output, may_be_bought_anew, recorded_error
from airflow_provider_bitdance.engine.failures import Failures
from airflow_provider_bitdance.engine.handoff import Rest, Rests
from airflow_provider_bitdance.engine.lost_responses import resolve_intents
from airflow_provider_bitdance.engine.progress import Progress
from airflow_provider_bitdance.engine.purchase import PostponedError, buy
from airflow_provider_bitdance.engine.rate_limiter import RateLimiter
from airflow_provider_bitdance.exceptions import (
    BitDanceError,
    DestinationBusyError,
    FencedError,
    Paid,
    PredictionError,
    PredictionTimeoutError,
    TaskKilledError,
)
from airflow_provider_bitdance.polling.poller import Poller
from airflow_provider_bitdance.records import ImageState, JobState, Status
from airflow_provider_bitdance.records.events import Claimed, Rested
from airflow_provider_bitdance.records.receipts import Receipt
from airflow_provider_bitdance.wavespeed.responses import Prediction

MAX_UNANSWERED = 8
"""Submissions without a recorded answer at any time: so many a kill can lose."""
MAX_STORING = 8
"""Downloads, checks and writes at a time."""
LONGEST_PAUSE_WITHOUT_NEWS = 1.0
"""Seconds after which it is asked again whether there is something to do, where nothing moved for long."""
LAST_FEW = 0.05
"""This part of a job's images is left: the worker is held up for them only, so each is looked at early."""
HOLDER_PAUSE, HOLDER_SHARE = 1.0, 0.05
"""Seconds between two looks at what other tasks have stored meanwhile; or this part of the time waited."""
LEASE = 0.9
"""The deadline is moved on with a purchase once less than this part of the timeout is left."""


class Dispatcher:
    """Moves the images of one job.

    :param bench: With the journal claimed.
    :ivar receipts: Of the images that this process stored, by key.
    :ivar failures: Why images are not stored, and why nothing more is bought.
    :ivar rest: Why not everything is bought in this process, though nothing stopped it.
    """

    def __init__(self, context: JobContext) -> None:
        self.receipts: dict[str, Receipt] = {}
        self.rest: Rest | None = None
        self._context = context
        state, policy = context.journal.state, context.policy
        self._limiter = RateLimiter(
            max_in_flight=policy.max_in_flight,
            requests_per_minute=policy.requests_per_minute,
            submitted=_sent_before(state),
            in_flight_before=len(state.having(Status.SUBMITTED)),
            window=state.window,
            blocked_until=state.blocked_until,
        )
        self._poller = Poller(context.client, schedule=policy.poll, clock=context.clock)
        self._subscription = self._poller.watch(is_single=len(state.images) == 1)
        self._progress = Progress(context)
        self._storing = asyncio.Semaphore(MAX_STORING)
        self._left: deque[str] = deque()
        self._lock = DestinationLock(context)
        self._waits_for_holders = False
        self._has_failed = False
        self._changed = asyncio.Event()
        self.failures = Failures(context, self._limiter, self._changed)
        self._handoff = Rests(context, self._limiter, self._poller.looks)
        for image in state.having(Status.FAILED):
            if not may_be_bought_anew(context, image):
                self.failures.add(image.plan.key, recorded_error(context, image))

    async def run(self, *, left_open: bool) -> None:
        """Move every image as far as it goes in this process.

        :param left_open: Another process left intents without a response.
        :raises FencedError: Another process has taken over the job.
        """
        state = self._context.journal.state
        try:
            async with asyncio.TaskGroup() as group:
                for image in state.having(Status.SUBMITTED):
                    self._start_waiting(group, image.plan.key)
                if left_open:
                    await self._resolve_intents(group)
                await self._buy_all(group)
                await self._wait_for_the_rest()
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            self._subscription.close()
        if isinstance(self.failures.stopped, FencedError):
            raise self.failures.stopped
        self._progress.tell(last=True)

    async def _resolve_intents(self, group: asyncio.TaskGroup) -> None:
        """Find out what became of the intents of another process, and wait for what it bought."""
        keys = [image.plan.key for image in self._context.journal.state.having(Status.INTENDED)]
        try:
            await resolve_intents(self._context, self._context.journal, keys=set(keys))
        except BitDanceError as error:
            self.failures.stop(error)
        for key in keys:
            if self._context.journal.state.images[key].status is Status.SUBMITTED:
                self._start_waiting(group, key)

    def _start_waiting(self, group: asyncio.TaskGroup, key: str) -> None:
        group.create_task(self._wait_and_store(key, self._watched(key)))

    def _watched(self, key: str) -> asyncio.Future[Prediction | None]:
        """Begin to watch an image that is in flight."""
        self._limiter.in_flight += 1
        image = self._context.journal.state.images[key]
        if image.status is Status.SUBMITTED:
            return self._subscription.add(image.prediction_id, image.submitted_at)
        stored_by_another: asyncio.Future[Prediction | None] = asyncio.get_running_loop().create_future()
        stored_by_another.set_result(None)
        return stored_by_another

    async def _buy_all(self, group: asyncio.TaskGroup) -> None:
        """Start a purchase whenever the account admits one more; stop where resting is cheaper."""
        self._left.extend(
            image.plan.key
            for image in self._context.journal.state.having(Status.INTENDED, Status.PLANNED, Status.FAILED)
            if image.status is not Status.FAILED or may_be_bought_anew(self._context, image)
        )
        while (self._left or self._limiter.started or self._lock.held) and self.failures.stopped is None:
            self._subscription.watcher.is_pressed = bool(self._left)
            wait = self._until_next_purchase()
            if wait > 0:
                # The next process would begin with what has failed in this one, and so each that follows.
                if not self._limiter.started and self._left and not self._has_failed:
                    self.rest = self._handoff.rest(wait)
                if self._is_held_up():
                    self.rest = self._handoff.rest_for_holders(self._lock.held)
                if self.rest is not None:
                    return
                if wait < math.inf or not await self._stop_if_late():
                    await self._pause(wait)
                continue
            if not self._limiter.is_refused:
                await self._renew_deadline(0.0)
            if self.failures.stopped is None:
                self._limiter.start()
                group.create_task(self._carry(group, self._left.popleft()))

    @property
    def trouble(self) -> str:
        """The end of a sentence: why nobody knows how far the images are. Empty where the API answers."""
        trouble = self._poller.trouble
        return f"; the last look failed: {trouble.what.rstrip('.')}" if trouble else ""

    @property
    def to_buy(self) -> int:
        """Images that are still to be bought."""
        return len(self._left) + len(self._lock.held)

    def known_end(self, waiting: list[ImageState]) -> float:
        """Return the Unix time before which the newest of these images is hardly ready.

        :return: 0 where that is not known, or too soon to be worth a deferral.
        """
        expected_age = self._poller.looks.expected_age(self._subscription.watcher)
        end = max(image.submitted_at for image in waiting) + (expected_age or 0.0)
        return end if expected_age is not None and self._handoff.is_long(end) else 0.0

    def _is_held_up(self) -> bool:
        """Whether other tasks make all that is left of this job."""
        purchases = self._left or self._limiter.started or self._limiter.in_flight
        return bool(self._lock.held) and not purchases

    async def _wait_for_holders(self) -> None:
        """See from time to time whether other tasks have stored, or given up, what this job wants, too."""
        context, started = self._context, self._context.clock.time()
        await self._renew_deadline_for_holders()
        while self._lock.held and self.failures.stopped is None and self.rest is None:
            pause = max(HOLDER_PAUSE, HOLDER_SHARE * (context.clock.time() - started))
            await context.clock.wait_for(context.coordination.killed, pause)
            if context.coordination.killed.is_set():
                self.failures.stop(TaskKilledError("Airflow stopped the task while another made its images"))
                break
            if context.clock.time() >= context.journal.state.deadline:
                self._give_up_held()
                break
            try:
                freed = await self._lock.freed()
            except BitDanceError as error:
                self.failures.stop(error)
                break
            if freed:
                self._left.extend(freed)
                self._move()
        self._waits_for_holders = False
        self._changed.set()

    async def _renew_deadline_for_holders(self) -> None:
        """Begin this try's time when the other tasks' leases end, unless it waits for much less."""
        now, timeout = self._context.clock.time(), self._context.policy.timeout
        until = max(self._lock.held.values())
        if until <= now + timeout:
            try:
                await self._context.write(Claimed(deadline=until + timeout))
            except BitDanceError as error:
                self.failures.stop(error)

    def _give_up_held(self) -> None:
        """End this try for what other tasks hold: they may need longer than it waits."""
        for key, until in self._lock.held.items():
            when = datetime.fromtimestamp(until, UTC)
            busy = DestinationBusyError(
                "Another task makes the same image, and has not stored it in time",
                fix=f"If that task is dead, a retry after {when:%Y-%m-%d %H:%M:%S} UTC makes the image",
            )
            self.failures.add(key, busy)
        self._lock.held.clear()

    def _until_next_purchase(self) -> float:
        """Return the seconds until one more may begin; infinite where something has to happen first."""
        if not self._left or self._limiter.started >= MAX_UNANSWERED:
            return math.inf
        return self._limiter.wait(now=self._context.clock.time())

    async def _stop_if_late(self) -> bool:
        """Stop a job that has more to buy, where nothing in flight has ended in its time."""
        deadline, in_flight = self._context.journal.state.deadline, self._limiter.in_flight
        if self._limiter.started or not in_flight or self._context.clock.time() < deadline:
            return False
        await self._poller.poll_all(self._subscription)
        await asyncio.sleep(0)  # what has ended is taken note of
        if self._limiter.in_flight == in_flight:
            seconds = self._context.policy.timeout
            what = f"None of {in_flight} predictions in flight was done within {seconds:.0f} s{self.trouble}"
            late = PredictionTimeoutError(what, fix="Their outputs stay collectable for 7 days")
            words = "A retry polls the same predictions again, and buys the rest."
            self.failures.stop(late.with_verdict(retry_in_words=words))
        return True

    async def _wait_for_the_rest(self) -> None:
        """Wait for what is in flight, until the hand-over or the deadline; then look once more."""
        started = self._context.clock.time()
        few = LAST_FEW * len(self._context.journal.state.images)
        while self._limiter.in_flight or self._limiter.started:
            left = self._until(started) - self._context.clock.time()
            if left <= 0:
                break
            self._subscription.watcher.is_pressed = self._limiter.in_flight <= few
            await self._pause(left)
        if self.rest is not None:
            await self._write_rested()
        if not isinstance(self.failures.stopped, FencedError):
            is_last = self._context.clock.time() >= self._context.journal.state.deadline
            await self._subscription.finish(at_all=is_last)

    def _until(self, started: float) -> float:
        """Return when this process stops waiting: at the hand-over to the trigger, or at the deadline.

        :param started: Unix time since which only waiting is left.
        """
        stopped, deadline = self.failures.stopped, self._context.journal.state.deadline
        if self.rest is not None or isinstance(stopped, FencedError | TaskKilledError):
            return 0.0
        # A job that is stopped ends in this process: one that came back would begin to buy again.
        return deadline if stopped is not None else min(deadline, self._handoff.hand_over_at(started))

    async def _write_rested(self) -> None:
        """Write down what was found out about the account."""
        now = self._context.clock.time()
        blocked = self._limiter.blocked(now=now)
        try:
            await self._context.write(
                Rested(until=now + blocked if blocked else 0.0, window=self._limiter.found_window)
            )
        except BitDanceError as error:
            self.failures.stop(error)

    async def _carry(self, group: asyncio.TaskGroup, key: str) -> None:
        """Buy one image, wait for it and store it."""
        if not await self._is_bought(group, key):
            return
        in_flight = self._watched(key)
        await self._renew_deadline(LEASE * self._context.policy.timeout)
        await self._wait_and_store(key, in_flight)

    async def _is_bought(self, group: asyncio.TaskGroup, key: str) -> bool:
        """Buy one image, and say whether that went well."""
        failure = None
        try:
            await buy(self._context, key, limiter=self._limiter, lock=self._lock)
        except PostponedError:
            self._left.append(key)
            return False
        except HeldError:
            if not self._waits_for_holders:
                self._waits_for_holders = True
                group.create_task(self._wait_for_holders())
            return False
        except Exception as error:
            failure = error
        finally:
            self._limiter.end()
            self._move()
        if failure is not None:
            self._has_failed = True
            self.failures.add(key, failure)
        return failure is None

    async def _wait_and_store(self, key: str, in_flight: asyncio.Future[Prediction | None]) -> None:
        """Wait for an image that is in flight, and store it."""
        try:
            try:
                ended = await in_flight
            finally:
                self._limiter.in_flight -= 1
                self._move()
            if ended is not None:
                async with self._storing:
                    image = self._context.journal.state.images[key]
                    self.receipts[key] = await collect_output(self._context, image, ended)
        except Exception as error:
            # A look that failed or a full disk costs nothing itself, but the image it is about is bought.
            if isinstance(error, BitDanceError) and error.paid is Paid.NO:
                paid = Paid.NO if isinstance(error, PredictionError) else Paid.YES
                self.failures.add(key, error.with_verdict(paid=paid))
            else:
                self.failures.add(key, error)
        self._progress.tell(
            stored=len(self.receipts), failed=len(self.failures.by_key), in_flight=self._limiter.in_flight
        )

    def _move(self) -> None:
        """Take note that something moved: there may be more to do."""
        self._handoff.move()
        self._changed.set()

    async def _renew_deadline(self, least: float) -> None:
        """Move the deadline on while images are bought: other tasks take a late one for dead.

        :param least: Where no more than so many seconds are left.
        """
        now, timeout = self._context.clock.time(), self._context.policy.timeout
        if self._context.journal.state.deadline - now <= least:
            try:
                await self._context.write(Claimed(deadline=now + timeout))
            except BitDanceError as error:
                self.failures.stop(error)

    async def _pause(self, seconds: float) -> None:
        """Wait so long, or until something moves; not beyond the moment at which a rest is due."""
        self._changed.clear()
        if seconds == math.inf and not self._limiter.started:
            late = self._context.journal.state.deadline - self._context.clock.time()
            seconds = max(
                min(self._handoff.until_idle(), late if self._left else math.inf), LONGEST_PAUSE_WITHOUT_NEWS
            )
        await self._context.clock.wait_for(self._changed, seconds)


def _sent_before(state: JobState) -> list[float]:
    """Return the Unix times of earlier submissions; one that was not answered may have been sent."""
    return [
        max(image.submitted_at, image.intended_at)
        for image in state.images.values()
        # An intent in this process's own claim is still to be sent.
        if image.intent and not (image.status is Status.INTENDED and image.intended_at == state.time)
    ]
