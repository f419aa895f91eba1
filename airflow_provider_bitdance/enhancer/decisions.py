"""What to do for one text whose enhanced prompt is not there. Pure: facts go in, a command comes out."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from airflow_provider_bitdance.records.enhanced_prompts import LONGEST_LEASE, PromptAttempt
from airflow_provider_bitdance.records.events import Owner

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
    """Another process buys the text: look again, at most until this Unix time."""

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
    :param owner: This process.
    :param bought: How often this process has submitted the text.
    :param buys_again: Whether the user wants a text bought again whose response was lost.
    """

    attempts: Sequence[PromptAttempt]
    ended: Collection[str]
    owner: Owner
    bought: int
    buys_again: bool
    now: float


def decide(facts: TextFacts) -> Buy | Poll | WaitUntil | GiveUp:
    """Decide what to do next for one text."""
    for attempt in facts.attempts:
        if attempt.prediction_id and attempt.prediction_id not in facts.ended:
            return Poll(attempt)
    last = facts.attempts[-1] if facts.attempts else None
    if last is not None and last.is_lost and not _is_ours(last, facts.owner):
        until = min(last.intent.until, last.intent.time.timestamp() + LONGEST_LEASE)
        if until > facts.now:
            return WaitUntil(until)
    lost = sum(attempt.is_lost for attempt in facts.attempts)
    if facts.bought >= MOST_PURCHASES or (lost and not facts.buys_again):
        return GiveUp(lost)
    return Buy(last.number + 1 if last else 1)


def _is_ours(attempt: PromptAttempt, owner: Owner) -> bool:
    """Whether an attempt is of this task: then the process that made it has ended, or is this one."""
    return attempt.intent.owner.job == owner.job
