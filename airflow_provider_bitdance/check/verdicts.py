"""Verdicts: what a check says of an assumption, and what all judges share. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from airflow_provider_bitdance.check.observations import Answer, Observations

REPORT = "Please report it with the file of --json"
"""What to do about an API that is not as documented."""
PASSING = frozenset({"NotSentError", "LostResponseError", "ServerError", "RateLimitError"})
"""Errors that a retry may mend."""


class Verdict(StrEnum):
    """What a check says of an assumption."""

    HOLDS = "holds"
    FAILS = "does not hold"
    NOT_SEEN = "not seen"


Judged = tuple[Verdict, str]
"""A verdict, and in a few words what it rests on. The words are for the terminal."""
Judge = Callable[[Observations], Judged]
NOT_SEEN: Judged = (Verdict.NOT_SEEN, "")


@dataclass(frozen=True, slots=True)
class Assumption:
    """One thing that this package takes for true.

    :param name: Short and stable, for reports.
    :param text: As a sentence.
    :param advice: What to do where it does not hold.
    :param judge: Says whether it does.
    """

    name: str
    text: str
    advice: str
    judge: Judge


def judged(holds: bool | None, words: str = "") -> Judged:
    """Return the verdict for a truth; ``None`` is "not seen"."""
    if holds is None:
        return NOT_SEEN if not words else (Verdict.NOT_SEEN, words)
    return (Verdict.HOLDS if holds else Verdict.FAILS), words


_NO_RESPONSE = {"NotSentError": "no connection to the API", "LostResponseError": "no response in time"}


def said(answer: Answer | None) -> str:
    """Say what a response was: its status, or the error."""
    if answer is None:
        return ""
    status = answer.shape.status
    return f"HTTP {status}" if status else _NO_RESPONSE.get(answer.error, answer.error)


def is_well(answer: Answer | None) -> Judged:
    """Judge a request that has to be responded to as documented."""
    return answered(answer, lambda found: judged(found.is_good, "" if found.is_good else said(found)))


def answered(answer: Answer | None, judge: Callable[[Answer], Judged]) -> Judged:
    """Judge a response; none, an outage and a rate limit say nothing about what is assumed."""
    if answer is None:
        return NOT_SEEN
    is_unseen = answer.error in PASSING or not answer.shape.status
    return (Verdict.NOT_SEEN, said(answer)) if is_unseen else judge(answer)
