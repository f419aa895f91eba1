"""Spends at most what was allowed, and sees what became of it: history, outputs, bill, balance, deletion.

All purchases have to fit into the amount and the balance before the first one is made. The first one is made
alone; where it fails, or is charged with more than was quoted, no other follows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from airflow_provider_bitdance.check.account import HOUR, SIZES, Figures, NewClient, requests
from airflow_provider_bitdance.check.history import Watch, stop
from airflow_provider_bitdance.check.observations import Answer, Purchase, Refusal, Spending
from airflow_provider_bitdance.check.purchases import Bought, PurchaseRecorder, Shop, new_run_id
from airflow_provider_bitdance.check.requests import Recorder, ask, known_status
from airflow_provider_bitdance.clock import Clock
from airflow_provider_bitdance.engine import JobContext
from airflow_provider_bitdance.storage import Folder
from airflow_provider_bitdance.wavespeed import protocol
from airflow_provider_bitdance.wavespeed.client import AsyncClient, ClientSettings
from airflow_provider_bitdance.wavespeed.image_request import ImageRequest
from airflow_provider_bitdance.wavespeed.responses import BillingRecord

BILL_PAUSES = (0.0, 2.0, 5.0, 10.0)
"""Seconds before each reading of the bill, which may be behind."""
ROUNDING = 1e-9


def refusal_of(figures: Figures, amount: float) -> Refusal | None:
    """Say why nothing may be bought, or ``None`` where all may. Pure."""
    if figures.balance is None:
        return Refusal.NO_BALANCE
    if any(size not in figures.quotes for size in SIZES):
        return Refusal.NO_PRICE
    cost = worst_cost(figures)
    if cost > amount + ROUNDING:
        return Refusal.ABOVE_AMOUNT
    return Refusal.ABOVE_BALANCE if cost > figures.balance + ROUNDING else None


def worst_cost(figures: Figures) -> float:
    """Return what all purchases cost at most. Those of one job count with their highest price."""
    first, *others = SIZES
    return figures.highest(first) + len(others) * max(map(figures.highest, others))


@dataclass(frozen=True, slots=True)
class Spender:
    """Buys for a check, and looks at what it bought.

    :param output: URI of the output folder, which ``images`` is.
    :param amount: US dollars that may be spent at most.
    :param skew: Seconds by which the API's clock is ahead.
    """

    settings: ClientSettings
    new_client: NewClient
    secrets: set[str]
    records: Folder
    images: Folder
    output: str
    amount: float
    figures: Figures
    skew: float
    clock: Clock
    say: Callable[[str], object]

    async def spend(self) -> Spending:
        """Buy, watch, compare, and delete one of what was bought."""
        if (refusal := refusal_of(self.figures, self.amount)) is not None:
            self.say(f"Nothing is bought: {refusal}.")
            return Spending(refused=refusal)
        recorder, observer = PurchaseRecorder(self.secrets), Recorder(self.secrets)
        async with (
            self.new_client(self.settings, recorder) as buyer,
            self.new_client(self.settings, observer) as client,
        ):
            shop = Shop(
                client=buyer,
                recorder=recorder,
                records=self.records,
                images=self.images,
                output=self.output,
                run_id=new_run_id(self.clock.time()),
                clock=self.clock,
                say=self.say,
            )
            self._announce(shop)
            return await _Session(self, shop, client, observer).run()

    def _announce(self, shop: Shop) -> None:
        cost = worst_cost(self.figures)
        self.say(
            f"Buying {len(SIZES)} images for about ${cost:.4g}, recorded below {self.records.uri} as run "
            f"{shop.run_id}. If this is interrupted, reconcile --output {self.output} collects what is paid "
            "for."
        )


@dataclass(slots=True)
class _Session:
    """One check's purchases, from the first to the deletion."""

    spender: Spender
    shop: Shop
    client: AsyncClient
    observer: Recorder

    async def run(self) -> Spending:
        first, *others = requests()
        limit, figures = self.spender.amount, self.spender.figures
        bought, seen = await self._buy_first(first)
        limit -= figures.highest(first.size or "")
        refusal = await self._refuse_more(bought)
        if refusal is None:
            price = max(figures.highest(request.size or "") for request in others)
            context = await asyncio.to_thread(self.shop.open_job, "sizes", price_usd=price, limit_usd=limit)
            bought += await self.shop.buy(context, others)
        else:
            self.spender.say(f"Nothing more is bought: {refusal}.")
        for each in bought:
            if each.error is not None:
                self.spender.say(f"The image of {each.size} is not stored. {each.error}")
        seen = replace(seen, refused=refusal)
        seen = await self._with_bill(seen, bought)
        return await self._with_deletion(seen, bought)

    async def _buy_first(self, request: ImageRequest) -> tuple[list[Bought], Spending]:
        """Buy one image, and watch it from the moment of its response on."""
        price = self.spender.figures.highest(request.size or "")
        context = await asyncio.to_thread(self.shop.open_job, "first", price_usd=price, limit_usd=price)
        seen: list[Spending] = []
        watching = asyncio.create_task(self._watch(context, request.size or "", seen))
        bought = await self.shop.buy(context, [request])
        if self.shop.recorder.submitted.is_set():
            await watching
        else:
            await stop(watching)
        return bought, seen[0] if seen else Spending()

    async def _watch(self, context: JobContext, key: str, seen: list[Spending]) -> None:
        await self.shop.recorder.submitted.wait()
        watch = Watch(
            client=self.client,
            recorder=self.observer,
            clock=self.spender.clock,
            request=context.journal.state.images[key].plan.request,
            prediction_id=next(iter(self.shop.recorder.submissions)),
            sent_at=self.spender.clock.time(),
            skew=self.spender.skew,
        )
        await watch.run()
        seen.append(
            Spending(
                polling=watch.polling,
                listings=watch.listings,
                excludes_model=await watch.excludes_model(),
                excludes_date=await watch.excludes_date(),
            )
        )

    async def _refuse_more(self, bought: Sequence[Bought]) -> Refusal | None:
        """Say why no other image may be bought after the first one."""
        if not all(each.is_stored for each in bought):
            return Refusal.FIRST_FAILED
        _, rows = await self._read_bill()
        highest = self.spender.figures.highest(bought[0].size)
        is_more = _paid(rows, bought[0].prediction_id) > highest + ROUNDING
        return Refusal.CHARGED_MORE if is_more else None

    async def _read_bill(self) -> tuple[Answer, Sequence[BillingRecord]]:
        since = datetime.fromtimestamp(self.spender.clock.time() + self.spender.skew, UTC)
        call = protocol.search_billings(start_time=since - timedelta(seconds=HOUR))
        answer, page = await ask(self.client, self.observer, call, self.spender.clock)
        return answer, page.items if page else ()

    async def _with_bill(self, seen: Spending, bought: Sequence[Bought]) -> Spending:
        """Compare bill and balance with what was quoted."""
        ids = {each.prediction_id for each in bought} - {""}
        answer = Answer()
        rows: Sequence[BillingRecord] = ()
        for pause in BILL_PAUSES if ids else ():
            await self.spender.clock.sleep(pause)
            answer, rows = await self._read_bill()
            if not answer.is_good or ids <= {row.prediction_id for row in rows}:
                break
        purchases = [self._billed(each, rows) for each in bought]
        return replace(
            seen,
            purchases=tuple(purchases),
            bill=answer if ids else None,
            is_balance_right=await self._is_balance_right(bought),
        )

    def _billed(self, bought: Bought, rows: Sequence[BillingRecord]) -> Purchase:
        purchase = self.shop.purchase_of(bought)
        charges = [row for row in rows if bought.prediction_id and row.prediction_id == bought.prediction_id]
        if not charges:
            return purchase
        quoted = self.spender.figures.quotes[bought.size].charged
        is_right = abs(_paid(rows, bought.prediction_id) - quoted) < ROUNDING
        is_refunded = any(row.charged < 0 for row in charges)
        return replace(purchase, charges=len(charges), is_charged_as_quoted=None if is_refunded else is_right)

    async def _is_balance_right(self, bought: Sequence[Bought]) -> bool | None:
        """Say whether the balance fell by what was quoted; not where a purchase failed and may be
        refunded."""
        if not all(each.is_stored for each in bought):
            return None
        _, balance = await ask(self.client, self.observer, protocol.get_balance(), self.spender.clock)
        if balance is None or self.spender.figures.balance is None:
            return None
        quoted = sum(self.spender.figures.quotes[each.size].charged for each in bought)
        return abs(self.spender.figures.balance - balance.balance - quoted) < 1e-6

    async def _with_deletion(self, seen: Spending, bought: Sequence[Bought]) -> Spending:
        """Delete the last of the purchases, which is stored, and poll it once more."""
        ours = [
            each.prediction_id
            for each in bought
            if each.is_stored and each.prediction_id in self.shop.recorder.submissions
        ]
        if not ours:
            return seen
        clock = self.spender.clock
        deletion, count = await ask(self.client, self.observer, protocol.delete_predictions(ours[-1:]), clock)
        after, found = await ask(self.client, self.observer, protocol.get_prediction(ours[-1]), clock)
        return replace(
            seen,
            deletion=deletion,
            deleted=count.deleted_count if count else None,
            after_deletion=after,
            status_after_deletion=known_status(found.status) if found else "",
        )


def _paid(rows: Sequence[BillingRecord], prediction_id: str) -> float:
    """Return what the bill says that a prediction cost."""
    return sum(row.charged for row in rows if row.prediction_id == prediction_id)
