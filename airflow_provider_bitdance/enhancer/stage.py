"""The stage: has the prompts of a task enhanced before its images are planned; the plan holds the final ones.

Prompts and images are checked against the budget together, before the first prompt is bought. What goes wrong
with one text is raised when all have ended, in one error that says what was charged.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from airflow_provider_bitdance.batch.limits import MAX_BATCH
from airflow_provider_bitdance.engine import Estimate, JobContext, Policy, Wanted, estimate
from airflow_provider_bitdance.engine.budget import ROUNDING, check_balance, usd
from airflow_provider_bitdance.engine.failures import ABOUT_ONE_IMAGE
from airflow_provider_bitdance.enhancer.decisions import spent_by
from airflow_provider_bitdance.enhancer.purchase import Enhancer
from airflow_provider_bitdance.exceptions import (
    BitDanceError,
    BudgetError,
    InputError,
    ItemsFailedError,
    Paid,
)
from airflow_provider_bitdance.records.enhanced_prompts import EnhancedPrompt, EnhancedPrompts, PromptKey
from airflow_provider_bitdance.records.events import Enhancement
from airflow_provider_bitdance.redaction import shorten
from airflow_provider_bitdance.storage import Folder
from airflow_provider_bitdance.wavespeed.models import ENHANCER_PRICE_USD, PROMPT_OPTIMIZER
from airflow_provider_bitdance.wavespeed.prompt_enhancer import check_enhanced

FEW = 5
"""So many texts are logged one by one; of more only the totals."""
SHOWN = 5
"""So many texts of a batch that could not be enhanced are named in its error."""


async def enhance_prompts(context: JobContext, wanted: list[Wanted]) -> list[Wanted]:
    """Return what is wanted with the prompts that are sent, bought where they are not there yet.

    :param wanted: What is planned next: the job has no plan.
    :raises BudgetError: Prompts and images together would cost more than the task may, or can, spend.
    :raises BitDanceError: A prompt could not be enhanced; nothing but prompts was bought.
    """
    host = context.client.settings.host
    keys = [PromptKey(item.request.prompt, item.style, host) if item.style else None for item in wanted]
    texts = list(dict.fromkeys(key for key in keys if key is not None))
    if not texts:
        return wanted
    stage = _Stage(context, wanted, texts)
    try:
        await stage.run()
    except BitDanceError as error:
        raise await stage.with_charges(error) from error.__cause__
    counted: set[PromptKey] = set()
    enhanced = []
    for item, key in zip(wanted, keys, strict=True):
        enhanced.append(stage.with_text(item, key, is_counted=key in counted) if key else item)
        counted |= {key} if key else set()
    _check_size(enhanced)
    return enhanced


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


@dataclass(frozen=True, slots=True)
class _Spent:
    """What this job has spent on a text, US dollars: as :func:`spent_by` has it."""

    usd: float = 0.0
    possibly_paid: int = 0
    possibly_usd: float = 0.0


class _Stage:
    """Enhances the texts of one job."""

    def __init__(self, context: JobContext, wanted: list[Wanted], texts: list[PromptKey]) -> None:
        self._context = context
        self._wanted = wanted
        self._texts = texts
        self._longest = min(item.model.longest_prompt for item in wanted)
        self._price = price_of(context.policy)
        self._enhancer = Enhancer(context, price_usd=self._price)
        self._found: dict[PromptKey, EnhancedPrompt] = {}
        self._spent: dict[PromptKey, _Spent] = {}

    async def run(self) -> None:
        """Have all texts enhanced, or raise one error that names what could not be."""
        async with self._enhancer:
            read, records = self._enhancer.read, self._enhancer.records
            found = await asyncio.gather(*(read(records.find, key) for key in self._texts))
            self._found = {key: text for key, text in zip(self._texts, found, strict=True) if text}
            missing = [key for key in self._texts if key not in self._found]
            if missing:
                await self._check_budget(missing)
            errors = await asyncio.gather(*(self._try(key) for key in self._texts))
        if self._enhancer.stopped is not None:
            raise self._enhancer.stopped
        failures = {key: error for key, error in zip(self._texts, errors, strict=True) if error is not None}
        if failures:
            raise self._one_error(failures)
        await self._read_what_was_spent()
        self._log(len(missing))

    def with_text(self, item: Wanted, key: PromptKey, *, is_counted: bool) -> Wanted:
        """Return an image with the prompt that the enhancer made.

        :param is_counted: What the text cost is counted with another image.
        """
        found, spent = self._found[key], _Spent() if is_counted else self._spent[key]
        enhancement = Enhancement(
            style=key.style,
            prediction_id=found.prediction_id,
            estimated_cost_usd=spent.usd,
            possibly_paid=spent.possibly_paid,
            possibly_paid_usd=spent.possibly_usd,
        )
        request = item.request.model_copy(update={"prompt": found.enhanced})
        return replace(item, request=request, asked=item.request, enhancement=enhancement)

    async def with_charges(self, error: BitDanceError) -> BitDanceError:
        """Say in an error what this job has spent, on prompts: there are no images yet."""
        try:
            await self._read_what_was_spent()
        except BitDanceError:  # what went wrong before matters more
            return error.with_verdict(
                paid=Paid.POSSIBLY, paid_in_words="Prompts may have been charged, but no images"
            )
        certain = round(sum(spent.usd for spent in self._spent.values()), 6)
        possibly = round(sum(spent.possibly_usd for spent in self._spent.values()), 6)
        if not certain + possibly:
            return error.with_verdict(paid=Paid.NO, paid_in_words="Nothing was charged")
        parts = [f"about {usd(certain)} was charged for prompts"] if certain else []
        parts += [f"up to {usd(possibly)} may have been charged for prompts"] if possibly else []
        words = f"So far, {' and '.join(parts)}, but nothing for images"
        return error.with_verdict(paid=Paid.YES if certain else Paid.POSSIBLY, paid_in_words=words)

    async def _check_budget(self, missing: list[PromptKey]) -> None:
        """Refuse before the first purchase what prompts and images together cost too much.

        :raises BudgetError: They do.
        """
        context, limit = self._context, self._context.policy.max_cost_usd
        if limit is None and not context.policy.check_balance:
            return
        await self._read_what_was_spent()
        so_far = sum(spent.usd + spent.possibly_usd for spent in self._spent.values())
        images = await estimate(context.client, context.records, context.images, context.policy, self._wanted)
        cost = len(missing) * self._price
        what = self._in_words(len(missing), images)
        if limit is not None:
            self._enhancer.budget_left = limit - so_far - images.cost_usd + ROUNDING
            if cost > self._enhancer.budget_left:
                spent = f"; {usd(so_far)} was already spent" if so_far else ""
                raise BudgetError(
                    f"{what}, but max_cost_usd is {usd(limit)}{spent}",
                    fix="Raise max_cost_usd, or request fewer images",
                )
        await check_balance(context, cost + images.cost_usd, what)

    def _in_words(self, missing: int, images: Estimate) -> str:
        prompts = f"{missing} prompt{'' if missing == 1 else 's'} to enhance"
        bought = f"{images.buy} image{'' if images.buy == 1 else 's'} to buy"
        return f"{prompts} and {bought} cost about {usd(missing * self._price + images.cost_usd)}"

    async def _try(self, key: PromptKey) -> BitDanceError | None:
        """Enhance one text, and return why it could not be. What is under way for others goes on: to drop it
        would lose its response."""
        try:
            found = self._found.get(key) or await self._enhancer.enhance(key)
            check_enhanced(found.enhanced, requested=key.text, longest=self._longest)
        except BitDanceError as error:
            if not isinstance(error, ABOUT_ONE_IMAGE):
                self._enhancer.stop(error)
            return error
        except Exception as error:
            self._enhancer.stop(error)
            return None
        self._found[key] = found
        return None

    def _one_error(self, failures: dict[PromptKey, BitDanceError]) -> BitDanceError:
        if len(self._texts) == 1:
            return next(iter(failures.values()))
        reasons = (f"{shorten(key.text)!r}: {error.what}" for key, error in list(failures.items())[:SHOWN])
        more = f"; and {len(failures) - SHOWN} more" if len(failures) > SHOWN else ""
        failed = ItemsFailedError(
            f"{len(failures)} of {len(self._texts)} prompts could not be enhanced, so no image is bought: "
            f"{shorten('; '.join(reasons), 1000)}{more}",
            fix="Change these prompts, or set enhance_prompt=None",
        )
        helps = any(error.retry_helps for error in failures.values())
        return failed if helps else failed.with_verdict(retry=False)

    async def _read_what_was_spent(self) -> None:
        """Read what this job has spent on each text, in earlier tries, too: there is no plan that says so."""
        spent = await asyncio.gather(*(self._enhancer.read(self._spent_on, key) for key in self._texts))
        self._spent = dict(zip(self._texts, spent, strict=True))

    def _spent_on(self, key: PromptKey) -> _Spent:
        """Return what this job has spent on one text. Blocks."""
        found, owner = self._found.get(key), self._context.journal.owner
        if found and owner.try_number == 1 and not self._enhancer.has_bought(key):
            return _Spent()
        used = found.prediction_id if found else ""
        attempts = self._enhancer.records.attempts(key)
        return _Spent(*spent_by(owner.job, attempts, text_of=used, price_usd=self._price))

    def _log(self, bought: int) -> None:
        log, cost = self._context.log, usd(bought * self._price)
        if len(self._texts) > FEW:
            log.info("%d prompts enhanced, %d of them in this try, about %s", len(self._texts), bought, cost)
            return
        for key in self._texts:
            sent = shorten(self._found[key].enhanced)
            log.info("Prompt enhanced (%s): %r is sent as %r", key.style, shorten(key.text), sent)


def _check_size(wanted: list[Wanted]) -> None:
    """Refuse what would make a plan that no process reads again.

    :raises InputError: It would.
    """
    texts = (
        text for item in wanted for text in (item.request.prompt, item.asked and item.asked.prompt) if text
    )
    size = sum(len(text.encode()) for text in texts)
    if size > MAX_BATCH:
        raise InputError(
            f"The prompts and their enhanced versions have {size} bytes",
            allowed=f"{MAX_BATCH} for one task",
            fix="Split the items; the enhanced prompts are recorded and not bought again",
        )
