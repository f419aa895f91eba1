"""Budget: whether a purchase may be made. Counts every purchase of this job, possibly paid ones too."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from airflow_provider_bitdance.engine.context import JobContext
from airflow_provider_bitdance.engine.policy import Policy
from airflow_provider_bitdance.exceptions import (
    BudgetError,
    GarbledResponseError,
    NotFoundError,
    RequestRefusedError,
    UnconfirmedPurchaseError,
)
from airflow_provider_bitdance.records import ImageState, PlannedImage, Status
from airflow_provider_bitdance.records.state import at_least
from airflow_provider_bitdance.redaction import shorten
from airflow_provider_bitdance.wavespeed import protocol
from airflow_provider_bitdance.wavespeed.client import AsyncClient
from airflow_provider_bitdance.wavespeed.image_request import ImageRequest

MAX_QUOTES = 100
"""Requests for prices that a plan makes. The inputs of a batch may be others in each row."""
QUOTES_AT_ONCE = 8
LEAST_PRICE = 1e-6
"""In dollars. Records count whole millionths, so what costs less would count nothing."""

ROUNDING = 1e-9
"""Ten times a cent is not quite a dime in binary."""


def check_purchase(context: JobContext, image: ImageState) -> None:
    """Make sure that one more purchase of an image is wanted. Called before its intent is written.

    :raises BudgetError: It would cost more than ``max_cost_usd`` leaves.
    :raises UnconfirmedPurchaseError: It may be bought already, and the user wants to decide.
    """
    if context.policy.on_lost_response == "fail" and image.unconfirmed:
        raise UnconfirmedPurchaseError(
            f"The image may already have been bought, so it is not bought again: {image.reason}",
            fix=(
                "Check the predictions that the log names in your WaveSpeed account. "
                "Then clear the task to buy the image, or set "
                'on_lost_response="buy_again"'
            ),
        )
    state, limit = context.journal.state, context.policy.max_cost_usd
    if len(state.images) > context.most_images:
        raise BudgetError(
            f"This task's plan has {len(state.images)} images, but the task now requests "
            f"{context.most_images:.0f}",
            fix="Clear the task to make a new plan. Images that are already bought are stored first",
        )
    begun = (state.images[key] for key in context.coordination.starting)
    if not _is_wanted(context, image.plan.request):
        raise BudgetError(
            f"This task's plan has the model {shorten(image.plan.request.model)}, which the task no longer "
            f"requests",
            fix="Clear the task to make a new plan. Images that are already bought are stored first",
        )
    # An intent that is written is in what is spent.
    starting = sum(other.plan.estimated_cost_usd for other in begun if other.status is not Status.INTENDED)
    so_far, cost = state.spent_usd + starting, image.plan.estimated_cost_usd
    if limit is not None and so_far + cost > limit + ROUNDING:
        raise BudgetError(
            f"This task has spent, or may have spent, {usd(so_far)}; another image costs about "
            f"{usd(cost)}, but max_cost_usd is {usd(limit)}",
            fix="Raise max_cost_usd, or clear the task, which restarts the count",
        )


async def check_plan(context: JobContext, to_buy: list[PlannedImage], *, prompts_usd: float = 0.0) -> None:
    """Make sure that all that is to be bought may be, before the first purchase.

    :param prompts_usd: What this job has spent on prompts.
    :raises BudgetError: It costs more than ``max_cost_usd``, or than the account's balance.
    """
    cost = sum(image.estimated_cost_usd for image in to_buy)
    what = f"{len(to_buy)} image{'' if len(to_buy) == 1 else 's'} to buy cost about {usd(cost)}"
    limit = context.policy.max_cost_usd
    if limit is not None and to_buy and prompts_usd + cost > limit + ROUNDING:
        spent = f"; {usd(prompts_usd)} was already spent on prompts" if prompts_usd else ""
        raise BudgetError(
            f"{what}, but max_cost_usd is {usd(limit)}{spent}",
            fix="Raise max_cost_usd, or request fewer images",
        )
    if to_buy:
        await check_balance(context, cost, what)


async def check_balance(context: JobContext, cost: float, what: str) -> None:
    """Make sure that the account can pay for something, where the user wants that checked.

    :param what: It, with its cost, as the beginning of a sentence.
    :raises BudgetError: It cannot.
    """
    if context.policy.check_balance:
        balance = (await context.client.send(protocol.get_balance())).balance
        if cost > balance + ROUNDING:
            raise BudgetError(
                f"{what}, but the account's balance is {usd(balance)}", fix="Top up the WaveSpeed account"
            )


async def count_todays_prices(context: JobContext) -> None:
    """Count each image of a plan at today's price where that is higher than the plan's: prices rise, and
    whoever may write the records could plan at none. A model that the task does not request is not bought.
    """
    state = context.journal.state
    if state.has_purchases_left:
        planned = (image.plan.request for image in state.images.values())
        requests = [request for request in planned if _is_wanted(context, request)]
        context.journal.state = at_least(state, await prices(context.client, context.policy, requests))


def _is_wanted(context: JobContext, request: ImageRequest) -> bool:
    return context.models is None or request.model in context.models


async def prices(client: AsyncClient, policy: Policy, requests: Iterable[ImageRequest]) -> dict[str, float]:
    """Return the price of each kind of request: the known one, or the API's.

    :raises BudgetError: There is no price of a model, or none that ``max_cost_usd`` could limit.
    """
    kinds = {request.kind: request for request in requests}
    known = {kind: policy.price_of(request.model) for kind, request in kinds.items()}
    quotes = await _quotes(
        client, {kind: kinds[kind] for kind, price in known.items() if price is None or policy.live_price}
    )
    found = {kind: max(quotes.get(kind, 0.0), known[kind] or 0.0) for kind in kinds}
    for kind, price in found.items():
        if price < LEAST_PRICE and (known[kind] is None or policy.max_cost_usd is not None):
            raise BudgetError(
                f"The known price of an image of {shorten(kinds[kind].model)} is {usd(price)}, which would "
                f"leave spending unlimited",
                fix="Set the model's price in model_prices of the connection",
            )
    return found


async def _quotes(client: AsyncClient, kinds: Mapping[str, ImageRequest]) -> dict[str, float]:
    if len(kinds) > MAX_QUOTES:
        raise BudgetError(
            f"The API would have to quote {len(kinds)} prices, one for each combination of size and inputs",
            allowed=f"at most {MAX_QUOTES}",
            fix="Set the model's price in model_prices of the connection, without live_price",
        )
    gate = asyncio.Semaphore(QUOTES_AT_ONCE)

    async def quote(request: ImageRequest) -> float:
        async with gate:
            return await _quote(client, request)

    return dict(zip(kinds, await asyncio.gather(*map(quote, kinds.values())), strict=True))


async def _quote(client: AsyncClient, request: ImageRequest) -> float:
    try:
        return (await client.send(protocol.get_price(request))).charged
    except (RequestRefusedError, NotFoundError, GarbledResponseError) as error:
        raise BudgetError(
            f"The API quotes no price for {shorten(request.model)}: {error.what}",
            fix="Set the model's price in model_prices of the connection",
        ) from error


def usd(amount: float) -> str:
    """Write an amount with cents, and with as many digits more as it has."""
    return f"${amount:.2f}" if round(amount, 2) == round(amount, 6) else f"${amount:.6f}".rstrip("0")
