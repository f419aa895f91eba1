"""Opens the addresses that users write: paths, and URIs with a connection of Airflow's."""

from __future__ import annotations

from pathlib import Path

from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook

from airflow_provider_bitdance.api.errors import InputError
from airflow_provider_bitdance.api.text import api_text, shorten
from airflow_provider_bitdance.storage import Folder, LocalFolder, ObjectFolder

__all__ = ["open_folder", "read_file"]

_S3 = "Run pip install 'airflow-provider-bitdance[s3]' on every worker"
_GOOGLE = "Run pip install apache-airflow-providers-google on every worker"
_AZURE = "Run pip install apache-airflow-providers-microsoft-azure on every worker"
_INSTALL = {"s3": _S3, "s3a": _S3, "gs": _GOOGLE, "gcs": _GOOGLE, "abfs": _AZURE, "abfss": _AZURE}
"""What to do where a kind of address cannot be opened, by its scheme."""


def open_folder(uri: str) -> Folder:
    """Resolve a folder with its connection. Blocks; call it before there is an event loop.

    :param uri: An absolute path or a URI that ``ObjectStoragePath`` takes.
    :raises InputError: This worker cannot open such addresses.
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
            f"{shorten(uri, 200)} cannot be opened on this worker: {api_text(error)}",
            fix=_INSTALL.get(
                scheme, "Install the Airflow provider for this kind of address and its fsspec extra"
            ),
        ) from error


def read_file(uri: str) -> bytes:
    """Read a file that the user names. Blocks.

    :param uri: An absolute path or a URI that ``ObjectStoragePath`` takes.
    :raises InputError: There is none, or this worker cannot open such addresses.
    """
    folder, _, name = uri.strip().rpartition("/")
    data = open_folder(folder).read(name) if folder and name else None
    if data is None:
        raise InputError(f"There is no file {shorten(repr(uri), 200)}", allowed="an absolute path or a URI")
    return data


def _check_connection(conn_id: str, uri: str) -> None:
    """Look for the connection that an address names: without it, Amazon's hook would quietly go on with
    whatever credentials the worker has."""
    try:
        BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        raise InputError(
            f"{shorten(uri, 200)} names the connection {conn_id!r}, which is not defined",
            fix=f"Define it, or write the address without {conn_id}@ to use the worker's own credentials",
        ) from None
