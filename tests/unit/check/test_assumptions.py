"""Each assumption as rows of a table: what was seen, and what the check says of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from airflow_provider_bitdance.check.account import SIZES
from airflow_provider_bitdance.check.assumptions import ASSUMPTIONS, judge_all
from airflow_provider_bitdance.check.history import LISTINGS, PLAIN
from airflow_provider_bitdance.check.observations import (
    Account,
    Answer,
    Echo,
    Environment,
    Listing,
    Observations,
    Output,
    Polling,
    Purchase,
    Refusal,
    Schema,
    Spending,
    Store,
    Versions,
)
from airflow_provider_bitdance.check.shapes import Shape
from airflow_provider_bitdance.check.verdicts import Verdict

HOLDS, FAILS, NOT_SEEN = Verdict.HOLDS, Verdict.FAILS, Verdict.NOT_SEEN


def an_answer(error: str = "", status: int = 200, outcome: str = "created") -> Answer:
    return Answer(error=error, outcome=outcome, shape=Shape(status=status))


WELL = an_answer()
OURS = Echo(field="input", is_ours=True, is_exact=True)
NO_ECHO = Echo()
LOST = an_answer("LostResponseError", 0, "unknown")
DOWN = an_answer("ServerError", 503, "unknown")
FORBIDDEN = an_answer("AuthenticationError", 403, "refused")


def a_purchase(size: str, **changes: Any) -> Purchase:
    width, height = map(int, size.split("*"))
    fields: dict[str, Any] = {
        "requested": size,
        "response": WELL,
        "status": "created",
        "is_paid": "yes",
        "width": width,
        "height": height,
        "media_type": "image/png",
        "output": Output(status=200, host="cdn.example", is_https=True, is_extension_right=True),
        "charges": 1,
        "is_charged_as_quoted": True,
    }
    return Purchase(**(fields | changes))


def as_assumed() -> Observations:
    """Return what is seen where every assumption holds."""
    store = Store(is_local=False, is_exclusive=True, winners=1, is_listed=True)
    return Observations(
        versions=Versions(
            provider="0.2.0", airflow="3.3.2", python="3.11.7", httpx="0.28.1", is_supported=True
        ),
        environment=Environment(),
        account=Account(
            is_wavespeed=True,
            balance=WELL,
            has_credit=True,
            skew=0.4,
            wrong_key=an_answer("AuthenticationError", 401, "refused"),
            unknown_prediction=an_answer("NotFoundError", 400, "refused"),
            unknown_model=an_answer("RequestRefusedError", 400, "refused"),
            catalogue=WELL,
            models=700,
            schema=Schema(
                inputs=("prompt", "seed", "size"),
                required=("prompt",),
                additional=False,
                size_type="string",
                smallest=256,
                largest=1536,
                lowest_seed=-1,
                highest_seed=2147483647,
            ),
            prices=(WELL, WELL, WELL),
            is_documented_price=True,
            has_discount=False,
            history=WELL,
            history_with_inputs=WELL,
            bill=WELL,
        ),
        records=store,
        images=store,
        spending=Spending(
            purchases=tuple(map(a_purchase, SIZES)),
            polling=Polling(
                first=WELL,
                known_after=0.1,
                statuses=("created", "processing", "completed"),
                ended_after=9.0,
                echo=NO_ECHO,
            ),
            listings={name: Listing(shown_after=1.0, listings=2, echo=OURS) for name in LISTINGS},
            excludes_model=True,
            excludes_date=True,
            bill=WELL,
            is_balance_right=True,
            deletion=WELL,
            deleted=1,
            after_deletion=an_answer("NotFoundError", 404, "refused"),
        ),
    )


Change = Callable[[Observations], Observations]


def account(**changes: Any) -> Change:
    return lambda seen: replace(seen, account=replace(seen.account, **changes))


def schema(**changes: Any) -> Change:
    return lambda seen: account(schema=replace(seen.account.schema, **changes))(seen)  # type: ignore[type-var]


def records(**changes: Any) -> Change:
    return lambda seen: replace(seen, records=replace(seen.records, **changes))  # type: ignore[type-var]


def spending(**changes: Any) -> Change:
    return lambda seen: replace(seen, spending=replace(seen.spending, **changes))  # type: ignore[type-var]


def polling(**changes: Any) -> Change:
    return lambda seen: spending(polling=replace(seen.spending.polling, **changes))(seen)  # type: ignore[union-attr,type-var]


def first(**changes: Any) -> Change:
    return lambda seen: spending(
        purchases=(replace(seen.spending.purchases[0], **changes), *seen.spending.purchases[1:])  # type: ignore[union-attr]
    )(seen)


def listings(**changes: Listing) -> Change:
    named = {name.replace("_", " "): listing for name, listing in changes.items()}
    return lambda seen: spending(listings=seen.spending.listings | named)(seen)  # type: ignore[union-attr]


def nothing(seen: Observations) -> Observations:
    return seen


def echoes(echo: Echo) -> Change:
    """Show one echo wherever there is one."""
    found = {name: Listing(shown_after=1.0, listings=1, echo=echo) for name in LISTINGS}
    return lambda seen: polling(echo=echo)(spending(listings=found)(seen))


@dataclass(frozen=True)
class Row:
    """One row of the table.

    :param words: What the verdict's words have in them.
    """

    name: str
    change: Change
    verdict: Verdict
    words: str = ""


MISSED = Listing(listings=10)
PROXIED = Environment(variables=("HTTPS_PROXY",), uses_proxy=True)
ROWS = [
    Row(
        "versions",
        lambda seen: replace(seen, versions=replace(seen.versions, is_supported=False)),
        FAILS,
        "Airflow 3.3.2",
    ),
    Row("proxy", nothing, HOLDS, "no proxy"),
    Row("proxy", lambda seen: replace(seen, environment=PROXIED), HOLDS, "through a proxy"),
    Row("proxy", lambda seen: account(balance=LOST)(replace(seen, environment=PROXIED)), FAILS, "through"),
    Row(
        "certificates",
        lambda seen: replace(
            seen, environment=Environment(variables=("CURL_CA_BUNDLE",), has_ignored_bundle=True)
        ),
        FAILS,
        "CURL_CA_BUNDLE",
    ),
    Row("records_usable", records(error="StorageError"), FAILS, "StorageError"),
    Row("records_usable", lambda seen: replace(seen, records=None), NOT_SEEN, "--output-path"),
    Row("records_exclusive", records(is_exclusive=False, winners=8), FAILS, "8 writers"),
    Row("records_exclusive", records(is_exclusive=False), FAILS),
    Row("records_exclusive", records(error="StorageError"), NOT_SEEN),
    Row("records_listed", records(is_listed=False), FAILS),
    Row("records_listed", records(error="StorageError"), NOT_SEEN),
    Row("records_shared", records(is_local=True), NOT_SEEN, "this machine"),
    Row("records_shared", records(error="StorageError"), NOT_SEEN),
    Row(
        "images_usable",
        lambda seen: replace(seen, images=Store(is_local=True, error="StorageError")),
        FAILS,
    ),
    Row("images_usable", lambda seen: replace(seen, images=None), NOT_SEEN),
    Row("key", account(balance=an_answer("AuthenticationError", 401)), FAILS, "HTTP 401"),
    Row("key", account(balance=an_answer("NotSentError", 0)), FAILS, "no connection to the API"),
    Row("credit", account(has_credit=False), FAILS),
    Row("credit", account(has_credit=None), NOT_SEEN),
    Row("clock", account(skew=-90.0), FAILS, "90 s"),
    Row("clock", account(skew=None), NOT_SEEN),
    Row("wrong_key", account(wrong_key=WELL), FAILS, "HTTP 200"),
    Row("wrong_key", account(wrong_key=an_answer("RequestRefusedError", 400)), FAILS, "HTTP 400"),
    Row("wrong_key", account(wrong_key=DOWN), NOT_SEEN, "HTTP 503"),
    Row("wrong_key", account(wrong_key=None), NOT_SEEN),
    Row("unknown_prediction", account(unknown_prediction=WELL), FAILS, "HTTP 200"),
    Row("unknown_prediction", account(unknown_prediction=an_answer("RequestRefusedError", 400)), FAILS),
    Row("unknown_prediction", account(unknown_prediction=LOST), NOT_SEEN),
    Row("unknown_model", account(unknown_model=WELL), FAILS, "HTTP 200"),
    Row("unknown_model", account(unknown_model=an_answer("NotFoundError", 404, "refused")), HOLDS),
    Row("unknown_model", account(unknown_model=an_answer("GarbledResponseError", 200, "unknown")), FAILS),
    Row("unknown_model", account(unknown_model=DOWN), NOT_SEEN),
    Row("quotes", account(prices=(WELL, an_answer("GarbledResponseError"), WELL)), FAILS),
    Row("quotes", account(prices=(WELL, DOWN, WELL)), NOT_SEEN, "HTTP 503"),
    Row("quotes", account(prices=()), NOT_SEEN),
    Row("price", account(is_documented_price=False, has_discount=True), FAILS, "discount"),
    Row("price", account(is_documented_price=None), NOT_SEEN),
    Row("catalogue", account(schema=None), FAILS, "700 models"),
    Row("catalogue", account(catalogue=an_answer("GarbledResponseError"), schema=None), FAILS),
    Row("catalogue", account(catalogue=DOWN, schema=None), NOT_SEEN),
    Row("inputs", nothing, HOLDS, "others are refused"),
    Row("inputs", schema(additional=True), HOLDS, "others are allowed"),
    Row("inputs", schema(additional=None), HOLDS, "others are not mentioned"),
    Row("inputs", schema(inputs=("prompt", "size")), FAILS, "prompt, size"),
    Row("inputs", schema(required=("prompt", "style")), FAILS),
    Row("inputs", account(schema=None), NOT_SEEN),
    Row("sides", schema(largest=1024), FAILS, "256 to 1024"),
    Row("sides", schema(largest=2048), HOLDS),
    Row("sides", schema(smallest=None), NOT_SEEN),
    Row("seeds", schema(highest_seed=65535), FAILS, "65535"),
    Row("seeds", schema(lowest_seed=1), FAILS),
    Row("seeds", schema(highest_seed=None), NOT_SEEN),
    Row("history", account(history=FORBIDDEN), FAILS, "HTTP 403"),
    Row("history", account(history=None), NOT_SEEN),
    Row("history_inputs", account(history_with_inputs=an_answer("RequestRefusedError", 400)), FAILS),
    Row("history_inputs", account(history_with_inputs=LOST), NOT_SEEN, "no response in time"),
    Row("bill", account(bill=FORBIDDEN), FAILS),
    Row("bill", account(bill=DOWN), NOT_SEEN),
    Row("amount", spending(refused=Refusal.ABOVE_AMOUNT, purchases=()), FAILS, "the price is above --spend"),
    Row("amount", spending(refused=Refusal.FIRST_FAILED), HOLDS),
    Row("amount", spending(refused=Refusal.NO_BALANCE, purchases=()), NOT_SEEN, "the balance cannot be read"),
    Row("amount", spending(refused=Refusal.NO_STORE, purchases=()), NOT_SEEN, "a folder cannot be used"),
    Row("stored", first(error="OutputError"), FAILS, "1024*1024 OutputError"),
    Row("stored", spending(refused=Refusal.CHARGED_MORE), FAILS, "3 stored"),
    Row("stored", spending(purchases=()), NOT_SEEN),
    Row("responses", first(error="UnconfirmedPurchaseError", is_paid="possibly"), FAILS, "1 possibly paid"),
    Row("responses", spending(purchases=()), NOT_SEEN),
    Row("submission", first(status="other"), FAILS, "other"),
    Row("submission", first(response=an_answer("GarbledResponseError"), status=""), FAILS, "HTTP 200"),
    Row("submission", first(response=LOST, status=""), NOT_SEEN),
    Row("submission", first(status="completed"), HOLDS),
    Row("known_at_once", polling(unknown=3, known_after=2.0), FAILS, "after 2.0 s"),
    Row("known_at_once", polling(unknown=40, known_after=None), FAILS, "40 polls"),
    Row("known_at_once", spending(polling=None), NOT_SEEN),
    Row("statuses", polling(statuses=("created", "other", "completed")), FAILS, "other"),
    Row("statuses", polling(statuses=()), NOT_SEEN),
    Row("duration", polling(ended_after=31.0), FAILS, "after 31 s"),
    Row("duration", polling(ended_after=None), FAILS, "not within 90 s"),
    Row("duration", spending(polling=None), NOT_SEEN),
    Row("history_shows", nothing, HOLDS, "after 1.0 s"),
    Row("history_shows", listings(all=MISSED), FAILS, "10 listings"),
    Row("history_shows", spending(listings={}), NOT_SEEN),
    Row("history_by_model", listings(by_model=MISSED), FAILS),
    Row("history_by_model", listings(all=MISSED, by_model=MISSED), NOT_SEEN, "no listing"),
    Row("history_by_date", listings(by_date=MISSED), FAILS),
    Row("history_by_date", listings(by_date=Listing(listings=1, error="ServerError")), FAILS, "ServerError"),
    Row("history_by_date", listings(all=MISSED, by_date=Listing(shown_after=95.0, listings=1)), HOLDS),
    Row("history_by_date", spending(listings={}), NOT_SEEN),
    Row("history_as_listed", listings(as_the_engine_lists=MISSED), FAILS),
    Row("history_as_listed", listings(as_the_engine_lists=Listing()), NOT_SEEN),
    Row("history_filters", spending(excludes_model=False), FAILS, "ignored: model"),
    Row("history_filters", spending(excludes_date=False), FAILS, "ignored: date"),
    Row("history_filters", spending(excludes_date=None), NOT_SEEN),
    Row("echo", nothing, HOLDS, "in the history"),
    Row("echo", polling(echo=OURS), HOLDS, "in the history and the result"),
    Row("echo", listings(all=Listing(shown_after=1.0, listings=1, echo=NO_ECHO)), HOLDS, "on request"),
    Row("echo", echoes(NO_ECHO), FAILS),
    Row("echo", echoes(Echo(field="input")), FAILS),
    Row("echo", spending(listings={}, polling=None), NOT_SEEN),
    Row("exact_echo", echoes(Echo(field="inputs", is_ours=True)), FAILS, "inputs"),
    Row("exact_echo", echoes(NO_ECHO), NOT_SEEN),
    Row("native_size", first(width=1024, height=1000), FAILS, "1024*1000"),
    Row("native_size", spending(purchases=()), NOT_SEEN),
    Row("native_size", first(width=None, height=None, error="OutputError"), NOT_SEEN),
    Row("native_size", first(width=None, height=None, error="PredictionRefusedError"), FAILS),
    Row(
        "preset_size",
        spending(purchases=(a_purchase(SIZES[1], width=1280, height=768),)),
        FAILS,
        "it is 1280*768",
    ),
    Row("preset_size", spending(purchases=()), NOT_SEEN),
    Row("free_size", spending(purchases=(a_purchase(SIZES[2], width=1024, height=704),)), FAILS),
    Row("free_size", spending(purchases=()), NOT_SEEN),
    Row("output", first(output=Output(status=403, host="cdn.example")), FAILS, "HTTP 403 from cdn.example"),
    Row("output", first(output=Output(status=200, host="a.example", redirects=1)), HOLDS, "1 redirects"),
    Row("output", first(error="OutputRefusedError"), FAILS),
    Row("output", first(output=None), NOT_SEEN),
    Row("extension", first(output=Output(status=200, is_extension_right=False)), FAILS, "image/png"),
    Row("extension", first(output=None), NOT_SEEN),
    Row("billed", first(charges=0), FAILS, "2 of 3"),
    Row("billed", spending(bill=FORBIDDEN), FAILS, "HTTP 403"),
    Row("billed", spending(bill=None), NOT_SEEN),
    Row("charge", first(is_charged_as_quoted=False), FAILS),
    Row("charge", spending(purchases=()), NOT_SEEN),
    Row("balance", spending(is_balance_right=False), FAILS),
    Row("balance", spending(is_balance_right=None), NOT_SEEN),
    Row("deletion", spending(deleted=0), FAILS),
    Row("deletion", spending(deletion=FORBIDDEN, deleted=None), FAILS),
    Row("deletion", spending(deletion=DOWN, deleted=None), NOT_SEEN),
    Row("deletion", spending(deletion=None), NOT_SEEN),
    Row("gone", spending(after_deletion=WELL, status_after_deletion="completed"), FAILS, "completed"),
    Row("gone", spending(after_deletion=WELL, status_after_deletion="deleted"), HOLDS),
    Row("gone", spending(deletion=FORBIDDEN), NOT_SEEN),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.name} {row.verdict.value}")
def test_what_is_said_of_an_assumption(row: Row) -> None:
    (found,) = (each for each in judge_all(row.change(as_assumed())) if each[0].name == row.name)

    assert found[1] is row.verdict
    assert row.words in found[2]


def test_all_holds_where_all_is_as_assumed() -> None:
    assert [each.name for each, verdict, _ in judge_all(as_assumed()) if verdict is not HOLDS] == []


def test_each_assumption_may_fail_and_may_be_unseen() -> None:
    always_seen = {"versions", "proxy", "certificates", "key"}
    unseen = {row.name for row in ROWS if row.verdict is NOT_SEEN} | always_seen
    # What needs a purchase is not seen without one; whether a store is shared, no machine can deny.
    needs_purchase = {
        each.name
        for each, verdict, words in judge_all(replace(as_assumed(), spending=None))
        if verdict is NOT_SEEN and words == "needs --spend"
    }
    names = {each.name for each in ASSUMPTIONS}

    assert {row.name for row in ROWS if row.verdict is FAILS} == names - {"records_shared"}
    assert unseen | needs_purchase == names
    assert {"echo", "history_shows", "free_size", "charge", "gone"} <= needs_purchase


def test_names_are_unique_and_plain() -> None:
    names = [each.name for each in ASSUMPTIONS]

    assert len(set(names)) == len(names)
    assert all(name.replace("_", "").isalpha() and name.islower() for name in names)


@pytest.mark.parametrize("assumption", ASSUMPTIONS, ids=lambda each: each.name)
def test_an_assumption_is_a_sentence_with_advice(assumption: Any) -> None:
    assert assumption.text.endswith(".")
    assert assumption.advice[0].isupper()
    assert not assumption.advice.endswith(".")


def test_the_plain_listing_is_tried_first() -> None:
    assert next(iter(LISTINGS)) == PLAIN
