"""Opens paths and URIs with Airflow's connections, and finds the records path."""

from __future__ import annotations

import contextlib
from pathlib import Path

from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook, conf

from airflow_provider_bitdance.exceptions import InputError
from airflow_provider_bitdance.redaction import redact, shorten
from airflow_provider_bitdance.storage import Folder, LocalFolder, ObjectFolder

_S3 = "Run pip install 'airflow-provider-bitdance[s3]' on every worker"
_GOOGLE = "Run pip install apache-airflow-providers-google on every worker"
_AZURE = "Run pip install apache-airflow-providers-microsoft-azure on every worker"
_INSTALL = {"s3": _S3, "s3a": _S3, "gs": _GOOGLE, "gcs": _GOOGLE, "abfs": _AZURE, "abfss": _AZURE}
"""What to do if a kind of URI cannot be opened, by its scheme."""


def open_folder(uri: str) -> Folder:
    """Resolve a folder with its connection. Blocks; call it before there is an event loop.

    :param uri: An absolute path or a URI that ``ObjectStoragePath`` takes.
    :raises InputError: This worker cannot open such URIs.
    """
    from airflow.sdk import ObjectStoragePath

    scheme, _, rest = uri.partition("://")
    conn_id, has_conn_id, host = rest.partition("/")[0].rpartition("@")
    if scheme == "file" and host:
        # ObjectStoragePath would take it for a path below the worker's current folder.
        raise InputError(
            f"{shorten(uri, 200)} is not an absolute path",
            allowed='three slashes, as in "file:///data/images"',
        )
    if has_conn_id:
        _check_connection(conn_id, uri)
    try:
        path = ObjectStoragePath(uri)
        if path.protocol in ("", "file", "local"):
            return LocalFolder(Path(path.path))
        return ObjectFolder(path.fs, path.path, uri)
    except (ImportError, ValueError) as error:
        raise InputError(
            f"{shorten(uri, 200)} cannot be opened on this worker: {redact(error)}",
            fix=_INSTALL.get(
                scheme, "Install the Airflow provider for this kind of URI and its fsspec extra"
            ),
        ) from error


def read_file(uri: str) -> bytes:
    """Read a file that the user names. Blocks.

    :param uri: An absolute path or a URI that ``ObjectStoragePath`` takes.
    :raises InputError: There is none, or this worker cannot open such URIs.
    """
    folder, _, name = uri.strip().rpartition("/")
    data = open_folder(folder).read(name) if folder and name else None
    if data is None:
        raise InputError(f"There is no file {shorten(repr(uri), 200)}", allowed="an absolute path or a URI")
    return data


def records_path(of_operator: object, of_connection: str) -> str:
    """Return where the records are, as the operator, the connection or the settings say; else an empty
    string.

    :raises InputError: It is not an absolute path or a URI.
    """
    settings: str = conf.get("bitdance", "records_path", fallback="") or ""
    path = str(of_operator or of_connection or settings).strip()
    if path and not (path.startswith("/") or "://" in path):
        raise InputError(
            f"records_path is {shorten(repr(path))}, which is not an absolute path",
            allowed='an absolute path or a URI, such as "s3://conn_id@bucket/records"',
        )
    return path


def open_records(given: str, *, of_connection: str) -> Folder:
    """Open the records path without a task, which has no output folder to fall back to. Blocks.

    :param given: The path that the caller gives; empty for the connection's, else that of the settings.
    :raises InputError: There is none, or this machine cannot open it.
    """
    path = records_path(given, of_connection)
    if not path:
        raise InputError(
            "No records path is set",
            allowed="--records-path, or records_path in the connection or in [bitdance] of the settings",
            fix="If the Dags set none, the records are in .bitdance of each output folder: pass that path",
        )
    return open_folder(path.rstrip("/"))


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
        raise InputError(
            f"{shorten(uri, 200)} names the connection {conn_id!r}, which is not defined",
            fix=f"Define it, or write the URI without {conn_id}@ to use the worker's own credentials",
        ) from None
