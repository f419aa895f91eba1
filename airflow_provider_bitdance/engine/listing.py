"""Listing: what the account's history shows that no record of the Dag run knows."""

from __future__ import annotations

import asyncio
import json
import math
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from airflow_provider_bitdance.engine.account_history import (
    Allowance,
    History,
    controls,
    read_bill,
    read_history,
    with_charged,
    with_inputs,
)
from airflow_provider_bitdance.engine.context import JobContext
from airflow_provider_bitdance.engine.proof import Proof, proof_of
from airflow_provider_bitdance.exceptions import StorageError, UnsafeFileError
from airflow_provider_bitdance.records import Journal
from airflow_provider_bitdance.records.notes import NOTES, is_note
from airflow_provider_bitdance.wavespeed.image_request import ImageRequest

CLOCKS_MAY_DIFFER = 60.0
"""Seconds between the clocks of two workers, as far as it costs only reading a few more entries."""


@dataclass(frozen=True, slots=True)
class Listing:
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


async def list_account(
    context: JobContext,
    journal: Journal,
    model: str,
    since: float,
    periods: Sequence[tuple[float, float]] = (),
) -> Listing:
    """List the account's history since a moment, and see what the records of this Dag run know of it.

    :param periods: Unix times between which also what only the bill has is of interest.
    """
    client, allowance = context.client, Allowance.of(context.clock, context.policy.timeout)
    history = await read_history(client, allowance, model=model, since=since)
    bill = None
    if periods:
        start = datetime.fromtimestamp(since, UTC)
        bill = await read_bill(client, start, allowance, skew=history.skew)
    ids, known = {item.id for item in history.items}, predictions_of(journal)
    if left := ids.union(row.prediction_id for row in (bill.rows if bill else ())) - known:
        known |= await asyncio.to_thread(_known, context, journal, left, since)
    if bill is not None:
        history = await with_charged(
            client, history, bill, model=model, known=known, periods=periods, allowance=allowance
        )
    unknown = replace(history, items=tuple(item for item in history.items if item.id not in known))
    return Listing(await with_inputs(client, unknown, allowance), controls(history, known, bill))


def predictions_of(journal: Journal) -> set[str]:
    """Return the ids of all predictions that a job's journal speaks of."""
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
            entry = _read(context, name)
            left -= {id_ for id_ in left if id_.encode() in entry}
            if not left:
                return ids
            # Notes are not in the order of their time; there are few.
            if _written_at(entry) < since - CLOCKS_MAY_DIFFER and not is_note(name):
                break
    return ids - left


def _read(context: JobContext, name: str) -> bytes:
    """Read an entry of another task's journal; one that is damaged must not end the search for our purchase.

    :raises StorageError: The store has failed, and what it does not show may be there.
    """
    try:
        return context.records.read(name) or b""
    except StorageError as error:
        if not isinstance(error, UnsafeFileError) and not isinstance(error.__context__, PermissionError):
            raise
        context.notices.left_out(error.what)
        return b""


def _written_at(entry: bytes) -> float:
    """Return the Unix time of a journal's entry; of one that cannot be read, infinity."""
    try:
        return datetime.fromisoformat(json.loads(entry)["time"]).timestamp()
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return math.inf
