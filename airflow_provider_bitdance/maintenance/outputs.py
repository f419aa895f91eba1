"""Output folders: maintenance opens those that its caller names, whatever folders the records name."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from airflow_provider_bitdance.exceptions import BitDanceError
from airflow_provider_bitdance.hooks.object_storage import RECORDS_FOLDER
from airflow_provider_bitdance.redaction import shorten
from airflow_provider_bitdance.storage import Folder
from airflow_provider_bitdance.storage.address import address_of, lies_below, normalize


@dataclass(frozen=True, slots=True)
class Place:
    """An output folder that may be opened, and where below it some images are, with a slash at the end."""

    folder: Folder
    below: str = ""


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


def open_place(open_folder: Callable[[str], Folder], uri: str, outputs: Sequence[str]) -> Place | str:
    """Open what the user names, or say why not. On a disk a link on the way from there is not followed.

    :param uri: Of the folder that a record names.
    :param outputs: What the user names.
    """
    output = named(uri, outputs)
    if not output:
        return not_named(uri, "may be read")
    address, root = normalize(f"{uri}/"), output if output.endswith("/") else f"{output}/"
    is_local = address.startswith("file://")
    try:
        return Place(open_folder(root), address.removeprefix(root)) if is_local else Place(open_folder(uri))
    except BitDanceError as error:
        return error.what


def folders_up_to(output: str, folder: str) -> Iterator[str]:
    """Yield a folder and those above it, up to the output folder that it is or lies below."""
    output = output.removesuffix("/")
    while len(folder) > len(output):
        yield folder
        folder = folder.rpartition("/")[0]
    yield output


def nearest_folder(output: str, folder: str) -> str:
    """Return the first of :func:`folders_up_to` that is there: a disk that is not mounted leaves an empty
    folder, one that is deleted leaves none. Only a disk has folders; elsewhere it is the output folder."""
    *_, highest = folders = list(folders_up_to(output, folder))
    return next((uri for uri in folders if os.path.isdir(uri.removeprefix("file://"))), highest)
