"""Where records and images lie: one folder of a local disk or of an object store.

Two kinds behind one interface, because one thing differs that everything rests on: how a file is created
exclusively. Folders get a ready filesystem handle, resolve nothing, and know no Airflow. Every method
blocks; the engine calls them in threads.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from airflow_provider_bitdance.api.errors import StorageError
from airflow_provider_bitdance.api.text import api_text

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

__all__ = ["Folder", "LocalFolder", "ObjectFolder", "at", "check_writable"]

ATOMIC = frozenset(
    {"s3fs.core.S3FileSystem", "gcsfs.core.GCSFileSystem", "adlfs.spec.AzureBlobFileSystem"},
)
"""The filesystems whose ``pipe_file(mode="create")`` lets the server decide, each since version 2024.12.0:
``If-None-Match: *`` on S3 and Azure, ``ifGenerationMatch=0`` on Google Cloud. Others look first and write
then, as fsspec's own ``pipe_file`` does. See docs/storage.md."""
PROOF = "checks/exclusive-creation.txt"
PROOF_TEXT = (
    b"Written once by airflow-provider-bitdance. The store refuses to create this file again, which shows\n"
    b"that two workers cannot both write one record. It may be deleted: it is written again when needed.\n"
)
CONFLICT_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8)
"""Seconds between tries to create an object that others create at this moment."""


class Folder(Protocol):
    """A folder: names are relative to it and may hold slashes.

    :ivar uri: Its address, without a slash at the end.
    """

    uri: str

    def create(self, name: str, data: bytes) -> None:
        """Write a new file, whole or not at all.

        :raises FileExistsError: There is one of this name already; it is unchanged.
        :raises StorageError: The store failed.
        """

    def replace(self, name: str, data: bytes) -> None:
        """Write a file, whole or not at all, in the place of any that is there.

        :raises StorageError: The store failed.
        """

    def read(self, name: str) -> bytes | None:
        """Return a file's bytes, or ``None`` where there is none.

        :raises StorageError: The store failed.
        """

    def size(self, name: str) -> int | None:
        """Return a file's size in bytes, or ``None`` where there is none.

        :raises StorageError: The store failed.
        """

    def remove(self, name: str) -> None:
        """Delete a file; none of that name is no error.

        :raises StorageError: The store failed.
        """

    def names(self, below: str) -> list[str]:
        """Return the names of all files at any depth below a folder in this one, in any order.

        It may be behind: then an image may be bought again, and none is lost. See docs/storage.md.

        :param below: That folder's name; none of that name has no files.
        :raises StorageError: The store failed.
        """


class LocalFolder:
    """A folder of a local or mounted disk.

    :param path: Absolute; made when first written to.
    """

    def __init__(self, path: Path) -> None:
        self.uri = f"file://{path}"
        self._path = path

    def is_exclusive(self) -> bool:
        """Return whether of many workers that create one file, on any machine, exactly one can succeed."""
        return True

    def create(self, name: str, data: bytes) -> None:
        """Write a new file. The link fails where the name is taken, on NFS too, and shows no half file."""
        target = self._path / name
        with _told("write", self.uri, name), self._temporary(target, data) as temporary:
            try:
                os.link(temporary, target)
            except FileExistsError:
                raise
            except OSError:
                # A disk without hard links. A crash between these two lines leaves an empty file, which
                # stops its readers: that is safe, and needs a person.
                _write_new(target, data)
            _sync_folder(target.parent)

    def replace(self, name: str, data: bytes) -> None:
        """Write a file by renaming a finished one."""
        target = self._path / name
        with _told("write", self.uri, name), self._temporary(target, data) as temporary:
            temporary.replace(target)
            _sync_folder(target.parent)

    def read(self, name: str) -> bytes | None:
        """Return a file's bytes, or ``None`` where there is none."""
        with _told("read", self.uri, name):
            try:
                return (self._path / name).read_bytes()
            except FileNotFoundError:
                return None

    def size(self, name: str) -> int | None:
        """Return a file's size in bytes, or ``None`` where there is none."""
        with _told("read", self.uri, name):
            try:
                return (self._path / name).stat().st_size
            except FileNotFoundError:
                return None

    def remove(self, name: str) -> None:
        """Delete a file; none of that name is no error."""
        with _told("delete", self.uri, name):
            (self._path / name).unlink(missing_ok=True)

    def names(self, below: str) -> list[str]:
        """Return the names of all files at any depth below a folder in this one, in any order."""

        def tell(error: OSError) -> None:
            if not isinstance(error, FileNotFoundError):
                raise error

        with _told("list", self.uri, below):
            return [
                (Path(folder) / file).relative_to(self._path).as_posix()
                for folder, _, files in os.walk(self._path / below, onerror=tell)
                for file in files
            ]

    @contextmanager
    def _temporary(self, target: Path, data: bytes) -> Iterator[Path]:
        """Write ``data`` beside its target, on the disk for good, and take away what is left over."""
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:  # not what create() means by it
            raise NotADirectoryError(*error.args, error.filename) from None
        temporary = target.with_name(f".{secrets.token_hex(8)}.tmp")
        try:
            _write_new(temporary, data)
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)


class ObjectFolder:
    """A folder of an object store, through its fsspec filesystem.

    :param filesystem: The handle, resolved with its credentials.
    :param path: The folder's path as that filesystem writes it: bucket and key.
    :param uri: The folder's address, for results and messages.
    """

    def __init__(self, filesystem: AbstractFileSystem, path: str, uri: str) -> None:
        self.uri = uri.rstrip("/")
        self._fs = filesystem
        self._path = path.rstrip("/")

    @property
    def endpoint(self) -> str:
        """The address of a server that is not the vendor's own, as for MinIO; else empty."""
        return str(self._fs.storage_options.get("endpoint_url") or "")

    def is_exclusive(self) -> bool:
        """Return whether the store itself refuses to create a file twice; else two workers could both do it.

        Asked of the store and not of version numbers: old libraries and some S3-compatible servers ignore
        the condition and overwrite. One small write; two where nobody has asked this folder before.

        :raises StorageError: The folder cannot be written.
        """
        names = {f"{kind.__module__}.{kind.__qualname__}" for kind in type(self._fs).__mro__}
        if names.isdisjoint(ATOMIC):
            return False
        for _ in range(2):
            try:
                self.create(PROOF, PROOF_TEXT)
            except FileExistsError:
                return True
        return False

    def create(self, name: str, data: bytes) -> None:
        """Write a new object. Where the store can, as S3 can, it refuses a second one itself."""
        with _told("write", self.uri, name):
            for pause in (*CONFLICT_PAUSES, None):
                try:
                    self._fs.pipe_file(f"{self._path}/{name}", data, mode="create")
                except OSError as error:
                    code = _s3_code(error)
                    # s3fs knows AWS's answer by a field that SeaweedFS, for one, does not send.
                    if code in ("PreconditionFailed", "412"):
                        raise FileExistsError(name) from error
                    # AWS, while somebody else creates it: "on a 409 failure, retry the upload".
                    if code not in ("ConditionalRequestConflict", "409") or pause is None:
                        raise
                    time.sleep(pause)
                else:
                    return

    def replace(self, name: str, data: bytes) -> None:
        """Write an object; stores show it whole or not at all."""
        with _told("write", self.uri, name):
            self._fs.pipe_file(f"{self._path}/{name}", data)

    def read(self, name: str) -> bytes | None:
        """Return an object's bytes, or ``None`` where there is none."""
        with _told("read", self.uri, name):
            try:
                return bytes(self._fs.cat_file(f"{self._path}/{name}"))
            except FileNotFoundError:
                return None

    def size(self, name: str) -> int | None:
        """Return an object's size in bytes, or ``None`` where there is none."""
        with _told("read", self.uri, name):
            self._fs.invalidate_cache()  # a listing that others made with this handle may be old
            try:
                return int(self._fs.size(f"{self._path}/{name}"))
            except FileNotFoundError:
                return None

    def remove(self, name: str) -> None:
        """Delete an object; none of that name is no error."""
        with _told("delete", self.uri, name), contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(f"{self._path}/{name}")

    def names(self, below: str) -> list[str]:
        """Return the names of all objects at any depth below a folder in this one, in any order."""
        with _told("list", self.uri, below):
            self._fs.invalidate_cache()  # as in size()
            top = str(self._fs._strip_protocol(self._path))  # as the paths that find() returns
            try:
                found = self._fs.find(f"{top}/{below}")
            except FileNotFoundError:
                return []
            # Some stores list a folder itself, too.
            return [path.removeprefix(f"{top}/") for path in found if path.startswith(f"{top}/{below}/")]


def at(folder: Folder, name: str) -> str:
    """Return the address of a file in a folder."""
    return f"{folder.uri}/{name}"


def check_writable(folder: Folder) -> None:
    """Write and delete a small file.

    :raises StorageError: The folder cannot be written.
    """
    name = f".bitdance-check-{secrets.token_hex(4)}"
    folder.replace(name, b"")
    folder.remove(name)


@contextmanager
def _told(action: str, uri: str, name: str) -> Iterator[None]:
    """Turn whatever a store's library throws into one error; what libraries throw is not of one family."""
    try:
        yield
    except FileExistsError:
        raise
    except Exception as error:
        raise StorageError(
            f"Could not {action} {uri}/{name}: {type(error).__name__}: {api_text(error)}",
            fix=_fix(error, is_local=uri.startswith("file://")),
        ) from (None if isinstance(error, OSError) else error)  # what the system says is told above


def _fix(error: Exception, *, is_local: bool) -> str:
    """Return what to do about what a store's library threw."""
    if is_local and isinstance(error, FileNotFoundError | PermissionError):
        return "Let the workers' user read and write there, or choose another path"
    if isinstance(error, FileNotFoundError):
        return "Create the bucket, or correct the path; this package makes folders and no buckets"
    if isinstance(error, PermissionError):
        return "Check the credentials, and that they may read, write and delete below this path"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "Make room"
    if isinstance(error, TypeError):
        return "Update s3fs, gcsfs or adlfs to 2024.12.0 or newer: older ones cannot create exclusively"
    return "Check that every worker reaches this store and may write there"


def _s3_code(error: Exception) -> str:
    """Return the code that S3 gave; s3fs keeps it only in the cause of the error that it raises."""
    response = getattr(error.__cause__, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def _write_new(path: Path, data: bytes) -> None:
    """Write a new file, on the disk for good; where that fails, half a file does not stay."""
    with path.open("xb") as file:
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        except OSError:
            path.unlink(missing_ok=True)
            raise


def _sync_folder(path: Path) -> None:
    """Make a new name survive a power cut, where the system can (not on Windows, not on every mount)."""
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
