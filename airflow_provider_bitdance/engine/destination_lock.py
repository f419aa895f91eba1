"""Others: what earlier generations of this task, and other tasks, are doing about the same images.

A prediction that is bought already is adopted, never bought again: every job that wants it waits for it and
stores it, and whoever is first has the others find its receipt. The one thing to know: a job that is taken
over has its journal claimed, so a process of it that is still alive stops before it spends.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from airflow_provider_bitdance.engine.context import JobContext
from airflow_provider_bitdance.engine.takeover import adoption, job_name, stop_job
from airflow_provider_bitdance.exceptions import (
    DestinationBusyError,
    InputError,
)
from airflow_provider_bitdance.records import (
    Adopted,
    ImageState,
    Job,
    Journal,
    Status,
    Stored,
)
from airflow_provider_bitdance.records.events import Event
from airflow_provider_bitdance.records.reservations import Reservation
from airflow_provider_bitdance.redaction import shorten

LOOK_SECONDS = 1.0
"""Pause between looks at another task's journal, until it says which prediction it bought."""
START_SECONDS = 10.0
"""A task that is alive gets from its plan to its intent in less."""


async def reserve(context: JobContext, image: ImageState) -> bool:
    """Reserve the address of an image that the user named, and say whether the image has to be bought.

    It has not where another task has bought the same request for it: then the journal says so, and this job
    waits for that prediction, or takes its stored image.

    :raises InputError: Another task is making a different image at this address.
    :raises DestinationBusyError: Another task is about to buy the same, and has not said so in time.
    """
    address = context.destination_of(image.plan)
    while True:
        receipt = await asyncio.to_thread(context.receipts.find, address)
        known = receipt.reservation if receipt else 0
        held = await asyncio.to_thread(context.reservations.last, address, known=known)
        if held is not None and held.writer.job == context.journal.job:
            return True
        found: Event | None = None
        if held is not None and not held.writer.job.same_task(context.journal.job):
            found = await _of_other_task(context, image, held)
        if found is not None:
            await context.write(found)
        if isinstance(found, Stored):
            return False
        mine = Reservation(
            number=held.number + 1 if held else 1,
            time=datetime.fromtimestamp(context.clock.time(), UTC),
            writer=context.journal.writer,
            key=image.plan.key,
            fingerprint=image.plan.fingerprint,
        )
        taken = await asyncio.to_thread(context.reservations.take, address, mine)
        if taken or found is not None:
            return found is None


async def _of_other_task(
    context: JobContext, image: ImageState, held: Reservation
) -> Adopted | Stored | None:
    """Settle with the task that holds the address: its image is ours, too, or, with ``None``, it is done."""
    owner = held.writer.job
    journal = Journal(context.records, context.journal.writer, job=owner)
    same = held.fingerprint == image.plan.fingerprint and context.policy.if_exists == "reuse"
    patience = context.clock.time() + START_SECONDS
    while True:
        state = await asyncio.to_thread(journal.load)
        theirs = state.images.get(held.key)
        now = context.clock.time()
        if theirs is None or theirs.status is Status.STORED:
            if theirs is not None:
                _check_not_of_this_run(context, image, held)
            return await _stored(context, image) if same else None
        if theirs.status is Status.SUBMITTED and same:
            _log(context, "%s has bought prediction %s for the same request", owner, theirs.prediction_id)
            return adoption(theirs, image.plan.key, owner)
        if state.writer is not None and state.writer.token == context.journal.writer.token:
            if theirs.status is Status.SUBMITTED:
                _log(
                    context,
                    "%s has bought prediction %s; collectable for 7 days",
                    owner,
                    theirs.prediction_id,
                )
            return None  # stopped by us, and nothing of it is of use
        is_busy = len(state.images) > 1 and state.has_work and now < state.deadline
        at_rest = now >= state.deadline or (theirs.status is Status.FAILED and not is_busy)
        if not same and not at_rest:
            raise _refusal(context, image, owner, until=state.deadline)
        if is_busy and theirs.status is not Status.INTENDED and now >= patience:
            raise DestinationBusyError(f"Task {job_name(owner)} is at work, and may make the same image")
        if at_rest or (theirs.status is Status.PLANNED and now >= patience):
            await stop_job(context, journal)
            continue  # it may have bought in the last moment
        if now >= context.journal.state.deadline:
            raise DestinationBusyError(f"Task {job_name(owner)} is about to buy the same image")
        await context.clock.sleep(LOOK_SECONDS)


async def _stored(context: JobContext, image: ImageState) -> Stored | None:
    """Return the event that takes the image that another task has stored since this job's plan."""
    address = context.destination_of(image.plan)
    receipt = await asyncio.to_thread(context.receipts.find, address)
    if receipt is None or receipt.fingerprint != image.plan.fingerprint:
        return None
    if not await asyncio.to_thread(context.is_intact, receipt):
        return None  # the file is gone, or is another by now
    context.check_nsfw(receipt)
    context.log.info("%s was stored by another task meanwhile; reused, nothing is bought", receipt.uri)
    return Stored(key=image.plan.key, receipt=context.receipts.uri(address), reused=True)


def check_destination_is_ours(context: JobContext, image: ImageState, *, known: int = 0) -> int:
    """Return the number of the reservation under which an image may be stored; 0 where none is needed.

    :param known: Number of a reservation that is known to be there.
    :raises InputError: Another task has taken the address for another image meanwhile.
    """
    if not image.plan.named:
        return 0
    held = context.reservations.last(context.destination_of(image.plan), known=known)
    if held is not None and held.fingerprint != image.plan.fingerprint:
        raise _refusal(context, image, held.writer.job)
    return held.number if held else 0


def _check_not_of_this_run(context: JobContext, image: ImageState, held: Reservation) -> None:
    """Refuse to replace what another task of this Dag run has just made: mapped tasks with one file's name
    would each buy an image, and keep one. What was there before the run, or before it was cleared, is old."""
    owner, ours = held.writer.job, context.journal.job
    is_of_this_run = (owner.dag_id, owner.run_id) == (ours.dag_id, ours.run_id)
    is_old = held.time.timestamp() < context.run_started_at
    if not is_of_this_run or is_old or held.fingerprint == image.plan.fingerprint:
        return
    raise InputError(
        f"Task {job_name(owner)} has made another image at {_where(context, image)}, and task "
        f"{job_name(ours)} would replace it",
        allowed="one image at one output_path in a Dag run",
        fix="End the output_path with a slash: then each task, and each map index, has a file of its own. Or "
        "put {{ ti.map_index }} into the file's name",
    )


def _refusal(context: JobContext, image: ImageState, owner: Job, *, until: float = 0.0) -> InputError:
    when = datetime.fromtimestamp(until, UTC)
    free = f". If that one runs no more, the address is free at {when:%Y-%m-%d %H:%M:%S} UTC" if until else ""
    return InputError(
        f"Task {job_name(owner)} is making another image at {_where(context, image)}, and so would task "
        f"{job_name(context.journal.job)}",
        allowed="one task at a time for one output_path, or the same request from each",
        fix=f"Give the tasks different output_paths, or let one Dag run after the other{free}",
    )


def _where(context: JobContext, image: ImageState) -> str:
    return shorten(context.destination_of(image.plan).identity, 200)


def _log(context: JobContext, message: str, owner: Job, prediction_id: str) -> None:
    context.log.info(f"Task {message}", job_name(owner), prediction_id)
