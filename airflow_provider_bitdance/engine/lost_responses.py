"""Lost responses: what became of a purchase that was intended and whose response nobody has read.

The account's history is searched, and only proof counts (``proof.py``). An empty history proves nothing: it
may be behind. What it does not show is possibly paid and bought again, until a later listing shows that
purchase and still not this one (``settlement.py``). A response lost just now and an intent found after a
crash take the same path.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection
from dataclasses import dataclass

from airflow_provider_bitdance.engine import lost_response_decisions as decisions
from airflow_provider_bitdance.engine.context import JobContext
from airflow_provider_bitdance.engine.listing import Listing, list_account, predictions_of
from airflow_provider_bitdance.engine.lost_response_decisions import IntentFacts, decide_intent
from airflow_provider_bitdance.engine.notices import reason_of_doubt
from airflow_provider_bitdance.engine.output import fetch_output
from airflow_provider_bitdance.engine.proof import Proof, are_alike, proof_of, sides_of
from airflow_provider_bitdance.exceptions import (
    APIError,
    BitDanceError,
    LostResponseError,
    OutputError,
    Paid,
    RateLimitError,
    RecordError,
    ServerError,
    StorageError,
    TaskKilledError,
)
from airflow_provider_bitdance.imaging.validation import ValidImage
from airflow_provider_bitdance.records import ImageState, Journal, Lost, Status, Submitted

READING_PAUSES = (1.0, 2.0, 4.0)
"""Seconds between tries to read the history."""
NOTHING_FOUND = "The account's history does not show it, which proves nothing yet"


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
    :raises TaskKilledError: Airflow stops the task; the same.
    """
    searches, given_up_at = 0, context.clock.time()
    with context.notices.search():
        while intents := await _left_open(context, journal, keys):
            # All of the job's: another process made them, and may be waiting for the response.
            may_be_noted = keys is None and may_arrive
            attempt = _Attempt(intents, given_up_at, searches, may_arrive, may_be_noted)
            pause = await _search_patiently(context, journal, attempt)
            if pause is None:
                break
            searches += 1
            await context.clock.wait_for(context.coordination.killed, pause)
    # The process that made an intent may have its response by now, though it was replaced. Then the budget
    # counts it. If a note cannot be read now, the next process and reconcile read it.
    with contextlib.suppress(RecordError):
        await asyncio.to_thread(journal.read_notes)


async def _left_open(context: JobContext, journal: Journal, keys: Collection[str] | None) -> list[ImageState]:
    """Return the open intents, after those of which a replaced process has noted the response by now.

    The search would not find these: it leaves out what the job's records know. Of our own intents nobody else
    had the response.
    """
    if keys is None and _open_intents(journal, keys):
        with contextlib.suppress(RecordError):
            await context.retrying(
                lambda: asyncio.to_thread(journal.read_notes),
                pauses=READING_PAUSES,
                is_transient=lambda error: isinstance(error, StorageError),
                until=context.coordination.killed,
            )
        await _take_noted(context, journal)
    return _open_intents(journal, keys)


async def _take_noted(context: JobContext, journal: Journal) -> None:
    taken = context.coordination.taken
    for image in _open_intents(journal, None):
        noted = [note.prediction_id for note in image.notes if note.intent == image.intent]
        if noted and noted[0] not in taken and noted[0] not in journal.state.key_of:
            taken.add(noted[0])
            bought = Submitted(key=image.plan.key, prediction_id=noted[0], found=True)
            await context.write(bought, journal=journal)
            context.notices.found(noted[0])


async def recover_noted(context: JobContext) -> list[str]:
    """Take what a replaced process has noted after its intent was given up, for images that are to be bought.

    :return: Their keys: they are submitted now.
    :raises RecordError: It cannot be written.
    """
    journal, recovered = context.journal, []
    failed = (image for image in journal.state.having(Status.FAILED) if context.may_buy_anew(image))
    for image in (*journal.state.having(Status.PLANNED), *failed):
        for note in image.notes:
            loss, id_ = image.lost.get(note.intent), note.prediction_id
            if loss is not None and loss.request == image.plan.request and id_ not in journal.state.key_of:
                context.coordination.taken.add(id_)
                found = Submitted(key=image.plan.key, prediction_id=id_, found=True, intent=note.intent)
                await context.write(found)
                context.notices.found(id_)
                recovered.append(image.plan.key)
                break
    return recovered


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
    may_be_noted: bool

    @property
    def keys(self) -> set[str]:
        """The keys of their images."""
        return {image.plan.key for image in self.intents}


async def _search_patiently(context: JobContext, journal: Journal, attempt: _Attempt) -> float | None:
    """Search the history; return the seconds until the next search, or ``None`` if nothing is left open."""

    passed_on = (RecordError, TaskKilledError)

    async def search() -> float | None:
        if context.coordination.killed.is_set():
            raise TaskKilledError(
                "Airflow stopped the task while it searched for a lost response",
                fix="The next try searches again before it buys",
                paid=Paid.POSSIBLY,
            )
        # One at a time: two intents must not both take one prediction.
        async with context.coordination.resolving:
            return await _search(context, journal, attempt)

    try:
        return await context.retrying(
            search,
            pauses=READING_PAUSES,
            is_transient=lambda error: error.retry_helps and not isinstance(error, passed_on),
            until=context.coordination.killed,
        )
    except passed_on:
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
    listing = await list_account(context, journal, model, since)
    searched = attempt.keys

    def is_unproven(image: ImageState) -> bool:
        proofs = listing.proofs(image.plan.request, since=image.intended_at)
        return Proof.OURS not in proofs.values()

    pauses = []
    # Not those that an earlier run of this search has decided, before it failed.
    left = _open_intents(journal, searched)
    for image in sorted(left, key=lambda image: (is_unproven(image), -image.intended_at)):
        others = [other for other in journal.state.having(Status.INTENDED) if other.plan.key not in searched]
        facts = IntentFacts(
            proofs=_proofs_of(context, journal, image, listing),
            searches=attempt.searches,
            may_arrive=attempt.may_arrive,
            underway=len(others),
            same_underway=any(are_alike(other.plan.request, image.plan.request) for other in others),
            doubted=context.coordination.doubted,
            may_be_noted=attempt.may_be_noted,
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


def _proofs_of(
    context: JobContext, journal: Journal, image: ImageState, listing: Listing
) -> dict[str, Proof]:
    """Return what the listing proves of each prediction that may be an image's.

    Several images of one prompt and seed are distinguished only by an echo of what else was sent: a
    prediction that may as well be another's of this job proves nothing.
    """
    request = image.plan.request
    known = predictions_of(journal) | context.coordination.taken
    proofs = listing.proofs(request, since=image.intended_at, without=known)
    requests = (other.plan.request for other in journal.state.images.values())
    others = {other.kind: other for other in requests if are_alike(other, request) and other != request}
    unclear = {
        item.id: Proof.SIMILAR
        for item in listing.unknown.items
        if proofs.get(item.id) is Proof.OURS
        and any(proof_of(item, other) is Proof.OURS for other in others.values())
    }
    return proofs | unclear


async def _carry_out(
    context: JobContext,
    journal: Journal,
    image: ImageState,
    attempt: _Attempt,
    command: decisions.Found | decisions.Lost,
) -> None:
    match command:
        case decisions.Found((found, *more)):
            context.coordination.taken.add(found)
            await context.write(
                Submitted(key=image.plan.key, prediction_id=found, found=True), journal=journal
            )
            context.notices.found(found)
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
            await _give_up(context, journal, image, attempt, reason_of_doubt(len(doubtful)), doubtful)


async def _found_by_pixels(
    context: JobContext,
    journal: Journal,
    image: ImageState,
    listing: Listing,
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
    if sides_of(size) and any(proof_of(item, other) is Proof.OURS for other in requests):
        return ""
    output = await _look_at(context, item.id, model=request.model)
    is_of_size = output is not None and (output.width, output.height) == sides_of(request.size)
    return item.id if is_of_size else ""


async def _look_at(context: JobContext, prediction_id: str, *, model: str) -> ValidImage | None:
    """Return what a prediction has made, if that can be seen."""
    try:
        found = await context.client.get_prediction(prediction_id)
        return await fetch_output(context, found, model=model) if found.is_completed else None
    except (RateLimitError, ServerError):
        raise  # the search is repeated: what passes disproves nothing
    except (APIError, OutputError):
        return None


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
    context.notices.possibly_paid(image.plan.estimated_cost_usd, reason, doubtful)


async def _give_up_unread(
    context: JobContext, journal: Journal, attempt: _Attempt, error: BitDanceError
) -> None:
    """Leave the intents open if a next try may read the history; else give them up."""
    reason = f"The account's history could not be read: {error.what}"
    if error.retry_helps:
        raise LostResponseError(
            f"The response to a purchase was lost. {reason}", fix="The next try searches again before it buys"
        ) from error
    for image in _open_intents(journal, attempt.keys):
        await _give_up(context, journal, image, attempt, reason, ())
