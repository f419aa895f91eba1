"""Settlement: which purchases of a job, given up as possibly paid, were certainly not made.

A purchase that a later listing still does not show, though it shows one that was made after it, was never
made. ``reconcile`` settles by the same rule what a job leaves open.
"""

from __future__ import annotations

from airflow_provider_bitdance.engine import lost_response_decisions as decisions
from airflow_provider_bitdance.engine.account_history import BILLING_MARGIN
from airflow_provider_bitdance.engine.context import JobContext
from airflow_provider_bitdance.engine.listing import CLOCKS_MAY_DIFFER, list_account
from airflow_provider_bitdance.engine.lost_response_decisions import ARRIVES_WITHIN, LossFacts, decide_losses
from airflow_provider_bitdance.records import NotCreated
from airflow_provider_bitdance.records.state import LostPurchase

NOT_SHOWN = "The account's history shows a later purchase, but not this one"


async def settle_losses(context: JobContext) -> None:
    """Write down which purchases of the job, recorded as lost, were certainly not made. Buys nothing.

    One listing, and none where it cannot tell yet. What it leaves open, ``reconcile`` settles later.

    :raises BitDanceError: History, bill or a record cannot be read or written now.
    """
    now, journal = context.clock.time(), context.journal
    losses = [
        (image.plan.key, number, loss)
        for image in journal.state.images.values()
        for number, loss in image.lost.items()
        if number not in {note.intent for note in image.notes}  # what came of that is known
    ]
    if not any(decisions.may_be_settled(loss.given_up_at, now=now) for _, _, loss in losses):
        return
    losses.sort(key=lambda each: each[2].intended_at, reverse=True)  # what was made may be the last one's
    async with context.coordination.resolving:
        periods = [_period(loss) for _, _, loss in losses]
        since = min(start for start, _ in periods)
        listing = await list_account(context, journal, losses[0][2].request.model, since, periods)
        facts = [
            LossFacts(listing.proofs(loss.request, since=start), loss.given_up_at, listing.controls, now)
            for (_, _, loss), (start, _) in zip(losses, periods, strict=True)
        ]
        events = [
            NotCreated(key=key, reason=NOT_SHOWN, intent=number)
            for (key, number, _), command in zip(losses, decide_losses(facts), strict=True)
            if isinstance(command, decisions.NotCreated)
        ]
        if events:
            await context.write(*events)
            context.log.info("Lost responses: %d never led to a purchase. %s", len(events), NOT_SHOWN)


def _period(loss: LostPurchase) -> tuple[float, float]:
    """Return between which times, by the clock of any worker, a lost purchase was made, if it was.

    A clock that was fast at the intent and is right by now would hide it, so its start has a wide margin.
    """
    start = loss.intended_at - BILLING_MARGIN.total_seconds()
    return start, loss.given_up_at + ARRIVES_WITHIN + CLOCKS_MAY_DIFFER
