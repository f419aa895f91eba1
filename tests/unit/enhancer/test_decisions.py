"""The decision for one text: a table, and what holds for whatever lies in its folder."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_bitdance.enhancer.decisions import (
    MOST_PURCHASES,
    Buy,
    GiveUp,
    Poll,
    TextFacts,
    WaitUntil,
    decide,
    spent_by,
)
from airflow_provider_bitdance.records import Job
from airflow_provider_bitdance.records.enhanced_prompts import (
    LONGEST_LEASE,
    PromptAttempt,
    PromptIntent,
    PromptOutcome,
)
from tests.unit.support import START, a_job, a_writer

OURS, THEIRS = a_job(), a_job(run_id="run-2")
NOW = datetime.fromtimestamp(START, UTC)


def attempt(
    number: int,
    prediction_id: str | None = None,
    *,
    job: Job = OURS,
    refused: bool = False,
    until: float = 0.0,
) -> PromptAttempt:
    """Return an attempt: bought, refused or, by default, without an outcome."""
    intent = PromptIntent(
        time=NOW,
        owner=a_writer(job=job, token="t"),
        text="a fox",
        style="anime",
        host="api",
        until=START + until,
        estimated_cost_usd=0.001,
    )
    outcome = PromptOutcome(time=NOW, prediction_id=prediction_id, reason="429" if refused else None)
    return PromptAttempt(number, intent, outcome if prediction_id or refused else None)


def facts(*attempts: PromptAttempt, ended: tuple[str, ...] = (), bought: int = 0, **more: Any) -> TextFacts:
    buys_again = more.get("buys_again", True)
    return TextFacts(attempts, ended, OURS, bought, buys_again, START + more.get("later", 0.0))


BOUGHT = attempt(1, "pred-1")
UNDER_WAY = attempt(1, job=THEIRS, until=180)


@pytest.mark.parametrize(
    ("known", "command"),
    [
        pytest.param(facts(), Buy(1), id="nothing was begun"),
        pytest.param(facts(BOUGHT), Poll(BOUGHT), id="bought in an earlier try"),
        pytest.param(
            facts(attempt(1, "p", job=THEIRS)), Poll(attempt(1, "p", job=THEIRS)), id="bought by another"
        ),
        pytest.param(facts(BOUGHT, ended=("pred-1",)), Buy(2), id="what was bought gave no text"),
        pytest.param(facts(attempt(1, refused=True)), Buy(2), id="refused before"),
        pytest.param(facts(UNDER_WAY), WaitUntil(START + 180), id="another task is buying it"),
        pytest.param(facts(UNDER_WAY, later=180), Buy(2), id="another task's lease has ended"),
        pytest.param(
            facts(attempt(1, job=THEIRS, until=LONGEST_LEASE + 1)), Buy(2), id="a lease that nobody writes"
        ),
        pytest.param(
            facts(UNDER_WAY, attempt(2)),
            WaitUntil(START + 180),
            id="another is buying, and ours was lost later",
        ),
        pytest.param(
            facts(UNDER_WAY, attempt(2, "p", job=THEIRS)),
            Poll(attempt(2, "p", job=THEIRS)),
            id="one is there",
        ),
        pytest.param(facts(attempt(1, until=180)), Buy(2), id="lost by an earlier process of ours"),
        pytest.param(facts(attempt(1), bought=1), Buy(2), id="lost once here: bought again once"),
        pytest.param(facts(attempt(1), attempt(2), bought=2), GiveUp(2), id="lost twice here"),
        pytest.param(facts(attempt(1), buys_again=False), GiveUp(1), id='lost, and on_lost_response="fail"'),
        pytest.param(
            facts(attempt(1, job=THEIRS), buys_again=False), Buy(2), id="lost by another: that one's to count"
        ),
    ],
)
def test_what_to_do_for_a_text(known: TextFacts, command: object) -> None:
    assert decide(known) == command


@st.composite
def attempts(draw: st.DrawFn) -> list[PromptAttempt]:
    kinds = draw(st.lists(st.sampled_from(["lost", "bought", "refused"]), max_size=5))
    return [
        attempt(
            number,
            f"pred-{number}" if kind == "bought" else None,
            job=draw(st.sampled_from([OURS, THEIRS])),
            refused=kind == "refused",
            until=draw(st.floats(-1000, 1e9)),
        )
        for number, kind in enumerate(kinds, start=1)
    ]


@given(attempts(), st.integers(0, 3), st.booleans(), st.sets(st.sampled_from(["pred-1", "pred-2", "pred-3"])))
def test_whatever_lies_there_nothing_that_is_bought_is_left_and_no_wait_is_long(
    there: list[PromptAttempt], bought: int, buys_again: bool, ended: set[str]
) -> None:
    known = facts(*there, bought=bought, buys_again=buys_again, ended=tuple(ended))
    open_ones = [one for one in there if one.prediction_id and one.prediction_id not in ended]
    match decide(known):
        case Poll(one):
            assert one in open_ones
        case WaitUntil(moment):
            assert not open_ones
            assert START < moment <= START + LONGEST_LEASE
        case Buy(number):
            assert not open_ones
            assert number == len(there) + 1
            assert bought < MOST_PURCHASES
            assert buys_again or not any(one.is_lost and one.is_of(OURS) for one in there)
        case GiveUp(lost):
            assert not open_ones
            assert lost == sum(one.is_lost and one.is_of(OURS) for one in there)


@pytest.mark.parametrize(
    ("there", "text_of", "spent"),
    [
        pytest.param([], "", (0.0, 0, 0.0), id="nothing"),
        pytest.param([BOUGHT], "pred-1", (0.001, 0, 0.0), id="bought"),
        pytest.param([attempt(1, "p", job=THEIRS)], "p", (0.0, 0, 0.0), id="bought by another"),
        pytest.param([attempt(1, refused=True), attempt(2, "p")], "p", (0.001, 0, 0.0), id="refused, bought"),
        pytest.param([attempt(1), attempt(2, "p")], "p", (0.001, 1, 0.001), id="lost, bought again"),
        pytest.param(
            [attempt(1), attempt(2, "p", job=THEIRS)], "p", (0.0, 1, 0.001), id="lost, then another's"
        ),
        pytest.param(
            [attempt(1, "p"), attempt(2, "q")], "q", (0.001, 1, 0.001), id="a replaced process's, too"
        ),
        pytest.param([attempt(1), attempt(2)], "", (0.0, 2, 0.002), id="lost twice"),
        pytest.param([attempt(1), attempt(2, "p")], "", (0.001, 1, 0.001), id="bought, and not there yet"),
    ],
)
def test_what_a_job_has_spent_on_a_text(there: list[PromptAttempt], text_of: str, spent: object) -> None:
    assert spent_by(OURS, there, text_of=text_of, price_usd=0.0) == spent


def test_a_purchase_that_its_record_says_was_cheap_counts_at_todays_price() -> None:
    bought, lost = attempt(1, "pred-1"), attempt(2)
    assert spent_by(OURS, [bought, lost], text_of="pred-1", price_usd=0.5) == (0.5, 1, 0.5)
