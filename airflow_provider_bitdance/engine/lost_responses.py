"""Lost responses: what became of a purchase that was intended and whose response nobody has read.

The account's history is searched, and only proof counts: the API echoes our prompt and seed for a prediction
that none of our records knows. Time alone proves nothing, for other programs buy, too; a wrong image costs
more than a cent. An empty history proves nothing, either: it may be behind. What it does not show is possibly
paid and bought again, until a later listing shows that purchase and still not this one (:func:`settle`).
A response lost just now and an intent found after a crash take the same path.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from airflow_provider_bitdance.engine import decisions
from airflow_provider_bitdance.engine.account_history import (
    History,
    controls,
    read_bill,
    read_history,
    with_charged,
    with_inputs,
)
from airflow_provider_bitdance.engine.context import JobContext
from airflow_provider_bitdance.engine.decisions import (
    ARRIVES_WITHIN,
    IntentFacts,
    LossFacts,
    Proof,
    decide_intent,
    decide_losses,
)
from airflow_provider_bitdance.engine.output import fetch_output
from airflow_provider_bitdance.exceptions import (
    APIError,
    BitDanceError,
    LostResponseError,
    OutputError,
    RecordError,
)
from airflow_provider_bitdance.records import ImageState, Journal, Lost, NotCreated, Status, Submitted
from airflow_provider_bitdance.records.notes import NOTES, is_note
from airflow_provider_bitdance.records.state import LostPurchase
from airflow_provider_bitdance.wavespeed.image_request import ImageRequest
from airflow_provider_bitdance.wavespeed.responses import Prediction

READING_PAUSES = (1.0, 2.0, 4.0)
"""Seconds between tries to read the history."""
CLOCKS_MAY_DIFFER = 60.0
"""Seconds between the clocks of two workers, as far as it costs only reading a few more entries."""
NOTHING_FOUND = "The account's history does not show it, which proves nothing yet"
NOT_SHOWN = "The account's history shows what was bought later, and not this"


def proof_of(prediction: Prediction, request: ImageRequest) -> Proof:
    """Compare what the API echoes of a prediction with what was sent.

    Only the seed distinguishes two images of one prompt, so ours has both. The API may write a size in
    another form, or leave it out. It may trim, cut or extend a prompt and leave out a seed: a prediction is
    another's only if both differ.
    """
    echoed = prediction.input or {}
    prompt, seed = echoed.get("prompt"), _number(echoed.get("seed"))
    if not isinstance(prompt, str) and seed is None:
        return Proof.NONE
    is_same_prompt = isinstance(prompt, str) and prompt.split() == request.prompt.split()
    is_same_seed = seed == request.seed
    if is_same_prompt and is_same_seed:
        return Proof.OURS if _sides(echoed.get("size")) in (None, _sides(request.size)) else Proof.SIMILAR
    is_another = isinstance(prompt, str) and seed is not None and not (is_same_prompt or is_same_seed)
    return Proof.ANOTHER if is_another else Proof.SIMILAR


def _number(value: object) -> int | None:
    """Read a seed, a number or one as text."""
    text = str(value).strip() if isinstance(value, int | str) and not isinstance(value, bool) else ""
    return int(text) if re.fullmatch(r"-?[0-9]{1,10}", text) else None


def _sides(value: object) -> tuple[int, int] | None:
    """Read a size such as 1024*1024 or 1024x1024; ``None`` where it does not say two sides."""
    found = re.fullmatch(r"\s*([0-9]{1,5})\s*[*xX]\s*([0-9]{1,5})\s*", str(value or ""))
    return (int(found[1]), int(found[2])) if found else None


@dataclass(frozen=True, slots=True)
class _Listing:
    """One listing of the account's history, seen from one Dag run.

    :param unknown: What none of the run's records knows, with the inputs that the API echoes.
    :param controls: Unix times at which purchases were made that the records know and the listing shows.
    """

    unknown: History
    controls: tuple[float, ...]

    def proofs(
        self, request: ImageRequest, *, since: float, without: Collection[str] = ()
    ) -> dict[str, Proof]:
        """Return by id, oldest first, what it proves of each that may have been made since a moment."""
        items = (item for item in self.unknown.since(since) if item.id not in without)
        return {item.id: proof_of(item, request) for item in items}


async def resolve_intents(
    context: JobContext,
    journal: Journal,
    keys: Collection[str] | None = None,
    *,
    may_arrive: bool = True,
) -> None:
    """Write down what became of open intents of a job: submitted, or lost. Buys nothing.

    :param journal: The job's journal, claimed by this process.
    :param keys: Of these images only. All is right if no purchase of the job is under way.
    :param may_arrive: A request may still arrive; not if there was a response, or long after.
    :raises LostResponseError: The history cannot be read now; the intents stay open for a next try.
    """
    searches, given_up_at = 0, context.clock.time()
    while intents := _open_intents(journal, keys):
        attempt = _Attempt(intents, given_up_at, searches, may_arrive)
        pause = await _search_patiently(context, journal, attempt)
        if pause is None:
            break
        searches += 1
        await context.clock.sleep(pause)
    # The process that made an intent may have its response by now, though it was replaced. Then the budget
    # counts it. If a note cannot be read now, the next process and reconcile read it.
    with contextlib.suppress(RecordError):
        await asyncio.to_thread(journal.read_notes)


async def settle_losses(context: JobContext) -> None:
    """Write down which purchases of the job, recorded as lost, were certainly not made. Buys nothing.

    One listing, and none where it cannot tell yet. What it leaves open, ``reconcile`` settles later.

    :raises BitDanceError: History, bill or a record cannot be read or written now.
    """
    now, journal = context.clock.time(), context.journal
    losses = [
        (image.plan.key, number, loss)
        for image in journal.state.images.values()
        for number, loss in image.lost.items()
        if number not in {note.intent for note in image.notes}  # what came of that is known
    ]
    if not any(decisions.may_be_settled(loss.given_up_at, now=now) for _, _, loss in losses):
        return
    losses.sort(key=lambda each: each[2].intended_at, reverse=True)  # what was made may be the last one's
    async with context.coordination.resolving:
        periods = [_period(loss) for _, _, loss in losses]
        since = min(start for start, _ in periods)
        listing = await _list(context, journal, losses[0][2].request.model, since, periods)
        facts = [
            LossFacts(listing.proofs(loss.request, since=start), loss.given_up_at, listing.controls, now)
            for (_, _, loss), (start, _) in zip(losses, periods, strict=True)
        ]
        events = [
            NotCreated(key=key, reason=NOT_SHOWN, intent=number)
            for (key, number, _), command in zip(losses, decide_losses(facts), strict=True)
            if isinstance(command, decisions.NotCreated)
        ]
        if events:
            await context.write(*events)
            context.log.info(
                "Of the purchases whose response was lost, %d turned out not to be made. %s",
                len(events),
                NOT_SHOWN,
            )


def _period(loss: LostPurchase) -> tuple[float, float]:
    """Return between which times, by the clock of any worker, a lost purchase was made, if it was."""
    return loss.intended_at - CLOCKS_MAY_DIFFER, loss.given_up_at + ARRIVES_WITHIN + CLOCKS_MAY_DIFFER


def _open_intents(journal: Journal, keys: Collection[str] | None) -> list[ImageState]:
    intents = journal.state.having(Status.INTENDED)
    return intents if keys is None else [image for image in intents if image.plan.key in keys]


@dataclass(frozen=True, slots=True)
class _Attempt:
    """What one search is for.

    :param given_up_at: Unix time at which they were given up, or their process replaced.
    :param searches: How many there were before.
    """

    intents: list[ImageState]
    given_up_at: float
    searches: int
    may_arrive: bool


async def _search_patiently(context: JobContext, journal: Journal, attempt: _Attempt) -> float | None:
    """Search the history; return the seconds until the next search, or ``None`` if nothing is left open."""

    async def search() -> float | None:
        # One at a time: two intents must not both take one prediction.
        async with context.coordination.resolving:
            return await _search(context, journal, attempt)

    try:
        return await context.retrying(
            search,
            pauses=READING_PAUSES,
            is_transient=lambda error: error.retry_helps and not isinstance(error, RecordError),
        )
    except RecordError:
        raise
    except BitDanceError as error:
        await _give_up_unread(context, journal, attempt, error)
        return None


async def _search(context: JobContext, journal: Journal, attempt: _Attempt) -> float | None:
    """Carry out what one search of the history can decide.

    First each intent takes what is proven to be its own: then it leaves no doubt about the others. Of the
    others the last one comes first, because it has the fewest predictions that can be its own.
    """
    since = min(image.intended_at for image in attempt.intents)
    model = attempt.intents[0].plan.request.model
    listing = await _list(context, journal, model, since)
    searched = {image.plan.key for image in attempt.intents}

    def is_unproven(image: ImageState) -> bool:
        proofs = listing.proofs(image.plan.request, since=image.intended_at)
        return Proof.OURS not in proofs.values()

    pauses = []
    for image in sorted(attempt.intents, key=lambda image: (is_unproven(image), -image.intended_at)):
        others = [other for other in journal.state.having(Status.INTENDED) if other.plan.key not in searched]
        facts = IntentFacts(
            proofs=_proofs_of(journal, image, listing),
            searches=attempt.searches,
            may_arrive=attempt.may_arrive,
            underway=len(others),
            same_underway=any(_same_but_size(other.plan.request, image.plan.request) for other in others),
            doubted=context.coordination.doubted,
        )
        command = decide_intent(facts)
        if isinstance(command, decisions.Lost) and (
            found := await _found_by_pixels(context, journal, image, listing, facts.proofs)
        ):
            command = decisions.Found((found,))
        if isinstance(command, decisions.SearchAgain):
            pauses.append(command.after)
        else:
            await _carry_out(context, journal, image, attempt, command)
    return min(pauses, default=None)


def _proofs_of(journal: Journal, image: ImageState, listing: _Listing) -> dict[str, Proof]:
    """Return what the listing proves of each prediction that may be an image's.

    Of several images of one prompt and seed, in several sizes, only an echo of the size distinguishes them.
    """
    request = image.plan.request
    proofs = listing.proofs(request, since=image.intended_at, without=_predictions_of(journal))
    requests = (other.plan.request for other in journal.state.images.values())
    if any(other != request and _same_but_size(other, request) for other in requests):
        shown = {item.id: _sides((item.input or {}).get("size")) for item in listing.unknown.items}
        proofs |= {
            name: Proof.SIMILAR for name, proof in proofs.items() if proof is Proof.OURS and not shown[name]
        }
    return proofs


def _same_but_size(one: ImageRequest, other: ImageRequest) -> bool:
    return one.model_copy(update={"size": other.size}) == other


async def _carry_out(
    context: JobContext,
    journal: Journal,
    image: ImageState,
    attempt: _Attempt,
    command: decisions.Found | decisions.Lost,
) -> None:
    match command:
        case decisions.Found((found, *more)):
            await context.write(
                Submitted(key=image.plan.key, prediction_id=found, found=True), journal=journal
            )
            context.log.info(
                "The response to a purchase was lost. The account's history proves that "
                "it created prediction %s",
                found,
            )
            if more:
                context.log.warning(
                    "The account's history shows the same request more than once; also collectable: %s",
                    ", ".join(more),
                )
        case decisions.Lost(()):
            await _give_up(context, journal, image, attempt, NOTHING_FOUND, ())
        case decisions.Lost(doubtful):
            # It can be one purchase only. The oldest is taken: a newer one may be that of an intent which
            # another purchase of this process has written since, and which the oldest cannot be.
            context.coordination.doubted.add(doubtful[0])
            count = len(doubtful)
            reason = (
                f"The account's history shows {count} predictions from that time that may be it, "
                "and proves it of none"
            )
            await _give_up(context, journal, image, attempt, reason, doubtful)


async def _found_by_pixels(
    context: JobContext,
    journal: Journal,
    image: ImageState,
    listing: _Listing,
    proofs: dict[str, Proof],
) -> str:
    """Return the only candidate if it has our prompt, seed and pixels, though no or another size is echoed.

    Not if another request of this job asks for the size that is echoed.
    """
    candidates = [name for name, proof in proofs.items() if proof is not Proof.ANOTHER]
    if len(candidates) != 1 or proofs[candidates[0]] is not Proof.SIMILAR:
        return ""
    (item,) = (item for item in listing.unknown.items if item.id == candidates[0])
    request, size = image.plan.request, (item.input or {}).get("size")
    requests = [other.plan.request for other in journal.state.images.values()]
    if proof_of(item, request.model_copy(update={"size": size})) is not Proof.OURS:
        return ""
    if _sides(size) and any(proof_of(item, other) is Proof.OURS for other in requests):
        return ""
    try:
        found = await context.client.get_prediction(item.id)
        valid = await fetch_output(context, found) if found.is_completed else None
    except (APIError, OutputError):
        return ""
    is_of_size = valid is not None and (valid.width, valid.height) == _sides(request.size)
    return item.id if is_of_size else ""


async def _list(
    context: JobContext,
    journal: Journal,
    model: str,
    since: float,
    periods: Sequence[tuple[float, float]] = (),
) -> _Listing:
    """List the account's history since a moment, and see what the records of this Dag run know of it.

    :param periods: Unix times between which also what only the bill has is of interest.
    """
    client = context.client
    history = await read_history(client, context.clock, model=model, since=since)
    bill = await read_bill(client, datetime.fromtimestamp(since, UTC)) if periods else None
    ids, known = {item.id for item in history.items}, _predictions_of(journal)
    if left := ids.union(row.prediction_id for row in (bill.rows if bill else ())) - known:
        known |= await asyncio.to_thread(_known, context, journal, left, since)
    if bill is not None:
        history = await with_charged(client, history, bill, model=model, known=known, periods=periods)
    unknown = await with_inputs(client, (item for item in history.items if item.id not in known))
    return _Listing(replace(history, items=tuple(unknown)), controls(history, known, bill))


def _predictions_of(journal: Journal) -> set[str]:
    return set[str]().union(*(image.predictions for image in journal.state.images.values()))


def _known(context: JobContext, journal: Journal, ids: set[str], since: float) -> set[str]:
    """Return those of some predictions that a journal of the same Dag run speaks of.

    :param since: Unix time before which none of them was made: older entries are not read.
    """
    run = "/".join(journal.job.folder.split("/")[:3])
    entries = defaultdict[str, list[str]](list)
    for name in context.records.names(run):
        entries[name.rpartition("/")[0]].append(name)
    for own in (journal.job.folder, journal.job.folder + NOTES):
        entries.pop(own, None)
    left = set(ids)
    for names in entries.values():
        for name in sorted(names, reverse=True):
            entry = context.records.read(name) or b""
            left -= {id_ for id_ in left if id_.encode() in entry}
            if not left:
                return ids
            # Notes are not in the order of their time; there are few.
            if _written_at(entry) < since - CLOCKS_MAY_DIFFER and not is_note(name):
                break
    return ids - left


def _written_at(entry: bytes) -> float:
    """Return the Unix time of a journal's entry; of one that cannot be read, infinity."""
    try:
        return datetime.fromisoformat(json.loads(entry)["time"]).timestamp()
    except (ValueError, KeyError, TypeError):
        return math.inf


async def _give_up(
    context: JobContext,
    journal: Journal,
    image: ImageState,
    attempt: _Attempt,
    reason: str,
    doubtful: Collection[str],
) -> None:
    # The ids are for the log only: a journal that speaks of them would seem to have bought them.
    lost = Lost(key=image.plan.key, reason=reason, given_up_at=attempt.given_up_at)
    await context.write(lost, journal=journal)
    context.log.warning(
        "The response to a purchase was lost: possibly paid, about $%.4g. %s%s",
        image.plan.estimated_cost_usd,
        reason,
        f": {', '.join(doubtful)}" if doubtful else "",
    )


async def _give_up_unread(
    context: JobContext, journal: Journal, attempt: _Attempt, error: BitDanceError
) -> None:
    """Leave the intents open if a next try may read the history; else give them up."""
    reason = f"The account's history could not be read: {error.what}"
    if error.retry_helps:
        raise LostResponseError(
            f"The response to a purchase was lost. {reason}", fix="The next try searches again before it buys"
        ) from error
    for image in attempt.intents:
        await _give_up(context, journal, image, attempt, reason, ())
