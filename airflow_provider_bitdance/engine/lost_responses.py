"""Lost responses: what became of a purchase that was intended and whose response nobody has read.

The account's history is searched, and only proof counts: the API echoes our prompt and seed for a prediction
that none of our records knows. Time alone proves nothing, for other programs buy, too; a wrong image costs
more than a cent. A response lost just now and an intent found after a crash take the same path.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import re
from collections import defaultdict
from collections.abc import Collection
from datetime import datetime

from airflow_provider_bitdance.engine import decisions
from airflow_provider_bitdance.engine.account_history import History, read_history, with_inputs
from airflow_provider_bitdance.engine.context import JobContext
from airflow_provider_bitdance.engine.decisions import IntentFacts, Proof, decide_intent
from airflow_provider_bitdance.exceptions import BitDanceError, LostResponseError, RecordError
from airflow_provider_bitdance.records import ImageState, Journal, Lost, NotCreated, Status, Submitted
from airflow_provider_bitdance.records.notes import NOTES, is_note
from airflow_provider_bitdance.wavespeed.image_request import ImageRequest
from airflow_provider_bitdance.wavespeed.responses import Prediction

READING_PAUSES = (1.0, 2.0, 4.0)
"""Seconds between tries to read the history."""
CLOCKS_MAY_DIFFER = 60.0
"""Seconds between the clocks of two workers, as far as it costs only reading a few more entries."""
NOTHING_FOUND = "The account's history shows no such prediction"


def proof_of(prediction: Prediction, request: ImageRequest) -> Proof:
    """Compare what the API echoes of a prediction with what was sent.

    Only the seed distinguishes two images of one prompt, so ours has both. The API may write a size in
    another form, or leave it out. It may trim, cut or extend a prompt and leave out a seed: a prediction is
    another's only if both differ, and what is neither stays in doubt.
    """
    echoed = prediction.input or {}
    prompt, seed, size = echoed.get("prompt"), _number(echoed.get("seed")), _sides(echoed.get("size"))
    is_same_prompt = isinstance(prompt, str) and prompt.split() == request.prompt.split()
    is_same_seed = seed == request.seed
    if is_same_prompt and is_same_seed and size in (None, _sides(request.size)):
        return Proof.OURS
    both_are_shown = isinstance(prompt, str) and seed is not None
    return Proof.ANOTHER if both_are_shown and not (is_same_prompt or is_same_seed) else Proof.NONE


def _number(value: object) -> int | None:
    """Read a seed, a number or one as text."""
    text = str(value).strip() if isinstance(value, int | str) and not isinstance(value, bool) else ""
    return int(text) if re.fullmatch(r"-?[0-9]{1,10}", text) else None


def _sides(value: object) -> tuple[int, int] | None:
    """Read a size such as 1024*1024 or 1024x1024; ``None`` where it does not say two sides."""
    found = re.fullmatch(r"\s*([0-9]{1,5})\s*[*xX]\s*([0-9]{1,5})\s*", str(value or ""))
    return (int(found[1]), int(found[2])) if found else None


async def resolve_intents(context: JobContext, journal: Journal, keys: Collection[str] | None = None) -> None:
    """Write down what became of open intents of a job: submitted, not created, or lost. Buys nothing.

    :param journal: The job's journal, claimed by this process.
    :param keys: Of these images only. All is right if no purchase of the job is under way.
    :raises LostResponseError: The history cannot be read now; the intents stay open for a next try.
    """
    searches = 0
    while intents := _open_intents(journal, keys):
        pause = await _search_patiently(context, journal, intents, searches)
        if pause is None:
            break
        searches += 1
        await context.clock.sleep(pause)
    # The process that made an intent may have its response by now, though it was replaced. Then the budget
    # counts it. If a note cannot be read now, the next process and reconcile read it.
    with contextlib.suppress(RecordError):
        await asyncio.to_thread(journal.read_notes)


def _open_intents(journal: Journal, keys: Collection[str] | None) -> list[ImageState]:
    intents = journal.state.having(Status.INTENDED)
    return intents if keys is None else [image for image in intents if image.plan.key in keys]


async def _search_patiently(
    context: JobContext, journal: Journal, intents: list[ImageState], searches: int
) -> float | None:
    """Search the history; return the seconds until the next search, or ``None`` if nothing is left open."""

    async def search() -> float | None:
        # One at a time: two intents must not both take one prediction.
        async with context.coordination.resolving:
            return await _search(context, journal, intents, searches)

    try:
        return await context.retrying(
            search,
            pauses=READING_PAUSES,
            is_transient=lambda error: error.retry_helps and not isinstance(error, RecordError),
        )
    except RecordError:
        raise
    except BitDanceError as error:
        await _give_up_unread(context, journal, intents, error)
        return None


async def _search(
    context: JobContext, journal: Journal, intents: list[ImageState], searches: int
) -> float | None:
    """Carry out what one search of the history can decide.

    First each intent takes what is proven to be its own: then it leaves no doubt about the others. Of the
    others the last one comes first, because it has the fewest predictions that can be its own.
    """
    history = await _unclaimed(context, journal, intents)
    searched = {image.plan.key for image in intents}

    def is_unproven(image: ImageState) -> bool:
        items = history.since(image.intended_at)
        return not any(proof_of(item, image.plan.request) is Proof.OURS for item in items)

    pauses = []
    for image in sorted(intents, key=lambda image: (is_unproven(image), -image.intended_at)):
        underway = [
            other for other in journal.state.having(Status.INTENDED) if other.plan.key not in searched
        ]
        known = {other.prediction_id for other in journal.state.images.values()}
        command = decide_intent(
            IntentFacts(
                proofs={
                    item.id: proof_of(item, image.plan.request)
                    for item in history.since(image.intended_at)
                    if item.id not in known
                },
                searches=searches,
                underway=len(underway),
                same_underway=any(other.plan.request == image.plan.request for other in underway),
                doubted=context.coordination.doubted,
            )
        )
        if isinstance(command, decisions.SearchAgain):
            pauses.append(command.after)
        else:
            await _carry_out(context, journal, image, command)
    return min(pauses, default=None)


async def _carry_out(
    context: JobContext,
    journal: Journal,
    image: ImageState,
    command: decisions.Found | decisions.Lost | decisions.NotCreated,
) -> None:
    key = image.plan.key
    match command:
        case decisions.Found((found, *more)):
            await context.write(Submitted(key=key, prediction_id=found, found=True), journal=journal)
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
        case decisions.Lost(doubtful):
            # It can be one purchase only. The oldest is taken: a newer one may be that of an intent which
            # another purchase of this process has written since, and which the oldest cannot be.
            context.coordination.doubted.add(doubtful[0])
            count = len(doubtful)
            reason = (
                f"The account's history shows {count} predictions from that time but "
                "not their inputs, so none can be matched"
            )
            await _give_up(context, journal, image, reason, doubtful)
        case _:
            await context.write(NotCreated(key=key, reason=NOTHING_FOUND), journal=journal)
            context.log.info("The response to a purchase was lost. %s, so nothing was bought", NOTHING_FOUND)


async def _unclaimed(context: JobContext, journal: Journal, intents: list[ImageState]) -> History:
    """Read the history since the first intent, without what this Dag run's records know."""
    since = min(image.intended_at for image in intents)
    model = intents[0].plan.request.model
    history = await read_history(context.client, context.clock, model=model, since=since)
    items = list(history.items)
    if items:
        ids = {item.id for item in items}
        known = await asyncio.to_thread(_known, context, journal, ids, since)
        items = await with_inputs(context.client, [item for item in items if item.id not in known])
    return History(tuple(items), history.skew)


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
    context: JobContext, journal: Journal, image: ImageState, reason: str, doubtful: Collection[str]
) -> None:
    # The ids are for the log only: a journal that speaks of them would seem to have bought them.
    await context.write(Lost(key=image.plan.key, reason=reason), journal=journal)
    context.log.warning(
        "The response to a purchase was lost: possibly paid, about $%.4g. %s%s",
        image.plan.estimated_cost_usd,
        reason,
        f": {', '.join(doubtful)}" if doubtful else "",
    )


async def _give_up_unread(
    context: JobContext, journal: Journal, intents: list[ImageState], error: BitDanceError
) -> None:
    """Leave the intents open if a next try may read the history; else give them up."""
    reason = f"The account's history could not be read: {error.what}"
    if error.retry_helps:
        raise LostResponseError(
            f"The response to a purchase was lost. {reason}", fix="The next try searches again before it buys"
        ) from error
    for image in intents:
        await _give_up(context, journal, image, reason, ())
