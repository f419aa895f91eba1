"""Costs: what the records estimate against the bill, and which lost purchases were made. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from math import fsum

from airflow_provider_bitdance.engine.account_history import BILLING_MARGIN, History, controls
from airflow_provider_bitdance.engine.lost_response_decisions import (
    LossFacts,
    Lost,
    NotCreated,
    decide_losses,
)
from airflow_provider_bitdance.engine.proof import Proof, proof_of
from airflow_provider_bitdance.engine.settlement import NOT_SHOWN
from airflow_provider_bitdance.maintenance.account import Account
from airflow_provider_bitdance.maintenance.report import (
    Cost,
    PossiblyPaid,
    Unattributed,
    UntrackedPrediction,
    Verdict,
)
from airflow_provider_bitdance.maintenance.scan import Loss, Purchase, Records
from airflow_provider_bitdance.records.enhanced_prompts import PromptAttempt
from airflow_provider_bitdance.records.receipts import Receipt
from airflow_provider_bitdance.redaction import shorten
from airflow_provider_bitdance.wavespeed.responses import BillingRecord, Prediction

RESPONSE_MARGIN = timedelta(minutes=2)
"""A younger prediction that no record knows may be a purchase whose response is on its way."""
DAY = 24 * 3600.0
SHOWN = "The account's history shows it, with prompt and seed"


def costs(
    purchases: Iterable[Purchase], bill: Sequence[BillingRecord], since: datetime
) -> tuple[tuple[Cost, ...], Unattributed]:
    """Compare what was bought since a time with the bill, by Dag and day of the purchase (UTC).

    :param purchases: Everything that some record says was bought, each prediction once.
    """
    paid: dict[str, list[float]] = defaultdict(list)
    for record in bill:
        paid[record.prediction_id].append(record.charged)
    groups: dict[tuple[str, date], list[Purchase]] = defaultdict(list)
    known = set()
    for purchase in purchases:
        known.add(purchase.prediction_id)
        if purchase.bought_at >= since.timestamp():
            day = datetime.fromtimestamp(purchase.bought_at, UTC).date()
            groups[purchase.job.dag_id, day].append(purchase)
    by_day = [
        Cost(
            dag_id=dag_id,
            day=day,
            predictions=len(bought),
            estimated_usd=_usd(purchase.estimated_cost_usd for purchase in bought),
            real_usd=_usd(price for purchase in bought for price in paid[purchase.prediction_id]),
            unbilled=sum(not paid[purchase.prediction_id] for purchase in bought),
        )
        for (dag_id, day), bought in sorted(groups.items())
    ]
    others = [
        record
        for record in bill
        if record.prediction_id not in known and (record.created_at is None or record.created_at >= since)
    ]
    unattributed = Unattributed(
        len({record.prediction_id for record in others}), _usd(record.charged for record in others)
    )
    return tuple(by_day), unattributed


def untracked(unknown: Iterable[Prediction], now: float) -> tuple[UntrackedPrediction, ...]:
    """Describe the account's predictions that no record knows, and that have had time to be recorded."""
    latest = datetime.fromtimestamp(now, UTC) - RESPONSE_MARGIN
    return tuple(
        _untracked(prediction, now)
        for prediction in unknown
        if prediction.created_at is None or prediction.created_at <= latest
    )


def _untracked(prediction: Prediction, now: float) -> UntrackedPrediction:
    """Describe a prediction that no record knows, its prompt cut short."""
    made = prediction.created_at
    return UntrackedPrediction(
        prediction_id=prediction.id,
        model=prediction.model,
        status=prediction.status,
        age_days=round((now - made.timestamp()) / DAY, 2) if made else 0.0,
        prompt=shorten(str((prediction.input or {}).get("prompt", ""))),
    )


def explain(
    losses: Iterable[Loss], account: Account, records: Records, *, now: float, oldest: float
) -> list[PossiblyPaid]:
    """Say of each lost purchase whether the account proves that it was bought, or that it was not.

    Of predictions whose inputs the account does not show, a person has seen the picture that they have saved.
    It was not if the account shows a later purchase of the same Dag run, in the listing of the same model,
    and not this: :func:`~.lost_response_decisions.decide_losses`.

    :param account: Of the period in which the losses are.
    :param now: Unix time of the listing.
    :param oldest: Unix time from which on the account keeps its history.
    """
    ordered, saved = sorted(losses, key=lambda loss: loss.intended_at), records.saved_by_hand
    known = records.predictions - saved.keys()
    facts = [
        _facts(loss, account, known, saved, records.bought_in_run(loss.job), now)
        if loss.intended_at >= oldest and not loss.prediction_id
        else LossFacts({}, loss.given_up_at, (), now)
        for loss in ordered
    ]
    decided = zip(ordered, facts, decide_losses(facts), strict=True)
    return [_explained(loss, fact, command, saved) for loss, fact, command in decided]


def _explained(
    loss: Loss, facts: LossFacts, command: Lost | NotCreated, saved: Mapping[str, Receipt]
) -> PossiblyPaid:
    (found, *_) = command.doubtful if isinstance(command, Lost) and command.doubtful else ("",)
    if loss.prediction_id:
        return _possibly_paid(loss, Verdict.BOUGHT, loss.reason, loss.prediction_id)
    if facts.proofs.get(found) is Proof.OURS:
        reason = f"Saved by hand: {saved[found].uri}" if found in saved else SHOWN
        return _possibly_paid(loss, Verdict.BOUGHT, reason, found)
    if isinstance(command, NotCreated):
        return _possibly_paid(loss, Verdict.NOT_CREATED, NOT_SHOWN)
    return _possibly_paid(loss, Verdict.UNKNOWN, loss.reason)


def lost_prompts(
    prompts: Iterable[PromptAttempt], *, api_host: str, now: float, since: float
) -> list[PossiblyPaid]:
    """Describe each purchase of an enhanced prompt whose response was lost.

    :param now: Unix time; what was begun a moment ago may still be under way.
    """
    return [
        PossiblyPaid(
            job=lost.intent.owner.job,
            key=f"prompt ({shorten(lost.intent.style)})",
            intent=lost.number,
            prompt=shorten(lost.intent.text),
            at=lost.intent.time,
            estimated_cost_usd=lost.intent.estimated_cost_usd,
            verdict=Verdict.UNKNOWN,
            prediction_id="",
            reason=(
                "The Prompt Enhancer's response was lost; reconcile does not search the history for prompts"
            ),
        )
        for lost in prompts
        if lost.is_lost
        and lost.intent.host == api_host
        and lost.intent.time.timestamp() >= since
        and lost.intent.lease_end(now) <= now
    ]


def loss_periods(losses: Iterable[Loss]) -> dict[str, list[tuple[float, float]]]:
    """Return by model between which times, by the clock of any machine, lost purchases were made, if so."""
    margin = BILLING_MARGIN.total_seconds()
    periods: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for loss in losses:
        periods[loss.request.model].append((loss.intended_at - margin, loss.given_up_at + margin))
    return periods


def _facts(
    loss: Loss,
    account: Account,
    known: set[str],
    saved: Mapping[str, Receipt],
    of_run: set[str],
    now: float,
) -> LossFacts:
    history = account.histories.get(loss.request.model, History((), is_whole=False))
    items = history.since(loss.intended_at - BILLING_MARGIN.total_seconds())
    proofs = {item.id: proof_of(item, loss.request) for item in items if item.id not in known}
    for name in proofs.keys() & saved.keys():
        is_of_prompt = saved[name].request.prompt in (loss.request.prompt, loss.plan.prompt_asked)
        if proofs[name] is Proof.NONE:
            proofs[name] = Proof.OURS if is_of_prompt else Proof.ANOTHER
    return LossFacts(
        proofs=proofs,
        given_up_at=loss.given_up_at,
        controls=controls(history, of_run, account.bill),
        now=now,
    )


def _possibly_paid(loss: Loss, verdict: Verdict, reason: str, prediction_id: str = "") -> PossiblyPaid:
    return PossiblyPaid(
        job=loss.job,
        key=loss.plan.key,
        intent=loss.intent,
        prompt=shorten(loss.request.prompt),
        at=datetime.fromtimestamp(loss.intended_at, UTC),
        estimated_cost_usd=loss.plan.estimated_cost_usd,
        verdict=verdict,
        prediction_id=prediction_id,
        reason=reason,
    )


def _usd(amounts: Iterable[float]) -> float:
    """Add up US dollars, without the dust of binary fractions."""
    return round(fsum(amounts), 6)
