"""The pump: buys, waits and stores, all images of a job at once, as fast as the account takes them.

One coroutine an image, from its purchase to its receipt; a dispatcher starts them at the pace that the
account admits. An image that fails stops the others only where the policy says so. What stops all of them (no
credit, a bad key, a store that fails) ends the buying, and what is bought is stored all the same.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Coroutine
from typing import Any

from airflow_provider_bitdance.api.answers import Prediction
from airflow_provider_bitdance.api.errors import (
    AddressBusyError,
    BitDanceError,
    FencedError,
    GarbledAnswerError,
    InputError,
    LostAnswerError,
    OutputError,
    Paid,
    PredictionError,
    RequestRefusedError,
    ServerError,
    UnconfirmedPurchaseError,
)
from airflow_provider_bitdance.engine.bench import Bench
from airflow_provider_bitdance.engine.lost import settle_intents
from airflow_provider_bitdance.engine.progress import Progress
from airflow_provider_bitdance.engine.store import may_be_bought_anew, recorded_error, settle
from airflow_provider_bitdance.engine.submit import buy
from airflow_provider_bitdance.engine.wait import watch_one
from airflow_provider_bitdance.journal import Status
from airflow_provider_bitdance.journal.entries import Claimed
from airflow_provider_bitdance.pacing import Pace
from airflow_provider_bitdance.receipts import Receipt

MAX_UNANSWERED = 8
"""Submissions without a recorded answer at any time: so many a kill can lose."""
MAX_STORING = 8
"""Downloads, checks and writes at a time."""
LEASE = 0.9
"""The deadline is moved on with a purchase once less than this part of the timeout is left."""

ABOUT_ONE_IMAGE = (
    PredictionError,
    OutputError,
    RequestRefusedError,
    InputError,
    LostAnswerError,
    GarbledAnswerError,
    ServerError,
    UnconfirmedPurchaseError,
    AddressBusyError,
)
"""Errors that say nothing about the other images of a job."""


class Pump:
    """Moves the images of one job.

    :param bench: With the journal claimed.
    :ivar receipts: Of the images that this process stored, by key.
    :ivar failures: Why an image is not stored, by key.
    :ivar stopped: Why nothing more is bought.
    """

    def __init__(self, bench: Bench) -> None:
        self.receipts: dict[str, Receipt] = {}
        self.failures: dict[str, BitDanceError] = {}
        self.stopped: Exception | None = None
        self._bench = bench
        self._pace = Pace(
            max_in_flight=bench.policy.max_in_flight, requests_per_minute=bench.policy.requests_per_minute
        )
        self._progress = Progress(bench)
        self._unanswered = asyncio.Semaphore(MAX_UNANSWERED)
        self._storing = asyncio.Semaphore(MAX_STORING)
        self._in_flight = 0
        self._changed = asyncio.Event()
        self._all_started = False
        self._hand_over_at = math.inf
        for image in bench.journal.state.having(Status.FAILED):
            if not may_be_bought_anew(bench, image):
                self._fail(image.plan.key, recorded_error(bench, image))

    async def run(self, *, left_open: bool) -> None:
        """Move every image as far as it goes in this process.

        :param left_open: Another process left intents without an answer.
        :raises FencedError: Another process has taken over the job.
        """
        state = self._bench.journal.state
        try:
            async with asyncio.TaskGroup() as group:
                for image in state.having(Status.SUBMITTED):
                    self._start(group, self._wait_and_store(image.plan.key))
                if left_open:
                    await self._settle_intents(group)
                await self._buy_all(group)
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        if isinstance(self.stopped, FencedError):
            raise self.stopped
        self._progress.tell(last=True)

    async def _settle_intents(self, group: asyncio.TaskGroup) -> None:
        """Find out what became of the intents of another process, and wait for what it bought."""
        keys = [image.plan.key for image in self._bench.journal.state.having(Status.INTENDED)]
        try:
            await settle_intents(self._bench, self._bench.journal, keys=set(keys))
        except BitDanceError as error:
            self._stop(error)
        for key in keys:
            if self._bench.journal.state.images[key].status is Status.SUBMITTED:
                self._start(group, self._wait_and_store(key))

    async def _buy_all(self, group: asyncio.TaskGroup) -> None:
        """Start a purchase whenever the account admits one more."""
        state, clock = self._bench.journal.state, self._bench.clock
        left = deque(
            image.plan.key
            for image in state.having(Status.INTENDED, Status.PLANNED, Status.FAILED)
            if image.status is not Status.FAILED or may_be_bought_anew(self._bench, image)
        )
        self._all_started = not left
        while left and self.stopped is None:
            await self._unanswered.acquire()
            wait = self._pace.wait(now=clock.time(), in_flight=self._in_flight)
            if wait > 0 or self.stopped is not None:
                self._unanswered.release()
                if self.stopped is None:
                    await self._pause(wait)
                continue
            await self._renew_deadline()
            if self.stopped is not None:
                self._unanswered.release()
                break
            self._pace.start()
            self._start(group, self._carry(left.popleft()))
            self._all_started = not left

    def _start(self, group: asyncio.TaskGroup, work: Coroutine[Any, Any, None]) -> None:
        self._in_flight += 1
        group.create_task(work)

    async def _carry(self, key: str) -> None:
        """Buy one image, wait for it and store it."""
        try:
            await buy(self._bench, key, pace=self._pace)
        except Exception as error:
            self._in_flight -= 1
            self._fail(key, error)
            return
        except BaseException:
            self._in_flight -= 1
            raise
        finally:
            self._pace.end()
            self._unanswered.release()
            self._changed.set()
        await self._wait_and_store(key)

    async def _wait_and_store(self, key: str) -> None:
        try:
            try:
                ended = await self._watch(key)
            finally:
                self._in_flight -= 1
                self._changed.set()
            if ended is not None:
                async with self._storing:
                    image = self._bench.journal.state.images[key]
                    self.receipts[key] = await settle(self._bench, image, ended)
        except Exception as error:
            # A look that failed or a full disk costs nothing itself, but the image it is about is bought.
            if isinstance(error, BitDanceError) and error.paid is Paid.NO:
                error.paid = Paid.NO if isinstance(error, PredictionError) else Paid.YES
            self._fail(key, error)
        self._progress.tell(stored=len(self.receipts), failed=len(self.failures), in_flight=self._in_flight)

    async def _watch(self, key: str) -> Prediction | None:
        image = self._bench.journal.state.images[key]
        if image.status is not Status.SUBMITTED:
            return None  # another task has stored it
        return await watch_one(
            self._bench.client,
            image.prediction_id,
            image.submitted_at,
            until=self._until,
            poll=self._bench.policy.poll,
            clock=self._bench.clock,
        )

    def _until(self) -> float:
        """Return when this process stops waiting: at the hand-over to the trigger, or at the deadline."""
        if isinstance(self.stopped, FencedError):
            return 0.0
        deadline, defer_after = self._bench.journal.state.deadline, self._bench.policy.defer_after
        if self._all_started and not self._pace.started and self._hand_over_at == math.inf:
            self._hand_over_at = math.inf if defer_after is None else self._bench.clock.time() + defer_after
        # A job that is stopped ends in this process: one that came back would begin to buy again.
        return deadline if self.stopped is not None else min(deadline, self._hand_over_at)

    def _fail(self, key: str, error: Exception) -> None:
        """Take note of an image that failed, and decide what that means to the others.

        What nobody thought of stops the buying, too: to throw away what is under way would lose its answers.
        """
        if not isinstance(error, ABOUT_ONE_IMAGE):
            self._stop(error)
            return
        self.failures[key] = error
        policy = self._bench.policy
        too_many = policy.max_failures is not None and len(self.failures) > policy.max_failures
        if policy.on_item_failure == "fail_fast" or too_many:
            self._stop(error)

    def _stop(self, error: Exception) -> None:
        if self.stopped is None or isinstance(error, FencedError):
            self.stopped = error
            if self._in_flight:
                what = error.what if isinstance(error, BitDanceError) else type(error).__name__
                self._bench.log.warning("%s. What is bought already is stored first", what)
        self._pace.close()
        self._changed.set()

    async def _renew_deadline(self) -> None:
        """Move the deadline on while there is something to buy: other tasks take a late one for dead."""
        now, timeout = self._bench.clock.time(), self._bench.policy.timeout
        if self._bench.journal.state.deadline - now < LEASE * timeout:
            try:
                await self._bench.write(Claimed(deadline=now + timeout))
            except BitDanceError as error:
                self._stop(error)

    async def _pause(self, seconds: float) -> None:
        """Wait so long, or until something ends."""
        self._changed.clear()
        waiters: set[asyncio.Future[Any]] = {asyncio.ensure_future(self._changed.wait())}
        if seconds < math.inf:
            waiters.add(asyncio.ensure_future(self._bench.clock.sleep(seconds)))
        try:
            await asyncio.wait(waiters, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for waiter in waiters:
                waiter.cancel()
