"""What this package assumes of the API, the account and the machine, as a list; and how a check judges it.

Pure: observations in, a verdict and a few words out. To add an assumption, add a row to :data:`ASSUMPTIONS`
and one to the table of ``tests/unit/check/test_assumptions.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from airflow_provider_bitdance.check.history import PLAIN
from airflow_provider_bitdance.check.observations import (
    Answer,
    Echo,
    Listing,
    Observations,
    Purchase,
    Refusal,
    Spending,
    Store,
)
from airflow_provider_bitdance.engine.account_history import CLOCK_MARGIN
from airflow_provider_bitdance.engine.decisions import SHOWN_WITHIN
from airflow_provider_bitdance.wavespeed.image_request import MAX_SEED, MAX_SIDE, MIN_SIDE
from airflow_provider_bitdance.wavespeed.submission_outcome import SubmissionOutcome

WAITED_IN_WORKER = 15.0
"""Seconds: the default of ``defer_after``."""

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
NOT_BOUGHT: Judged = (Verdict.NOT_SEEN, "needs --spend")


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


def said(answer: Answer | None) -> str:
    """Say what a response was: its status, or the error."""
    if answer is None:
        return ""
    status = answer.shape.status
    return f"HTTP {status}" if status else answer.error


def is_well(answer: Answer | None) -> Judged:
    """Judge a request that has to be responded to as documented."""
    return answered(answer, lambda found: judged(found.is_good, "" if found.is_good else said(found)))


def answered(answer: Answer | None, judge: Callable[[Answer], Judged]) -> Judged:
    """Judge a response; none, an outage and a rate limit say nothing about what is assumed."""
    if answer is None:
        return NOT_SEEN
    is_unseen = answer.error in PASSING or not answer.shape.status
    return (Verdict.NOT_SEEN, said(answer)) if is_unseen else judge(answer)


def bought(judge: Callable[[Spending], Judged]) -> Judge:
    """Judge what only a purchase shows."""
    return lambda seen: NOT_BOUGHT if seen.spending is None else judge(seen.spending)


def first_one(judge: Callable[[Purchase], Judged]) -> Judge:
    """Judge what the first purchase shows."""

    def of_first(spending: Spending) -> Judged:
        return judge(spending.purchases[0]) if spending.purchases else NOT_SEEN

    return bought(of_first)


# The machine


def _versions(seen: Observations) -> Judged:
    versions = seen.versions
    return judged(
        versions.is_supported,
        f"provider {versions.provider}, Airflow {versions.airflow}, Python {versions.python}, "
        f"httpx {versions.httpx}",
    )


def _certificates(seen: Observations) -> Judged:
    variables = [name for name in seen.environment.variables if "PROXY" not in name]
    return judged(not seen.environment.has_ignored_bundle, ", ".join(variables))


def _proxy(seen: Observations) -> Judged:
    if not any("PROXY" in name for name in seen.environment.variables):
        return Verdict.HOLDS, "no proxy is set"
    used = "through a proxy" if seen.environment.uses_proxy else "directly"
    reached = seen.account.balance is not None and seen.account.balance.shape.status > 0
    return judged(reached, f"requests go {used}")


def store(choose: Callable[[Observations], Store | None], judge: Callable[[Store], Judged]) -> Judge:
    """Judge one of the stores; where it was not tried, it was not seen."""

    def of_store(seen: Observations) -> Judged:
        found = choose(seen)
        return (Verdict.NOT_SEEN, "no path is known: --output-path") if found is None else judge(found)

    return of_store


def _is_usable(found: Store) -> Judged:
    return judged(not found.error, found.error)


def _is_exclusive(found: Store) -> Judged:
    if found.error:
        return NOT_SEEN
    return judged(found.is_exclusive, "" if found.winners == 1 else f"{found.winners} writers succeeded")


def _is_shared(found: Store) -> Judged:
    if found.is_local:
        return Verdict.NOT_SEEN, "a path of this machine"
    return judged(None if found.error else True, "" if found.error else "an object store")


# The account


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
    additional = {True: "others are allowed", False: "others are refused", None: "nothing is said of others"}
    return judged(holds, f"{', '.join(schema.inputs)}; {additional[schema.additional]}")


def _sides(seen: Observations) -> Judged:
    schema = seen.account.schema
    if schema is None or schema.smallest is None or schema.largest is None:
        return NOT_SEEN
    holds = schema.smallest <= MIN_SIDE and schema.largest >= MAX_SIDE
    return judged(holds, f"{schema.smallest} to {schema.largest}")


def _seeds(seen: Observations) -> Judged:
    schema = seen.account.schema
    if schema is None or schema.highest_seed is None:
        return NOT_SEEN
    lowest = 0 if schema.lowest_seed is None else schema.lowest_seed
    return judged(lowest <= 0 and schema.highest_seed >= MAX_SEED, f"up to {schema.highest_seed}")


# Purchases


def _amount(spending: Spending) -> Judged:
    blocked = {Refusal.NO_BALANCE, Refusal.NO_PRICE, Refusal.ABOVE_AMOUNT, Refusal.ABOVE_BALANCE}
    return judged(spending.refused not in blocked, str(spending.refused or ""))


def _stored(spending: Spending) -> Judged:
    if not spending.purchases:
        return NOT_SEEN
    failed = [f"{each.requested} {each.error}" for each in spending.purchases if each.error]
    number = len(spending.purchases) - len(failed)
    return judged(not failed and spending.refused is None, "; ".join([f"{number} stored", *failed]))


def _no_loss(spending: Spending) -> Judged:
    if not spending.purchases:
        return NOT_SEEN
    lost = sum(each.is_paid == "possibly" for each in spending.purchases)
    return judged(not lost, f"{lost} possibly paid" if lost else "")


def _submission(purchase: Purchase) -> Judged:
    def is_as_documented(answer: Answer) -> Judged:
        holds = answer.is_good and purchase.status not in ("", "other")
        return judged(holds, purchase.status or said(answer))

    return answered(purchase.response, is_as_documented)


def _known_at_once(spending: Spending) -> Judged:
    polling = spending.polling
    if polling is None or polling.known_after is None:
        return NOT_SEEN if polling is None else judged(False, f"{polling.unknown} polls do not know it")
    return judged(polling.unknown == 0, f"after {polling.known_after:.1f} s")


def _statuses(spending: Spending) -> Judged:
    polling = spending.polling
    if polling is None or not polling.statuses:
        return NOT_SEEN
    return judged("other" not in polling.statuses, ", ".join(polling.statuses))


def _duration(spending: Spending) -> Judged:
    if spending.polling is None:
        return NOT_SEEN
    seconds = spending.polling.ended_after
    if seconds is None:
        return judged(False, f"not within {SHOWN_WITHIN:.0f} s")
    return judged(seconds <= WAITED_IN_WORKER, f"after {seconds:.0f} s")


def listing(name: str, words: str = "") -> Judge:
    """Judge one way of listing the history: it shows the purchase."""

    def of_listing(spending: Spending) -> Judged:
        found, plain = spending.listings.get(name), spending.listings.get(PLAIN)
        if found is None or plain is None or not found.listings:
            return NOT_SEEN
        if found.shown_after is not None:
            return judged(True, f"after {found.shown_after:.1f} s")
        if name != PLAIN and plain.shown_after is None:
            return Verdict.NOT_SEEN, "no listing shows the purchase"
        return judged(False, found.error or words or f"not in {found.listings} listings")

    return bought(of_listing)


def _filters(spending: Spending) -> Judged:
    if spending.excludes_model is None or spending.excludes_date is None:
        return NOT_SEEN
    words = {"model": spending.excludes_model, "date": spending.excludes_date}
    ignored = [name for name, excludes in words.items() if not excludes]
    return judged(not ignored, f"ignored: {', '.join(ignored)}" if ignored else "")


def _echoes(spending: Spending) -> dict[str, Echo]:
    """Return where the API repeats the inputs of the first purchase."""
    listings: dict[str, Listing] = spending.listings
    found = {f"history, {name}": each.echo for name, each in listings.items()}
    if spending.polling is not None:
        found["result"] = spending.polling.echo
    return {place: echo for place, echo in found.items() if echo is not None}


def _echo(spending: Spending) -> Judged:
    echoes = _echoes(spending)
    if not echoes:
        return NOT_SEEN
    places = sorted({place.partition(",")[0] for place, echo in echoes.items() if echo.is_ours})
    flag = " on request" if not _is_ours(echoes.get(f"history, {PLAIN}")) else ""
    shown = [f"history{flag}" if place == "history" else place for place in places]
    return judged(bool(places), f"in the {' and the '.join(shown)}" if places else "")


def _is_ours(echo: Echo | None) -> bool:
    return echo is not None and echo.is_ours


def _exact_echo(spending: Spending) -> Judged:
    shown = [echo for echo in _echoes(spending).values() if echo.field]
    if not shown:
        return NOT_SEEN
    fields = ", ".join(sorted({echo.field for echo in shown}))
    return judged(all(echo.is_exact for echo in shown), f"in the field {fields}")


def size(requested: str) -> Judge:
    """Judge whether an image has the size that was requested."""

    def of_size(spending: Spending) -> Judged:
        found = next((each for each in spending.purchases if each.requested == requested), None)
        if found is None:
            return NOT_SEEN
        if found.width is None:
            return judged(False, found.error) if found.error == "PredictionRefusedError" else NOT_SEEN
        real = f"{found.width}*{found.height}"
        return judged(real == requested, "" if real == requested else f"it is {real}")

    return bought(of_size)


def _output(purchase: Purchase) -> Judged:
    output = purchase.output
    if output is None or not output.status:
        return NOT_SEEN
    redirects = f", {output.redirects} redirects" if output.redirects else ""
    is_fetched = output.status == 200 and not purchase.error.startswith("Output")
    return judged(is_fetched, f"HTTP {output.status} from {output.host}{redirects}")


def _extension(purchase: Purchase) -> Judged:
    if purchase.output is None:
        return NOT_SEEN
    return judged(purchase.output.is_extension_right, purchase.media_type)


def _bill(spending: Spending) -> Judged:
    answer, purchases = spending.bill, [each for each in spending.purchases if not each.error]
    if answer is None or not purchases:
        return NOT_SEEN
    if not answer.is_good:
        return is_well(answer)
    found = sum(each.charges > 0 for each in purchases)
    return judged(found == len(purchases), f"{found} of {len(purchases)} purchases")


def _charge(spending: Spending) -> Judged:
    found = [
        each.is_charged_as_quoted for each in spending.purchases if each.is_charged_as_quoted is not None
    ]
    return judged(all(found)) if found else NOT_SEEN


def _balance(spending: Spending) -> Judged:
    return judged(spending.is_balance_right)


def _deletion(spending: Spending) -> Judged:
    return answered(
        spending.deletion,
        lambda answer: judged(answer.is_good and spending.deleted == 1, said(answer)),
    )


def _gone(spending: Spending) -> Judged:
    def is_gone(after: Answer) -> Judged:
        holds = after.error == "NotFoundError" or spending.status_after_deletion == "deleted"
        return judged(holds, spending.status_after_deletion or said(after))

    is_deleted = spending.deletion is not None and spending.deletion.is_good
    return answered(spending.after_deletion if is_deleted else None, is_gone)


_REPORT = "Please report it with the file of --json"
ASSUMPTIONS: tuple[Assumption, ...] = (
    Assumption(
        "versions",
        "The versions of Airflow and Python are supported.",
        "See docs/versions.md, and install one of those",
        _versions,
    ),
    Assumption(
        "proxy",
        "The API is reached as the proxy settings say.",
        "Correct HTTPS_PROXY and NO_PROXY on every worker and triggerer",
        _proxy,
    ),
    Assumption(
        "certificates",
        "A CA bundle that is set for other programs is used here, too.",
        "Set SSL_CERT_FILE to the same file: httpx does not read REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE",
        _certificates,
    ),
    Assumption(
        "records_usable",
        "The records can be written, read, listed and deleted.",
        "Let the workers' user, or the store's credentials, do all four below the records path",
        store(lambda seen: seen.records, _is_usable),
    ),
    Assumption(
        "records_exclusive",
        "Of several writers of one record, exactly one succeeds.",
        "Use S3, Google Cloud Storage, Azure Blob Storage or a shared disk for records_path: else two "
        "workers on one job could both buy",
        store(lambda seen: seen.records, _is_exclusive),
    ),
    Assumption(
        "records_listed",
        "A new record is in a listing at once.",
        "Expect reconcile and large batches to see records late; an image may then be bought again",
        store(lambda seen: seen.records, lambda found: judged(None if found.error else found.is_listed)),
    ),
    Assumption(
        "records_shared",
        "Every worker sees the records.",
        "Set records_path to an object store or a disk that all workers mount",
        store(lambda seen: seen.records, _is_shared),
    ),
    Assumption(
        "images_usable",
        "Images can be written, read, listed and deleted.",
        "Let the workers' user, or the store's credentials, do all four below the output path",
        store(lambda seen: seen.images, _is_usable),
    ),
    Assumption(
        "key",
        "The API accepts the key of the connection.",
        "Check the connection's password and host; a key works only after the first top-up. "
        "docs/connection.md explains the messages of the test button",
        _key,
    ),
    Assumption("credit", "The account has credit.", "Top up the WaveSpeed account", _credit),
    Assumption(
        "clock",
        "The API's clock and this machine's agree.",
        "Synchronize this machine's clock. The provider corrects for the difference meanwhile",
        _clock,
    ),
    Assumption(
        "wrong_key",
        "A wrong key is refused as such.",
        f"Expect other messages. {_REPORT}",
        lambda seen: answered(seen.account.wrong_key, refused_as("AuthenticationError")),
    ),
    Assumption(
        "unknown_prediction",
        "A prediction that does not exist is reported as not found.",
        f"Expect a task whose prediction was deleted to poll until its timeout. {_REPORT}",
        lambda seen: answered(seen.account.unknown_prediction, refused_as("NotFoundError")),
    ),
    Assumption(
        "unknown_model",
        "A model that does not exist is refused before anything is charged.",
        f"Check the model's path before you use another one: a wrong one may be charged. {_REPORT}",
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
        "Set price_usd in the connection to what WaveSpeed's page says, or switch live_price on",
        _price,
    ),
    Assumption(
        "catalogue",
        "The catalogue describes the model's inputs.",
        f"Nothing to do: tasks do not read it. {_REPORT}",
        _schema,
    ),
    Assumption(
        "inputs",
        "The model takes prompt, size and seed, and requires nothing else.",
        f"Update the provider. {_REPORT}",
        _inputs,
    ),
    Assumption(
        "sides",
        f"A side has {MIN_SIDE} to {MAX_SIDE} pixels.",
        "Request only sizes within the model's limits; others fail after they are charged",
        _sides,
    ),
    Assumption(
        "seeds",
        f"A seed is at most {MAX_SEED}.",
        "Give seeds within the model's limits: one that is drawn may be refused",
        _seeds,
    ),
    Assumption(
        "history",
        "The key may list the account's predictions.",
        "Use a key that may: else no lost response can be resolved",
        lambda seen: is_well(seen.account.history),
    ),
    Assumption(
        "history_inputs",
        "A listing may request the inputs.",
        "Nothing to do: the provider then lists without them, and requests each prediction",
        lambda seen: is_well(seen.account.history_with_inputs),
    ),
    Assumption(
        "bill",
        "The key may read the account's bill.",
        "Use a key that may for reconcile: else it cannot compare costs",
        lambda seen: is_well(seen.account.bill),
    ),
    Assumption(
        "amount",
        "Prices and balance allow the purchases.",
        "Raise --spend or top up the account. Nothing was bought",
        bought(_amount),
    ),
    Assumption(
        "stored",
        "Each purchase gives an image that is stored.",
        "Read the messages above. What is paid for and not stored, reconcile collects within 7 days",
        bought(_stored),
    ),
    Assumption(
        "responses",
        "No response to a purchase was lost.",
        "Nothing was bought again. Run reconcile later: it says what became of the purchase",
        bought(_no_loss),
    ),
    Assumption(
        "submission",
        "The response to a purchase has an id and a documented status.",
        f"Read the messages above. {_REPORT}",
        first_one(_submission),
    ),
    Assumption(
        "known_at_once",
        "A prediction can be polled as soon as it is bought.",
        "Nothing to do: tasks poll again for a minute before they take it for gone",
        bought(_known_at_once),
    ),
    Assumption(
        "statuses",
        "A prediction's statuses are the documented ones.",
        f"Nothing to do: tasks poll on at an unknown status. {_REPORT}",
        bought(_statuses),
    ),
    Assumption(
        "duration",
        f"An image is ready within {WAITED_IN_WORKER:.0f} seconds.",
        "Set defer_after to 0 for deferrable tasks, so that they do not wait in the worker first",
        bought(_duration),
    ),
    Assumption(
        "history_shows",
        f"The history shows a purchase within {SHOWN_WITHIN:.0f} seconds.",
        'Set on_lost_response="fail": the history cannot prove what became of a lost response',
        listing(PLAIN),
    ),
    Assumption(
        "history_by_model",
        "The history's filter by model shows it.",
        f'Set on_lost_response="fail" until this is corrected. {_REPORT}',
        listing("by model"),
    ),
    Assumption(
        "history_by_date",
        "The history's filter by date shows it.",
        f'Set on_lost_response="fail" until this is corrected. {_REPORT}',
        listing("by date"),
    ),
    Assumption(
        "history_as_listed",
        "The history shows it in the form in which tasks list it.",
        f'Set on_lost_response="fail" until this is corrected. {_REPORT}',
        listing("as the engine lists"),
    ),
    Assumption(
        "history_filters",
        "The filters leave out other models and older predictions.",
        "Nothing to do: tasks then read more pages, and compare the inputs",
        bought(_filters),
    ),
    Assumption(
        "echo",
        "The API repeats prompt and seed of a purchase, so a lost response can be found.",
        'Expect lost responses to be possibly paid; on_lost_response="fail" leaves each to you',
        bought(_echo),
    ),
    Assumption(
        "exact_echo",
        "What it repeats is what was sent, to the character.",
        f"Nothing to do where the row above holds. {_REPORT}",
        bought(_exact_echo),
    ),
    Assumption(
        "native_size",
        "An image of 1024*1024 has that size.",
        f"Read the size of an image from its result. {_REPORT}",
        size("1024*1024"),
    ),
    Assumption(
        "preset_size",
        "An image of 1280*720, which 16:9 means here, has that size.",
        "Read the size of an image from its result, which says what was made",
        size("1280*720"),
    ),
    Assumption(
        "free_size",
        "An image of 1000*700, which is on no list of the model, has that size.",
        "Request sizes of the model's list only, or crop: the result says what was made",
        size("1000*700"),
    ),
    Assumption(
        "output",
        "An output is fetched without the key.",
        "Let the workers reach the host of the outputs",
        first_one(_output),
    ),
    Assumption(
        "extension",
        "The extension in an output's URL is that of its format.",
        "Nothing to do: the stored file has the extension of the real format",
        first_one(_extension),
    ),
    Assumption(
        "billed",
        "The bill shows each purchase under its prediction's id.",
        "Run reconcile later: the bill may be behind",
        bought(_bill),
    ),
    Assumption(
        "charge",
        "A purchase is charged with what was quoted.",
        "Set price_usd in the connection to what reconcile shows as the real cost",
        bought(_charge),
    ),
    Assumption(
        "balance",
        "The balance falls by what was quoted.",
        "Check whether another program bought meanwhile. Else compare the bill on WaveSpeed's dashboard",
        bought(_balance),
    ),
    Assumption(
        "deletion",
        "A prediction can be deleted.",
        f"Nothing to do: tasks delete nothing. {_REPORT}",
        bought(_deletion),
    ),
    Assumption(
        "gone",
        "A deleted prediction is reported as gone.",
        "Expect a task whose prediction was deleted to poll until its timeout",
        bought(_gone),
    ),
)
"""All of them, in the order of the table."""


def judge_all(seen: Observations) -> list[tuple[Assumption, Verdict, str]]:
    """Judge every assumption: with the verdict, and what it rests on."""
    return [(each, *each.judge(seen)) for each in ASSUMPTIONS]
