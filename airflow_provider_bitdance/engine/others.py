"""Others: what earlier generations of this task, and other tasks, are doing about the same images.

A prediction that is bought already is adopted, never bought again: every job that wants it waits for it and
stores it, and whoever is first has the others find its receipt. The one thing to know: a job that is taken
over has its journal claimed, so a process of it that is still alive stops before it spends.
"""

from __future__ import annotations

import asyncio
import math
import re
from datetime import UTC, datetime

from airflow_provider_bitdance.api.errors import (
    AddressBusyError,
    FencedError,
    InputError,
    RecordUnreadableError,
)
from airflow_provider_bitdance.api.text import shorten
from airflow_provider_bitdance.engine.bench import Bench
from airflow_provider_bitdance.engine.lost import settle_intents
from airflow_provider_bitdance.journal import (
    Adopted,
    ImageState,
    Job,
    Journal,
    Status,
    Stored,
)
from airflow_provider_bitdance.journal.entries import Event
from airflow_provider_bitdance.reservations import Reservation

LOOK_SECONDS = 1.0
"""Pause between looks at another task's journal, until it says which prediction it bought."""
_GENERATION = re.compile(r"/generation=(\d+)/")
START_SECONDS = 10.0
"""A task that is alive gets from its plan to its intent in less."""


async def take_over_earlier(bench: Bench) -> Journal | None:
    """Return the journal of the task's last generation that got as far as a plan, and stop its processes.

    A clear starts a new generation. What the cleared one has bought and not stored is still to be had.
    """
    if bench.journal.writer.try_number == 1:
        return None  # nothing was cleared yet
    for earlier in await asyncio.to_thread(_earlier, bench):
        if not earlier.state.is_stored:
            await _stop(bench, earlier)  # one without a plan may be about to claim
        if earlier.state.images:
            return earlier
    return None


def check_is_latest(bench: Bench) -> None:
    """Refuse to go on with a journal of before the last clear: ``max_tries`` can come back to an old value.

    :raises InputError: It is such a one.
    """
    for other in _earlier(bench):
        if bench.journal.state.planned_at < other.state.planned_at < math.inf:
            raise InputError(
                "The task was cleared, and its max_tries is that of a plan before the last one: "
                f"{bench.journal.uri}",
                fix="Clear the task once more",
            )


def _earlier(bench: Bench) -> list[Journal]:
    """Return the journals of the task's other generations: those without a plan, then the last one first.

    The last one is not the one with the highest number: with fewer ``retries`` in the Dag file, a clear
    lowers ``max_tries``.

    :raises RecordUnreadableError: One is damaged that may be the last.
    """
    job, writer = bench.journal.job, bench.journal.writer
    found = (_GENERATION.search(name) for name in bench.records.names(job.task_folder))
    numbers = {int(match[1]) for match in found if match} | set(range(job.generation))
    journals: list[Journal] = []
    for number in sorted(numbers - {job.generation}, reverse=True):
        journal = Journal(bench.records, writer, job=job.model_copy(update={"generation": number}))
        try:
            journal.load()
        except RecordUnreadableError as error:
            if not any(newer.state.images for newer in journals):
                raise
            bench.log.warning("%s. A later plan of this task can be read, and holds", error.what)
        else:
            journals.append(journal)
    # Sorting keeps the order of equals: the higher number first.
    return sorted(journals, key=lambda journal: journal.state.planned_at or math.inf, reverse=True)


def adoption(image: ImageState, key: str, owner: Job) -> Adopted:
    """Return the event by which a job makes another's prediction its own, too."""
    return Adopted(
        key=key,
        request=image.plan.request,
        prediction_id=image.prediction_id,
        submitted_at=datetime.fromtimestamp(image.submitted_at, UTC),
        bought_by=image.bought_by or owner,
    )


async def reserve(bench: Bench, image: ImageState) -> bool:
    """Reserve the address of an image that the user named, and say whether the image has to be bought.

    It has not where another task has bought the same request for it: then the journal says so, and this job
    waits for that prediction, or takes its stored image.

    :raises InputError: Another task is making a different image at this address.
    :raises AddressBusyError: Another task is about to buy the same, and has not said so in time.
    """
    address = bench.address_of(image.plan)
    while True:
        receipt = await asyncio.to_thread(bench.receipts.find, address)
        known = receipt.reservation if receipt else 0
        held = await asyncio.to_thread(bench.reservations.last, address, known=known)
        if held is not None and held.writer.job == bench.journal.job:
            return True
        found: Event | None = None
        if held is not None and not held.writer.job.same_task(bench.journal.job):
            found = await _of_other_task(bench, image, held)
        if found is not None:
            await bench.write(found)
        if isinstance(found, Stored):
            return False
        mine = Reservation(
            number=held.number + 1 if held else 1,
            time=datetime.fromtimestamp(bench.clock.time(), UTC),
            writer=bench.journal.writer,
            key=image.plan.key,
            fingerprint=image.plan.fingerprint,
        )
        taken = await asyncio.to_thread(bench.reservations.take, address, mine)
        if taken or found is not None:
            return found is None


async def _of_other_task(bench: Bench, image: ImageState, held: Reservation) -> Adopted | Stored | None:
    """Settle with the task that holds the address: its image is ours, too, or, with ``None``, it is done."""
    owner = held.writer.job
    journal = Journal(bench.records, bench.journal.writer, job=owner)
    same = held.fingerprint == image.plan.fingerprint and bench.policy.if_exists == "reuse"
    patience = bench.clock.time() + START_SECONDS
    while True:
        state = await asyncio.to_thread(journal.load)
        theirs = state.images.get(held.key)
        now = bench.clock.time()
        if theirs is None or theirs.status is Status.STORED:
            if theirs is not None:
                _check_not_of_this_run(bench, image, held)
            return await _stored(bench, image) if same else None
        if theirs.status is Status.SUBMITTED and same:
            _tell(bench, "%s has bought prediction %s for the same request", owner, theirs.prediction_id)
            return adoption(theirs, image.plan.key, owner)
        if state.writer is not None and state.writer.token == bench.journal.writer.token:
            if theirs.status is Status.SUBMITTED:
                _tell(
                    bench, "%s has bought prediction %s; collectable for 7 days", owner, theirs.prediction_id
                )
            return None  # stopped by us, and nothing of it is of use
        is_busy = len(state.images) > 1 and state.has_work and now < state.deadline
        at_rest = now >= state.deadline or (theirs.status is Status.FAILED and not is_busy)
        if not same and not at_rest:
            raise _refusal(bench, image, owner, until=state.deadline)
        if is_busy and theirs.status is not Status.INTENDED and now >= patience:
            raise AddressBusyError(f"Task {_name(owner)} is at work, and may make the same image")
        if at_rest or (theirs.status is Status.PLANNED and now >= patience):
            await _stop(bench, journal)
            continue  # it may have bought in the last moment
        if now >= bench.journal.state.deadline:
            raise AddressBusyError(f"Task {_name(owner)} is about to buy the same image")
        await bench.clock.sleep(LOOK_SECONDS)


async def _stored(bench: Bench, image: ImageState) -> Stored | None:
    """Return the event that takes the image that another task has stored since this job's plan."""
    address = bench.address_of(image.plan)
    receipt = await asyncio.to_thread(bench.receipts.find, address)
    if receipt is None or receipt.fingerprint != image.plan.fingerprint:
        return None
    bench.check_nsfw(receipt)
    bench.log.info("%s was stored by another task meanwhile; reused, nothing is bought", receipt.uri)
    return Stored(key=image.plan.key, receipt=bench.receipts.uri(address), reused=True)


def check_address_is_ours(bench: Bench, image: ImageState, *, known: int = 0) -> int:
    """Return the number of the reservation under which an image may be stored; 0 where none is needed.

    :param known: Number of a reservation that is known to be there.
    :raises InputError: Another task has taken the address for another image meanwhile.
    """
    if not image.plan.named:
        return 0
    held = bench.reservations.last(bench.address_of(image.plan), known=known)
    if held is not None and held.fingerprint != image.plan.fingerprint:
        raise _refusal(bench, image, held.writer.job)
    return held.number if held else 0


async def _stop(bench: Bench, journal: Journal) -> None:
    """Claim another job's journal: its process stops at its next entry, or before its next purchase.

    The caller has to look again: it may have bought in the last moment.
    """
    while True:
        now = bench.clock.time()
        try:
            await asyncio.to_thread(journal.claim, now, now)
        except FencedError:
            await asyncio.to_thread(journal.load)
        else:
            break
    if journal.state.having(Status.INTENDED):
        bench.log.warning("%s was stopped before an answer came", _name(journal.job))
        await settle_intents(bench, journal)


def _check_not_of_this_run(bench: Bench, image: ImageState, held: Reservation) -> None:
    """Refuse to replace what another task of this Dag run has just made: mapped tasks with one file's name
    would each buy an image, and keep one. What was there before the run, or before it was cleared, is old."""
    owner, ours = held.writer.job, bench.journal.job
    is_of_this_run = (owner.dag_id, owner.run_id) == (ours.dag_id, ours.run_id)
    is_old = held.time.timestamp() < bench.run_started_at
    if not is_of_this_run or is_old or held.fingerprint == image.plan.fingerprint:
        return
    raise InputError(
        f"Task {_name(owner)} has made another image at {_where(bench, image)}, and task {_name(ours)} would "
        "replace it",
        allowed="one image at one output_path in a Dag run",
        fix="End the output_path with a slash: then each task, and each map index, has a file of its own. Or "
        "put {{ ti.map_index }} into the file's name",
    )


def _refusal(bench: Bench, image: ImageState, owner: Job, *, until: float = 0.0) -> InputError:
    when = datetime.fromtimestamp(until, UTC)
    free = f". If that one runs no more, the address is free at {when:%Y-%m-%d %H:%M:%S} UTC" if until else ""
    return InputError(
        f"Task {_name(owner)} is making another image at {_where(bench, image)}, and so would task "
        f"{_name(bench.journal.job)}",
        allowed="one task at a time for one output_path, or the same request from each",
        fix=f"Give the tasks different output_paths, or let one Dag run after the other{free}",
    )


def _where(bench: Bench, image: ImageState) -> str:
    return shorten(bench.address_of(image.plan).identity, 200)


def _tell(bench: Bench, message: str, owner: Job, prediction_id: str) -> None:
    bench.log.info(f"Task {message}", _name(owner), prediction_id)


def _name(job: Job) -> str:
    index = f" [{job.map_index}]" if job.map_index >= 0 else ""
    return f"{job.dag_id}.{job.task_id}{index} of run {job.run_id}"
