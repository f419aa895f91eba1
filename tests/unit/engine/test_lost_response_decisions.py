"""Both decisions about lost responses are tables, as in ``test_decisions.py``. No I/O, no clock."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_bitdance.engine.account_history import CLOCK_MARGIN
from airflow_provider_bitdance.engine.lost_response_decisions import (
    ARRIVES_WITHIN,
    SEARCH_PAUSES,
    SHORT_SEARCHES,
    SHOWN_WITHIN,
    Found,
    IntentFacts,
    LossFacts,
    Lost,
    NotCreated,
    SearchAgain,
    decide_intent,
    decide_losses,
    may_be_settled,
)
from airflow_provider_bitdance.engine.proof import Proof

NOW = 1_000.0


# What became of an intent

LAST = len(SEARCH_PAUSES)
INTENT: list[tuple[str, dict[str, Any], object]] = [
    ("nothing yet", {}, SearchAgain(SEARCH_PAUSES[0])),
    ("nothing the second time", {"searches": 1}, SearchAgain(SEARCH_PAUSES[1])),
    ("nothing the last time but one", {"searches": LAST - 1}, SearchAgain(SEARCH_PAUSES[-1])),
    ("nothing at last, which proves nothing", {"searches": LAST}, Lost(())),
    (
        "nothing of a request that has arrived",
        {"may_arrive": False, "searches": SHORT_SEARCHES - 1},
        SearchAgain(SEARCH_PAUSES[SHORT_SEARCHES - 1]),
    ),
    (
        "nothing at last of a request that has arrived",
        {"may_arrive": False, "searches": SHORT_SEARCHES},
        Lost(()),
    ),
    ("ours", {"proofs": {"a": Proof.OURS}}, Found(("a",))),
    ("ours twice", {"proofs": {"a": Proof.OURS, "b": Proof.OURS}}, Found(("a", "b"))),
    ("ours beside doubt", {"proofs": {"a": Proof.NONE, "b": Proof.OURS}}, Found(("b",))),
    (
        "ours, or that of the same request under way",
        {"proofs": {"a": Proof.OURS}, "underway": 1, "same_underway": True},
        SearchAgain(SEARCH_PAUSES[0]),
    ),
    (
        "ours at last, the same under way",
        {"proofs": {"a": Proof.OURS}, "underway": 1, "same_underway": True, "searches": LAST},
        Found(("a",)),
    ),
    ("another's", {"proofs": {"a": Proof.ANOTHER}}, SearchAgain(SEARCH_PAUSES[0])),
    ("another's at last", {"proofs": {"a": Proof.ANOTHER}, "searches": LAST}, Lost(())),
    ("doubt", {"proofs": {"a": Proof.NONE, "b": Proof.NONE}}, Lost(("a", "b"))),
    (
        "doubt, and its process may note the response",
        {"proofs": {"a": Proof.NONE}, "may_be_noted": True, "searches": SHORT_SEARCHES - 1},
        SearchAgain(SEARCH_PAUSES[SHORT_SEARCHES - 1]),
    ),
    (
        "doubt, and its process has noted nothing for ten seconds",
        {"proofs": {"a": Proof.NONE}, "may_be_noted": True, "searches": SHORT_SEARCHES},
        Lost(("a",)),
    ),
    (
        "doubt that stands for another loss",
        {"proofs": {"a": Proof.NONE}, "doubted": {"a"}, "searches": LAST},
        Lost(()),
    ),
    ("doubt, others under way", {"proofs": {"a": Proof.NONE}, "underway": 2}, SearchAgain(SEARCH_PAUSES[0])),
    ("similar, and ours may show", {"proofs": {"a": Proof.SIMILAR}}, SearchAgain(SEARCH_PAUSES[0])),
    ("similar at last", {"proofs": {"a": Proof.SIMILAR}, "searches": LAST}, Lost(("a",))),
    ("doubt at last", {"proofs": {"a": Proof.NONE}, "underway": 2, "searches": LAST}, Lost(("a",))),
]


@pytest.mark.parametrize(("changes", "command"), [row[1:] for row in INTENT], ids=[row[0] for row in INTENT])
def test_what_became_of_an_intent(changes: Any, command: object) -> None:
    assert decide_intent(replace(IntentFacts(proofs={}, searches=0), **changes)) == command


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.sampled_from(Proof)),
    st.integers(0, 9),
    st.booleans(),
    st.integers(0, 8),
    st.booleans(),
    st.sets(st.sampled_from("abcdef")),
)
def test_only_an_echo_is_proof_and_every_intent_comes_to_an_end(
    proofs: dict[str, Proof],
    searches: int,
    may_arrive: bool,
    underway: int,
    same: bool,
    doubted: set[str],
) -> None:
    facts = IntentFacts(proofs, searches, may_arrive, underway, same and underway > 0, doubted)
    match decide_intent(facts):
        case Found(ids):
            assert {proofs[found] for found in ids} == {Proof.OURS}
        case Lost(ids):
            assert {proofs[found] for found in ids} <= {Proof.NONE, Proof.SIMILAR}
            assert not doubted & set(ids)
        case SearchAgain():
            assert searches < (len(SEARCH_PAUSES) if may_arrive else SHORT_SEARCHES)


def test_a_request_that_may_still_arrive_is_searched_for_until_it_can_arrive_no_more() -> None:
    assert sum(SEARCH_PAUSES[:SHORT_SEARCHES]) == 10
    assert sum(SEARCH_PAUSES) > ARRIVES_WITHIN + CLOCK_MARGIN


# What a later listing says of a lost purchase

CONTROLLED = {"controls": (NOW + ARRIVES_WITHIN,), "now": NOW + ARRIVES_WITHIN + SHOWN_WITHIN}
LOSS: list[tuple[str, dict[str, Any], object]] = [
    ("an empty history", {"controls": (), "now": math.inf}, Lost(())),
    ("what was made later is shown, and nothing else", CONTROLLED, NotCreated()),
    ("only others' are shown beside it", CONTROLLED | {"proofs": {"a": Proof.ANOTHER}}, NotCreated()),
    ("ours", CONTROLLED | {"proofs": {"a": Proof.OURS}}, Lost(("a",))),
    ("doubt", CONTROLLED | {"proofs": {"a": Proof.NONE}}, Lost(("a",))),
    ("ours before similar", CONTROLLED | {"proofs": {"b": Proof.SIMILAR, "a": Proof.OURS}}, Lost(("a",))),
    (
        "what was made later, but too soon for a request that came late",
        CONTROLLED | {"controls": (NOW + ARRIVES_WITHIN - 1,)},
        Lost(()),
    ),
    (
        "what was made later, but so soon that what was made before may not show yet",
        CONTROLLED | {"now": NOW + ARRIVES_WITHIN + SHOWN_WITHIN - 1},
        Lost(()),
    ),
]


@pytest.mark.parametrize(("changes", "command"), [row[1:] for row in LOSS], ids=[row[0] for row in LOSS])
def test_what_a_later_listing_says_of_a_lost_purchase(changes: dict[str, Any], command: object) -> None:
    assert decide_losses([LossFacts(**{"proofs": {}, "given_up_at": NOW} | changes)]) == [command]


def a_loss(*candidates: str) -> LossFacts:
    proofs = dict.fromkeys(candidates, Proof.NONE)
    return LossFacts(proofs, NOW, **CONTROLLED)


@pytest.mark.parametrize(
    ("losses", "settled"),
    [
        ([a_loss("a"), a_loss("a")], 1),
        ([a_loss("a", "b"), a_loss("a")], 0),
        ([a_loss("a"), a_loss("a", "b")], 0),
        ([a_loss("a", "b"), a_loss("b", "c"), a_loss("a")], 0),
        ([a_loss("a", "b"), a_loss("a", "b"), a_loss("b", "a"), a_loss()], 2),
    ],
)
def test_as_many_losses_stay_as_predictions_can_account_for(losses: list[LossFacts], settled: int) -> None:
    commands = decide_losses(losses)
    assert commands.count(NotCreated()) == settled
    accounted = [name for command in commands if isinstance(command, Lost) for name in command.doubtful]
    assert len(accounted) == len(set(accounted)) == len(losses) - settled


def test_what_is_proven_to_be_one_loss_accounts_for_no_other_though_that_is_listed_first() -> None:
    """Images of one prompt: a prediction is similar to each, and has the seed of one."""
    proofs = [
        {"a": Proof.SIMILAR, "b": Proof.SIMILAR},
        {"a": Proof.OURS, "b": Proof.SIMILAR},
        {"a": Proof.SIMILAR, "b": Proof.OURS},
    ]
    commands = decide_losses([LossFacts(each, NOW, **CONTROLLED) for each in proofs])
    assert commands == [NotCreated(), Lost(("a",)), Lost(("b",))]


@given(st.lists(st.lists(st.sampled_from("abcd"), max_size=4, unique=True), max_size=6), st.data())
def test_whichever_losses_were_made_no_fewer_stay(candidates: list[list[str]], data: st.DataObject) -> None:
    """Each that was made is one of its candidates, and no two are the same."""
    made = 0
    free = set("abcd")
    for names in candidates:
        choice = data.draw(st.sampled_from([None, *sorted(free.intersection(names))]))
        made += choice is not None
        free -= {choice}
    commands = decide_losses([a_loss(*names) for names in candidates])
    assert sum(isinstance(command, Lost) for command in commands) >= made


@given(
    st.dictionaries(st.sampled_from("abc"), st.sampled_from(Proof)),
    st.lists(st.floats(0, 1000), max_size=4),
    st.floats(0, 2000),
)
def test_what_is_settled_could_be_settled_and_has_a_control_and_nothing_unexplained(
    proofs: dict[str, Proof], controls: list[float], now: float
) -> None:
    (command,) = decide_losses([LossFacts(proofs, 100.0, controls, now)])
    if isinstance(command, NotCreated):
        assert may_be_settled(100.0, now=now)
        assert any(made >= 100.0 + ARRIVES_WITHIN for made in controls)
        assert set(proofs.values()) <= {Proof.ANOTHER}
