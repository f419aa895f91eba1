"""What is assumed of purchases: what only ``--spend`` shows."""

from __future__ import annotations

from collections.abc import Callable

from airflow_provider_bitdance.check.history import ENGINE, PLAIN
from airflow_provider_bitdance.check.observations import Answer, Echo, Listing, Purchase, Refusal, Spending
from airflow_provider_bitdance.check.verdicts import (
    NOT_SEEN,
    REPORT,
    Assumption,
    Judge,
    Judged,
    Verdict,
    answered,
    is_well,
    judged,
    said,
)
from airflow_provider_bitdance.engine.lost_response_decisions import SHOWN_WITHIN

WAITED_IN_WORKER = 15.0
"""Seconds: the default of ``defer_after``."""
NOT_BOUGHT: Judged = (Verdict.NOT_SEEN, "needs --spend")


def bought(judge: Callable[[Spending], Judged]) -> Judge:
    """Judge what only a purchase shows."""
    return lambda seen: NOT_BOUGHT if seen.spending is None else judge(seen.spending)


def first_one(judge: Callable[[Purchase], Judged]) -> Judge:
    """Judge what the first purchase shows."""

    def of_first(spending: Spending) -> Judged:
        return judge(spending.purchases[0]) if spending.purchases else NOT_SEEN

    return bought(of_first)


def _amount(spending: Spending) -> Judged:
    if spending.refused in {Refusal.NO_STORE, Refusal.NO_BALANCE, Refusal.NO_PRICE}:
        return Verdict.NOT_SEEN, str(spending.refused)
    blocked = {Refusal.ABOVE_AMOUNT, Refusal.ABOVE_BALANCE}
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
        return NOT_SEEN if polling is None else judged(False, f"{polling.unknown} polls did not find it")
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


def listing(name: str) -> Judge:
    """Judge one way of listing the history: it shows the purchase."""

    def of_listing(spending: Spending) -> Judged:
        found, plain = spending.listings.get(name), spending.listings.get(PLAIN)
        if found is None or plain is None or not found.listings:
            return NOT_SEEN
        if found.shown_after is not None:
            return judged(True, f"after {found.shown_after:.1f} s")
        if name != PLAIN and plain.shown_after is None:
            return Verdict.NOT_SEEN, "no listing shows the purchase"
        return judged(False, found.error or f"not in {found.listings} listings")

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


OF_PURCHASES: tuple[Assumption, ...] = (
    Assumption(
        "amount",
        "Prices and balance allow the purchases.",
        "Raise --spend or top up the account. Nothing was bought",
        bought(_amount),
    ),
    Assumption(
        "stored",
        "Each purchase gives an image that is stored.",
        "Read the messages above. Within 7 days, reconcile collects images that are paid for but not stored",
        bought(_stored),
    ),
    Assumption(
        "responses",
        "No response to a purchase was lost.",
        "Nothing was bought again. Run reconcile later: it reports what became of the purchase",
        bought(_no_loss),
    ),
    Assumption(
        "submission",
        "The response to a purchase has an id and a documented status.",
        f"Read the messages above. {REPORT}",
        first_one(_submission),
    ),
    Assumption(
        "known_at_once",
        "A prediction can be polled as soon as it is bought.",
        "Nothing to do: tasks poll for another minute before they treat it as gone",
        bought(_known_at_once),
    ),
    Assumption(
        "statuses",
        "A prediction's statuses are the documented ones.",
        f"Nothing to do: tasks keep polling at an unknown status. {REPORT}",
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
        f'Set on_lost_response="fail" until this is corrected. {REPORT}',
        listing("by model"),
    ),
    Assumption(
        "history_by_date",
        "The history's filter by date shows it.",
        f'Set on_lost_response="fail" until this is corrected. {REPORT}',
        listing("by date"),
    ),
    Assumption(
        "history_as_listed",
        "The history shows it when listed as tasks list it.",
        f'Set on_lost_response="fail" until this is corrected. {REPORT}',
        listing(ENGINE),
    ),
    Assumption(
        "history_filters",
        "The filters leave out other models and older predictions.",
        "Nothing to do: tasks read more pages and compare the inputs",
        bought(_filters),
    ),
    Assumption(
        "echo",
        "The API repeats the prompt and seed of a purchase, so a lost response can be resolved.",
        'Expect lost responses to be possibly paid; with on_lost_response="fail" you decide each',
        bought(_echo),
    ),
    Assumption(
        "exact_echo",
        "It repeats them exactly as they were sent.",
        f"Nothing to do if the row above holds. {REPORT}",
        bought(_exact_echo),
    ),
    Assumption(
        "native_size",
        "An image of 1024*1024 has that size.",
        f"Read the size of an image from its result. {REPORT}",
        size("1024*1024"),
    ),
    Assumption(
        "preset_size",
        "An image of 1280*720, the preset 16:9, has that size.",
        "Read the size of an image from its result, which has the real size",
        size("1280*720"),
    ),
    Assumption(
        "free_size",
        "An image of 1000*700, which the model does not list, has that size.",
        "Request only sizes that the model lists, or crop: the result has the real size",
        size("1000*700"),
    ),
    Assumption(
        "output",
        "An output is fetched without the key.",
        "Allow the workers to reach the host of the outputs",
        first_one(_output),
    ),
    Assumption(
        "extension",
        "The extension in an output's URL matches its format.",
        "Nothing to do: the stored file has the extension of the real format",
        first_one(_extension),
    ),
    Assumption(
        "billed",
        "The bill shows each purchase under its prediction's id.",
        "Run reconcile later: the bill may lag behind",
        bought(_bill),
    ),
    Assumption(
        "charge",
        "A purchase is charged at the quoted price.",
        "Set price_usd in the connection to the real cost that reconcile shows",
        bought(_charge),
    ),
    Assumption(
        "balance",
        "The balance falls by the quoted price.",
        "Check whether another program bought at the same time. If not, check the bill on WaveSpeed's "
        "dashboard",
        bought(_balance),
    ),
    Assumption(
        "deletion",
        "A prediction can be deleted.",
        f"Nothing to do: tasks delete nothing. {REPORT}",
        bought(_deletion),
    ),
    Assumption(
        "gone",
        "A deleted prediction is reported as gone.",
        "Expect a task whose prediction was deleted to poll until its timeout",
        bought(_gone),
    ),
)
