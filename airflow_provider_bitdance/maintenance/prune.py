"""Prune: removes records that no promise needs any more, so that the records folder does not grow for ever.

A task's journals go when the task has been over for a long time, in each of its generations: nothing that it
bought can be collected any more, and nothing is possibly paid. A receipt goes when its file is gone.

A journal is claimed before it is removed, by an owner that is no task. While that lease lasts no process
enters the job, so none goes on from records that are about to vanish; a process that was at work is stopped.
"""

from __future__ import annotations

import os
import re
import socket
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import uuid4

from airflow_provider_bitdance.clock import Clock
from airflow_provider_bitdance.exceptions import BitDanceError, FencedError, InputError, StorageError
from airflow_provider_bitdance.maintenance.outputs import Place, addresses_of, named, open_place
from airflow_provider_bitdance.maintenance.report import plain
from airflow_provider_bitdance.maintenance.scan import READERS, Finding, JobRecord, Records, read_records
from airflow_provider_bitdance.maintenance.triage import KEPT_SECONDS
from airflow_provider_bitdance.records import Job, Journal, Owner, Status
from airflow_provider_bitdance.records.codec import read_record
from airflow_provider_bitdance.records.events import PRUNER, Entry
from airflow_provider_bitdance.records.receipts import Receipt, Receipts
from airflow_provider_bitdance.storage import Folder, uri_of
from airflow_provider_bitdance.storage.naming import Destination

DAY = 24 * 3600.0
LEAST_AGE, USUAL_AGE = timedelta(days=8), timedelta(days=30)
"""WaveSpeed keeps outputs for 7 days: for so long a journal may lead to an image."""
CLOSED_FOR = 600.0
"""Seconds for which no process enters a job that is about to be removed: longer than a removal takes."""
RUNNING, POSSIBLY_PAID, DAMAGED = "running or recent", "possibly paid", "damaged"
_ENTRY = re.compile(r"(jobs/.+/generation=\d+)/(\d{6,})\.json")
_LEFT_OVER = re.compile(r"(jobs/.+/\.[0-9a-f]{16}\.tmp)/.+")
"""What a removal on a disk leaves that was killed."""


@dataclass(frozen=True, slots=True)
class PruneReport:
    """What was removed, or would be, and what was kept.

    :param records: The records path.
    :param dry_run: Nothing was changed.
    :param journals: Of these jobs the journals were removed.
    :param receipts: The images whose receipts were removed, for they are gone themselves; URIs.
    :param kept: How many journals were kept, by reason.
    """

    records: str
    dry_run: bool
    older_than_days: float
    journals: tuple[Job, ...]
    receipts: tuple[str, ...]
    kept: Mapping[str, int]
    findings: tuple[Finding, ...]

    @property
    def needs_attention(self) -> bool:
        """Whether something could not be read or removed."""
        return bool(self.findings)

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        return {**plain(self), "needs_attention": self.needs_attention}


def prune(
    *,
    conn_id: str = "bitdance_default",
    records_path: str = "",
    outputs: Sequence[str] = (),
    older_than: timedelta = USUAL_AGE,
    dry_run: bool = True,
) -> PruneReport:
    """Remove records that nobody needs any more. Buys nothing, needs no account, and blocks.

    :param conn_id: The connection that says where the records are, if ``records_path`` does not.
    :param records_path: Where the records are.
    :param outputs: Output folders: receipts of images below these are removed where the file is gone.
    :param older_than: Only what has not changed for so long; at least 8 days.
    :param dry_run: Report what would be removed, and change nothing.
    :raises InputError: An argument cannot be used.
    :raises StorageError: The store failed.
    """
    from airflow_provider_bitdance.hooks.object_storage import find_records, open_folder

    if older_than < LEAST_AGE:
        raise InputError(
            f"Records are to be removed after {older_than.total_seconds() / DAY:g} days",
            allowed=f"{LEAST_AGE.days} or more: WaveSpeed keeps outputs for 7, and a journal leads to them",
        )
    folder = find_records(records_path, conn_id)
    return Pruning(folder, open_folder, addresses_of(outputs), older_than, dry_run).run()


def why_kept(group: Iterable[JobRecord], now: float, older_than: timedelta) -> str:
    """Say why the journals of one task instance are kept; nothing where no promise needs them. Pure.

    :param group: All its generations.
    :param now: Unix time.
    """
    for record in group:
        state = record.state
        # An earlier prune has judged it by its age, claimed it, and then died.
        is_old = now - state.time > older_than.total_seconds() or state.is_owned_by_prune
        if not is_old or now < state.lease_end(now):
            return RUNNING
        if record.losses or any(image.unconfirmed for image in state.images.values()):
            return POSSIBLY_PAID
        if any(now - image.submitted_at <= KEPT_SECONDS for image in state.having(Status.SUBMITTED)):
            return RUNNING
    return ""


@dataclass(slots=True)
class Pruning:
    """One run.

    :param folder: The records path.
    :param open_folder: Resolves an output folder.
    """

    folder: Folder
    open_folder: Callable[[str], Folder]
    outputs: tuple[str, ...] = ()
    older_than: timedelta = USUAL_AGE
    dry_run: bool = True
    clock: Clock = field(default_factory=Clock)
    _owner: Owner = field(
        default_factory=lambda: Owner(
            job=PRUNER, try_number=1, host=socket.gethostname(), pid=os.getpid(), token=uuid4().hex
        )
    )

    def run(self) -> PruneReport:
        """Read the records, and remove what may go."""
        if not self.dry_run:
            self._finish_earlier()
        records = read_records(self.folder)
        groups: dict[str, list[JobRecord]] = defaultdict(list)
        for record in records.jobs:
            groups[record.job.task_folder].append(record)
        now, kept = self.clock.time(), dict[str, str]()
        damaged = {finding.uri.rpartition("/")[0] for finding in records.findings}  # a journal's: its task
        for task, group in groups.items():
            is_damaged = uri_of(self.folder, task) in damaged
            if why := DAMAGED if is_damaged else why_kept(group, now, self.older_than):
                kept[task] = why
        going = [group for task, group in groups.items() if task not in kept]
        with ThreadPoolExecutor(READERS) as pool:
            removed = list(pool.map(self._remove_task, going))
        receipts, findings = self._prune_receipts(records, [groups[task] for task in kept], now)
        counts = Counter(why for task, why in kept.items() for _ in groups[task])
        counts[RUNNING] += sum(map(len, going)) - sum(map(len, removed))  # entered since they were read
        return PruneReport(
            records=self.folder.uri,
            dry_run=self.dry_run,
            older_than_days=self.older_than.total_seconds() / DAY,
            journals=tuple(job for jobs in removed for job in jobs),
            receipts=receipts,
            kept=dict(+counts),
            findings=(*records.findings, *findings),
        )

    def _finish_earlier(self) -> None:
        """Remove what an earlier prune was removing when it was killed.

        On a disk a journal vanishes at once. In an object store its first entries may be gone: then its last
        one is the claim of the prune.
        """
        entries: dict[str, list[int]] = defaultdict(list)
        left_over = set()
        for name in self.folder.names("jobs"):
            if match := _LEFT_OVER.fullmatch(name):
                left_over.add(match[1])
            elif match := _ENTRY.fullmatch(name):
                entries[match[1]].append(int(match[2]))
        for journal, numbers in entries.items():
            if 1 not in numbers and self._was_claimed(journal, max(numbers)):
                left_over.add(journal)
        for name in sorted(left_over):
            self.folder.remove_folder(name)

    def _was_claimed(self, journal: str, number: int) -> bool:
        try:
            entry = read_record(Entry, self.folder, f"{journal}/{number:06}.json")
        except BitDanceError:
            return False
        return entry is not None and entry.writer.job == PRUNER

    def _remove_task(self, group: list[JobRecord]) -> list[Job]:
        """Remove the journals of one task instance, the oldest first, and return whose were removed."""
        ordered = sorted(group, key=lambda record: record.state.planned_at)
        if self.dry_run:
            return [record.job for record in ordered]
        until = self.clock.time() + CLOSED_FOR
        for record in ordered:
            journal = Journal(self.folder, self._owner, job=record.job)
            journal.state = record.state  # not read again: the claim fails where an entry was added since
            try:
                journal.claim(until, self.clock.time())
            except (FencedError, StorageError):
                return []
        removed = []
        for record in ordered:
            if self.clock.time() < until - CLOSED_FOR / 2:
                self.folder.remove_folder(record.job.folder)
                removed.append(record.job)
        return removed

    def _prune_receipts(
        self, records: Records, kept: Iterable[list[JobRecord]], now: float
    ) -> tuple[tuple[str, ...], list[Finding]]:
        """Remove old receipts whose files are gone; not those at destinations of jobs whose journals stay."""
        in_use = {
            _receipt_of(record, key) for group in kept for record in group for key in record.state.images
        }
        places = {
            uri: self._place(uri) for uri in sorted({each.folder for each in records.receipts.values()})
        }
        reachable = {name: each for name, each in records.receipts.items() if places[each.folder]}
        with ThreadPoolExecutor(READERS) as pool:
            found = pool.map(lambda each: _is_there(each, places[each.folder]), reachable.values())
            is_there = dict(zip(reachable, found, strict=True))
        roots = {name: named(each.folder, self.outputs) for name, each in reachable.items()}
        alive = {roots[name] for name, there in is_there.items() if there}
        findings = [
            Finding(
                root,
                "none of the images that receipts name is there, so no receipt is removed: is it mounted?",
            )
            for root in sorted(set(roots.values()) - alive)
        ]
        gone = [
            name
            for name, there in is_there.items()
            if not there
            and roots[name] in alive
            and name not in in_use
            and now - reachable[name].stored_at.timestamp() > self.older_than.total_seconds()
        ]
        removed = [
            name for name in gone if self.dry_run or self._remove_receipt(name, reachable[name], places)
        ]
        return tuple(reachable[name].uri for name in removed), findings

    def _place(self, uri: str) -> Place | None:
        """Open an output folder that the caller names; no other: a receipt must not choose what is opened."""
        place = open_place(self.open_folder, uri, self.outputs) if named(uri, self.outputs) else None
        return place if isinstance(place, Place) else None

    def _remove_receipt(self, name: str, receipt: Receipt, places: Mapping[str, Place | None]) -> bool:
        """Remove a receipt, unless it or its file has been written since."""
        try:
            is_same = Receipts(self.folder).listed(f"receipts/{name}") == receipt
        except BitDanceError:
            return False
        if not is_same or _is_there(receipt, places[receipt.folder]):
            return False
        self.folder.remove(f"receipts/{name}")
        return True


def _receipt_of(record: JobRecord, key: str) -> str:
    """Return the name of the receipt at the destination of an image."""
    plan = record.state.images[key].plan
    destination = Destination(record.state.output, plan.stem, plan.extension, plan.named)
    return f"{destination.record_name}.json"


def _is_there(receipt: Receipt, place: Place | None) -> bool:
    """Say whether the file of a receipt is there; also what is no file, as a link, is something."""
    assert place is not None
    try:
        return place.folder.size(f"{place.below}{receipt.file}") is not None
    except StorageError:
        return True
