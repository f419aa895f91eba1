"""Reconcile: the records below a records path against the account that they were bought with.

Stores what is paid for and was left behind, finds out what became of lost responses, and compares the
estimated cost with the bill. Buys nothing. Safe to run twice, and beside tasks: a job that may still run is
left alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from uuid import uuid4

from airflow_provider_bitdance.clock import Clock
from airflow_provider_bitdance.engine import JobContext, Policy
from airflow_provider_bitdance.engine.output import KEPT_BY_WAVESPEED
from airflow_provider_bitdance.engine.policy import Nsfw
from airflow_provider_bitdance.engine.settlement import NOT_SHOWN
from airflow_provider_bitdance.exceptions import BitDanceError, FencedError
from airflow_provider_bitdance.hooks.bitdance import BitDanceHook
from airflow_provider_bitdance.hooks.object_storage import open_folder, open_records
from airflow_provider_bitdance.hooks.runtime import label_of
from airflow_provider_bitdance.maintenance.account import Account, read_account
from airflow_provider_bitdance.maintenance.collect import Collected, collect
from airflow_provider_bitdance.maintenance.costs import (
    DAY,
    costs,
    explain,
    loss_periods,
    lost_prompts,
    untracked,
)
from airflow_provider_bitdance.maintenance.outputs import addresses_of, named, not_named
from airflow_provider_bitdance.maintenance.report import (
    CollectStatus,
    OpenImage,
    PossiblyPaid,
    Report,
    Verdict,
)
from airflow_provider_bitdance.maintenance.scan import JobRecord, Loss, Records, read_records
from airflow_provider_bitdance.maintenance.triage import (
    KEPT_SECONDS,
    Triage,
    bought_as,
    is_of,
    open_since,
    triage,
)
from airflow_provider_bitdance.records import ImageState, Journal, NotCreated, Owner
from airflow_provider_bitdance.redaction import shorten
from airflow_provider_bitdance.storage import Folder
from airflow_provider_bitdance.wavespeed.client import AsyncClient
from airflow_provider_bitdance.wavespeed.models import BITDANCE_14B

log = logging.getLogger(__name__)


def reconcile(
    *,
    conn_id: str = "bitdance_default",
    records_path: str = "",
    outputs: Sequence[str] = (),
    since: datetime | None = None,
    dry_run: bool = False,
    include_running: bool = False,
    nsfw: Nsfw = "fail",
) -> Report:
    """Compare the records with the account, store paid images that are not stored, and report. Buys nothing.

    It blocks. Call it from a task's main thread or from a program, because it resolves connections.

    :param conn_id: The connection with the API key that bought the images.
    :param records_path: The records' folder. Default: the connection's, then ``[bitdance] records_path``.
    :param outputs: Output folders, written as in the tasks. Images are stored only in and below these.
    :param since: The start of the period in which costs and lost purchases are compared; a time without a
        zone is UTC. Default: 7 days ago, because WaveSpeed keeps its history that long.
    :param dry_run: Whether to change nothing and only report what would be done.
    :param include_running: Whether to collect also images of jobs that may still be running. Their processes
        stop, and their retries continue from there.
    :param nsfw: ``"allow"`` also stores images that are flagged as not safe for work; ``"fail"`` records them
        as failed.
    :raises InputError: No records path is set, or it cannot be opened.
    :raises BitDanceError: The API or the store of the records failed.
    """
    hook = BitDanceHook(conn_id)
    since = since or datetime.fromtimestamp(Clock().time(), UTC) - KEPT_BY_WAVESPEED
    records = open_records(records_path, of_connection=hook.extra.records_path)
    return Reconciliation(
        client=hook.new_async_client(),
        records=records,
        open_folder=open_folder,
        outputs=addresses_of(outputs),
        since=since if since.tzinfo else since.replace(tzinfo=UTC),
        dry_run=dry_run,
        include_running=include_running,
        policy=Policy(nsfw=nsfw, label=label_of(None)),
    ).run()


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """One reconciliation, with its handles passed in.

    :param client: Not used before; it is closed at the end.
    :param open_folder: Resolves an output folder; called where there is no event loop.
    :param outputs: Output folders; images are stored in these and below.
    """

    client: AsyncClient
    records: Folder
    open_folder: Callable[[str], Folder]
    since: datetime
    outputs: tuple[str, ...] = ()
    dry_run: bool = False
    include_running: bool = False
    policy: Policy = field(default_factory=Policy)
    clock: Clock = field(default_factory=Clock)

    def run(self) -> Report:
        """Read, collect, read again, and report."""
        now = self.clock.time()
        records = read_records(self.records)
        host = self.client.settings.host
        found = triage(records, api_host=host, now=now, include_running=self.include_running)
        # Opened here, where there is no event loop: Airflow's filesystems cannot be opened within one.
        jobs = [self._opened(job, now) for job in found]
        plans = (image.plan for record in records.jobs for image in record.state.images.values())
        models = {BITDANCE_14B, *(plan.request.model for plan in plans)}
        images, account = asyncio.run(self._collect_and_ask(jobs, models, records, now))
        return self._report(records if self.dry_run else read_records(self.records), images, account, now)

    def _opened(self, job: Triage, now: float) -> tuple[Triage, JobContext | None]:
        """Open what is needed to collect for a job, as a new process of it."""
        if job.outcome is not CollectStatus.DUE:
            return job, None
        output = job.record.state.output
        if not named(output, self.outputs):
            why = not_named(output, "reconcile may store in")
            return replace(job, outcome=CollectStatus.LEFT, why=why), None
        if self.dry_run:
            return job, None
        journal = Journal(self.records, _owner_of(job.record))
        try:
            if journal.load().output != output:
                raise FencedError(f"Another process has changed the job {journal.uri}")
            images = self.open_folder(output)
        except BitDanceError as error:
            return replace(job, outcome=CollectStatus.LEFT, why=error.what), None
        return job, JobContext(
            client=self.client,
            journal=journal,
            records=self.records,
            images=images,
            policy=self.policy,
            log=log,
            started_at=now,
            clock=self.clock,
        )

    async def _collect_and_ask(
        self,
        jobs: list[tuple[Triage, JobContext | None]],
        models: set[str],
        records: Records,
        now: float,
    ) -> tuple[list[OpenImage], Account]:
        """Store what was left behind, which matters more than the bill, and then read that."""
        images: list[OpenImage] = []
        async with self.client as client:
            for job, context in jobs:
                keys = {image.plan.key for image in job.images}
                done = await collect(context, keys) if context else {}
                images += [_open_image(job, image, done.get(image.plan.key), now) for image in job.images]
            account = await read_account(
                client,
                self.clock,
                models,
                self.since,
                known=records.predictions.union(image.prediction_id for image in images),
                periods=loss_periods(self._losses(records)),
            )
            return images, account

    def _losses(self, records: Records) -> list[Loss]:
        start, host = self.since.timestamp(), self.client.settings.host
        losses = (loss for record in records.jobs for loss in record.losses)
        return [loss for loss in losses if loss.intended_at >= start and is_of(host, loss.plan)]

    def _explained(self, records: Records, account: Account, now: float) -> list[PossiblyPaid]:
        """Say what became of lost purchases, and write down which were certainly not made."""
        explained = explain(self._losses(records), account, records, now=now, oldest=now - KEPT_SECONDS)
        for record in records.jobs if not self.dry_run else ():
            lease_end = record.state.lease_end(now)
            is_over = now >= lease_end or record.state.is_stored
            events = [
                NotCreated(key=loss.key, reason=NOT_SHOWN, intent=loss.intent)
                for loss in explained
                if loss.job == record.job and loss.verdict is Verdict.NOT_CREATED
            ]
            if events and (is_over or self.include_running):
                with contextlib.suppress(BitDanceError):  # the report says it, and the next one writes it
                    journal = Journal(self.records, _owner_of(record))
                    if journal.load().number == record.state.number:  # else its task has come back
                        journal.claim(lease_end, self.clock.time(), *events)
        return explained

    def _report(self, records: Records, images: list[OpenImage], account: Account, now: float) -> Report:
        known = records.predictions
        unknown = [item for item in account.predictions if item.id not in known]
        bill = account.bill.rows if account.bill else ()
        by_day, unattributed = costs(records.purchases, bill, self.since)
        prompts = lost_prompts(
            records.prompts, api_host=self.client.settings.host, now=now, since=self.since.timestamp()
        )
        return Report(
            records=records.uri,
            since=self.since,
            until=datetime.fromtimestamp(now, UTC),
            dry_run=self.dry_run,
            jobs=len(records.jobs),
            receipts=len(records.receipts),
            open_images=tuple(images),
            possibly_paid=(*self._explained(records, account, now), *prompts),
            untracked=untracked(unknown, now),
            costs=by_day,
            unattributed=unattributed,
            findings=(*records.findings, *account.findings),
        )


def _owner_of(record: JobRecord) -> Owner:
    """Return this process as one of a job's own task."""
    return Owner(
        job=record.job,
        try_number=record.last_try,
        host=socket.gethostname(),
        pid=os.getpid(),
        token=uuid4().hex,
    )


def _open_image(job: Triage, image: ImageState, done: Collected | None, now: float) -> OpenImage:
    done = done or Collected(bought_as(image), job.outcome, job.why)
    return OpenImage(
        job=job.record.job,
        key=image.plan.key,
        prompt=shorten(image.plan.request.prompt),
        prediction_id=done.prediction_id,
        estimated_cost_usd=image.plan.estimated_cost_usd,
        days_left=round(max(0.0, open_since(image) + KEPT_SECONDS - now) / DAY, 2),
        outcome=done.outcome,
        detail=done.detail,
    )
