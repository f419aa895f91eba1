"""Opens paths and URIs with Airflow's connections, and finds the records path."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook, conf

from airflow_provider_bitdance.exceptions import InputError, UnsafeFileError
from airflow_provider_bitdance.redaction import redact, shorten
from airflow_provider_bitdance.storage import Folder, LocalFolder, ObjectFolder
from airflow_provider_bitdance.storage.address import address_of, normalize, refusal, shown

RECORDS_FOLDER = ".bitdance"
"""Where the records are in an output folder if no records path is set. On a disk it may be no link: whoever
may write images there could have records written elsewhere."""
_ALLOWED = "an absolute path or a URI"
_RECORDS_ALLOWED = 'an absolute path or a URI, such as "s3://conn_id@bucket/records"'
_EXTRAS = {
    **{"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"},
    **{"abfs": "azure", "abfss": "azure", "adl": "azure", "az": "azure"},
}
"""The extra of this package that brings what opens a kind of URI, by its scheme."""


def open_folder(uri: str) -> Folder:
    """Resolve a folder with its connection. Blocks; call it before there is an event loop.

    :param uri: An absolute path or a URI that ``ObjectStoragePath`` takes.
    :raises InputError: This worker cannot open such URIs.
    """
    from airflow.sdk import ObjectStoragePath

    try:
        scheme, _, rest = normalize(uri).partition("://")
    except ValueError as error:
        raise refusal(uri, str(error), field="The folder", allowed=_ALLOWED) from None
    if scheme == "file":
        local = Path(rest)
        is_default = local.name == RECORDS_FOLDER
        return LocalFolder(local.parent, step=local.name) if is_default else LocalFolder(local)
    uri = f"{scheme}://{rest.rstrip('/')}"
    authority, _, path = rest.rstrip("/").partition("/")
    conn_id, has_conn_id, _ = authority.rpartition("@")
    if has_conn_id:
        _check_connection(conn_id, uri)
    try:
        # The bucket alone: ObjectStoragePath drops a "#" or "?" at the end of a path.
        bucket = ObjectStoragePath(f"{scheme}://{authority}/")
        return ObjectFolder(bucket.fs, f"{bucket.path.rstrip('/')}/{path}", uri)
    except (ImportError, ValueError) as error:
        raise InputError(
            f"{shorten(shown(uri), 200)} cannot be opened on this worker: {redact(error)}",
            fix=(
                f"Run pip install 'airflow-provider-bitdance[{_EXTRAS[scheme]}]' on every worker"
                if scheme in _EXTRAS
                else "Install the Airflow provider for this kind of URI and its fsspec extra"
            ),
        ) from error


def read_file(uri: str) -> bytes:
    """Read a file of items. Blocks.

    :param uri: An absolute path or a URI that ``ObjectStoragePath`` takes.
    :raises InputError: There is none, or this worker cannot open such URIs.
    """
    address = address_of(uri, field="items", allowed=_ALLOWED)
    if address.startswith("file://"):
        # The user names this file, and may name a link, as those that Kubernetes mounts are.
        address = f"file://{os.path.realpath(address.removeprefix('file://'))}"
    folder, _, name = address.rpartition("/")
    data = read_regular(f"{folder}/", name) if name else None
    if data is None:
        raise InputError(f"There is no file {shorten(repr(shown(uri)), 200)}", allowed=_ALLOWED)
    return data


def read_regular(folder: str, name: str) -> bytes | None:
    """Read a file of a folder that the user names; ``None`` where there is none. Blocks.

    :raises InputError: This worker cannot open such URIs, or it is no regular file, or too large.
    """
    try:
        return open_folder(folder).read(name)
    except UnsafeFileError as error:
        raise InputError(error.what, allowed=error.allowed) from None


def records_path(of_operator: object, of_connection: str) -> str:
    """Return where the records are, as the operator, the connection or the settings say; else an empty
    string.

    :raises InputError: It is no address that can be opened.
    """
    settings = conf.get("bitdance", "records_path", fallback="")
    given = (str(path or "").strip() for path in (of_operator, of_connection, settings))
    path = next(filter(None, given), "")
    return address_of(path, field="records_path", allowed=_RECORDS_ALLOWED) if path else ""


def open_records(given: str, *, of_connection: str) -> Folder:
    """Open the records path without a task, which has no output folder to fall back to. Blocks.

    :param given: The path that the caller gives; empty for the connection's, else that of the settings.
    :raises InputError: There is none, or this machine cannot open it.
    """
    path = records_path(given, of_connection)
    if not path:
        raise InputError(
            "No records path is set",
            allowed=(
                "--records-path, or records_path in the connection or in the section [bitdance] of "
                "Airflow's settings"
            ),
            fix="If the Dags set none, the records are in .bitdance of each output folder: pass that path",
        )
    return open_folder(path)


def find_records(given: str, conn_id: str) -> Folder:
    """Open the records path. The connection is read only if no path is given, and need not exist. Blocks.

    :raises InputError: As :func:`open_records`.
    """
    of_connection = ""
    if not given:
        from airflow_provider_bitdance.hooks.bitdance import BitDanceHook

        with contextlib.suppress(AirflowNotFoundException):
            of_connection = BitDanceHook(conn_id).extra.records_path
    return open_records(given, of_connection=of_connection)


def _check_connection(conn_id: str, uri: str) -> None:
    """Check the connection that a URI names: without it, Amazon's hook would quietly go on with
    whatever credentials the worker has."""
    try:
        BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        name = shown(f"{conn_id}@").removesuffix("@")
        raise InputError(
            f"{shorten(shown(uri), 200)} names the connection {name!r}, which is not defined",
            fix=f"Define it, or write the URI without {name}@ to use the worker's own credentials",
        ) from None
