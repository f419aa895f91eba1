"""Lost responses: what became of a purchase that was intended and never answered.

The account's history is asked, and only proof counts: the API echoes our prompt and seed for a prediction
that none of our records knows. Time alone proves nothing, for other programs buy, too; a wrong picture
costs more than a cent. A response lost just now and an intent found after a crash take the same path.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from collections import defaultdict
from collections.abc import Collection
from datetime import datetime
from enum import StrEnum

from airflow_provider_bitdance.engine.account_history import History, read_history, with_inputs
from airflow_provider_bitdance.engine.context import JobContext
from airflow_provider_bitdance.exceptions import BitDanceError, LostResponseError, RecordError
from airflow_provider_bitdance.records import ImageState, Journal, Lost, NotCreated, Status, Submitted
from airflow_provider_bitdance.records.notes import NOTES, is_note
from airflow_provider_bitdance.wavespeed.image_request import ImageRequest
from airflow_provider_bitdance.wavespeed.responses import Prediction

READING_PAUSES = (1.0, 2.0, 4.0)
"""Seconds between tries to read the history."""
CLOCKS_MAY_DIFFER = 60.0
"""Seconds between the clocks of two workers, as far as it costs only a look at a few more entries."""
RESOLVE_PAUSES = (1.0, 3.0, 6.0)
"""Seconds between looks into the history. What is not in it after the last one was not created."""


class Proof(StrEnum):
    """What the API's echo says of a prediction: ours, not ours, or nothing."""

    OURS = "ours"
    ANOTHER = "another"
    NONE = "none"


def proof_of(prediction: Prediction, request: ImageRequest) -> Proof:
    """Compare what the API echoes of a prediction with what was sent.

    Prompt and seed must both be there: the seed is what tells two images of one prompt apart.
    """
    echoed = prediction.input or {}
    if "prompt" not in echoed or "seed" not in echoed:
        return Proof.NONE
    sent = {"prompt": request.prompt, "seed": request.seed, "size": request.size}
    same = all(echoed.get(name, value) == value for name, value in sent.items())
    return Proof.OURS if same else Proof.ANOTHER


async def resolve_intents(context: JobContext, journal: Journal, keys: Collection[str] | None = None) -> None:
    """Write down what became of open intents of a job: submitted, not created, or lost. Buys nothing.

    :param journal: The job's journal, claimed by this process.
    :param keys: Of these images only. All is right where no purchase of the job is under way.
    :raises LostResponseError: The history cannot be read now; the intents stay open for a next try.
    """
    for pause in (*RESOLVE_PAUSES, None):
        intents = _open_intents(journal, keys)
        if not intents:
            break
        await _look_patiently(context, journal, intents, is_last=pause is None)
        if pause is not None and _open_intents(journal, keys):
            await context.clock.sleep(pause)
    for image in _open_intents(journal, keys):
        reason = "The account's history has no such prediction"
        await context.write(NotCreated(key=image.plan.key, reason=reason), journal=journal)
        context.log.info("The response to a purchase was lost. %s: nothing was bought", reason)
    # The process that made an intent may have its response by now, though it was replaced. Then the budget
    # counts it. Where a note cannot be read now, the next process and reconcile read it.
    with contextlib.suppress(RecordError):
        await asyncio.to_thread(journal.read_notes)


def _open_intents(journal: Journal, keys: Collection[str] | None) -> list[ImageState]:
    intents = journal.state.having(Status.INTENDED)
    return intents if keys is None else [image for image in intents if image.plan.key in keys]


async def _look_patiently(
    context: JobContext, journal: Journal, intents: list[ImageState], *, is_last: bool
) -> None:
    for pause in (*READING_PAUSES, None):
        try:
            # One at a time: two intents must not both take one prediction.
            async with context.resolving:
                return await _look(context, journal, intents, is_last=is_last)
        except RecordError:
            raise
        except BitDanceError as error:
            if pause is None or not error.retry_helps:
                return await _report_unreadable(context, journal, intents, error)
        await context.clock.sleep(pause)


async def _look(context: JobContext, journal: Journal, intents: list[ImageState], *, is_last: bool) -> None:
    """Decide what one look into the history can decide.

    :param is_last: Doubt is final. Before, a prediction may be that of another purchase of this process,
        whose answer is on its way.
    """
    history = await _unclaimed(context, journal, intents)
    asked = {image.plan.key for image in intents}
    # The last intent first: it has the fewest predictions that can be its own.
    for image in sorted(intents, key=lambda image: image.intended_at, reverse=True):
        underway = [other for other in journal.state.having(Status.INTENDED) if other.plan.key not in asked]
        may_be_theirs = any(_same_picture(other, image) for other in underway)
        known = {other.prediction_id for other in journal.state.images.values()}
        mine = [item for item in history.since(image.intended_at) if item.id not in known]
        proofs = {item.id: proof_of(item, image.plan.request) for item in mine}
        ours = [id_ for id_, proof in proofs.items() if proof is Proof.OURS]
        doubtful = [
            id_ for id_, proof in proofs.items() if proof is Proof.NONE and id_ not in context.doubted
        ]
        if ours and (is_last or not may_be_theirs):
            await _adopt(context, journal, image, ours)
        elif doubtful and not ours and (is_last or not underway):
            count = len(doubtful)
            reason = f"The API does not show whether it is among what was made then ({count} in the history)"
            # It can be one purchase only. The oldest is taken: a newer one may be that of an intent which
            # another purchase of this process has written since, and which the oldest cannot be.
            context.doubted.add(doubtful[0])
            await _give_up(context, journal, image, reason, doubtful)


def _same_picture(one: ImageState, other: ImageState) -> bool:
    return one.plan.request == other.plan.request


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


async def _adopt(context: JobContext, journal: Journal, image: ImageState, ours: list[str]) -> None:
    found, *more = ours
    await context.write(Submitted(key=image.plan.key, prediction_id=found, found=True), journal=journal)
    context.log.info("The response to a purchase was lost. The history proves prediction %s to be it", found)
    if more:
        context.log.warning(
            "The history has the same request more than once; collectable: %s", ", ".join(more)
        )


async def _give_up(
    context: JobContext, journal: Journal, image: ImageState, reason: str, doubtful: list[str]
) -> None:
    # The ids are for the log only: a journal that speaks of them would seem to have bought them.
    await context.write(Lost(key=image.plan.key, reason=reason), journal=journal)
    context.log.warning(
        "The response to a purchase was lost: possibly paid, about $%.4g. %s%s",
        image.plan.estimated_cost_usd,
        reason,
        f": {', '.join(doubtful)}" if doubtful else "",
    )


async def _report_unreadable(
    context: JobContext, journal: Journal, intents: list[ImageState], error: BitDanceError
) -> None:
    """Leave the intents open where a next try may read the history; else give them up."""
    reason = f"The account's history cannot be read: {error.what}"
    if error.retry_helps:
        raise LostResponseError(
            f"The response to a purchase was lost. {reason}", fix="The next try looks again before it buys"
        ) from error
    for image in intents:
        await _give_up(context, journal, image, reason, [])
