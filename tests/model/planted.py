"""Bugs that cost money or pictures, each planted from outside. The model must find every one of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from airflow_provider_bitdance.engine import JobContext, Wanted, listing, lost_responses, run_job, settlement
from airflow_provider_bitdance.engine import lost_response_decisions as decisions
from airflow_provider_bitdance.engine.account_history import Bill
from airflow_provider_bitdance.engine.proof import Proof
from airflow_provider_bitdance.engine.unanswered import Unanswered
from airflow_provider_bitdance.exceptions import LostResponseError
from airflow_provider_bitdance.maintenance import costs
from airflow_provider_bitdance.records import Intended, JobState, Journal, Status, fold
from airflow_provider_bitdance.records import journal as journal_module
from airflow_provider_bitdance.records.events import Entry
from airflow_provider_bitdance.records.receipts import Receipt, Receipts
from airflow_provider_bitdance.records.state import fold_all
from airflow_provider_bitdance.storage import Folder
from airflow_provider_bitdance.storage.naming import Destination
from airflow_provider_bitdance.wavespeed.client import AsyncClient
from tests.model import world
from tests.model.books import MOST_UNANSWERED

Plant = Callable[[pytest.MonkeyPatch], None]


def no_intent_before_the_post(patch: pytest.MonkeyPatch) -> None:
    """The intent goes to the disk with what came of it, and not before."""
    append = Journal._append

    def append_late(journal: Journal, now: float, *events: Any) -> JobState:
        kept = getattr(journal, "kept", [])
        state_on_disk = getattr(journal, "state_on_disk", None)
        if state_on_disk is not None:
            journal.state = replace(state_on_disk, number=journal.state.number)
            journal.kept, journal.state_on_disk = [], None  # type: ignore[attr-defined]
        said = [*kept, *events]
        later = [event for event in said if isinstance(event, Intended)]
        if later and said[-1] is later[-1]:
            journal.kept = later  # type: ignore[attr-defined]
            if said[: -len(later)]:
                append(journal, now, *said[: -len(later)])
            journal.state_on_disk = journal.state  # type: ignore[attr-defined]
            number, time = journal.state.number, datetime.fromtimestamp(now, UTC)
            entry = Entry(number=number + 1, time=time, writer=journal.owner, events=tuple(later))
            journal.state = replace(fold(journal.state, entry), number=number)
            return journal.state
        return append(journal, now, *said)

    patch.setattr(Journal, "_append", append_late)


def the_post_is_sent_again_on_a_read_time_out(patch: pytest.MonkeyPatch) -> None:
    submit = AsyncClient.submit

    async def submit_again(client: AsyncClient, request: Any) -> Any:
        try:
            return await submit(client, request)
        except LostResponseError:
            return await submit(client, request)

    patch.setattr(AsyncClient, "submit", submit_again)


def a_lost_answer_is_adopted_by_time_alone(patch: pytest.MonkeyPatch) -> None:
    """Where the history does not show another's inputs, what was made then is taken for ours."""
    proof_of = listing.proof_of

    def guess(prediction: Any, request: Any) -> Proof:
        found = proof_of(prediction, request)
        return found if found is Proof.ANOTHER else Proof.OURS

    for module in (listing, lost_responses):
        patch.setattr(module, "proof_of", guess)


def an_empty_history_is_proof(patch: pytest.MonkeyPatch) -> None:
    """What is not in it, however early and whatever its filters match, is taken for not created."""

    def believe(losses: Sequence[decisions.LossFacts]) -> list[decisions.NotCreated | decisions.Lost]:
        return decide([replace(loss, controls=(loss.given_up_at + 60,), now=math.inf) for loss in losses])

    decide = decisions.decide_losses
    patch.setattr(settlement, "decide_losses", believe)
    patch.setattr(costs, "decide_losses", believe)
    patch.setattr(decisions, "may_be_settled", lambda *_, **__: True)
    patch.setattr(listing, "read_bill", _no_bill)


async def _no_bill(*_: object, **__: object) -> Bill:
    return Bill()


def everything_is_doubt(patch: pytest.MonkeyPatch) -> None:
    """A lost purchase stays possibly paid, whatever the history shows."""
    for module in (settlement, costs):
        patch.setattr(module, "decide_losses", lambda losses: [decisions.Lost(()) for _ in losses])


def the_plan_is_taken_from_the_fields(patch: pytest.MonkeyPatch) -> None:
    """A retry asks for what the fields render to now."""

    async def advance_anew(context: JobContext, wanted: list[Wanted]) -> Any:
        images = dict(context.journal.state.images)
        for item in wanted:
            if item.key in images:
                seed = images[item.key].plan.request.seed
                request = item.request.model_copy(update={"seed": seed})
                plan = images[item.key].plan.model_copy(update={"request": request})
                images[item.key] = replace(images[item.key], plan=plan)
        context.journal.state = replace(context.journal.state, images=images)
        return await run_job(context, wanted)

    patch.setattr(world, "run_job", advance_anew)


def the_receipt_is_written_before_the_file(patch: pytest.MonkeyPatch) -> None:
    create = Receipts.create

    async def advance_with_late_files(context: JobContext, wanted: list[Wanted]) -> Any:
        images = context.images
        late = _LateFiles(images)

        def write_early(receipts: Receipts, address: Destination, receipt: Receipt) -> None:
            create(receipts, address, receipt)
            for name, data in late.kept.items():
                images.replace(name, data)
            late.kept.clear()

        patch.setattr(Receipts, "create", write_early)
        return await run_job(replace(context, images=late), wanted)

    patch.setattr(world, "run_job", advance_with_late_files)


class _LateFiles:
    """An output folder that keeps what it is to write."""

    def __init__(self, folder: Folder) -> None:
        self.uri = folder.uri
        self.kept: dict[str, bytes] = {}
        self._folder = folder

    def create(self, name: str, data: bytes) -> None:
        self.kept[name] = data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._folder, name)


def of_many_intents_one_is_written(patch: pytest.MonkeyPatch) -> None:
    """Of several that come together; the process believes that all are."""
    append = Journal._append

    def append_less(journal: Journal, now: float, *events: Any) -> JobState:
        dropped = [event for event in events if isinstance(event, Intended)][1:]
        append(journal, now, *(event for event in events if event not in dropped))
        if dropped:
            number, time = journal.state.number, datetime.fromtimestamp(now, UTC)
            entry = Entry(number=number + 1, time=time, writer=journal.owner, events=tuple(dropped))
            journal.state = replace(fold(journal.state, entry), number=number)
        return journal.state

    patch.setattr(Journal, "_append", append_less)


def a_reader_forgets_an_intent(patch: pytest.MonkeyPatch) -> None:
    """It takes an image that is about to be bought for one that is planned."""

    def forget(state: JobState, entries: Iterable[Entry]) -> JobState:
        state = fold_all(state, entries)
        images = {
            key: replace(image, status=Status.PLANNED) if image.status is Status.INTENDED else image
            for key, image in state.images.items()
        }
        return replace(state, images=images)

    patch.setattr(journal_module, "fold_all", forget)


def a_reader_leaves_out_what_the_last_entry_says(patch: pytest.MonkeyPatch) -> None:
    """It takes only its number and its writer."""

    def skip(state: JobState, entries: Iterable[Entry]) -> JobState:
        *first, last = [*entries] or [None]
        state = fold_all(state, (entry for entry in first if entry))
        return state if last is None else replace(state, number=last.number, owner=last.writer)

    patch.setattr(journal_module, "fold_all", skip)


def more_is_bought_at_once_than_a_kill_may_lose(patch: pytest.MonkeyPatch) -> None:
    prepare = JobContext.__post_init__

    def prepare_for_more(context: JobContext) -> None:
        prepare(context)
        object.__setattr__(context, "unanswered", Unanswered(MOST_UNANSWERED + 1))

    patch.setattr(JobContext, "__post_init__", prepare_for_more)


SILENT = "charges are silent"
ANOTHER = "picture of another request|is not what its job planned"
FORGOTTEN = "says '[a-z]+' of an image that is|was bought 2 times"
PLANTS: dict[Plant, str] = {
    no_intent_before_the_post: SILENT,
    the_post_is_sent_again_on_a_read_time_out: SILENT,
    a_lost_answer_is_adopted_by_time_alone: f"{ANOTHER}|none of us bought",
    an_empty_history_is_proof: SILENT,
    everything_is_doubt: "stay possibly paid",
    the_plan_is_taken_from_the_fields: f"{ANOTHER}|{SILENT}",
    the_receipt_is_written_before_the_file: "has (no|another) file",
}
"""Each with what the model says of it."""
BATCH_PLANTS: dict[Plant, str] = {
    of_many_intents_one_is_written: "says 'submitted' of an image that is planned",
    a_reader_forgets_an_intent: FORGOTTEN,
    a_reader_leaves_out_what_the_last_entry_says: FORGOTTEN,
    more_is_bought_at_once_than_a_kill_may_lose: "9 answers may be lost at once",
}
"""The same of a large batch."""
