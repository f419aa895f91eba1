"""From Airflow's context to what the engine needs: who we are, and where records and images are."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

from airflow.providers.common.compat.sdk import conf

from airflow_provider_bitdance.exceptions import InputError, Paid, RecordUnreadableError, StorageError
from airflow_provider_bitdance.records import Job, Journal, Owner
from airflow_provider_bitdance.redaction import redact, shorten
from airflow_provider_bitdance.storage import Folder
from airflow_provider_bitdance.storage.address import (
    fixed_folder,
    is_same_address,
    lies_below,
    without_connection,
)
from airflow_provider_bitdance.storage.naming import safe_name

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_bitdance.engine.notices import Log
    from airflow_provider_bitdance.hooks.bitdance import BitDanceHook


def job_of(context: Context) -> Job:
    """Return the job of the task instance that runs.

    The generation is what changes when a user clears the task and not when Airflow retries it: ``max_tries``
    is set when the task instance is made, and by a clear, to the tries so far plus ``retries``
    (``models/taskinstance.py``, 3.1 to 3.4). ``retries`` itself may be edited in the Dag file meanwhile.
    """
    ti = context["ti"]
    return Job(
        dag_id=ti.dag_id,
        run_id=ti.run_id,
        task_id=ti.task_id,
        map_index=-1 if ti.map_index is None else ti.map_index,
        generation=ti.max_tries or 0,
        iteration=_iteration_of(context),
    )


def _iteration_of(context: Context) -> str | None:
    # Only from Airflow 3.4 on. All iterations of a task that is not mapped have the map index -1.
    loop: Any = context.get("loop")
    ti: Any = context["ti"]
    return None if loop is None else f"{loop.index}.{ti.region_id.hex}"


def this_owner(context: Context) -> Owner:
    """Return this process as the journal knows it."""
    return Owner(
        job=job_of(context),
        try_number=context["ti"].try_number,
        host=socket.gethostname(),
        pid=os.getpid(),
        token=uuid4().hex,
    )


def run_start(context: Context) -> float:
    """Return the Unix time at which the Dag run began; a finished one that is cleared begins again."""
    start = getattr(context.get("dag_run"), "start_date", None)
    return start.timestamp() if start is not None else math.inf


def label_of(option: str | None) -> Literal["iptc"] | None:
    """Return the mark that is written into files.

    :param option: What the task says; ``None``: ``[bitdance] label`` of Airflow's settings.
    :raises InputError: The settings name another one.
    """
    given = conf.get("bitdance", "label", fallback="").strip() if option is None else option
    if given in ("", "none"):
        return None
    if given != "iptc":
        raise InputError(f"[bitdance] label is {shorten(repr(given))}", allowed="iptc, or empty")
    return "iptc"


def default_stem(job: Job) -> str:
    """Return the name of an image in a folder. The Dag's id is in it, for two Dags may share the folder, and
    a scheduled run has the same id in both."""
    ids = [job.dag_id, job.task_id, job.run_id, *job.instance]
    return safe_name(".".join(ids), parts=ids)


def counter(job: Job) -> Callable[[str, int], None]:
    """Return what takes the engine's metrics: Airflow's Stats, tagged with Dag and task."""
    from airflow.providers.common.compat.sdk import Stats

    return partial(Stats.incr, tags={"dag_id": job.dag_id, "task_id": job.task_id})


def set_asset_extra(context: Context, outlets: Sequence[object], extra: dict[str, Any]) -> None:
    """Put the result into the event of each asset that the task updates."""
    from airflow.sdk import Asset

    for outlet in outlets:
        if isinstance(outlet, Asset):
            context["outlet_events"][outlet].extra = extra


def push_result(context: Context, result: dict[str, Any], log: Log) -> None:
    """Leave the result of a task that is about to fail where the result of one that succeeds is.

    A task after it that runs all the same reads it like any result. Airflow deletes it when the next try
    begins, so it is always that of the last try.
    """
    from airflow.sdk.bases.xcom import BaseXCom

    try:
        context["ti"].xcom_push(key=BaseXCom.XCOM_RETURN_KEY, value=result)
    except Exception as error:  # why the task fails is what has to be known
        log.warning("The result of the failed task could not be pushed to XCom: %s", redact(error))


def emit_lineage(hook: BitDanceHook, uri: str, log: Log) -> None:
    """Report to Airflow's hook lineage, and so to OpenLineage, what the task has made: one output a task.

    :param uri: Of the image, or of the manifest. The connection's id is information and no part of it.
    """
    from airflow.providers.common.compat.lineage.hook import get_hook_lineage_collector

    try:
        collector = get_hook_lineage_collector()  # type: ignore[no-untyped-call]
        collector.add_output_asset(context=hook, uri=without_connection(uri))
    except Exception as error:  # it refuses some URIs, and what was made is paid for
        log.warning("Airflow's lineage does not accept this URI: %s", redact(error))


def warn_if_not_exclusive(records: Folder, log: Log) -> None:
    """Say so where the store cannot keep two workers from writing one record: once, when a job begins.

    Tests the store itself, with one small write before any money moves; see ``docs/operations/storage.md``.

    :raises StorageError: The records cannot be written.
    """
    if records.is_exclusive():
        return
    log.warning(
        "%s cannot create a file exclusively, so two workers on one job could both write "
        "and both buy. Use S3, Google Cloud Storage, Azure Blob Storage or a shared disk "
        "for records_path",
        records.uri,
    )


def open_journal(records: Folder, owner: Owner, *, resumed: bool, retries: int | None, log: Log) -> Journal:
    """Read the journal of this process's job. Blocks.

    :param resumed: The task comes back from a deferral, so there must be a plan.
    :param retries: Of the task, as its Dag file has it now; ``None``: an earlier try may have stopped before.
    :raises RecordUnreadableError: It is damaged, newer than this package, or not there and should be.
    :raises StorageError: The store failed.
    """
    journal = Journal(records, owner)
    try:
        state = journal.load()
    except StorageError as error:
        # Unread, the journal may say that an earlier try has bought the image.
        if resumed or owner.try_number > 1:
            raise error.with_verdict(paid=Paid.POSSIBLY) from error.__cause__
        raise
    if state.images:
        return journal
    if resumed:
        raise RecordUnreadableError(
            f"There is no journal of this task at {journal.uri}",
            allowed=(
                "output_path and records_path that render the same in every try, on "
                "a store that every worker can access"
            ),
            fix="The prediction named earlier in this log stays collectable for 7 days",
        )
    if retries is not None and owner.try_number > owner.job.generation - retries + 1:
        log.warning("An earlier try left no journal at %s", journal.uri)
    warn_if_not_exclusive(records, log)
    return journal


def planned_output(journal: Journal, *, template: object, rendered: Callable[[], str]) -> str:
    """Return the output folder of the plan, if there is a plan and the task may store there; else nothing.

    The plan is followed where a template renders to another folder by now. But whoever may write the records
    must not have this worker write anywhere: the folder lies below the part of ``output_path`` that is no
    template. Where that names no bucket or folder, it is the one that ``output_path`` renders to now.

    :param template: ``output_path`` as the Dag file has it.
    :param rendered: Returns the output folder as the fields say now.
    :raises RecordUnreadableError: It is another folder.
    :raises InputError: What ``output_path`` renders to is needed, and cannot be used.
    """
    planned, root = journal.state.output, fixed_folder(template)
    if not planned or (root and lies_below(planned, root)):
        return planned
    try:
        now = root or rendered()
    except InputError as error:
        raise error.with_verdict(paid=Paid.POSSIBLY) from None
    if not root and is_same_address(planned, now):
        return planned
    raise RecordUnreadableError(
        f"This task's plan stores in {shorten(planned, 200)}, but output_path is now another folder",
        allowed=f"{'a folder below ' if root else ''}{shorten(now, 200)}",
        fix=(
            "Restore it, or collect bought images with reconcile --output and clear the task. If it was "
            "not changed, the journal is forged"
        ),
    )
