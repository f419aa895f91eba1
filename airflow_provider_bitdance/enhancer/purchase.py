"""One text: bought by this process, or taken from whichever process has bought it.

The one thing to know: an intent is written right before each POST, and its outcome right after the response;
what waits, waits without an intent. So a retry, a clear, another image or another run goes on from what lies
there. A lost response is possibly paid; the account's history is not searched for it, for a text costs a
tenth of a cent.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, Self, TypeVar

from airflow_provider_bitdance.engine import JobContext
from airflow_provider_bitdance.engine.budget import usd
from airflow_provider_bitdance.engine.decisions import (
    Fail,
    Postpone,
    Record,
    Resolve,
    SendAgain,
    SubmissionFacts,
    decide_submission,
)
from airflow_provider_bitdance.engine.purchase import noting_response, take
from airflow_provider_bitdance.engine.rate_limiter import SHORT_WAIT, RateLimiter
from airflow_provider_bitdance.enhancer.decisions import Buy, GiveUp, Poll, TextFacts, WaitUntil, decide
from airflow_provider_bitdance.exceptions import (
    BitDanceError,
    BudgetError,
    LostResponseError,
    NotSentError,
    PredictionFailedError,
    PredictionGoneError,
    PredictionTimeoutError,
    RateLimitError,
    RecordError,
    TaskKilledError,
    UnconfirmedPurchaseError,
)
from airflow_provider_bitdance.polling.policy import PollPolicy
from airflow_provider_bitdance.polling.poller import Poller
from airflow_provider_bitdance.records.enhanced_prompts import (
    EnhancedPrompt,
    EnhancedPrompts,
    PromptAttempt,
    PromptIntent,
    PromptKey,
    PromptOutcome,
)
from airflow_provider_bitdance.wavespeed import protocol
from airflow_provider_bitdance.wavespeed.models import MAX_PROMPT
from airflow_provider_bitdance.wavespeed.prompt_enhancer import check_echo, check_enhanced, enhanced_in
from airflow_provider_bitdance.wavespeed.response_errors import failure_of
from airflow_provider_bitdance.wavespeed.responses import Prediction
from airflow_provider_bitdance.wavespeed.submission_outcome import submission_outcome

SENT_WITHIN = 60.0
"""Seconds from an intent to its POST at most: a process that slept longer does not send it any more."""
LEASE = 180.0
"""Seconds for which others wait for an intent's outcome: until it is sent, and twice a request's deadline."""
LOOKS = PollPolicy(interval=2.0)
"""How often the records are read for a text that another task buys."""
BUYS_AGAIN = "A retry buys the prompt again; WaveSpeed refunds failed predictions."
READS_AT_ONCE = 16
"""Otherwise the outcome of a purchase would be written after the reads of all texts that are queued."""
ASK_AGAIN = 0.2
"""Seconds after which the rate limiter is asked again."""


@dataclass(slots=True)
class _Tried:
    """What this process has tried for one text.

    :ivar ended: Predictions that gave no text.
    :ivar bought: Submissions that were or may have been charged.
    :ivar not_sent: Submissions in a row that did not reach the API.
    :ivar since: Unix time since which it waits for another task; 0 where it does not.
    """

    ended: set[str] = field(default_factory=set)
    bought: int = 0
    not_sent: int = 0
    since: float = 0.0


T = TypeVar("T")


class Enhancer:
    """Enhances the texts of one job, in a ``with`` statement.

    :param price_usd: Of one text.
    :ivar budget_left: US dollars that may be spent on prompts.
    :ivar stopped: Why nothing more is bought.
    """

    def __init__(self, context: JobContext, *, price_usd: float) -> None:
        self.budget_left = math.inf
        self.stopped: Exception | None = None
        self.records = EnhancedPrompts(context.records)
        self._context = context
        self._price = price_usd
        self._tried: dict[PromptKey, _Tried] = {}
        self._moved_at = context.clock.time()
        self._turns = asyncio.Lock()
        self._gate = asyncio.Semaphore(READS_AT_ONCE)
        self._stop = asyncio.Event()
        self._poller = Poller(context.client, policy=context.policy.poll, clock=context.clock)
        self._subscription = self._poller.subscribe()
        self._limiter = RateLimiter(
            max_in_flight=context.policy.max_in_flight,
            requests_per_minute=context.policy.requests_per_minute,
        )

    def stop(self, error: Exception) -> None:
        """Buy nothing more, and wait for nothing; what is bought is on record. The first reason counts."""
        self.stopped = self.stopped or error
        self._stop.set()

    async def __aenter__(self) -> Self:
        self._watching = asyncio.ensure_future(self._stop_when_killed())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._watching.cancel()
        self._poller.close(self._subscription)

    async def read(self, how: Callable[[PromptKey], T], key: PromptKey) -> T:
        """Read a record of a text in a thread, of many some at a time."""
        async with self._gate:
            return await asyncio.to_thread(how, key)

    def has_bought(self, key: PromptKey) -> bool:
        """Say whether this process has submitted a text, and it was or may have been charged."""
        return key in self._tried and self._tried[key].bought > 0

    async def enhance(self, key: PromptKey) -> EnhancedPrompt:
        """Return what the enhancer made of a text, bought if nobody has.

        :raises BitDanceError: There is none in this process; the records say what is possibly paid.
        """
        context, tried = self._context, self._tried.setdefault(key, _Tried())
        while (found := await self.read(self.records.find, key)) is None:
            self._check_going_on()
            facts = TextFacts(
                attempts=await self.read(self.records.attempts, key),
                ended=tried.ended,
                job=context.journal.job,
                bought=tried.bought,
                buys_again=context.policy.on_lost_response == "buy_again",
                now=context.clock.time(),
            )
            match decide(facts):
                case Poll(attempt):
                    if not await self._collect(key, attempt):
                        tried.ended.add(attempt.prediction_id)
                case Buy(number):
                    await self._buy(key, number, tried)
                case WaitUntil(moment):
                    tried.since = tried.since or facts.now
                    pause = LOOKS.pause(age=facts.now - tried.since, draw=random.random())
                    await self._wait(min(pause, moment - facts.now))
                case GiveUp(lost):
                    raise _given_up(lost, context.policy.on_lost_response)
        return found

    async def _buy(self, key: PromptKey, number: int, tried: _Tried) -> None:
        """Submit one text, unless another process is quicker, and wait for what comes of it."""
        await self._wait_for_turn()
        try:
            intent = await self._begin(key, number)
            if intent is None:
                await self._wait(LOOKS.interval)  # a listing may be behind
                return
            attempt = await self._submit(key, PromptAttempt(number, intent), tried)
        finally:
            self._limiter.started -= 1
        if attempt.prediction_id:  # from here on it is in flight, without a moment between
            await self._collect(key, attempt)

    async def _begin(self, key: PromptKey, number: int) -> PromptIntent | None:
        """Write an intent, and return it if this process is the one that did."""
        now = self._context.clock.time()
        intent = PromptIntent(
            time=datetime.fromtimestamp(now, UTC),
            owner=self._context.journal.owner,
            text=key.text,
            style=key.style,
            host=key.host,
            until=now + LEASE,
            estimated_cost_usd=self._price,
        )
        begun = await self._context.record_patiently(
            lambda: asyncio.to_thread(self.records.begin, number, intent)
        )
        return intent if begun else None

    async def _submit(self, key: PromptKey, attempt: PromptAttempt, tried: _Tried) -> PromptAttempt:
        """Send one POST, and write down what became of it, where that is certain.

        :raises BitDanceError: Nothing was created, and this process does not send it again.
        """
        context = self._context
        if why := await self._why_not_sent(attempt.intent):
            return await self._end(key, attempt, reason=why)
        response = await self._post(key)
        match self._follows(response, tried), response:
            case Record(), Prediction(id=prediction_id):
                self._moved_at = context.clock.time()
                return await self._end(key, attempt, prediction_id=prediction_id)
            case Resolve(), BitDanceError() as lost:
                context.log.warning(
                    "%s. An enhanced prompt is possibly paid, %s", lost.what, usd(self._price)
                )
            case SendAgain(pause), BitDanceError() as refusal:
                attempt = await self._end(key, attempt, reason=refusal.what)
                if tried.not_sent:  # a 429 makes all wait for their turn
                    context.notices.not_sent(refusal.what, wait=pause)
                    await self._wait(pause)
            case _, BitDanceError() as refusal:
                await self._end(key, attempt, reason=refusal.what)
                raise refusal
        return attempt

    def _follows(
        self, response: Prediction | BitDanceError, tried: _Tried
    ) -> Record | Resolve | SendAgain | Postpone | Fail:
        """Return what follows a submission, and count what was or may have been charged."""
        error, now = response if isinstance(response, BitDanceError) else None, self._context.clock.time()
        tried.not_sent = tried.not_sent + 1 if isinstance(error, NotSentError) else 0
        command = decide_submission(
            SubmissionFacts(
                outcome=submission_outcome(error),
                break_even=math.inf,
                now=now,
                deadline=self._moved_at + self._context.policy.timeout,
                not_sent=tried.not_sent,
                blocked=self._limiter.blocked(now=now),
            )
        )
        if isinstance(command, Record | Resolve):
            self.budget_left -= self._price
            tried.bought += 1
        return command

    async def _why_not_sent(self, intent: PromptIntent) -> str:
        """Take the turn for a POST; or say why it is not sent under this intent."""
        try:
            # A paused process may wake up after another has taken over: check before spending.
            await asyncio.to_thread(self._context.journal.check_unchanged)
        except RecordError as error:
            self.stop(error)
            return error.what
        now = self._context.clock.time()
        if self._context.coordination.killed.is_set() or self.stopped is not None:
            return "stopped"
        if now - intent.time.timestamp() > SENT_WITHIN:
            return "the process was suspended"
        return "the rate limit" if self._limiter.turn(now=now) else ""

    async def _post(self, key: PromptKey) -> Prediction | BitDanceError:
        """Send one POST, and return what came back."""
        context, limiter = self._context, self._limiter
        try:
            with noting_response(context, limiter, sent_at=context.clock.time()):
                prediction = await context.client.send(protocol.enhance(key.text, key.style))
                check_echo(prediction, requested=key.text, style=key.style)
                take(context, prediction)
        except BitDanceError as error:
            if isinstance(error, RateLimitError):
                now = context.clock.time()
                context.notices.refused(error.what, now=now, wait=limiter.blocked(now=now))
            return error
        finally:
            context.coordination.submitted.append(context.clock.time())
        return prediction

    async def _end(
        self,
        key: PromptKey,
        attempt: PromptAttempt,
        *,
        prediction_id: str | None = None,
        reason: str | None = None,
    ) -> PromptAttempt:
        """Write down what became of an intent: unwritten, it stays possibly paid."""
        time = datetime.fromtimestamp(self._context.clock.time(), UTC)
        outcome = PromptOutcome(time=time, prediction_id=prediction_id, reason=reason)
        await self._context.record_patiently(
            lambda: asyncio.to_thread(self.records.end, key, attempt.number, outcome)
        )
        return PromptAttempt(attempt.number, attempt.intent, outcome)

    async def _wait_for_turn(self) -> None:
        """Wait until rate limit and budget admit one more purchase, and begin it."""
        async with self._turns:  # of hundreds that wait, one asks
            self._check_going_on()
            while (wait := self._until_begun()) > 0:
                await self._wait(min(wait, ASK_AGAIN))
            begun = self._limiter.started * self._price
            if self._price > self.budget_left - begun:
                raise BudgetError(
                    f"Another enhanced prompt costs {usd(self._price)}, but max_cost_usd leaves "
                    f"{usd(max(self.budget_left - begun, 0.0))} besides the images",
                    fix="Raise max_cost_usd, or request fewer images",
                )
            self._limiter.started += 1

    def _until_begun(self) -> float:
        """Return the seconds until one more purchase may begin: its intent comes right before its POST."""
        wait = self._limiter.wait(now=self._context.clock.time())
        return wait or (SHORT_WAIT if self._limiter.started >= self._limiter.at_once else 0.0)

    async def _collect(self, key: PromptKey, attempt: PromptAttempt) -> bool:
        """Wait for the text of a prediction and write it down; say whether there is one.

        :raises PredictionError: There is none, and this try does not buy it again.
        :raises GarbledResponseError: The response shows another text's prediction; a retry polls it again.
        """
        context, ours = self._context, self._context.journal.owner
        self._limiter.in_flight += 1
        try:
            prediction = await self._ended(attempt)
        finally:
            self._limiter.in_flight -= 1
        if not prediction.is_completed:
            return self._raise_unless_bought_again(key, attempt, prediction)
        check_echo(prediction, requested=key.text, style=key.style)
        text = check_enhanced(enhanced_in(prediction.outputs), requested=key.text, longest=MAX_PROMPT)
        await asyncio.to_thread(
            self.records.write,
            key,
            text,
            prediction_id=prediction.id,
            owner=ours,
            now=context.clock.time(),
        )
        return True

    def _raise_unless_bought_again(
        self, key: PromptKey, attempt: PromptAttempt, prediction: Prediction
    ) -> Literal[False]:
        """Say that a prediction gave no text, where this try may buy it again.

        :raises PredictionError: It may not: what this very try bought failed, or the prompt was refused.
        """
        error, ours = failure_of(prediction, prompt=key.text), self._context.journal.owner
        buyer = attempt.intent.owner
        is_retried = self._context.policy.retry_failed or buyer.job != ours.job
        if isinstance(error, PredictionFailedError | PredictionGoneError):
            if is_retried and not buyer.is_of_same_try(ours):
                return False
            error = error.with_verdict(retry=is_retried, retry_in_words=BUYS_AGAIN if is_retried else None)
        raise error

    async def _ended(self, attempt: PromptAttempt) -> Prediction:
        """Poll a prediction until it has ended.

        :raises PredictionTimeoutError: It has not in time; a retry polls it again.
        """
        assert attempt.outcome is not None
        timeout, prediction_id = self._context.policy.timeout, attempt.prediction_id
        ending = self._poller.add(self._subscription, prediction_id, attempt.outcome.time.timestamp())
        over = asyncio.ensure_future(self._context.clock.wait_for(self._stop, timeout))
        waiters: set[asyncio.Future[Any]] = {ending, over}
        try:
            await asyncio.wait(waiters, return_when=asyncio.FIRST_COMPLETED)
        finally:
            over.cancel()
        if not ending.done():
            self._check_going_on()
            outage = f"; the last poll failed: {self._poller.outage.what}" if self._poller.outage else ""
            raise PredictionTimeoutError(
                f"No enhanced prompt within {timeout:.0f} s: prediction {prediction_id}{outage}"
            )
        prediction = ending.result()
        assert prediction is not None
        return prediction

    async def _stop_when_killed(self) -> None:
        await self._context.coordination.killed.wait()
        self.stop(TaskKilledError("Airflow stopped the task, so nothing more is bought"))

    async def _wait(self, seconds: float) -> None:
        await self._context.clock.wait_for(self._stop, max(seconds, 0.0))
        self._check_going_on()

    def _check_going_on(self) -> None:
        if self.stopped is not None:
            raise self.stopped


def _given_up(lost: int, on_lost_response: str) -> BitDanceError:
    if on_lost_response == "fail":
        return UnconfirmedPurchaseError(
            "The Prompt Enhancer's response to a purchase of this prompt was lost",
            fix='Clear the task to buy the prompt again, or set on_lost_response="buy_again"',
        )
    return LostResponseError(
        f"The Prompt Enhancer's responses to {lost} purchases of one prompt were lost",
        fix="A retry buys it again",
    )
