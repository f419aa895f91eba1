"""Decisions about lost responses: what became of purchases whose response nobody has read. Pure.

Soon after its POST, one purchase is judged by searches of the account's history (:func:`decide_intent`).
Those that stay unknown are judged together, by a later listing (:func:`decide_losses`).
``lost_responses.py`` reads the history and carries the commands out; ``proof.py`` says what one prediction
proves. Each function is a table that a test enumerates
(``tests/unit/engine/test_lost_response_decisions.py``).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from airflow_provider_bitdance.engine.proof import Proof

SEARCH_PAUSES = (1.0, 3.0, 6.0, 10.0, 20.0, 26.0)
"""Seconds between searches of the account's history for a request that may still arrive."""
SHORT_SEARCHES = 3
"""So many of these pauses are enough for a request that arrives no later."""
ARRIVES_WITHIN = 60.0
"""Seconds after which a request that was given up, stuck behind a gateway, arrives no more."""
SHOWN_WITHIN = 90.0
"""Seconds after which a prediction is in the history, if others that were made later are: they may show in
another order than that in which they were made."""


@dataclass(frozen=True, slots=True)
class Found:
    """The history proves that these predictions are ours; the first one becomes the image's."""

    prediction_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Lost:
    """It stays unknown: the image is possibly paid, and these predictions may be it."""

    doubtful: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NotCreated:
    """The history shows no prediction that could be it, and would show it."""


@dataclass(frozen=True, slots=True)
class SearchAgain:
    """Too early to decide: search the history again after some seconds."""

    after: float


@dataclass(frozen=True, slots=True)
class IntentFacts:
    """What the account's history says of one intent whose response was lost.

    :param proofs: By prediction id, oldest first, what the history proves of each that could be it.
    :param searches: How many searches there were before this one.
    :param may_arrive: The request may still arrive; not if there was a response, or long after.
    :param underway: Purchases of this job under way, whose responses may still come.
    :param same_underway: One of them is of the same request.
    :param doubted: Predictions that are already counted as another lost purchase.
    :param may_be_noted: The process that made the intent may still get its response, and note it.
    """

    proofs: dict[str, Proof]
    searches: int
    may_arrive: bool = True
    underway: int = 0
    same_underway: bool = False
    doubted: Collection[str] = ()
    may_be_noted: bool = False


def decide_intent(facts: IntentFacts) -> Found | Lost | SearchAgain:
    """Decide what became of an intent. Only an echo of prompt and seed is proof, never the time alone.

    An empty history is no proof, either: it may be behind, or its filters may not match. That nothing was
    created shows later, if at all (:func:`decide_losses`).
    """
    is_last = facts.searches >= (len(SEARCH_PAUSES) if facts.may_arrive else SHORT_SEARCHES)
    ours, doubtful = _ours_and_doubtful(facts.proofs, facts.doubted)
    if ours and (is_last or not facts.same_underway):
        return Found(ours)
    is_awaited = facts.may_be_noted and facts.searches < SHORT_SEARCHES
    # Where inputs are shown, ours will show them, too.
    is_shown = Proof.SIMILAR in facts.proofs.values()
    may_clear_up = not doubtful or is_awaited or facts.underway or is_shown
    if not is_last and (ours or may_clear_up):
        return SearchAgain(SEARCH_PAUSES[facts.searches])
    return Lost(doubtful)


def _ours_and_doubtful(
    proofs: dict[str, Proof], doubted: Collection[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    ours = tuple(name for name, proof in proofs.items() if proof is Proof.OURS)
    unclear = {Proof.NONE, Proof.SIMILAR}
    return ours, tuple(name for name, proof in proofs.items() if proof in unclear and name not in doubted)


@dataclass(frozen=True, slots=True)
class LossFacts:
    """What a later listing of the account's history says of a purchase that is recorded as lost.

    :param proofs: By prediction id, oldest first, what the history proves of each that no record knows and
        that could be it.
    :param given_up_at: Unix time after which nobody sent the request any more.
    :param controls: Unix times at which purchases were made that the records know and the same listing shows.
    :param now: Unix time of the listing.
    """

    proofs: dict[str, Proof]
    given_up_at: float
    controls: Collection[float]
    now: float


def decide_losses(losses: Sequence[LossFacts]) -> list[NotCreated | Lost]:
    """Decide which of several lost purchases were certainly not made: only if the listing would show them.

    It would if it shows a purchase of ours that was made when the request could arrive no more, and if it is
    so late that what was made before that shows, too. What it shows that may be ours accounts for one loss
    each: as many as it can account for stay lost.
    """
    # What is proven to be one loss is no other's, though it may be similar: of one prompt, and another seed.
    proven = {name for loss in losses for name, proof in loss.proofs.items() if proof is Proof.OURS}
    candidates = [sum(_ours_and_doubtful(loss.proofs, proven), ()) for loss in losses]
    accounted = _matched(candidates)
    return [
        Lost((accounted[number],)) if number in accounted else _decide_unaccounted(loss)
        for number, loss in enumerate(losses)
    ]


def _decide_unaccounted(loss: LossFacts) -> NotCreated | Lost:
    arrived_by = loss.given_up_at + ARRIVES_WITHIN
    is_controlled = any(arrived_by <= made <= loss.now - SHOWN_WITHIN for made in loss.controls)
    return NotCreated() if is_controlled else Lost(())


def _matched(candidates: Sequence[Sequence[str]]) -> dict[int, str]:
    """Give as many as possible a candidate of their own; return those by number (Kuhn's algorithm)."""
    taken: dict[str, int] = {}

    def gets_one(number: int, tried: set[str]) -> bool:
        for name in sorted(candidates[number], key=lambda name: name in taken):  # first what is free
            if name not in tried:
                tried.add(name)
                if name not in taken or gets_one(taken[name], tried):
                    taken[name] = number
                    return True
        return False

    for number in range(len(candidates)):
        gets_one(number, set())
    return {number: name for name, number in taken.items()}


def may_be_settled(given_up_at: float, *, now: float) -> bool:
    """Say whether a listing now can decide what became of a lost purchase."""
    return now >= given_up_at + ARRIVES_WITHIN + SHOWN_WITHIN
