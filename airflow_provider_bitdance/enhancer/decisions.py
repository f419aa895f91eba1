"""What to do for one text whose enhanced prompt is not there. Pure: facts go in, a command comes out."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from airflow_provider_bitdance.records import Job
from airflow_provider_bitdance.records.enhanced_prompts import PromptAttempt

MOST_PURCHASES = 2
"""A process buys a text again once after a lost response: the second time it is more than an accident."""


@dataclass(frozen=True, slots=True)
class Buy:
    """Write the intent of this number, and submit."""

    number: int


@dataclass(frozen=True, slots=True)
class Poll:
    """The prediction of this attempt is bought: wait for its text."""

    attempt: PromptAttempt


@dataclass(frozen=True, slots=True)
class WaitUntil:
    """Another task buys the text: wait for what it writes, at most until this Unix time."""

    moment: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Nothing more is bought for the text in this process: so many of its purchases are possibly paid."""

    lost: int


@dataclass(frozen=True, slots=True)
class TextFacts:
    """What is known of a text.

    :param attempts: All purchases that were begun, the oldest first.
    :param ended: Predictions that have ended without a text.
    :param job: Of this process.
    :param bought: How often this process has submitted the text, refused submissions not counted.
    :param buys_again: Whether the user wants a text bought again whose response was lost.
    :param now: Unix time.
    """

    attempts: Sequence[PromptAttempt]
    ended: Collection[str]
    job: Job
    bought: int
    buys_again: bool
    now: float


def decide(facts: TextFacts) -> Buy | Poll | WaitUntil | GiveUp:
    """Decide what to do next for one text.

    A lost response of this very job is nobody's any more: the process that sent it is this one, or has been
    replaced. One of another job may still come; what became of it later is that job's to count.
    """
    for attempt in facts.attempts:
        if attempt.prediction_id and attempt.prediction_id not in facts.ended:
            return Poll(attempt)
    lost = [attempt for attempt in facts.attempts if attempt.is_lost]
    leases = (attempt.intent.lease_end(facts.now) for attempt in lost if not attempt.is_of(facts.job))
    if (until := max(leases, default=0.0)) > facts.now:
        return WaitUntil(until)
    ours = sum(attempt.is_of(facts.job) for attempt in lost)
    if facts.bought >= MOST_PURCHASES or (ours and not facts.buys_again):
        return GiveUp(ours)
    return Buy(facts.attempts[-1].number + 1 if facts.attempts else 1)


def spent_by(
    job: Job, attempts: Sequence[PromptAttempt], *, text_of: str, price_usd: float
) -> tuple[float, int, float]:
    """Return what a job has spent on a text.

    Each purchase counts today's price at least: an intent is a record, and is not believed to be cheaper.

    :param text_of: The prediction that gave the text; empty while there is none.
    :return: What the text cost, US dollars; how many other purchases were or may have been charged; and what
        these cost together at most.
    """
    ours = [attempt for attempt in attempts if attempt.is_of(job) and attempt.is_charged]
    used = [attempt for attempt in ours if attempt.prediction_id and text_of in ("", attempt.prediction_id)]
    others = [attempt for attempt in ours if attempt not in used]
    return _usd(used, price_usd), len(others), _usd(others, price_usd)


def _usd(attempts: Sequence[PromptAttempt], price_usd: float) -> float:
    return round(sum(max(attempt.intent.estimated_cost_usd, price_usd) for attempt in attempts), 6)
