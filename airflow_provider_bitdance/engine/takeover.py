"""Takeover: what earlier generations of a task have bought, and how their processes are stopped.

A job that is taken over has its journal claimed, so a process of it that is still alive stops before it
spends.
"""

from __future__ import annotations

import asyncio
import math
import re
from datetime import UTC, datetime

from airflow_provider_bitdance.engine.account_history import CLOCK_MARGIN
from airflow_provider_bitdance.engine.context import JobContext
from airflow_provider_bitdance.engine.lost_response_decisions import ARRIVES_WITHIN
from airflow_provider_bitdance.engine.lost_responses import resolve_intents
from airflow_provider_bitdance.exceptions import FencedError, InputError, RecordUnreadableError
from airflow_provider_bitdance.records import Adopted, ImageState, Job, Journal, Status
from airflow_provider_bitdance.redaction import shorten

_GENERATION = re.compile(r"/generation=(\d+)/")


async def take_over_earlier(context: JobContext) -> list[Journal]:
    """Return the journals of the task's generations that got as far as a plan, the last one first.

    A clear starts a new generation. What the cleared ones have bought and not stored is still collectable.
    The last one's processes are stopped; those of the others were, when the next one was planned.
    """
    planned: list[Journal] = []
    if context.journal.owner.try_number == 1:
        return planned  # nothing was cleared yet
    for earlier in await asyncio.to_thread(_earlier, context):
        if not (planned or earlier.state.is_stored):  # one without a plan may be about to claim
            while not await claim_journal(context, earlier):
                pass
        if earlier.state.images:
            planned.append(earlier)
    return planned


def check_is_latest(context: JobContext) -> None:
    """Refuse to go on with a journal of before the last clear: ``max_tries`` can come back to an old value.

    :raises InputError: It is such a one.
    """
    # Two plans within the margin may be of two workers, and the later one of the clock that is behind.
    planned_at = context.journal.state.planned_at + CLOCK_MARGIN
    for other in _earlier(context):
        if planned_at < other.state.planned_at < math.inf:
            raise InputError(
                "The task was cleared, but its max_tries belongs to an older plan than the latest one: "
                f"{context.journal.uri}",
                fix="Clear the task again",
            )


def _earlier(context: JobContext) -> list[Journal]:
    """Return the journals of the task's other generations: those without a plan, then the last one first.

    The last one is not the one with the highest number: with fewer ``retries`` in the Dag file, a clear
    lowers ``max_tries``.

    :raises RecordUnreadableError: One is damaged that may be the last.
    """
    job, owner = context.journal.job, context.journal.owner
    found = (_GENERATION.search(name) for name in context.records.names(job.task_folder))
    numbers = {int(match[1]) for match in found if match} | set(range(job.generation))
    journals: list[Journal] = []
    for number in sorted(numbers - {job.generation}, reverse=True):
        journal = Journal(context.records, owner, job=job.model_copy(update={"generation": number}))
        try:
            journal.load()
        except RecordUnreadableError as error:
            if not any(newer.state.images for newer in journals):
                raise
            context.log.warning("%s. Continuing, because a later plan of this task is readable", error.what)
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


async def claim_journal(context: JobContext, journal: Journal) -> bool:
    """Claim another job's journal: its process stops at its next entry, or before its next purchase.

    :param journal: Of that job, loaded.
    :return: Whether it was claimed, and not written to by somebody else meanwhile; then it is loaded again.
    """
    if journal.state.is_removed:
        return True  # no process enters it any more, and what it bought was over long ago
    now = context.clock.time()
    may_arrive = now < journal.state.lease_end(now) + ARRIVES_WITHIN
    try:
        await asyncio.to_thread(journal.claim, now, now)
    except FencedError:
        await asyncio.to_thread(journal.load)
        return False
    if journal.state.having(Status.INTENDED):
        context.log.warning("%s was stopped before the response to a purchase arrived", job_name(journal.job))
        await resolve_intents(context, journal, may_arrive=may_arrive)
    return True


def job_name(job: Job) -> str:
    """Name a job as a person would search for it in Airflow."""
    index = "".join(f" [{part}]" for part in job.instance)
    return shorten(f"{job.dag_id}.{job.task_id}{index} of run {job.run_id}", 800)
