"""What the account's history proves of a purchase: whether a prediction is ours, another's, or may be either.

Only the echo of our prompt and seed is proof, of a prediction that none of our records knows. Time alone
proves nothing, for other programs buy, too; a wrong image costs more than a cent.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

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
from airflow_provider_bitdance.engine.lost_response_decisions import Proof
from airflow_provider_bitdance.exceptions import StorageError, UnsafeFileError
from airflow_provider_bitdance.records import Journal
from airflow_provider_bitdance.records.notes import NOTES, is_note
from airflow_provider_bitdance.wavespeed.image_request import ImageRequest
from airflow_provider_bitdance.wavespeed.responses import Prediction

CLOCKS_MAY_DIFFER = 60.0
"""Seconds between the clocks of two workers, as far as it costs only reading a few more entries."""


def proof_of(prediction: Prediction, request: ImageRequest) -> Proof:
    """Compare what the API echoes of a prediction with what was sent.

    Only the seed distinguishes two images of one prompt, so ours has both, and nothing is proven for a model
    that takes none. The API may write a size in another form, leave it and other inputs out, or add its
    defaults. It may trim, cut or extend a prompt and leave out a seed: a prediction is another's only if both
    differ.
    """
    echoed = prediction.input or {}
    prompt, seed = echoed.get("prompt"), _number(echoed.get("seed"))
    if not isinstance(prompt, str) and seed is None:
        return Proof.NONE
    if request.seed is None:
        return Proof.SIMILAR
    is_same_prompt = isinstance(prompt, str) and prompt.split() == request.prompt.split()
    is_same_seed = seed == request.seed
    if is_same_prompt and is_same_seed:
        return Proof.SIMILAR if _shows_others(echoed, request) else Proof.OURS
    is_another = isinstance(prompt, str) and seed is not None and not (is_same_prompt or is_same_seed)
    return Proof.ANOTHER if is_another else Proof.SIMILAR


def _shows_others(echoed: Mapping[str, Any], request: ImageRequest) -> bool:
    """Say whether an echo has another size, or another value of an input that was sent."""
    return any(
        name in echoed and not _is_echo(name, value, echoed[name])
        for name, value in request.body().items()
        if name not in ("prompt", "seed")
    )


def _is_echo(name: str, sent: object, echoed: object) -> bool:
    if name == "size" and sides_of(sent):
        return sides_of(echoed) in (None, sides_of(sent))
    is_plain = not isinstance(echoed, list | dict | None)  # the rest is not kept, see account_history
    return not is_plain or echoed == sent or str(echoed).strip() == str(sent).strip()


def are_alike(one: ImageRequest, other: ImageRequest) -> bool:
    """Say whether two requests have model, prompt and seed in common. They also do if they are the same."""
    return (one.model, one.prompt, one.seed) == (other.model, other.prompt, other.seed)


def _number(value: object) -> int | None:
    """Read a seed, a number or one as text."""
    text = str(value).strip() if isinstance(value, int | str) and not isinstance(value, bool) else ""
    return int(text) if re.fullmatch(r"-?[0-9]{1,10}", text) else None


def sides_of(value: object) -> tuple[int, int] | None:
    """Read a size such as 1024*1024 or 1024x1024; ``None`` where it does not say two sides."""
    found = re.fullmatch(r"\s*([0-9]{1,5})\s*[*xX]\s*([0-9]{1,5})\s*", str(value or ""))
    return (int(found[1]), int(found[2])) if found else None


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
