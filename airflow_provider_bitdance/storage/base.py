"""What every folder can do, and the one error that it raises."""

from __future__ import annotations

import errno
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from airflow_provider_bitdance.exceptions import StorageError, UnsafeFileError
from airflow_provider_bitdance.redaction import redact, shorten

LARGEST_FILE = 64 * 1024 * 1024
"""Bytes of a file that are read at most: an image is smaller, and so is a plan of 10,000 images."""


class Folder(Protocol):
    """A folder: names are relative to it and may hold slashes, and no name leads out of it.

    Its methods raise :class:`StorageError` where the store fails, whatever its library throws, and
    :class:`UnsafeFileError` for what is not a file of this folder: others may write there, too.

    :ivar uri: Its URI, without a slash at the end.
    """

    uri: str

    @property
    def endpoint(self) -> str:
        """The URL of a store that is not its vendor's own, as for MinIO; else empty."""

    def is_exclusive(self) -> bool:
        """Return whether of many workers that create one file, on any machine, exactly one can succeed."""

    def create(self, name: str, data: bytes) -> None:
        """Write a new file, whole or not at all.

        :raises FileExistsError: There is one of this name already; it is unchanged.
        """

    def replace(self, name: str, data: bytes) -> None:
        """Write a file, whole or not at all, in the place of any that is there."""

    def read(self, name: str) -> bytes | None:
        """Return a file's bytes, or ``None`` where there is none.

        :raises UnsafeFileError: It is no regular file, or larger than :data:`LARGEST_FILE`.
        """

    def size(self, name: str) -> int | None:
        """Return a file's size in bytes, or ``None`` where there is none."""

    def remove(self, name: str) -> None:
        """Delete a file; none of that name is no error."""

    def remove_folder(self, name: str) -> None:
        """Delete a folder in this one with all files at any depth; none of that name is no error.

        A disk shows all of it or nothing. An object store deletes 1,000 files at once, and the one whose name
        comes first when all others are gone.
        """

    def names(self, below: str) -> list[str]:
        """Return the names of all files at any depth below a folder in this one, in any order.

        It may be behind: then an image may be bought again, and none is lost. See docs/operations/storage.md.

        :param below: That folder's name; none of that name has no files.
        """


def uri_of(folder: Folder, name: str) -> str:
    """Return the URI of a file in a folder."""
    return f"{folder.uri}/{name}"


def check_writable(folder: Folder) -> bool:
    """Write and delete a small file, which fails where the folder cannot be written.

    :return: Whether the store refused to create it a second time.
    """
    name, is_refused = f".bitdance-check-{secrets.token_hex(4)}", False
    folder.create(name, b"1")
    try:
        folder.create(name, b"2")
    except FileExistsError:
        is_refused = True
    folder.remove(name)
    return is_refused


def parts_of(name: str) -> list[str]:
    """Return the parts of a name, none of which leads out of its folder.

    :raises UnsafeFileError: One does.
    """
    parts = name.split("/")
    if not {"", ".", ".."}.isdisjoint(parts) or "\0" in name:
        raise UnsafeFileError(
            f"{shorten(repr(name), 200)} is not the name of a file inside its folder",
            fix="Find out who wrote it: this package creates no such names",
        )
    return parts


def unsafe(uri: str, name: str, what: str) -> UnsafeFileError:
    """Return the error for what lies under a file's name and is none."""
    return UnsafeFileError(
        f"{uri}/{name} is {what}",
        allowed=f"a regular file of at most {LARGEST_FILE // 1024**2} MiB, not reached through a link",
        fix="Find out who put it there, and move it away",
    )


@contextmanager
def translate_errors(action: str, uri: str, name: str) -> Iterator[None]:
    """Turn whatever a store's library throws into one error; what libraries throw is not of one family."""
    try:
        yield
    except (FileExistsError, UnsafeFileError):
        raise
    except Exception as error:
        raise StorageError(
            f"Could not {action} {uri}/{name}: {type(error).__name__}: {redact(error)}",
            fix=_fix(error, is_local=uri.startswith("file://")),
        ) from (None if isinstance(error, OSError) else error)  # the message above has what the system says


def _fix(error: Exception, *, is_local: bool) -> str:
    """Return what to do about what a store's library threw."""
    if is_local and isinstance(error, FileNotFoundError | PermissionError):
        return "Give the workers' user read and write access, or choose another path"
    if isinstance(error, FileNotFoundError):
        return "Create the bucket, or correct the path; this package creates folders but no buckets"
    if isinstance(error, PermissionError):
        return "Check the credentials: they must allow reading, writing and deleting below this path"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "Free some space on the disk"
    if isinstance(error, TypeError):
        return (
            "Update s3fs, gcsfs or adlfs to 2024.12.0 or newer: older versions cannot "
            "create a file exclusively"
        )
    return "Check that every worker can reach this store and write to it"
