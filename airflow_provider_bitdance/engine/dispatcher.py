"""The dispatcher: buys, waits and stores, all images of a job at once, as fast as the account takes them.

One coroutine an image, from its purchase to its receipt; the loop here carries out what ``next_step.py``
decides. An image that fails stops the others only where the policy says so. What stops all of them (no
credit, a bad key, a store that fails) ends the buying, and what is bought is stored all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import deque
from datetime import UTC, datetime

from airflow_provider_bitdance.engine.context import JobContext
from airflow_provider_bitdance.engine.destination_lock import DestinationLock, HeldError
from airflow_provider_bitdance.engine.download import collect_output
from airflow_provider_bitdance.engine.failures import Failures, recorded_error
from airflow_provider_bitdance.engine.handoff import HandOver, waits_for
from airflow_provider_bitdance.engine.lost_responses import recover_noted, resolve_intents
from airflow_provider_bitdance.engine.next_step import (
    CheckHolders,
    JobFacts,
    Stop,
    Submit,
    WaitUntil,
    next_step,
)
from airflow_provider_bitdance.engine.progress import Progress
from airflow_provider_bitdance.engine.purchase import PostponedError, buy
from airflow_provider_bitdance.engine.rate_limiter import RateLimiter
from airflow_provider_bitdance.engine.settlement import settle_losses
from airflow_provider_bitdance.engine.storing_limiter import StoringLimiter
from airflow_provider_bitdance.engine.takeover import adoption
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
from airflow_provider_bitdance.records import JobState, NotCreated, Status
from airflow_provider_bitdance.records.events import Claimed, Rested
from airflow_provider_bitdance.records.receipts import Receipt
from airflow_provider_bitdance.records.state import LONGEST_LEASE
from airflow_provider_bitdance.wavespeed.responses import Prediction

STORED_LATER = 2.0
"""Seconds that a completed image waits, at most, while others are being bought. Where a hundred end together,
to check and write them would keep the account idle; what is completed can be fetched for 7 days."""
LEASE = 0.9
"""The deadline is moved on with a purchase once less than this part of the timeout is left."""


class Dispatcher:
    """Moves the images of one job.

    :param context: With the journal claimed.
    :ivar receipts: Of the images that this process stored, by key.
    :ivar failures: Why images are not stored, and why nothing more is bought.
    :ivar hand_over: Why not everything is done in this process, though nothing stopped it.
    :ivar waits_for: The same, in words, where there is more to buy.
    :ivar in_flight: Predictions that had not ended when that was decided.
    """

    def __init__(self, context: JobContext) -> None:
        self.receipts: dict[str, Receipt] = {}
        self.hand_over: HandOver | None = None
        self.waits_for = ""
        self.in_flight = 0
        self._context = context
        state, policy = context.journal.state, context.policy
        self._limiter = RateLimiter(
            max_in_flight=policy.max_in_flight,
            requests_per_minute=policy.requests_per_minute,
            submitted=[*_sent_before(state), *context.coordination.submitted],
            in_flight_before=len(state.having(Status.SUBMITTED)),
            # A next try finds out anew: what is in flight may never end.
            window=state.window if state.rested_in == context.journal.owner.try_number else None,
            blocked_until=min(state.blocked_until, context.clock.time() + LONGEST_LEASE),
        )
        self._poller = Poller(context.client, policy=policy.poll, clock=context.clock)
        self._subscription = self._poller.subscribe(is_single=len(state.images) == 1)
        self._progress = Progress(context)
        models = {image.plan.request.model for image in state.images.values()}
        self._storing = StoringLimiter(models, clock=context.clock)
        self._left: deque[str] = deque()
        self._lock = DestinationLock(context)
        self._has_failed = False
        self._changed = asyncio.Event()
        self._none_begun = asyncio.Event()
        self._idle_since = 0.0
        self.failures = Failures(context, self._limiter, self._changed)
        for image in state.having(Status.FAILED):
            if context.has_failed(image):
                self.failures.add(image.plan.key, recorded_error(context, image))

    async def run(self, *, left_open: bool) -> None:
        """Move every image as far as it goes in this process.

        :param left_open: Another process left intents without a response.
        :raises FencedError: Another process has taken over the job.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for image in self._context.journal.state.having(Status.SUBMITTED):
                    self._start_waiting(group, image.plan.key)
                if left_open:
                    await self._resolve_intents(group)
                await self._recover(group)
                # Only now: what became of the intents is in the state that the journal has by now.
                state = self._context.journal.state
                # The claim's own intent first, or it would be open beside as many others as there may be.
                self._left.extend(image.plan.key for image in state.having(Status.INTENDED))
                self._left.extend(
                    image.plan.key
                    for image in state.having(Status.PLANNED, Status.FAILED)
                    if image.status is not Status.FAILED or self._context.may_buy_anew(image)
                )
                self._report()
                await self._dispatch(group)
                await self._finish(left_open=left_open)
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            self._poller.close(self._subscription)
        if isinstance(self.failures.stopped, FencedError):
            raise self.failures.stopped
        self._report(last=True)

    @property
    def outage(self) -> str:
        """The end of a sentence: why nobody knows how far the images are. Empty where the API answers."""
        outage = self._poller.outage
        return f"; the last poll failed: {outage.what.rstrip('.')}" if outage else ""

    @property
    def to_buy(self) -> int:
        """Images that are still to be bought."""
        return len(self._left) + len(self._lock.held)

    async def _dispatch(self, group: asyncio.TaskGroup) -> None:
        """Carry out one step after another, until nothing is left to do in this process."""
        self._idle_since = self._context.clock.time()
        while True:
            self._changed.clear()
            match step := next_step(self._facts()):
                case Submit():
                    await self._begin_purchase(group)
                case CheckHolders():
                    await self._check_holders()
                case WaitUntil():
                    pause = step.moment - self._context.clock.time()
                    await self._context.clock.wait_for(self._changed, pause)
                case HandOver():
                    self.hand_over, self.in_flight = step, self._limiter.in_flight
                    self.waits_for = self._waits_for() if self.to_buy else ""
                    return
                case Stop():
                    if not await self._goes_on_late():
                        return

    def _waits_for(self) -> str:
        now = self._context.clock.time()
        wait, blocked = self._limiter.wait(now=now), self._limiter.blocked(now=now)
        return waits_for(left=len(self._left), wait=wait, blocked=blocked)

    def _facts(self) -> JobFacts:
        now, stopped, policy = self._context.clock.time(), self.failures.stopped, self._context.policy
        waiting = self._subscription.waiting
        first, last = next(iter(waiting), ""), next(reversed(waiting), "")
        return JobFacts(
            now=now,
            left=len(self._left),
            purchases=self._limiter.started,
            max_unanswered=policy.max_unanswered,
            in_flight=self._limiter.in_flight,
            wait=self._limiter.wait(now=now),
            first_end=self._poller.scheduler.expected_end(first),
            last_end=self._poller.scheduler.expected_end(last),
            idle_since=self._idle_since,
            deadline=self._context.journal.state.deadline,
            defer_after=policy.defer_after,
            break_even=policy.break_even,
            is_stopped=stopped is not None,
            is_over=isinstance(stopped, FencedError | TaskKilledError),
            has_failed=self._has_failed,
            held=len(self._lock.held),
            lease_end=min(self._lock.held.values(), default=math.inf),
            next_check=self._lock.next_check,
        )

    async def _begin_purchase(self, group: asyncio.TaskGroup) -> None:
        if not self._limiter.is_refused:
            await self._renew_deadline(0.0)
        if self.failures.stopped is None:
            self._limiter.started += 1
            self._none_begun.clear()
            group.create_task(self._carry(self._left.popleft()))

    async def _goes_on_late(self) -> bool:
        """Say whether a job with more to buy goes on past its deadline: where something has ended."""
        in_flight = self._limiter.in_flight
        self._give_up_held()
        if self.failures.stopped is not None or not self._left:
            return False
        await self._poller.poll_all(self._subscription)
        await asyncio.sleep(0)  # what has ended is taken note of
        if self._limiter.in_flight == in_flight:
            seconds = self._context.policy.timeout
            what = (
                f"None of the {in_flight} predictions in flight finished within {seconds:.0f} s{self.outage}"
            )
            late = PredictionTimeoutError(what, fix="Their outputs stay collectable for 7 days")
            words = "A retry polls the same predictions again and buys the rest."
            self.failures.stop(late.with_verdict(retry_in_words=words))
        return True

    async def _check_holders(self) -> None:
        """Try again the images that other tasks have stored, or hold no more."""
        try:
            self._left.extend(await self._lock.freed())
        except BitDanceError as error:
            self.failures.stop(error)

    async def _wait_for_holder(self, until: float) -> None:
        """Begin this try's time when the other task's lease ends, unless it waits for much less.

        :param until: Unix time at which that lease ends.
        """
        now, timeout = self._context.clock.time(), self._context.policy.timeout
        if self._context.journal.state.deadline < until + timeout and until <= now + timeout:
            await self._write(Claimed(deadline=until + timeout))

    def _give_up_held(self) -> None:
        """End this try for what other tasks hold: they may need longer than it waits."""
        for key, until in self._lock.held.items():
            when = datetime.fromtimestamp(until, UTC)
            busy = DestinationBusyError(
                "Another task is making the same image and did not store it in time",
                fix=f"If that task is dead, a retry after {when:%Y-%m-%d %H:%M:%S} UTC buys the image",
            )
            self.failures.add(key, busy)
        self._lock.held.clear()

    async def _finish(self, *, left_open: bool) -> None:
        """Poll for the last time, and write down what a later process needs.

        Also at a handoff: a trigger may have brought the job back because something has ended, and with
        ``defer_after=0`` nothing else polls here.
        """
        if not left_open:
            await self._withdraw_intents()
        stopped, now = self.failures.stopped, self._context.clock.time()
        is_late = now >= self._context.journal.state.deadline
        if self.hand_over is not None and self._left:
            blocked = self._limiter.blocked(now=now)
            until = now + blocked if blocked else 0.0
            await self._write(Rested(until=until, window=self._limiter.found_window))
        is_last = is_late or self.hand_over is not None or isinstance(stopped, TaskKilledError)
        if is_last and not isinstance(stopped, FencedError):
            await self._poller.poll_all(self._subscription)
        self._poller.close(self._subscription)
        if self.failures.stopped is None:
            with contextlib.suppress(BitDanceError):  # reconcile settles them, too
                await settle_losses(self._context)

    async def _withdraw_intents(self) -> None:
        """Write down that an intent of the claim was not sent: a later process would take it for lost."""
        state = self._context.journal.state
        for key in self._left:
            if state.images[key].status is Status.INTENDED:
                await self._write(NotCreated(key=key, reason="It was never sent"))

    async def _resolve_intents(self, group: asyncio.TaskGroup) -> None:
        """Find out what became of the intents of another process, and wait for what it bought."""
        keys = [image.plan.key for image in self._context.journal.state.having(Status.INTENDED)]
        try:
            await resolve_intents(self._context, self._context.journal)
        except BitDanceError as error:
            self.failures.stop(error)
        for key in keys:
            if self._context.journal.state.images[key].status is Status.SUBMITTED:
                self._start_waiting(group, key)

    async def _recover(self, group: asyncio.TaskGroup) -> None:
        """Wait for what a replaced process has bought, and for what failed and is allowed by now, instead of
        buying it again."""
        context, allows = self._context, self._context.policy.allows_by_now
        try:
            for image in context.journal.state.having(Status.FAILED):
                if allows(image):
                    await context.write(adoption(image, image.plan.key, context.journal.job))
                    self._start_waiting(group, image.plan.key)
            for key in await recover_noted(context):
                self._start_waiting(group, key)
        except BitDanceError as error:
            self.failures.stop(error)

    def _start_waiting(self, group: asyncio.TaskGroup, key: str) -> None:
        group.create_task(self._wait_and_store(key, self._watched(key)))

    def _watched(self, key: str) -> asyncio.Future[Prediction | None]:
        """Begin to wait for an image that is in flight."""
        self._limiter.in_flight += 1
        image = self._context.journal.state.images[key]
        return self._poller.add(self._subscription, image.prediction_id, image.submitted_at)

    async def _carry(self, key: str) -> None:
        """Buy one image, wait for it and store it; or see that another task has stored it."""
        if not await self._is_bought(key):
            return
        is_stored = self._context.journal.state.images[key].status is Status.STORED
        in_flight = None if is_stored else self._watched(key)
        await self._renew_deadline(LEASE * self._context.policy.timeout)
        if in_flight is None:
            self._report()
        else:
            await self._wait_and_store(key, in_flight)
            if key in self.receipts:
                self._progress.rate.stored(self._context.clock.time())

    async def _is_bought(self, key: str) -> bool:
        """Buy one image, and say whether that went well."""
        failure = None
        try:
            await buy(self._context, key, limiter=self._limiter, lock=self._lock)
        except PostponedError:
            self._left.append(key)
            return False
        except HeldError as held:
            await self._wait_for_holder(held.until)
            return False
        except Exception as error:
            failure = error
        finally:
            self._limiter.started -= 1
            if not self._limiter.started:
                self._none_begun.set()
            self._move(bought=True)
        if failure is not None:
            self._has_failed = True
            self.failures.add(key, failure)
            if self._context.journal.state.images[key].status is Status.INTENDED:
                # Its intent stays open: each further purchase could leave another one.
                self.failures.stop(failure)
        return failure is None

    async def _wait_and_store(self, key: str, in_flight: asyncio.Future[Prediction | None]) -> None:
        """Wait for an image that is in flight, and store it."""
        try:
            try:
                ended = await in_flight
            finally:
                self._limiter.in_flight -= 1
                self._move(bought=False)
            if ended is not None:
                if self._limiter.started:
                    await self._context.clock.wait_for(self._none_begun, STORED_LATER)
                image = self._context.journal.state.images[key]
                self.receipts[key] = await collect_output(
                    self._context, image, ended, place=self._storing.place
                )
        except Exception as error:
            # A poll that failed or a full disk costs nothing itself, but the image it is about is bought.
            is_bought = not isinstance(error, PredictionError)
            if is_bought and isinstance(error, BitDanceError) and error.paid is Paid.NO:
                error = error.with_verdict(paid=Paid.YES)
            self.failures.add(key, error)
        self._report()

    def _report(self, *, last: bool = False) -> None:
        self._progress.report(
            failed=len(self.failures.by_key),
            in_flight=self._limiter.in_flight,
            awaited=len(self._lock.held),
            last=last,
        )

    def _move(self, *, bought: bool) -> None:
        """Take note that a purchase is over, or an image in flight: there may be more to do."""
        now, limiter = self._context.clock.time(), self._limiter
        if bought or self._left or limiter.started:
            self._idle_since = now
        if not (self.to_buy or limiter.started or limiter.is_refused):
            self._context.notices.accepted(now=now, window=limiter.found_window, is_last=True)
        self._changed.set()

    async def _renew_deadline(self, least: float) -> None:
        """Move the deadline on while images are bought: other tasks take a late one for dead.

        :param least: Where no more than so many seconds are left.
        """
        now, timeout = self._context.clock.time(), self._context.policy.timeout
        if self._context.journal.state.deadline - now <= least:
            await self._write(Claimed(deadline=now + timeout))

    async def _write(self, event: Claimed | Rested | NotCreated) -> None:
        """Write what a later process needs; if that fails, nothing more is bought."""
        try:
            await self._context.record_patiently(lambda: self._context.write(event))
        except BitDanceError as error:
            self.failures.stop(error)


def _sent_before(state: JobState) -> list[float]:
    """Return the Unix times of earlier submissions; one that was not answered may have been sent."""
    return [
        max(image.submitted_at, image.intended_at)
        for image in state.images.values()
        # An intent in this process's own claim is still to be sent.
        if image.intent and not (image.status is Status.INTENDED and image.intended_at == state.time)
    ]
