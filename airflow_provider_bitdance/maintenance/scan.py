"""Reads every journal and receipt below a records path. Blocks; a damaged record is a finding, not a stop."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime
from threading import Lock
from typing import TypeVar

from airflow_provider_bitdance.exceptions import (
    BitDanceError,
    RecordUnreadableError,
    StorageError,
    UnsafeFileError,
)
from airflow_provider_bitdance.records import (
    Adopted,
    ImageState,
    Intended,
    Job,
    JobState,
    Lost,
    PlannedImage,
    Status,
    Submitted,
)
from airflow_provider_bitdance.records.enhanced_prompts import (
    PROMPTS,
    EnhancedPrompts,
    PromptAttempt,
    folder_of,
)
from airflow_provider_bitdance.records.events import Entry
from airflow_provider_bitdance.records.journal import READ_AHEAD, read_entries
from airflow_provider_bitdance.records.notes import NOTES, is_note, read_notes
from airflow_provider_bitdance.records.receipts import Receipt, Receipts
from airflow_provider_bitdance.records.state import LostPurchase, fold_all, fold_notes
from airflow_provider_bitdance.storage import Folder, uri_of
from airflow_provider_bitdance.storage.naming import Destination
from airflow_provider_bitdance.wavespeed.image_request import ImageRequest

READERS = 16
"""Files read at once: a store far away takes tens of milliseconds for each."""
BOUGHT_TOO = "bought by a process that had already been replaced"
_ENTRY = re.compile(r"(jobs/.+/generation=\d+)/(\d{6,})\.json")
_RECEIPT = re.compile(r"receipts/[^/.][^/]*\.json")
_ONE_LONG = Lock()
"""Held while a long journal is read: that takes many threads of its own."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that needs a person's attention.

    :param uri: Where.
    """

    uri: str
    what: str


@dataclass(frozen=True, slots=True)
class Purchase:
    """A prediction that a job bought.

    :param bought_at: Unix time.
    """

    prediction_id: str
    job: Job
    bought_at: float
    estimated_cost_usd: float


@dataclass(frozen=True, slots=True)
class Loss:
    """A purchase that was possibly paid and gave its job no image.

    :param request: What was sent.
    :param intent: Which intent of the image it was, counted from 1.
    :param intended_at: Unix time at which the job was about to buy.
    :param given_up_at: Unix time at which it was given up, or its process replaced.
    :param prediction_id: Where it is known: a process that had been replaced bought it.
    """

    job: Job
    plan: PlannedImage
    request: ImageRequest
    intent: int
    intended_at: float
    given_up_at: float
    reason: str
    prediction_id: str = ""


@dataclass(frozen=True, slots=True)
class JobRecord:
    """One journal: how far the job is, and all that it bought on the way there.

    :param last_try: Number of the last try of the job's own task.
    :param predictions: Every prediction id that the journal names.
    """

    uri: str
    job: Job
    last_try: int
    state: JobState
    purchases: tuple[Purchase, ...]
    losses: tuple[Loss, ...]
    predictions: frozenset[str]

    @property
    def open_images(self) -> list[ImageState]:
        """The images that are bought, or were about to be, and neither stored nor failed."""
        return self.state.having(Status.INTENDED, Status.SUBMITTED)

    def destination_of(self, image: ImageState) -> Destination:
        """Return where an image of this job goes."""
        plan = image.plan
        return Destination(self.state.output, plan.stem, plan.extension, plan.named)

    @property
    def destinations(self) -> set[str]:
        """The identities of the destinations of all images of this job."""
        return {self.destination_of(image).identity for image in self.state.images.values()}


@dataclass(frozen=True, slots=True)
class Records:
    """All that is below one records path, jobs by Dag, task, map index and time.

    :param receipts: By file name: the URI that a journal has is that of its day, and records may be moved.
    :param prompts: Purchases of enhanced prompts that were or may have been charged.
    """

    uri: str
    jobs: tuple[JobRecord, ...]
    receipts: Mapping[str, Receipt]
    findings: tuple[Finding, ...]
    prompts: tuple[PromptAttempt, ...] = ()

    @property
    def predictions(self) -> set[str]:
        """Every prediction id that some record names."""
        named = {receipt.prediction_id for receipt in self.receipts.values()}
        named |= {bought.prediction_id for bought in self.prompts if bought.prediction_id}
        return named.union(*(record.predictions for record in self.jobs))

    @property
    def saved_by_hand(self) -> dict[str, Receipt]:
        """The receipts of what a person has saved with the hook and no task knows, by prediction id: a lost
        purchase may have bought it."""
        by_hand = {
            receipt.prediction_id: receipt
            for receipt in self.receipts.values()
            if (receipt.writer.job.call or "").endswith(f".{receipt.prediction_id}")
        }
        jobs = {receipt.writer.job for receipt in by_hand.values()}
        of_tasks = (record.predictions for record in self.jobs if record.job not in jobs)
        others = set[str]().union(*of_tasks)
        return {name: receipt for name, receipt in by_hand.items() if name not in others}

    @property
    def purchases(self) -> list[Purchase]:
        """Every prediction that some record says was bought, once. A receipt may outlive its journal."""
        found = {purchase.prediction_id: purchase for record in self.jobs for purchase in record.purchases}
        for receipt in self.receipts.values():
            bought = Purchase(
                receipt.prediction_id,
                receipt.writer.job,
                receipt.submitted_at.timestamp(),
                receipt.estimated_cost_usd,
            )
            found.setdefault(receipt.prediction_id, bought)
        for prompt in (prompt for prompt in self.prompts if prompt.prediction_id):
            intent = prompt.intent
            bought = Purchase(
                prompt.prediction_id, intent.owner.job, intent.time.timestamp(), intent.estimated_cost_usd
            )
            found.setdefault(prompt.prediction_id, bought)
        return list(found.values())

    def bought_in_run(self, job: Job) -> set[str]:
        """Return the ids of what the jobs of one Dag run have bought: with the key of that run."""
        run = (job.dag_id, job.run_id)
        of_run = (record for record in self.jobs if (record.job.dag_id, record.job.run_id) == run)
        return {purchase.prediction_id for record in of_run for purchase in record.purchases}

    def receipt_of(self, image: ImageState) -> Receipt | None:
        """Return the receipt of a stored image, if it is there and whole."""
        return self.receipts.get(file_of(image.receipt))

    def later_than(self, record: JobRecord) -> list[JobRecord]:
        """Return the jobs that were planned since, because the task or its loop's iteration was cleared."""
        ours = record.job
        others = (other for other in self.jobs if other.job.same_task(ours) or other.job.replaces(ours))
        return [other for other in others if other.state.planned_at > record.state.planned_at]


def file_of(uri: str) -> str:
    """Return the last part of a URI or a name."""
    return uri.rpartition("/")[2]


def read_records(records: Folder) -> Records:
    """Read all journals and receipts.

    :raises StorageError: The store failed.
    """
    journals: Counter[str] = Counter()
    notes: dict[str, list[str]] = defaultdict(list)
    findings: list[Finding] = []
    for name in _listed(records, "jobs", findings):
        if match := _ENTRY.fullmatch(name):
            journals[match[1]] = max(journals[match[1]], int(match[2]))
        elif is_note(name):
            notes[name.rpartition("/")[0].removesuffix(NOTES)].append(name)
    receipts = (name for name in _listed(records, "receipts", findings) if _RECEIPT.fullmatch(name))
    jobs = _read_all(
        records,
        sorted(journals),
        lambda name: _read_job(records, name, journals[name], notes.get(name, [])),
        findings,
    )
    stored = _read_all(records, sorted(receipts), Receipts(records).listed, findings)
    prompts = _read_prompts(records, findings)
    by_file = {file_of(name): receipt for name, receipt in stored.items()}
    by_task = sorted(
        jobs.values(), key=lambda found: (found.job.dag_id, found.job.task_id, found.job.map_index)
    )
    findings.sort(key=lambda finding: finding.uri)
    return Records(records.uri, tuple(by_task), by_file, tuple(findings), prompts)


def _read_prompts(records: Folder, findings: list[Finding]) -> tuple[PromptAttempt, ...]:
    """Return the purchases of enhanced prompts, text by text."""
    by_text: dict[str, list[str]] = defaultdict(list)
    for name in _listed(records, PROMPTS, findings):
        if folder := folder_of(name):
            by_text[folder].append(name)
    prompts = EnhancedPrompts(records)
    read = _read_all(
        records, sorted(by_text), lambda folder: prompts.attempts_in(folder, by_text[folder]), findings
    )
    return tuple(attempt for attempts in read.values() for attempt in attempts if attempt.is_charged)


def _listed(records: Folder, below: str, findings: list[Finding]) -> list[str]:
    try:
        return records.names(below)
    except UnsafeFileError as error:
        findings.append(_finding(records, below, error))
        return []


def _finding(records: Folder, name: str, error: BitDanceError) -> Finding:
    # A name on a disk need not be text.
    return Finding(uri_of(records, name).encode(errors="backslashreplace").decode(), error.what)


def _read_all(
    records: Folder, names: list[str], read: Callable[[str], T | None], findings: list[Finding]
) -> dict[str, T]:
    """Read several records at once, and return them by their names; one that cannot be read is a finding."""

    def read_one(name: str) -> T | None:
        try:
            return read(name)
        except RecordUnreadableError as error:
            findings.append(_finding(records, name, error))
        except StorageError as error:
            if not isinstance(error.__context__, PermissionError):
                raise  # the store has failed, and what it does not show may be there
            findings.append(_finding(records, name, error))
        return None

    with ThreadPoolExecutor(READERS) as pool:
        found = zip(names, pool.map(read_one, names), strict=True)
        return {name: record for name, record in found if record is not None}


def _read_job(records: Folder, name: str, last: int, notes: list[str]) -> JobRecord | None:
    """Read one journal, by its folder; ``None`` where its own task has written nothing into it, or
    a prune that was killed was removing it.

    :param last: Number of the last entry that was listed.
    """
    with _ONE_LONG if last > READ_AHEAD else nullcontext():
        entries = list(read_entries(records, name))
    state = fold_all(JobState(), entries)
    if state.is_removed:
        return None
    if state.number < last:
        raise RecordUnreadableError(
            f"Entry {state.number + 1} of {last} is missing",
            fix="Restore it from a backup, or move the journal's whole folder away",
        )
    state = fold_notes(state, read_notes(records, notes))
    # Another task, or a later generation of this one, may have written here, too: to stop it.
    own = [entry.writer for entry in entries if entry.writer.job.folder == name]
    if not own:
        return None
    purchases, losses = _bought_and_lost(state, own[-1].job, entries)
    events = (event for entry in entries for event in entry.events)
    adopted = {event.prediction_id for event in events if isinstance(event, Adopted)}
    return JobRecord(
        uri=uri_of(records, name),
        job=own[-1].job,
        last_try=own[-1].try_number,
        state=state,
        purchases=purchases,
        losses=losses,
        predictions=frozenset(adopted.union(bought.prediction_id for bought in purchases)),
    )


def _bought_and_lost(
    state: JobState, job: Job, entries: list[Entry]
) -> tuple[tuple[Purchase, ...], tuple[Loss, ...]]:
    """Return what was bought, each prediction once, and what was possibly paid and gave the job no image."""
    bought: dict[str, tuple[str, datetime]] = {}
    reasons: dict[tuple[str, int], str] = {}
    intents: Counter[str] = Counter()
    intended_at: dict[tuple[str, int], float] = {}
    for entry in entries:
        for event in entry.events:
            if isinstance(event, Intended):
                intents.update(event.keys)
                intended_at |= {(key, intents[key]): entry.time.timestamp() for key in event.keys}
            elif isinstance(event, Submitted):
                bought.setdefault(event.prediction_id, (event.key, entry.time))
            elif isinstance(event, Lost):
                reasons[event.key, intents[event.key]] = event.reason
    losses = {
        (key, number): _loss(job, image.plan, number, loss, reasons[key, number])
        for key, image in state.images.items()
        for number, loss in image.lost.items()
    }
    for note in (note for image in state.images.values() for note in image.notes):
        # The history may have proved it since: then the job has it.
        if note.prediction_id not in bought:
            bought[note.prediction_id] = note.key, note.time
            plan, time = state.images[note.key].plan, intended_at.get((note.key, note.intent), state.time)
            losses[note.key, note.intent] = Loss(
                job, plan, plan.request, note.intent, time, time, BOUGHT_TOO, note.prediction_id
            )
    purchases = [
        Purchase(prediction_id, job, time.timestamp(), state.images[key].plan.estimated_cost_usd)
        for prediction_id, (key, time) in bought.items()
    ]
    purchases.sort(key=lambda purchase: purchase.bought_at)
    return tuple(purchases), tuple(losses.values())


def _loss(job: Job, plan: PlannedImage, intent: int, loss: LostPurchase, reason: str) -> Loss:
    return Loss(job, plan, loss.request, intent, loss.intended_at, loss.given_up_at, reason)
