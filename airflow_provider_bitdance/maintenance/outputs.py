"""Output folders: maintenance opens those that its caller names, whatever folders the records name."""

from __future__ import annotations

from collections.abc import Sequence

from airflow_provider_bitdance.hooks.object_storage import RECORDS_FOLDER
from airflow_provider_bitdance.redaction import shorten
from airflow_provider_bitdance.storage.address import address_of, lies_below


def addresses_of(outputs: Sequence[str]) -> tuple[str, ...]:
    """Return output folders, as a user gives them, in their one form.

    :raises InputError: One is no address.
    """
    allowed = "absolute paths or URIs of output folders"
    return tuple(address_of(output, field="outputs", allowed=allowed) for output in outputs)


def folder_of_records(uri: str) -> tuple[str, ...]:
    """Return the output folder that records lie in where no records path is set; none of other records."""
    folder = uri.removesuffix(f"/{RECORDS_FOLDER}")
    is_root = not folder.partition("://")[2]
    return () if folder == uri or is_root else (folder,)


def named(folder: str, outputs: Sequence[str]) -> str:
    """Return the output folder that a record's folder is or lies below, the nearest one; else nothing."""
    return max((output for output in outputs if lies_below(folder, output)), key=len, default="")


def not_named(folder: str, action: str) -> str:
    """Say that a record's folder is none of the output folders that were given."""
    return f"its output folder is not among those that {action}: add --output {shorten(folder, 200)}"
