"""Money: estimated against real cost, by Dag and day, and which lost purchases were made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_bitdance.engine.account_history import Allowance, Bill, History, read_bill, read_history
from airflow_provider_bitdance.engine.settlement import NOT_SHOWN
from airflow_provider_bitdance.maintenance.account import Account, read_account
from airflow_provider_bitdance.maintenance.costs import SHOWN, costs, explain, untracked
from airflow_provider_bitdance.maintenance.report import PossiblyPaid, Verdict
from airflow_provider_bitdance.maintenance.scan import JobRecord, Loss, Purchase, Records
from airflow_provider_bitdance.records import Job, JobState
from airflow_provider_bitdance.records.receipts import Receipt
from airflow_provider_bitdance.wavespeed.models import BITDANCE_14B
from airflow_provider_bitdance.wavespeed.responses import BillingRecord, Prediction
from tests.unit.maintenance.support import DAY, Line, Office
from tests.unit.support import (
    START,
    a_job,
    a_plan,
    a_receipt,
    a_request,
    a_wanted,
    a_writer,
    envelope,
    run,
)

SINCE = datetime.fromtimestamp(START, UTC)


def a_purchase(
    prediction_id: str, *, dag_id: str = "covers", after: float = 0.0, usd: float = 0.01
) -> Purchase:
    return Purchase(prediction_id, a_job(dag_id=dag_id), START + after, usd)


def a_line(
    prediction_id: str, price: float = 0.01, kind: str = "deduct", *, after: float = 0.0
) -> BillingRecord:
    return BillingRecord(
        uuid=f"{prediction_id}-{kind}-{after}",
        billing_type=kind,
        price=price,
        created_at=datetime.fromtimestamp(START + after, UTC),
        prediction_id=prediction_id,
    )


def a_prediction(prediction_id: str, *, after: float = 0.0, **inputs: Any) -> Prediction:
    made = datetime.fromtimestamp(START + after, UTC)
    return Prediction(id=prediction_id, created_at=made, input=inputs or None)


def a_loss(prompt: str = "a fox", *, seed: int = 7, after: float = 60.0, prediction_id: str = "") -> Loss:
    plan = a_plan().model_copy(update={"request": a_request(prompt, seed=seed)})
    when = START + after
    return Loss(a_job(), plan, plan.request, 1, when, when + 10, "lost", prediction_id)


# Cost


def test_cost_is_told_by_dag_and_by_day_of_the_purchase() -> None:
    bought = [
        a_purchase("a"),
        a_purchase("b", after=60),
        a_purchase("c", after=DAY),
        a_purchase("d", dag_id="posters", usd=0.02),
    ]
    bill = [a_line("a"), a_line("b", after=DAY), a_line("c", 0.012), a_line("d", 0.02)]

    by_day, unattributed = costs(bought, bill, SINCE)

    assert [(cost.dag_id, str(cost.day), cost.predictions) for cost in by_day] == [
        ("covers", "2026-05-28", 2),
        ("covers", "2026-05-29", 1),
        ("posters", "2026-05-28", 1),
    ]
    assert [(cost.estimated_usd, cost.real_usd) for cost in by_day] == [
        (0.02, 0.02),
        (0.01, 0.012),
        (0.02, 0.02),
    ]
    assert (unattributed.predictions, unattributed.real_usd) == (0, 0.0)


def test_a_refund_is_given_back_whatever_its_sign() -> None:
    assert [a_line("a", price, kind).charged for price, kind in ((0.01, "deduct"), (-0.01, "deduct"))] == [
        0.01
    ] * 2
    assert [a_line("a", price, kind).charged for price, kind in ((0.01, "refund"), (-0.01, "Refund"))] == [
        -0.01
    ] * 2


def test_what_is_not_on_the_bill_yet_is_counted() -> None:
    (cost,), _ = costs([a_purchase("a"), a_purchase("b")], [a_line("a")], SINCE)

    assert (cost.predictions, cost.unbilled, cost.real_usd) == (2, 1, 0.01)


def test_what_was_bought_before_is_in_no_figure_though_its_refund_comes_now() -> None:
    early = a_purchase("early", after=-DAY)

    assert costs([early], [a_line("early", kind="refund", after=60)], SINCE)[1].predictions == 0
    assert costs([early], [a_line("early", kind="refund", after=60)], SINCE)[0] == ()


def test_what_others_bought_with_the_account_is_outside_and_only_since_then() -> None:
    bill = [
        a_line("x", 0.5, after=5),
        a_line("x", 0.5, "refund", after=9),
        a_line("y", 0.25),
        a_line("z", after=-5),
    ]

    by_day, unattributed = costs([], bill, SINCE)

    assert (by_day, unattributed.predictions, unattributed.real_usd) == ((), 2, 0.25)


def test_a_charge_of_others_without_a_time_is_outside() -> None:
    line = a_line("x", 0.5).model_copy(update={"created_at": None})

    assert costs([], [line], SINCE)[1].real_usd == 0.5


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 50), st.booleans()), max_size=30))
def test_no_charge_is_lost_between_the_dags_and_the_outside(lines: list[tuple[bool, int, bool]]) -> None:
    bill = [
        a_line(f"p{number}", cents / 100, kind="refund" if refund else "deduct")
        for number, (_, cents, refund) in enumerate(lines)
    ]
    bought = [a_purchase(f"p{number}") for number, (ours, *_) in enumerate(lines) if ours]

    by_day, unattributed = costs(bought, bill, SINCE)

    total = sum(cents * (-1 if refund else 1) for _, cents, refund in lines) / 100
    assert sum(cost.real_usd for cost in by_day) + unattributed.real_usd == pytest.approx(total)


def test_real_cost_is_that_of_the_account_s_books_with_retries_and_refunds() -> None:
    office = Office()
    office.api.price_charged = 0.008
    office.api.next_changes = {"status": "failed", "error": "no luck"}
    office.task(timeout=60)
    office.api.refund("pred-1")
    office.api.next_changes = {}
    office.task(try_number=2)
    office.task(job=a_job(dag_id="posters"), wanted=a_wanted(name="b"))
    office.wait(minutes=5)

    report = office.reconcile()

    assert report.real_usd == office.api.paid == 0.016
    assert report.estimated_usd == 0.03
    assert [(cost.dag_id, cost.predictions, cost.real_usd) for cost in report.costs] == [
        ("covers", 2, 0.008),
        ("posters", 1, 0.008),
    ]
    assert report.unattributed.predictions == 0


# The account


def test_a_bill_of_many_pages_is_read_to_its_end_and_top_ups_are_left_out() -> None:
    office = Office()
    office.api.page_size = 7  # fewer than asked for
    office.api.lines = [Line("deduct", 0.01, START, f"p{number}") for number in range(50)]
    office.api.lines.append(Line("recharge", 20.0, START, ""))

    found = run(read_bill(office.api.client(), SINCE, Allowance.of(office.clock)))

    assert sorted(row.prediction_id for row in found.rows) == sorted(f"p{number}" for number in range(50))


def test_the_bill_is_asked_for_from_an_hour_before_on_for_clocks_differ() -> None:
    office = Office()
    office.api.lines = [Line("deduct", 0.01, START - minutes * 60, f"p{minutes}") for minutes in (90, 50, 0)]

    found = run(read_bill(office.api.client(), SINCE, Allowance.of(office.clock)))

    assert [row.prediction_id for row in found.rows] == ["p0", "p50"]


def test_lines_of_the_bill_without_an_id_of_their_own_are_told_apart() -> None:
    office = Office()
    lines = [{"billing_type": "deduct", "price": 0.01, "prediction": {"uuid": name}} for name in "ab"]
    office.api.refuse_bill = envelope({"page": 1, "items": lines})

    found = run(read_bill(office.api.client(), SINCE, Allowance.of(office.clock)))

    assert [row.prediction_id for row in found.rows] == ["a", "b"]


def test_a_history_of_many_pages_is_read_to_its_end() -> None:
    office = Office()
    made = [office.api.create({"prompt": "p", "seed": number}).id for number in range(230)]

    history = run(
        read_history(
            office.api.client(), Allowance.of(office.clock), model=BITDANCE_14B, since=SINCE.timestamp()
        )
    )

    assert [prediction.id for prediction in history.items] == made[::-1]


def test_a_prediction_so_young_that_its_answer_may_be_on_its_way_is_no_stranger() -> None:
    old, young = a_prediction("old"), a_prediction("young", after=250)

    assert [found.prediction_id for found in untracked([old, young], START + 300)] == ["old"]


def test_a_prediction_without_a_time_is_unknown_and_may_be_any_loss() -> None:
    timeless = Prediction(id="a")

    assert [found.prediction_id for found in untracked([timeless], START + 300)] == ["a"]
    assert fates([a_loss()], [timeless]) == [(Verdict.UNKNOWN, "")]


# Possibly paid


def fates(losses: list[Loss], unknown: list[Prediction], **history: Any) -> list[tuple[Verdict, str]]:
    """Return the verdicts on losses, and their predictions: see :func:`explained`."""
    return [(found.verdict, found.prediction_id) for found in explained(losses, unknown, **history)]


def explained(
    losses: list[Loss],
    unknown: list[Prediction],
    *,
    oldest: float = START,
    bought: tuple[float, ...] = (4 * DAY,),
    now: float = 5 * DAY,
    is_whole: bool = True,
    bill: Bill | None = None,
    receipts: Mapping[str, Receipt] | None = None,
) -> list[PossiblyPaid]:
    """Return what the history says of losses.

    :param unknown: What it shows that no record knows, but for the receipts.
    :param bought: When purchases were made, in seconds, that it shows and the records know.
    """
    ours = [a_prediction(f"known-{number}", after=after) for number, after in enumerate(bought)]
    account = Account({BITDANCE_14B: History((*unknown, *ours), is_whole=is_whole)}, bill)
    records = Records("mem://records", (a_record(*(item.id for item in ours)),), receipts or {}, ())
    return explain(losses, account, records, now=START + now, oldest=oldest)


def saved_by_hand(prediction_id: str, **changes: Any) -> dict[str, Receipt]:
    job = a_job(dag_id="by hand", call=f"picture.{prediction_id}")
    return {"saved": a_receipt(prediction_id=prediction_id, writer=a_writer(job=job), **changes)}


FOX = {"prompt": "a fox", "seed": 7}


@pytest.mark.parametrize(
    ("shown", "saved", "verdict"),
    [
        (FOX, saved_by_hand("pred"), (Verdict.BOUGHT, "pred")),
        ({}, saved_by_hand("pred", request=a_request("a fox", seed=-1)), (Verdict.BOUGHT, "pred")),
        ({}, saved_by_hand("pred", request=a_request("a hen")), (Verdict.NOT_CREATED, "")),
        (FOX | {"seed": 8}, saved_by_hand("pred", request=a_request("a fox")), (Verdict.UNKNOWN, "")),
        (FOX, {"of a task": a_receipt(prediction_id="pred")}, (Verdict.NOT_CREATED, "")),
    ],
    ids=["its seed is shown", "nothing is shown", "another prompt", "another seed", "of a task"],
)
def test_a_loss_that_a_person_has_saved_was_bought(
    shown: dict[str, Any], saved: dict[str, Receipt], verdict: tuple[Verdict, str]
) -> None:
    assert fates([a_loss()], [a_prediction("pred", after=61, **shown)], receipts=saved) == [verdict]


@pytest.mark.parametrize("prompt", ["a fox", "a fox, artistic"], ids=["as requested", "as sent"])
def test_a_loss_of_an_enhanced_prompt_that_a_person_has_saved_was_bought(prompt: str) -> None:
    plan = a_plan().model_copy(update={"request": a_request("a fox, artistic"), "prompt_asked": "a fox"})
    loss = replace(a_loss(), plan=plan, request=plan.request)
    saved = saved_by_hand("pred", request=a_request(prompt))

    assert fates([loss], [a_prediction("pred", after=61)], receipts=saved) == [(Verdict.BOUGHT, "pred")]


def test_what_a_task_has_bought_and_a_person_has_saved_was_no_loss() -> None:
    saved = saved_by_hand("known-0")
    assert fates([a_loss()], [], bought=(61, 4 * DAY), receipts=saved) == [(Verdict.NOT_CREATED, "")]


def a_record(*bought: str, job: Job | None = None) -> JobRecord:
    job = job or a_job(task_id="later")
    purchases = tuple(Purchase(name, job, START, 0.01) for name in bought)
    return JobRecord("mem://records", job, 1, JobState(), purchases, (), frozenset(bought))


@pytest.mark.parametrize(
    ("job", "verdict"),
    [
        (a_job(task_id="later"), Verdict.NOT_CREATED),
        (a_job(run_id="another run"), Verdict.UNKNOWN),
        (a_job(dag_id="another Dag"), Verdict.UNKNOWN),
    ],
)
def test_only_a_purchase_of_the_same_dag_run_is_one_of_the_same_account(job: Job, verdict: Verdict) -> None:
    control = a_prediction("known", after=DAY)
    account = Account({BITDANCE_14B: History((control,))}, None)
    records = Records("mem://records", (a_record("known", job=job),), {}, ())
    (found,) = explain([a_loss()], account, records, now=START + 2 * DAY, oldest=START)
    assert found.verdict is verdict


def test_a_purchase_in_the_listing_of_another_model_shows_nothing_of_this_one() -> None:
    account = Account({BITDANCE_14B: History(()), "m/n": History((a_prediction("known", after=DAY),))}, None)
    records = Records("mem://records", (a_record("known"),), {}, ())
    (found,) = explain([a_loss()], account, records, now=START + 2 * DAY, oldest=START)
    assert found.verdict is Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("bought", "now", "is_whole", "verdict"),
    [
        ((), 5 * DAY, True, Verdict.UNKNOWN),
        ((70.0,), 5 * DAY, True, Verdict.UNKNOWN),
        ((129.0,), 5 * DAY, True, Verdict.UNKNOWN),
        ((130.0,), 5 * DAY, True, Verdict.NOT_CREATED),
        ((130.0,), 5 * DAY, False, Verdict.UNKNOWN),
        ((130.0,), 130.0 + 89, True, Verdict.UNKNOWN),
        ((130.0,), 130.0 + 90, True, Verdict.NOT_CREATED),
    ],
    ids=[
        "an empty history",
        "what was made at the same time",
        "a request that may have arrived after it",
        "late enough",
        "a row that cannot be read",
        "others may show later",
        "others would show by now",
    ],
)
def test_nothing_was_created_only_if_the_history_shows_what_we_bought_a_minute_later(
    bought: tuple[float, ...], now: float, is_whole: bool, verdict: Verdict
) -> None:
    assert fates([a_loss()], [], bought=bought, now=now, is_whole=is_whole) == [(verdict, "")]


def test_a_lost_purchase_is_named_where_prompt_and_seed_prove_it() -> None:
    unknown = [a_prediction("a", prompt="a crow", seed=7), a_prediction("b", prompt="a fox", seed=7)]

    assert fates([a_loss()], unknown) == [(Verdict.BOUGHT, "b")]


@pytest.mark.parametrize(
    ("shown", "saved", "reason"),
    [
        (FOX, {}, SHOWN),
        (FOX, saved_by_hand("pred", uri="mem://disk/fox.png"), "Saved by hand: mem://disk/fox.png"),
        (FOX | {"prompt": "a hen", "seed": 8}, {}, NOT_SHOWN),
        ({}, {}, "lost"),
    ],
    ids=["proven", "saved", "not created", "as the task found"],
)
def test_each_verdict_has_its_reason(shown: dict[str, Any], saved: dict[str, Receipt], reason: str) -> None:
    """A loss was written down as what "proves nothing yet", and by now something is proven."""
    (loss,) = explained([a_loss()], [a_prediction("pred", after=61, **shown)], receipts=saved)

    assert loss.reason == reason


def test_where_all_inputs_are_shown_and_none_is_it_nothing_was_created() -> None:
    assert fates([a_loss()], [a_prediction("a", prompt="a crow", seed=8)]) == [(Verdict.NOT_CREATED, "")]


@pytest.mark.parametrize("inputs", [{"prompt": "a fox", "seed": 8}, {"prompt": "a crow", "seed": 7}])
def test_one_that_shares_prompt_or_seed_leaves_doubt(inputs: dict[str, Any]) -> None:
    assert fates([a_loss()], [a_prediction("a", **inputs)]) == [(Verdict.UNKNOWN, "")]


def test_of_two_losses_of_one_request_the_earlier_one_is_called_bought() -> None:
    later, earlier = a_loss(after=60), a_loss(after=0)

    found = fates([later, earlier], [a_prediction("a", after=30, prompt="a fox", seed=7)])

    assert found == [(Verdict.BOUGHT, "a"), (Verdict.NOT_CREATED, "")]


def test_where_no_prediction_is_unknown_nothing_was_created() -> None:
    assert fates([a_loss()], []) == [(Verdict.NOT_CREATED, "")]


def test_where_the_history_shows_no_inputs_it_cannot_be_told() -> None:
    assert fates([a_loss()], [a_prediction("a")]) == [(Verdict.UNKNOWN, "")]


def test_what_was_made_before_the_purchase_cannot_be_it() -> None:
    assert fates([a_loss(after=2 * DAY)], [a_prediction("a", after=DAY)]) == [(Verdict.NOT_CREATED, "")]


def test_a_loss_older_than_the_history_cannot_be_told() -> None:
    assert fates([a_loss(after=-1)], []) == [(Verdict.UNKNOWN, "")]


def test_one_prediction_explains_one_loss_the_oldest_first() -> None:
    unknown = [
        a_prediction("late", after=20, prompt="a fox", seed=7),
        a_prediction("early", after=10, prompt="a fox", seed=7),
    ]
    losses = [a_loss(after=62), a_loss(after=61), a_loss(after=63)]

    assert fates(losses, unknown) == [
        (Verdict.BOUGHT, "early"),
        (Verdict.BOUGHT, "late"),
        (Verdict.NOT_CREATED, ""),
    ]


def test_a_purchase_that_a_replaced_process_noted_is_known_without_any_history() -> None:
    assert fates([a_loss(prediction_id="pred-9")], []) == [(Verdict.BOUGHT, "pred-9")]


def test_a_purchase_whose_prediction_is_known_does_not_explain_another_one() -> None:
    noted, lost = a_loss(prediction_id="pred-9", after=0), a_loss(after=30)

    assert fates([noted, lost], [a_prediction("a", after=30)]) == [
        (Verdict.BOUGHT, "pred-9"),
        (Verdict.UNKNOWN, ""),
    ]


def test_a_lost_purchase_of_a_real_task_is_named() -> None:
    office = Office()
    office.api.on_post = [office.api.lose_answer]
    office.task(wanted=a_wanted("a fox"), timeout=60)  # the history shows no inputs: possibly paid
    office.wait(minutes=10)
    office.api.echo = "history"

    report = office.reconcile()

    assert [(loss.verdict, loss.prediction_id) for loss in report.possibly_paid] == [
        (Verdict.BOUGHT, "pred-1")
    ]
    assert [(item.prediction_id, item.prompt) for item in report.untracked] == [("pred-1", "a fox")]


def test_of_any_number_of_models_that_records_name_some_are_listed_and_the_rest_is_a_finding() -> None:
    office = Office()
    models = {BITDANCE_14B, *(f"a/{number}" for number in range(300))}
    account = run(
        read_account(
            office.api.client(), office.clock, models, SINCE, known=(), periods={"a/299": [(0.0, 1.0)]}
        )
    )
    assert list(account.histories)[:2] == [BITDANCE_14B, "a/299"]
    assert len(account.histories) == 20
    assert "not read for 281 of the models" in account.findings[0].what
