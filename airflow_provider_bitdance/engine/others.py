"""Others: what earlier generations of this task, and other tasks, are doing about the same images.

A prediction that is bought already is adopted, never bought again: every job that wants it waits for it and
stores it, and whoever is first has the others find its receipt. The one thing to know: a job that is taken
over has its journal claimed, so a process of it that is still alive stops before it spends.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from airflow_provider_bitdance.api.errors import FencedError, InputError, shorten
from airflow_provider_bitdance.engine.bench import Bench
from airflow_provider_bitdance.journal import (
    Adopted,
    ImageState,
    Job,
    Journal,
    Status,
    Stored,
    losses,
)
from airflow_provider_bitdance.reservations import Reservation

LOOK_SECONDS = 1.0
"""Pause between looks at another task's journal, until it says which prediction it bought."""


async def take_over_earlier(bench: Bench) -> Journal | None:
    """Return the journal of the task's last generation that got as far as a plan, and stop its processes.

    A clear starts a new generation. What the cleared one has bought and not stored is still to be had.
    """
    job = bench.journal.job
    last = job.generation
    # Below 0 are those of a task whose `retries` were raised in the Dag file while it was at work.
    for generation in range(last - 1, -1, -1) if last > 0 else range(0, last, -1):
        earlier = Journal(
            bench.records, bench.journal.writer, job=job.model_copy(update={"generation": generation})
        )
        state = await asyncio.to_thread(earlier.load)
        if not (state.images and state.is_settled):
            await asyncio.to_thread(_stop, bench, earlier)  # one without a plan may still be about to claim
        if state.images:
            return earlier
    return None


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
    """
    address = bench.address_of(image.plan)
    while True:
        receipt = await asyncio.to_thread(bench.receipts.find, address)
        held = await asyncio.to_thread(
            bench.reservations.last, address, known=receipt.reservation if receipt else 0
        )
        if held is not None and held.writer.job == bench.journal.job:
            return True
        if held is not None and not held.writer.job.same_task(bench.journal.job):
            decided = await _other_task(bench, image, held)
            if decided is not None:
                return decided
        mine = Reservation(
            number=held.number + 1 if held else 1,
            time=datetime.fromtimestamp(bench.clock.time(), UTC),
            writer=bench.journal.writer,
            key=image.plan.key,
        )
        if await asyncio.to_thread(bench.reservations.take, address, mine):
            return True


async def _other_task(bench: Bench, image: ImageState, held: Reservation) -> bool | None:
    """Settle with the task that holds the address: ``False``, its image is ours; ``None``, it is done."""
    owner = held.writer.job
    journal = Journal(bench.records, bench.journal.writer, job=owner)
    while True:
        state = await asyncio.to_thread(journal.load)
        theirs = state.images.get(held.key)
        same = theirs is not None and theirs.plan.fingerprint == image.plan.fingerprint
        same = same and bench.policy.if_exists == "reuse"
        if theirs is None or theirs.is_settled:
            return await _take_stored(bench, image) if same else None
        if not same:
            address = shorten(bench.address_of(image.plan).identity, 200)
            raise InputError(
                f"Task {_name(owner)} is making another image at {address}, and so would task "
                f"{_name(bench.journal.job)}",
                allowed="one task at a time for one output_path, or the same request from each",
                fix="Give the tasks different output_paths, or let one run after the other",
            )
        if theirs.status is Status.SUBMITTED:
            await bench.write(adoption(theirs, image.plan.key, owner))
            bench.log.info(
                "Task %s has bought prediction %s for the same request; waiting for it, nothing is bought",
                _name(owner),
                theirs.prediction_id,
            )
            return False
        if bench.clock.time() >= state.deadline:
            # It has neither bought nor given up in its time: its process is dead, or will be stopped.
            await asyncio.to_thread(_stop, bench, journal)
            return None
        await bench.clock.sleep(LOOK_SECONDS)


async def _take_stored(bench: Bench, image: ImageState) -> bool | None:
    """Take the image that another task has stored since this job's plan; ``None`` where it has failed."""
    address = bench.address_of(image.plan)
    receipt = await asyncio.to_thread(bench.receipts.find, address)
    if receipt is None or receipt.fingerprint != image.plan.fingerprint:
        return None
    await bench.write(Stored(key=image.plan.key, receipt=bench.receipts.uri(address), reused=True))
    bench.log.info("%s was stored by another task meanwhile; reused, nothing is bought", receipt.uri)
    return False


def _stop(bench: Bench, journal: Journal) -> None:
    """Claim another job's journal: its process stops at its next entry, or before its next purchase."""
    while True:
        lost = losses(journal.state.having(Status.INTENDED), "the job was taken over before the answer")
        now = bench.clock.time()
        try:
            journal.claim(now, now, *lost)
        except FencedError:
            journal.load()
        else:
            break
    if lost:
        bench.log.warning("%s was stopped before an answer came: possibly paid", _name(journal.job))


def _name(job: Job) -> str:
    index = f" [{job.map_index}]" if job.map_index >= 0 else ""
    return f"{job.dag_id}.{job.task_id}{index} of run {job.run_id}"
