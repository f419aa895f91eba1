"""Where the records lie, found as the operators find it; maintenance has no output folder to fall back to."""

from __future__ import annotations

import contextlib

from airflow.providers.common.compat.sdk import AirflowNotFoundException

from airflow_provider_bitdance.api.errors import InputError
from airflow_provider_bitdance.folders import open_folder
from airflow_provider_bitdance.hooks.bitdance import BitDanceHook
from airflow_provider_bitdance.operators import workplace
from airflow_provider_bitdance.storage import Folder


def open_records(given: str, *, of_connection: str) -> Folder:
    """Open the records path: the one given, else the connection's, else that of the settings. Blocks.

    :raises InputError: There is none, or this machine cannot open it.
    """
    path = workplace.records_path(given, of_connection)
    if not path:
        raise InputError(
            "No records path is known",
            allowed="--records-path, or records_path in the connection or in [bitdance] of the settings",
            fix="Where Dags set none, the records are in .bitdance of each output folder: give that",
        )
    return open_folder(path.rstrip("/"))


def find_records(given: str, conn_id: str) -> Folder:
    """Open the records path; the connection is read only where none is given, and need not exist. Blocks.

    :raises InputError: As :func:`open_records`.
    """
    of_connection = ""
    if not given:
        with contextlib.suppress(AirflowNotFoundException):
            of_connection = BitDanceHook(conn_id).extra.records_path
    return open_records(given, of_connection=of_connection)
