"""Reads every journal and receipt below a records path. Blocks; a damaged record is a finding, not a stop."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from threading import Lock
from typing import Any, TypeVar

from airflow_provider_bitdance.exceptions import RecordUnreadableError
from airflow_provider_bitdance.records import (
    Adopted,
    ImageState,
    Intended,
    Job,
    JobState,
    Lost,
    Note,
    Status,
    Submitted,
)
from airflow_provider_bitdance.records.codec import read_record
from airflow_provider_bitdance.records.events import Entry, Event
from airflow_provider_bitdance.records.journal import READ_AHEAD, read_entries
from airflow_provider_bitdance.records.notes import NOTES, is_note, read_notes
from airflow_provider_bitdance.records.receipts import Receipt
from airflow_provider_bitdance.records.state import fold_all, fold_notes
from airflow_provider_bitdance.storage import Folder, uri_of
from airflow_provider_bitdance.wavespeed.image_request import ImageRequest

READERS = 16
"""Files read at once: a store far away takes tens of milliseconds for each."""
BOUGHT_TOO = "bought by a process that had already been replaced"
_ENTRY = re.compile(r"(jobs/.+/generation=\d+)/(\d{6,})\.json")
_RECEIPT = re.compile(r"receipts/[^/.][^/]*\.json")

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

    :param intended_at: Unix time at which the job was about to buy.
    :param prediction_id: Where it is known: a process that had been replaced bought it.
    """

    job: Job
    key: str
    request: ImageRequest
    intended_at: float
    estimated_cost_usd: float
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

    @property
    def models(self) -> set[str]:
        """The models that the job's images are requested from."""
        return {image.plan.request.model for image in self.state.images.values()}


@dataclass(frozen=True, slots=True)
class StoredReceipt:
    """A receipt, and its URI."""

    uri: str
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Records:
    """All that is below one records path, jobs by Dag, task, map index and time."""

    uri: str
    jobs: tuple[JobRecord, ...]
    receipts: tuple[StoredReceipt, ...]
    findings: tuple[Finding, ...]

    @property
    def predictions(self) -> set[str]:
        """Every prediction id that some record names."""
        named = {found.receipt.prediction_id for found in self.receipts}
        return named.union(*(record.predictions for record in self.jobs))

    @property
    def purchases(self) -> list[Purchase]:
        """Every prediction that some record says was bought, once. A receipt may outlive its journal."""
        found = {purchase.prediction_id: purchase for record in self.jobs for purchase in record.purchases}
        for receipt in (stored.receipt for stored in self.receipts):
            bought = Purchase(
                receipt.prediction_id,
                receipt.writer.job,
                receipt.submitted_at.timestamp(),
                receipt.estimated_cost_usd,
            )
            found.setdefault(receipt.prediction_id, bought)
        return list(found.values())

    def has_later(self, record: JobRecord) -> bool:
        """Say whether the task was cleared since this job, and has planned again."""
        others = (other for other in self.jobs if other.job.same_task(record.job))
        return any(other.state.planned_at > record.state.planned_at for other in others)


def read_records(records: Folder) -> Records:
    """Read all journals and receipts.

    :raises StorageError: The store failed.
    """
    journals: Counter[str] = Counter()
    notes: dict[str, list[str]] = defaultdict(list)
    for name in records.names("jobs"):
        if match := _ENTRY.fullmatch(name):
            journals[match[1]] = max(journals[match[1]], int(match[2]))
        elif is_note(name):
            notes[name.rpartition("/")[0].removesuffix(NOTES)].append(name)
    listed = [(name, last, notes[name]) for name, last in sorted(journals.items())]
    one_long = Lock()
    receipts = [name for name in records.names("receipts") if _RECEIPT.fullmatch(name)]
    findings: list[Finding] = []
    with ThreadPoolExecutor(READERS) as pool:
        jobs = pool.map(lambda item: _or_finding(_read_listed, records, *item, one_long), listed)
        stored = pool.map(lambda name: _or_finding(_read_receipt, records, name), sorted(receipts))
        good_jobs, good_receipts = list(_good(jobs, findings)), list(_good(stored, findings))
    good_jobs.sort(key=lambda record: (record.job.dag_id, record.job.task_id, record.job.map_index))
    return Records(records.uri, tuple(good_jobs), tuple(good_receipts), tuple(findings))


def _read_listed(
    records: Folder, name: str, last: int, notes: list[str], one_long: AbstractContextManager[Any]
) -> JobRecord | None:
    """Read one journal; ``None`` where its own task has written nothing into it.

    :param name: The journal's folder below the records path.
    :param last: Number of the last entry that was listed.
    :param notes: Names of the notes beside it.
    :param one_long: Held while a long journal is read: that takes many threads of its own.
    """
    with one_long if last > READ_AHEAD else nullcontext():
        entries = list(read_entries(records, name))
    state = fold_all(JobState(), entries)
    if state.number < last:
        raise RecordUnreadableError(
            f"Entry {state.number + 1} of {last} is missing",
            fix="Restore it from a backup, or move the whole folder of the journal away",
        )
    state = fold_notes(state, read_notes(records, notes))
    # Another task, or a later generation of this one, may have written here, too: to stop it.
    own = [entry.writer for entry in entries if entry.writer.job.folder == name]
    if not own:
        return None
    left = [note for image in state.images.values() for note in image.notes]
    named = [event for _, event in _events(entries) if isinstance(event, Submitted | Adopted)]
    return JobRecord(
        uri=uri_of(records, name),
        job=own[-1].job,
        last_try=own[-1].try_number,
        state=state,
        purchases=tuple(_purchases(state, own[-1].job, entries, left)),
        losses=tuple(_losses(state, own[-1].job, entries, left)),
        predictions=frozenset(item.prediction_id for item in (*named, *left)),
    )


def _purchases(state: JobState, job: Job, entries: list[Entry], notes: list[Note]) -> Iterable[Purchase]:
    """Return what was bought, each prediction once: the history may prove one that is noted, too."""
    bought = [
        (event.prediction_id, event.key, entry.time)
        for entry, event in _events(entries)
        if isinstance(event, Submitted)
    ]
    bought += [(note.prediction_id, note.key, note.time) for note in notes]
    found: dict[str, Purchase] = {}
    for prediction_id, key, time in bought:
        cost = state.images[key].plan.estimated_cost_usd
        found.setdefault(prediction_id, Purchase(prediction_id, job, time.timestamp(), cost))
    return sorted(found.values(), key=lambda purchase: purchase.bought_at)


def _losses(state: JobState, job: Job, entries: list[Entry], notes: list[Note]) -> Iterable[Loss]:
    """Return the intents that were possibly paid and gave the job no prediction, each once."""
    submitted: set[str] = set()
    intents: Counter[str] = Counter()
    intended_at: dict[tuple[str, int], float] = {}
    lost: dict[tuple[str, int], tuple[str, str]] = {}
    for entry, event in _events(entries):
        if isinstance(event, Intended):
            intents.update(event.keys)
            intended_at |= {(key, intents[key]): entry.time.timestamp() for key in event.keys}
        elif isinstance(event, Submitted):
            submitted.add(event.prediction_id)
        elif isinstance(event, Lost):
            lost[event.key, intents[event.key]] = event.reason, ""
    # What became of an intent that was taken for lost, by the process that made it.
    lost |= {
        (note.key, note.intent): (BOUGHT_TOO, note.prediction_id)
        for note in notes
        if note.prediction_id not in submitted
    }
    for (key, intent), (reason, prediction_id) in lost.items():
        plan, when = state.images[key].plan, intended_at.get((key, intent), state.time)
        cost = plan.estimated_cost_usd
        yield Loss(job, key, plan.request, when, cost, reason, prediction_id)


def _events(entries: list[Entry]) -> Iterator[tuple[Entry, Event]]:
    return ((entry, event) for entry in entries for event in entry.events)


def _read_receipt(records: Folder, name: str) -> StoredReceipt | None:
    receipt = read_record(Receipt, records, name)  # None: withdrawn since it was listed
    return None if receipt is None else StoredReceipt(uri_of(records, name), receipt)


def _or_finding(
    read: Callable[..., T | None], records: Folder, name: str, *more: object
) -> T | Finding | None:
    try:
        return read(records, name, *more)
    except RecordUnreadableError as error:
        return Finding(uri_of(records, name), error.what)


def _good(found: Iterable[T | Finding | None], findings: list[Finding]) -> Iterator[T]:
    """Yield what could be read, and put aside what could not."""
    for item in found:
        if isinstance(item, Finding):
            findings.append(item)
        elif item is not None:
            yield item
