"""The model's auditor: reads the disk as a stranger would, and compares it with the bill.

It follows every journal entry by entry with the package's own fold, which refuses what is not in the table.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from airflow_provider_bitdance.exceptions import RecordUnreadableError
from airflow_provider_bitdance.local.pictures import Labels, labels
from airflow_provider_bitdance.records import ImageState, Job, JobState, Note, Owner, Status, fold
from airflow_provider_bitdance.records.events import Adopted, Entry, Failed, Submitted
from airflow_provider_bitdance.records.notes import NOTES, is_note
from airflow_provider_bitdance.records.receipts import Receipt
from airflow_provider_bitdance.records.reservations import Reservation
from airflow_provider_bitdance.records.state import fold_notes
from airflow_provider_bitdance.storage.naming import Destination
from tests.unit.support import OUTPUT, RECORDS

CLOCKS_DIFFER = 4.0
"""Seconds by which two workers' clocks may differ, in the model."""
MOST_UNANSWERED = 8
"""Submissions of a job without a recorded answer at any time: so many a kill can lose."""

read_labels = lru_cache(maxsize=256)(labels)


@dataclass(slots=True)
class Ledger:
    """One journal as it has been read so far.

    :ivar names: Of the addresses' records, by key.
    """

    state: JobState = field(default_factory=JobState)
    names: dict[str, str] = field(default_factory=dict)
    submitted: list[tuple[str, str]] = field(default_factory=list)
    failed: set[str] = field(default_factory=set)
    spoken_of: set[str] = field(default_factory=set)
    noted: set[tuple[str, int]] = field(default_factory=set)

    def add(self, entry: Entry) -> None:
        """Take in the next entry; one that breaks a rule is refused each time that it is tried."""
        try:
            after = fold(self.state, entry)
        except RecordUnreadableError as error:
            raise AssertionError(str(error)) from error
        for key, image in self.state.images.items():
            now = after.images[key]
            assert image.status is not Status.STORED or now.status is Status.STORED, "a stored image is not"
            assert now.purchases >= image.purchases, "a purchase was forgotten"
        unanswered = len(after.having(Status.INTENDED))
        assert unanswered <= MOST_UNANSWERED, f"{unanswered} answers may be lost at once"
        self.state = after
        if not self.names:
            self.names = {key: self._address(image).record_name for key, image in after.images.items()}
        for event in entry.events:
            if isinstance(event, Submitted | Adopted):
                self.spoken_of.add(event.prediction_id)
            if isinstance(event, Submitted):
                self.submitted.append((event.prediction_id, event.key))
            elif isinstance(event, Failed):
                self.failed.add(self.state.images[event.key].prediction_id)

    def add_note(self, note: Note) -> None:
        """Take in what a process bought that had been replaced."""
        self.state = fold_notes(self.state, [note])
        self.spoken_of.add(note.prediction_id)
        self.noted.add((note.key, note.intent))

    @property
    def unconfirmed(self) -> int:
        """How many purchases it counts as possible, and has no id of."""
        nameless = sum(
            (key, intent) not in self.noted
            for key, image in self.state.images.items()
            for intent in image.unanswered
        )
        return nameless + len(self.state.having(Status.INTENDED))

    def _address(self, image: ImageState) -> Destination:
        plan = image.plan
        return Destination(self.state.output, plan.stem, plan.extension, plan.named)


def _record_name(path: str) -> str:
    return path.rpartition("/")[2].removesuffix(".json")


class Books:
    """What the records said so far, and what of it must not change.

    :param disk: Of all processes.
    :ivar overwritten: Record names of addresses where a process wrote that had been replaced: it slept
        within the call, which docs/internals/records.md does not promise to mend.
    """

    def __init__(self, disk: dict[str, bytes]) -> None:
        self.disk = disk
        self.ledgers: dict[str, Ledger] = defaultdict(Ledger)
        self.receipts: dict[str, Receipt] = {}
        self.overwritten: set[str] = set()
        self._read: dict[str, bytes] = {}
        self._receipt_bytes: dict[str, bytes] = {}

    def read(self) -> None:
        """Read what is new.

        :raises AssertionError: A record went backwards.
        """
        for path, data in self._read.items():
            assert self.disk.get(path) == data, f"{path} was changed or is gone"
        new = [path for path in self.disk if path not in self._read and self._is_immutable(path)]
        for path in sorted(new):
            if is_note(path):
                journal = path.rpartition("/")[0].removesuffix(NOTES)
                self.ledgers[journal].add_note(Note.model_validate_json(self.disk[path]))
            elif path.startswith(f"{RECORDS}/jobs/"):
                self.ledgers[path.rpartition("/")[0]].add(Entry.model_validate_json(self.disk[path]))
            self._read[path] = self.disk[path]
        for path, data in self.disk.items():
            if path.startswith(f"{RECORDS}/receipts/") and self._receipt_bytes.get(path) != data:
                self._receipt_bytes[path] = data
                self._add_receipt(path, Receipt.model_validate_json(data))

    def ledger(self, job: Job) -> Ledger:
        return self.ledgers[f"{RECORDS}/{job.folder}"]

    def is_replaced(self, writer: Owner) -> bool:
        """Whether another process has gone on with the job of this one."""
        self.read()
        last = self.ledger(writer.job).state.owner
        return last is not None and last.token != writer.token

    def watch_change(self, writer: Owner, path: str) -> None:
        """Note where a process that has been replaced writes an image or a receipt. Before it does."""
        if self._is_immutable(path):
            return
        is_replaced, own = self.is_replaced(writer), self.ledger(writer.job)
        for key, image in own.state.images.items():
            name = own.names[key]
            paths = (f"{RECORDS}/receipts/{name}.json", f"{OUTPUT}/{image.plan.stem}.png")
            if path in paths and (is_replaced or self._is_taken(name, image)):
                self.overwritten.add(name)

    def check_receipts(self, made: dict[str, Any]) -> None:
        """Each receipt's file is there and is the picture of the receipt's request."""
        for path in self._receipt_bytes:
            receipt = self.receipts[path]
            if path not in self.disk or _record_name(path) in self.overwritten:
                continue  # withdrawn, for its image is being replaced
            data = self.disk.get(f"{OUTPUT}/{receipt.file}")
            assert data is not None, f"{path} has no file"
            assert hashlib.sha256(data).hexdigest() == receipt.sha256, f"{path} has another file"
            shown, asked = read_labels(data), receipt.request
            wrong = f"{path} has a picture of another request: {shown}"
            assert (shown.prompt, shown.size, shown.seed) == (asked.prompt, asked.size, asked.seed), wrong
            bought = made[receipt.prediction_id]
            assert (bought.inputs.prompt, bought.seed) == (asked.prompt, asked.seed), wrong
            self._check_plan(path, receipt, shown)

    def check_money(self, charged: set[str], *, under_way: set[str], excused: set[str]) -> None:
        """Each charge is named in a journal, or counted there as possibly paid.

        :param charged: What was bought by the model's processes.
        :param under_way: What living processes bought; they may not have written it down yet.
        :param excused: What was bought by a process that had been replaced by then, and was killed before it
            could say so. Nobody can know of it.
        """
        named = self.named
        assert named <= charged, "an id is written down that none of us bought"
        silent = charged - named - under_way - excused
        possibly = self.unconfirmed
        # Two purchases of one request and seed, one of them lost: its proof may be the other's prediction.
        # Then one id is written down for both, and both count.
        bought = [id_ for ledger in self.ledgers.values() for id_, _ in ledger.submitted]
        possibly += len(bought) - len(set(bought))
        assert len(silent) <= possibly, f"{len(silent)} charges are silent, {possibly} possibly paid"

    def check_bought_once(self) -> None:
        """At an address where all ask the same, one prediction is bought beside those that failed."""
        asked, bought = defaultdict[str, set[str]](set), defaultdict[str, set[str]](set)
        failed = set[str]().union(*(ledger.failed for ledger in self.ledgers.values()))
        for ledger in self.ledgers.values():
            for key, image in ledger.state.images.items():
                asked[ledger.names[key]].add(image.plan.fingerprint)
            for prediction_id, key in ledger.submitted:
                bought[ledger.names[key]].add(prediction_id)
        for name, ids in bought.items():
            alike = len(asked[name]) == 1 and name not in self.overwritten
            assert not alike or len(ids - failed) <= 1, f"{name} was bought {len(ids - failed)} times"

    def check_all_is_found(self, silent: set[str]) -> None:
        """Where the history shows all, and at once, each lost response is found, once it is looked for."""
        still_open = sum(len(ledger.state.having(Status.INTENDED)) for ledger in self.ledgers.values())
        assert len(silent) <= still_open, f"given up, and the history shows it: {silent}"

    @property
    def named(self) -> set[str]:
        """The predictions that journals speak of."""
        return set[str]().union(*(ledger.spoken_of for ledger in self.ledgers.values()))

    @property
    def unconfirmed(self) -> int:
        """How many purchases the journals count as possible, without an id."""
        return sum(ledger.unconfirmed for ledger in self.ledgers.values())

    def _check_plan(self, path: str, receipt: Receipt, shown: Labels) -> None:
        """The picture is the one that the journal of its job planned."""
        ledger = self.ledger(receipt.writer.job)
        requests = {key: image.plan.request for key, image in ledger.state.images.items()}
        address = _record_name(path)
        keys = [key for key, name in ledger.names.items() if name == address]
        planned = {(requests[key].prompt, requests[key].seed) for key in keys}
        assert (shown.prompt, shown.seed) in planned, f"{path} is not what its job planned: {planned}"

    def _add_receipt(self, path: str, new: Receipt) -> None:
        old = self.receipts.get(path)
        self.receipts[path] = new
        # Two tasks that share one prediction may both store it.
        if old is None or old.prediction_id == new.prediction_id or _record_name(path) in self.overwritten:
            return
        backwards = f"{path} went back from {old.prediction_id} to {new.prediction_id}"
        assert new.reservation >= old.reservation, backwards
        same_task = new.writer.job.same_task(old.writer.job)
        if same_task or new.fingerprint != old.fingerprint:
            assert (new.submitted_at - old.submitted_at).total_seconds() >= -CLOCKS_DIFFER, backwards
        if same_task:
            assert new.writer.job.generation >= old.writer.job.generation, backwards

    def _is_taken(self, name: str, image: ImageState) -> bool:
        """Whether the address is reserved for another request by now."""
        folder = f"{RECORDS}/addresses/{name}/"
        last = max((path for path in self._read if path.startswith(folder)), default=None)
        if last is None:
            return False
        return Reservation(**json.loads(self.disk[last])).fingerprint != image.plan.fingerprint

    @staticmethod
    def _is_immutable(path: str) -> bool:
        return path.startswith((f"{RECORDS}/jobs/", f"{RECORDS}/addresses/"))
