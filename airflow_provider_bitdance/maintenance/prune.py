"""Prune: removes records that no promise needs any more, so that the records folder does not grow for ever.

A task's journals go when the task has been over for a long time, in each of its generations: nothing that it
bought can be collected any more, and nothing is possibly paid. A receipt goes when its file is gone.

A journal is claimed before it is removed, by an owner that is no task: a process that was at work is stopped.
Then a claim takes the place of entry 1, which is removed last. While it is there no process enters the job,
so none goes on from a part of its journal. A prune that was killed is finished by the next.
"""

from __future__ import annotations

import os
import re
import socket
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from airflow_provider_bitdance.clock import Clock
from airflow_provider_bitdance.exceptions import (
    BitDanceError,
    FencedError,
    InputError,
    RecordUnreadableError,
    StorageError,
)
from airflow_provider_bitdance.maintenance.outputs import (
    Place,
    addresses_of,
    folders_up_to,
    named,
    nearest_folder,
    open_place,
)
from airflow_provider_bitdance.maintenance.report import plain
from airflow_provider_bitdance.maintenance.scan import READERS, Finding, JobRecord, Records, read_records
from airflow_provider_bitdance.maintenance.triage import KEPT_SECONDS
from airflow_provider_bitdance.records import Job, JobState, Journal, Owner, Status
from airflow_provider_bitdance.records.events import Claimed, Entry
from airflow_provider_bitdance.records.journal import read_entries
from airflow_provider_bitdance.records.owner import PRUNER
from airflow_provider_bitdance.records.receipts import Receipt, Receipts
from airflow_provider_bitdance.records.state import fold_all
from airflow_provider_bitdance.storage import Folder, uri_of

DAY = 24 * 3600.0
LEAST_AGE, USUAL_AGE = timedelta(days=8), timedelta(days=30)
"""WaveSpeed keeps outputs for 7 days: for so long a journal may lead to an image."""
CLOSED_FOR = 600.0
"""Seconds for which no process enters a job that is about to be removed, and no other prune removes it:
longer than a removal takes."""
RUNNING, POSSIBLY_PAID, DAMAGED, FAILED = "running or recent", "possibly paid", "damaged", "not removed"
NONE_IS_THERE = (
    "no image that has a receipt is there, so the receipts stay: mount the disk or delete the folder"
)
_FIRST_ENTRY = re.compile(r"(jobs/.+/generation=\d+)/000001\.json")
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
        records = read_records(self.folder)
        findings = [] if self.dry_run else self._finish_earlier(records)
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
            results = list(pool.map(self._remove_task, going))
        removed = [jobs for jobs, _ in results]
        findings += [error for _, error in results if error]
        receipts, lost = self._prune_receipts(records, [groups[task] for task in kept], now)
        counts = Counter(why for task, why in kept.items() for _ in groups[task])
        for group, (jobs, error) in zip(going, results, strict=True):
            counts[FAILED if error else RUNNING] += len(group) - len(jobs)  # or entered since they were read
        return PruneReport(
            records=self.folder.uri,
            dry_run=self.dry_run,
            older_than_days=self.older_than.total_seconds() / DAY,
            journals=tuple(job for jobs in removed for job in jobs),
            receipts=receipts,
            kept=dict(+counts),
            findings=(*records.findings, *findings, *lost),
        )

    def _finish_earlier(self, records: Records) -> list[Finding]:
        """Remove what an earlier prune, or a clear, has left, and return what could not be."""
        findings, known = [], {record.job.folder for record in records.jobs}
        names = self.folder.names("jobs")
        left_over = {match[1] for name in names if (match := _LEFT_OVER.fullmatch(name))}
        first = (match[1] for name in names if (match := _FIRST_ENTRY.fullmatch(name)))
        for name in sorted(left_over.union(first) - known):
            try:
                if name in left_over:
                    self.folder.remove_folder(name)
                elif self._is_left_over(name):
                    self._remove_journal(name)
            except StorageError as error:
                findings.append(Finding(uri_of(self.folder, name), error.what))
        return findings

    def _is_left_over(self, journal: str) -> bool:
        """Say whether a prune has begun to remove a journal, and has given up or died since; or, long ago, a
        clear claimed it before it had a plan, to stop its processes."""
        try:
            entries = list(read_entries(self.folder, journal))
            state = fold_all(JobState(), entries)
        except RecordUnreadableError:
            return False  # a finding already
        now = self.clock.time()
        is_claimed_only = all(entry.writer.job.folder != journal for entry in entries)
        is_old = is_claimed_only and now - state.time > self.older_than.total_seconds()
        return (state.is_removed or is_old) and state.lease_end(now) <= now

    def _remove_task(self, group: list[JobRecord]) -> tuple[list[Job], Finding | None]:
        """Remove the journals of one task instance, the oldest first.

        :return: Whose were removed, and what has failed.
        """
        ordered = sorted(group, key=lambda record: record.state.planned_at)
        if self.dry_run:
            return [record.job for record in ordered], None
        until, removed = self.clock.time() + CLOSED_FOR, list[Job]()
        record = ordered[0]
        try:
            for record in ordered:
                journal = Journal(self.folder, self._owner, job=record.job)
                journal.state = record.state  # not read again: the claim fails where an entry was added since
                journal.claim(until, self.clock.time())
            for record in ordered:
                if self.clock.time() < until - CLOSED_FOR / 2:
                    self._remove_journal(record.job.folder)
                    removed.append(record.job)
        except FencedError:
            pass
        except BitDanceError as error:
            return removed, Finding(record.uri, error.what)
        return removed, None

    def _remove_journal(self, journal: str) -> None:
        """Put a claim in the place of the first entry, and remove all others before it."""
        now = self.clock.time()
        claim = Entry(
            number=1,
            time=datetime.fromtimestamp(now, UTC),
            writer=self._owner,
            events=(Claimed(deadline=now + CLOSED_FOR),),
        )
        self.folder.replace(f"{journal}/000001.json", claim.model_dump_json(indent=1).encode())
        self.folder.remove_folder(journal)

    def _prune_receipts(
        self, records: Records, kept: Iterable[list[JobRecord]], now: float
    ) -> tuple[tuple[str, ...], list[Finding]]:
        """Remove old receipts whose files are gone; not those at destinations of jobs whose journals stay."""
        in_use = {
            f"{record.destination_of(image).record_name}.json"
            for group in kept
            for record in group
            for image in record.state.images.values()
        }
        places = {
            uri: self._place(uri) for uri in sorted({each.folder for each in records.receipts.values()})
        }
        reachable = {name: each for name, each in records.receipts.items() if places[each.folder]}
        with ThreadPoolExecutor(READERS) as pool:
            found = pool.map(lambda each: _is_there(each, places[each.folder]), reachable.values())
            is_there = dict(zip(reachable, found, strict=True))
        unmounted = self._perhaps_unmounted(reachable, is_there)
        findings = [Finding(folder, NONE_IS_THERE) for folder in sorted(set(unmounted.values()))]
        gone = [
            name
            for name, there in is_there.items()
            if not there
            and name not in unmounted
            and name not in in_use
            and now - reachable[name].stored_at.timestamp() > self.older_than.total_seconds()
        ]
        removed = []
        for name in gone:
            try:
                if self.dry_run or self._remove_receipt(name, reachable[name], places):
                    removed.append(name)
            except BitDanceError as error:
                findings.append(Finding(uri_of(self.folder, f"receipts/{name}"), error.what))
        return tuple(reachable[name].uri for name in removed), findings

    def _perhaps_unmounted(
        self, receipts: Mapping[str, Receipt], is_there: Mapping[str, bool]
    ) -> dict[str, str]:
        """Return the folders of those receipts that no image vouches for, by the receipt's name."""
        roots = {name: named(each.folder, self.outputs) for name, each in receipts.items()}
        vouched_for = {
            folder
            for name, root in roots.items()
            for folder in (folders_up_to(root, receipts[name].folder) if is_there[name] else ())
        }
        nearest = {name: nearest_folder(root, receipts[name].folder) for name, root in roots.items()}
        return {name: folder for name, folder in nearest.items() if folder not in vouched_for}

    def _place(self, uri: str) -> Place | None:
        """Open an output folder that the caller names; no other: a receipt must not choose what is opened."""
        place = open_place(self.open_folder, uri, self.outputs) if named(uri, self.outputs) else None
        return place if isinstance(place, Place) else None

    def _remove_receipt(self, name: str, receipt: Receipt, places: Mapping[str, Place | None]) -> bool:
        """Remove a receipt, unless it or its file has been written since.

        Between this look and the removal is one operation of the store. A task that stores an image there in
        that moment loses its receipt, and a later run buys the image again. So docs/operations/maintenance.md
        says to remove receipts while no task stores images.
        """
        is_same = Receipts(self.folder).listed(f"receipts/{name}") == receipt
        if not is_same or _is_there(receipt, places[receipt.folder]):
            return False
        self.folder.remove(f"receipts/{name}")
        return True


def _is_there(receipt: Receipt, place: Place | None) -> bool:
    """Say whether the file of a receipt is there; also half a file, or what is none, as a link, is
    something."""
    assert place is not None
    try:
        return place.folder.size(f"{place.below}{receipt.file}") is not None
    except StorageError:
        return True
