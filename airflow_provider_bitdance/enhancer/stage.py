"""The stage: has the prompts of a task enhanced, each text once, before its images are planned.

The one thing to know: an intent is written before each submission, its outcome after it, and the text when it
is there. So a retry, a clear, another image or another run finds what was bought. A lost response is possibly
paid; the account's history is not searched for it, for a text costs a tenth of a cent.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from datetime import UTC, datetime

from airflow_provider_bitdance.engine import JobContext, Policy, Wanted, estimate
from airflow_provider_bitdance.engine.budget import ROUNDING, usd
from airflow_provider_bitdance.engine.failures import ABOUT_ONE_IMAGE
from airflow_provider_bitdance.engine.rate_limiter import RateLimiter
from airflow_provider_bitdance.enhancer.checks import check_enhanced
from airflow_provider_bitdance.enhancer.decisions import Buy, GiveUp, Poll, TextFacts, WaitUntil, decide
from airflow_provider_bitdance.exceptions import (
    BitDanceError,
    BudgetError,
    ItemsFailedError,
    LostResponseError,
    NotFoundError,
    Paid,
    PredictionFailedError,
    PredictionGoneError,
    PredictionTimeoutError,
    RateLimitError,
    TaskKilledError,
    UnconfirmedPurchaseError,
)
from airflow_provider_bitdance.polling.policy import PollPolicy
from airflow_provider_bitdance.records.enhanced_prompts import (
    EnhancedPrompts,
    PromptAttempt,
    PromptIntent,
    PromptKey,
    PromptOutcome,
)
from airflow_provider_bitdance.records.events import Enhancement
from airflow_provider_bitdance.redaction import shorten
from airflow_provider_bitdance.storage import Folder
from airflow_provider_bitdance.wavespeed import protocol
from airflow_provider_bitdance.wavespeed.models import ENHANCER_PRICE_USD, PROMPT_OPTIMIZER
from airflow_provider_bitdance.wavespeed.responses import Prediction
from airflow_provider_bitdance.wavespeed.submission_outcome import SubmissionOutcome, submission_outcome

READS_AT_ONCE = 16
LEASE = 180.0
"""Seconds for which others wait for a process that buys a text: a request may take 60, a text some 10."""
LONGEST_TEXT_WAIT = 120.0
"""Seconds to wait for a text that is bought; after that the next try waits for the same one."""
LOOK_AGAIN, ASK_AGAIN = 2.0, 0.2
"""Seconds after which the records are read again for what another process buys, and the limiter is asked."""
FEW = 8
"""So many texts are logged one by one; of more only the totals."""


async def enhance_prompts(context: JobContext, wanted: list[Wanted]) -> list[Wanted]:
    """Return what is wanted with the prompts that are sent, bought where they are not there yet.

    :raises BudgetError: Prompts and images together would cost more than ``max_cost_usd``.
    :raises BitDanceError: A prompt could not be enhanced; nothing but prompts was bought.
    """
    host = context.client.settings.host
    keys = {item.key: PromptKey(item.request.prompt, item.style, host) for item in wanted if item.style}
    if not keys:
        return wanted
    longest = min(item.model.longest_prompt for item in wanted)
    stage = _Stage(context, longest)
    texts = list(dict.fromkeys(keys.values()))
    await stage.run(texts, wanted)
    first_of = {key: name for name, key in reversed(keys.items())}
    return [
        _with_text(item, stage.done[key], is_first=first_of[key] == item.key)
        if (key := keys.get(item.key))
        else item
        for item in wanted
    ]


async def missing_prompts(records: Folder, wanted: list[Wanted], host: str) -> int:
    """Return how many texts would be bought for these images.

    :param records: The records path.
    """
    keys = {PromptKey(item.request.prompt, item.style, host) for item in wanted if item.style}
    find = EnhancedPrompts(records).find
    found = await asyncio.gather(*(asyncio.to_thread(find, key) for key in keys))
    return sum(record is None for record in found)


def price_of(policy: Policy) -> float:
    """Return the price of one enhanced prompt in US dollars."""
    return policy.prices.get(PROMPT_OPTIMIZER, ENHANCER_PRICE_USD)


def _with_text(item: Wanted, done: tuple[str, Enhancement], *, is_first: bool) -> Wanted:
    """Send what the enhancer made. Of several images of one text, the first bears what it cost."""
    text, enhancement = done
    if not is_first:
        enhancement = enhancement.model_copy(update={"cost_usd": 0.0, "possibly_paid": 0})
    request = item.request.model_copy(update={"prompt": text})
    return replace(item, request=request, asked=item.request, enhancement=enhancement)


class _Stage:
    """Enhances the texts of one job.

    :ivar done: By text, what the enhancer made of it.
    """

    def __init__(self, context: JobContext, longest: int) -> None:
        self.done: dict[PromptKey, tuple[str, Enhancement]] = {}
        self._context = context
        self._longest = longest
        self._records = EnhancedPrompts(context.records)
        self._price = price_of(context.policy)
        self._left = float("inf")
        self._stopped: BitDanceError | None = None
        self._bought: dict[PromptKey, int] = {}
        self._turns = asyncio.Lock()
        self._gate = asyncio.Semaphore(READS_AT_ONCE)
        policy = context.policy
        self._limiter = RateLimiter(
            max_in_flight=policy.max_in_flight, requests_per_minute=policy.requests_per_minute
        )

    async def run(self, texts: list[PromptKey], wanted: list[Wanted]) -> None:
        """Enhance all texts, or raise one error that names what could not be."""
        found = await asyncio.gather(*(self._read(key) for key in texts))
        missing = [key for key, is_there in zip(texts, found, strict=True) if not is_there]
        if missing:
            await self._check_budget(missing, texts, wanted)
        results = await asyncio.gather(*(self._try(key) for key in missing))
        failures = {key: error for key, error in zip(missing, results, strict=True) if error is not None}
        if failures:
            raise self._failure(failures, len(texts))
        self._log(texts, len(missing))

    async def _read(self, key: PromptKey) -> bool:
        """Take a text that is there, and say whether it is."""
        async with self._gate:
            found = await asyncio.to_thread(self._records.find, key)
            if found is None:
                return False
            text = check_enhanced((found.enhanced,), longest=self._longest)
            # An earlier try may have bought it: there is no plan yet that says so.
            is_of_job = key in self._bought or self._context.journal.owner.try_number > 1
            cost, lost = await asyncio.to_thread(self._spent_here, key) if is_of_job else (0.0, 0)
        self.done[key] = (
            text,
            Enhancement(
                style=key.style, prediction_id=found.prediction_id, cost_usd=cost, possibly_paid=lost
            ),
        )
        return True

    def _spent_here(self, key: PromptKey) -> tuple[float, int]:
        """Return what this job spent on a text at most, and how many responses were lost. Blocks."""
        ours = [
            attempt
            for attempt in self._records.attempts(key)
            if attempt.intent.owner.job == self._context.journal.job
        ]
        return sum(attempt.cost_usd for attempt in ours), sum(attempt.is_lost for attempt in ours)

    async def _check_budget(
        self, missing: list[PromptKey], texts: list[PromptKey], wanted: list[Wanted]
    ) -> None:
        """Refuse before the first purchase what prompts and images together cost too much.

        :raises BudgetError: They do.
        """
        context, limit = self._context, self._context.policy.max_cost_usd
        if limit is None:
            return
        spent = [await asyncio.to_thread(self._spent_here, key) for key in missing]
        so_far = sum(cost for cost, _ in spent) + sum(done.cost_usd for _, done in self.done.values())
        images = await estimate(context.client, context.records, context.images, context.policy, wanted)
        self._left = limit - so_far - images.cost_usd + ROUNDING
        cost = len(missing) * self._price
        if cost > self._left:
            raise BudgetError(
                f"{len(missing)} of {len(texts)} prompts would be enhanced for {usd(cost)}, and "
                f"{images.buy} images bought for {usd(images.cost_usd)}; {usd(so_far)} is spent",
                allowed=f"max_cost_usd, which is {usd(limit)}",
                fix="Raise max_cost_usd, or make fewer images",
            )

    async def _try(self, key: PromptKey) -> BitDanceError | None:
        try:
            await self._enhance(key)
        except BitDanceError as error:
            if not isinstance(error, ABOUT_ONE_IMAGE):
                self._stopped = self._stopped or error
            return error
        return None

    async def _enhance(self, key: PromptKey) -> None:
        """Buy one text, or take it from whoever has bought it."""
        context, ended = self._context, set[str]()
        while not await self._read(key):
            attempts = await asyncio.to_thread(self._records.attempts, key)
            facts = TextFacts(
                attempts=attempts,
                ended=ended,
                owner=context.journal.owner,
                bought=self._bought.get(key, 0),
                buys_again=context.policy.on_lost_response == "buy_again",
                now=context.clock.time(),
            )
            match decide(facts):
                case Poll(attempt):
                    if not await self._collect(key, attempt):
                        ended.add(attempt.prediction_id)
                case Buy(number):
                    await self._buy(key, number)
                case WaitUntil(moment):
                    await self._wait(min(LOOK_AGAIN, moment - context.clock.time()))
                case GiveUp(lost):
                    raise _given_up(lost, context.policy.on_lost_response)

    async def _buy(self, key: PromptKey, number: int) -> None:
        """Submit one text, unless another process is quicker."""
        context = self._context
        await self._wait_for_turn()
        now = context.clock.time()
        intent = PromptIntent(
            time=datetime.fromtimestamp(now, UTC),
            owner=context.journal.owner,
            until=now + LEASE,
            estimated_cost_usd=self._price,
        )
        try:
            if await asyncio.to_thread(self._records.begin, key, number, intent):
                self._left -= self._price
                self._bought[key] = self._bought.get(key, 0) + 1
                await self._submit(key, number)
        finally:
            self._limiter.started -= 1

    async def _submit(self, key: PromptKey, number: int) -> None:
        """Send one POST until it is certain what became of it, and write that down."""
        context = self._context
        call = protocol.enhance(key.text, key.style)
        while True:
            sent_at = context.clock.time()
            try:
                prediction = await context.client.send(call)
            except RateLimitError as error:
                now = context.clock.time()
                self._limiter.refused(
                    sent_at=sent_at, now=now, requested=error.retry_after, draw=random.random()
                )
                context.notices.refused(error.what, now=now, wait=self._limiter.blocked(now=now))
                await self._wait_until_turn(key, number, error)
            except BitDanceError as error:
                self._limiter.lost(now=context.clock.time())
                if submission_outcome(error) is SubmissionOutcome.UNKNOWN:
                    context.log.warning(
                        "A prompt is possibly paid for: %s. It is bought again once", error.what
                    )
                    return
                await self._end(key, number, PromptOutcome(time=self._now, reason=error.what))
                raise
            else:
                self._limiter.accepted(now=context.clock.time())
                await self._end(key, number, PromptOutcome(time=self._now, prediction_id=prediction.id))
                return

    async def _wait_until_turn(self, key: PromptKey, number: int, refusal: BitDanceError) -> None:
        """Wait for the turn of a submission that a rate limit refused."""
        try:
            await self._wait_for_pace()
        except BitDanceError:
            await self._end(key, number, PromptOutcome(time=self._now, reason=refusal.what))
            raise

    async def _end(self, key: PromptKey, number: int, outcome: PromptOutcome) -> None:
        await asyncio.to_thread(self._records.end, key, number, outcome)

    @property
    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._context.clock.time(), UTC)

    async def _wait_for_turn(self) -> None:
        """Wait until the account's pace admits one more purchase, and begin it."""
        context = self._context
        async with self._turns:  # of hundreds that wait, one asks
            self._check_going_on()
            while (wait := self._limiter.wait(now=context.clock.time())) > 0:
                await self._wait(min(wait, ASK_AGAIN))
            if self._price > self._left:
                raise BudgetError(
                    "Another prompt is not bought: max_cost_usd is used up",
                    fix="Raise max_cost_usd, or make fewer images",
                )
            await self._wait_for_pace()
            self._limiter.started += 1

    async def _wait_for_pace(self) -> None:
        self._check_going_on()
        while wait := self._limiter.turn(now=self._context.clock.time()):
            await self._wait(wait)

    async def _wait(self, seconds: float) -> None:
        context = self._context
        await context.clock.wait_for(context.coordination.killed, max(seconds, 0.0))
        self._check_going_on()

    def _check_going_on(self) -> None:
        if self._context.coordination.killed.is_set():
            raise TaskKilledError("Airflow stopped the task, so nothing more is bought")
        if self._stopped is not None:
            raise self._stopped

    async def _collect(self, key: PromptKey, attempt: PromptAttempt) -> bool:
        """Wait for the text of a prediction and write it down; say whether there is one.

        :raises PredictionError: There is none, and this process does not buy it again.
        """
        context = self._context
        self._limiter.in_flight += 1
        try:
            prediction = await self._ended(attempt.prediction_id)
        finally:
            self._limiter.in_flight -= 1
        if prediction is None:
            return False
        if not prediction.is_completed:
            error = protocol.failure_of(prediction, prompt=key.text)
            # WaveSpeed refunds what has failed; a next try buys it again.
            is_over = isinstance(error, PredictionFailedError | PredictionGoneError)
            if is_over and attempt.intent.owner.token != context.journal.owner.token:
                return False
            raise error
        text = check_enhanced(prediction.outputs, longest=self._longest)
        await asyncio.to_thread(
            self._records.write,
            key,
            text,
            prediction_id=prediction.id,
            owner=context.journal.owner,
            now=context.clock.time(),
        )
        return True

    async def _ended(self, prediction_id: str) -> Prediction | None:
        """Poll a prediction until it has ended; nothing where the API does not know it any more."""
        context, policy = self._context, PollPolicy(interval=self._context.policy.poll.interval)
        begun = context.clock.time()
        failure: BitDanceError | None = None
        while (age := context.clock.time() - begun) < LONGEST_TEXT_WAIT:
            await self._wait(policy.pause(age=age, draw=random.random()))
            try:
                prediction = await context.client.get_prediction(prediction_id)
            except NotFoundError:
                if age > policy.longest:
                    return None
            except BitDanceError as error:
                failure = error
            else:
                if prediction.is_terminal:
                    return prediction
        why = f"; the last poll failed: {failure.what}" if failure else ""
        raise PredictionTimeoutError(
            f"The enhanced prompt was not there in {LONGEST_TEXT_WAIT:.0f} s: prediction {prediction_id}{why}"
        )

    def _failure(self, failures: dict[PromptKey, BitDanceError], texts: int) -> BitDanceError:
        """Return one error for all texts that could not be enhanced, which says what was charged."""
        error = self._stopped or self._one_error(failures, texts)
        if not self._bought:
            return error
        cost = usd(sum(self._bought.values()) * self._price)
        words = f"Up to {cost} was charged for prompts, and nothing for images"
        return error.with_verdict(paid=Paid.YES, paid_in_words=words)

    def _one_error(self, failures: dict[PromptKey, BitDanceError], texts: int) -> BitDanceError:
        if texts == 1:
            return next(iter(failures.values()))
        shown = "; ".join(f"{shorten(key.text)!r}: {error.what}" for key, error in list(failures.items())[:5])
        failed = ItemsFailedError(
            f"{len(failures)} of {texts} prompts could not be enhanced, so no image is bought: "
            f"{shorten(shown, 1000)}",
            fix="Change these prompts, or set enhance_prompt=None",
        )
        helps = any(error.retry_helps for error in failures.values())
        return failed if helps else failed.with_verdict(retry=False)

    def _log(self, texts: list[PromptKey], bought: int) -> None:
        context = self._context
        if len(texts) <= FEW:
            for key in texts:
                text = self.done[key][0]
                context.log.info(
                    "Prompt enhanced (%s): %r is sent as %r", key.style, shorten(key.text), shorten(text)
                )
        else:
            context.log.info(
                "%d prompts are enhanced, %d of them now, for about %s",
                len(texts),
                bought,
                usd(bought * self._price),
            )


def _given_up(lost: int, on_lost_response: str) -> BitDanceError:
    what = f"The Prompt Enhancer's response was lost {lost} times for one prompt; each is possibly paid"
    if on_lost_response == "fail":
        return UnconfirmedPurchaseError(what, fix='Set on_lost_response="buy_again", or enhance_prompt=None')
    return LostResponseError(what, fix="A retry buys it once more")
