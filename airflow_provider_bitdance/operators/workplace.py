"""From Airflow's context to what the engine needs: who we are, and where records and images lie."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from airflow.providers.common.compat.sdk import conf

from airflow_provider_bitdance.api.errors import InputError, RecordUnreadableError, shorten
from airflow_provider_bitdance.journal import Job, Journal, Writer
from airflow_provider_bitdance.names import safe_name
from airflow_provider_bitdance.storage import Folder, LocalFolder, ObjectFolder

if TYPE_CHECKING:
    from airflow.sdk import Context


def writer(context: Context, *, retries: int) -> Writer:
    """Return this process as the journal knows it.

    The generation is what changes when a user clears the task and not when Airflow retries it: a clear sets
    ``max_tries`` to the tries so far plus ``retries`` (``models/taskinstance.py``, 3.1 to 3.4).

    :param retries: Of the task.
    """
    ti = context["ti"]
    job = Job(
        dag_id=ti.dag_id,
        run_id=ti.run_id,
        task_id=ti.task_id,
        map_index=-1 if ti.map_index is None else ti.map_index,
        generation=(ti.max_tries or 0) - retries,
    )
    return Writer(
        job=job, try_number=ti.try_number, host=socket.gethostname(), pid=os.getpid(), token=uuid4().hex
    )


def default_stem(job: Job) -> str:
    """Return the name of an image in a folder. The Dag's id is in it, for two Dags may share the folder, and
    a scheduled run has the same id in both."""
    index = f".{job.map_index}" if job.map_index >= 0 else ""
    return safe_name(f"{job.dag_id}.{job.task_id}.{job.run_id}{index}")


def records_path(of_operator: object, of_connection: str, *, output: str) -> str:
    """Return where the records lie: by the operator, the connection, the settings, or beside the images."""
    settings: str = conf.get("bitdance", "records_path", fallback="") or ""
    path = str(of_operator or of_connection or settings or f"{output}/.bitdance").strip()
    if not (path.startswith("/") or "://" in path):
        raise InputError(
            f"records_path is {shorten(repr(path))}: not an absolute path",
            allowed='an absolute path or a URI, such as "s3://conn_id@bucket/records"',
        )
    return path


def open_folder(uri: str) -> Folder:
    """Resolve a folder with its connection. Blocks; call it before there is an event loop.

    :param uri: An absolute path or a URI that ``ObjectStoragePath`` takes.
    :raises InputError: This worker cannot open such addresses.
    """
    from airflow.sdk import ObjectStoragePath

    host = uri.partition("://")[2].partition("/")[0]
    if uri.startswith("file://") and host and not host.endswith("@"):
        # ObjectStoragePath would take it for a path below the worker's current folder.
        raise InputError(
            f"{shorten(uri, 200)} is not an absolute path",
            allowed='three slashes, as in "file:///data/images"',
        )
    try:
        path = ObjectStoragePath(uri)
        if path.protocol in ("", "file", "local"):
            return LocalFolder(Path(path.path))
        return ObjectFolder(path.fs, path.path, uri)
    except (ImportError, ValueError) as error:
        raise InputError(
            f"{shorten(uri, 200)} cannot be opened on this worker: {error}",
            fix="Install the Airflow provider for this kind of address and its fsspec extra",
        ) from error


def journal_missing(journal: Journal) -> RecordUnreadableError:
    """Return the error of a resumed task whose journal is not where it was."""
    return RecordUnreadableError(
        f"The journal of this task is not at {journal.uri}",
        allowed="an output_path and a records_path that render alike in every try, on a store that every "
        "worker sees",
        fix="The prediction named in the first part of this log stays collectable for 7 days",
    )
