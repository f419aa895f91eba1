"""What is assumed of the account and of the API, as far as it shows for nothing."""

from __future__ import annotations

from collections.abc import Callable

from airflow_provider_bitdance.check.observations import Answer, Observations
from airflow_provider_bitdance.check.verdicts import (
    NOT_SEEN,
    REPORT,
    Assumption,
    Judged,
    answered,
    is_well,
    judged,
    said,
)
from airflow_provider_bitdance.engine.account_history import CLOCK_MARGIN
from airflow_provider_bitdance.wavespeed.models import BITDANCE_SIDES, MAX_SEED
from airflow_provider_bitdance.wavespeed.submission_outcome import SubmissionOutcome


def _clock(seen: Observations) -> Judged:
    skew = seen.account.skew
    if skew is None:
        return NOT_SEEN
    return judged(abs(skew) <= CLOCK_MARGIN, f"{abs(skew):.0f} s apart")


def refused_as(error: str) -> Callable[[Answer], Judged]:
    """Judge a request that has to be refused in one way."""
    return lambda answer: judged(answer.error == error, said(answer))


def _unknown_model(answer: Answer) -> Judged:
    return judged(answer.outcome == SubmissionOutcome.REFUSED.value, said(answer))


def _key(seen: Observations) -> Judged:
    answer = seen.account.balance
    return NOT_SEEN if answer is None else judged(answer.is_good, "" if answer.is_good else said(answer))


def _credit(seen: Observations) -> Judged:
    return judged(seen.account.has_credit)


def _quotes(seen: Observations) -> Judged:
    prices = seen.account.prices
    return is_well(next((answer for answer in prices if not answer.is_good), prices[0] if prices else None))


def _price(seen: Observations) -> Judged:
    has_discount = seen.account.has_discount
    return judged(seen.account.is_documented_price, "with a discount" if has_discount else "")


def _schema(seen: Observations) -> Judged:
    def is_there(answer: Answer) -> Judged:
        words = f"{seen.account.models} models" if answer.is_good else said(answer)
        return judged(answer.is_good and seen.account.schema is not None, words)

    return answered(seen.account.catalogue, is_there)


def _inputs(seen: Observations) -> Judged:
    schema = seen.account.schema
    if schema is None or not schema.inputs:
        return NOT_SEEN
    sent = {"prompt", "size", "seed"}
    holds = sent <= {*schema.inputs} and {*schema.required} <= sent
    additional = {True: "others are allowed", False: "others are refused", None: "others are not mentioned"}
    return judged(holds, f"{', '.join(schema.inputs)}; {additional[schema.additional]}")


def _sides(seen: Observations) -> Judged:
    schema = seen.account.schema
    if schema is None or schema.smallest is None or schema.largest is None:
        return NOT_SEEN
    holds = schema.smallest <= BITDANCE_SIDES[0] and schema.largest >= BITDANCE_SIDES[1]
    return judged(holds, f"{schema.smallest} to {schema.largest}")


def _seeds(seen: Observations) -> Judged:
    schema = seen.account.schema
    if schema is None or schema.highest_seed is None:
        return NOT_SEEN
    lowest = 0 if schema.lowest_seed is None else schema.lowest_seed
    return judged(lowest <= 0 and schema.highest_seed >= MAX_SEED, f"up to {schema.highest_seed}")


OF_ACCOUNT: tuple[Assumption, ...] = (
    Assumption(
        "key",
        "The API accepts the key of the connection.",
        "Check the connection's password and host; a key works only after the first top-up. "
        "docs/reference/connection.md explains the messages of the test button",
        _key,
    ),
    Assumption("credit", "The account has credit.", "Top up the WaveSpeed account", _credit),
    Assumption(
        "clock",
        "The clocks of the API and of this machine agree.",
        "Synchronize this machine's clock. The provider corrects for the difference meanwhile",
        _clock,
    ),
    Assumption(
        "wrong_key",
        "The API refuses a wrong key as unauthorized.",
        f"Expect other error messages. {REPORT}",
        lambda seen: answered(seen.account.wrong_key, refused_as("AuthenticationError")),
    ),
    Assumption(
        "unknown_prediction",
        "A prediction that does not exist is reported as not found.",
        f"Expect a task whose prediction was deleted to poll until its timeout. {REPORT}",
        lambda seen: answered(seen.account.unknown_prediction, refused_as("NotFoundError")),
    ),
    Assumption(
        "unknown_model",
        "A model that does not exist is refused before anything is charged.",
        f"Check the model's path before you use another one: a wrong one may be charged. {REPORT}",
        lambda seen: answered(seen.account.unknown_model, _unknown_model),
    ),
    Assumption(
        "quotes",
        "The API quotes a price.",
        "Leave live_price off and set price_usd in the connection",
        _quotes,
    ),
    Assumption(
        "price",
        "An image costs $0.01.",
        "Set price_usd in the connection to the price on WaveSpeed's page, or switch live_price on",
        _price,
    ),
    Assumption(
        "catalogue",
        "The catalogue describes the model's inputs.",
        f"Nothing to do: tasks do not read it. {REPORT}",
        _schema,
    ),
    Assumption(
        "inputs",
        "The model takes prompt, size and seed, and requires no other input.",
        f"Update the provider. {REPORT}",
        _inputs,
    ),
    Assumption(
        "sides",
        f"A side has {BITDANCE_SIDES[0]} to {BITDANCE_SIDES[1]} pixels.",
        "Request only sizes within the model's limits; others fail after they are charged",
        _sides,
    ),
    Assumption(
        "seeds",
        f"A seed is at most {MAX_SEED}.",
        "Set seeds within the model's limits: a seed that the provider draws may be refused",
        _seeds,
    ),
    Assumption(
        "history",
        "The key may list the account's predictions.",
        "Use a key that may; otherwise no lost response can be resolved",
        lambda seen: is_well(seen.account.history),
    ),
    Assumption(
        "history_inputs",
        "A listing can include the inputs of predictions.",
        "Nothing to do: the provider lists without them and requests each prediction",
        lambda seen: is_well(seen.account.history_with_inputs),
    ),
    Assumption(
        "bill",
        "The key may read the account's bill.",
        "Use a key that may for reconcile; otherwise it cannot compare costs",
        lambda seen: is_well(seen.account.bill),
    ),
)
