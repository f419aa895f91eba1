"""A folder of an object store."""

from __future__ import annotations

import contextlib
import functools
import time
from glob import has_magic
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from airflow_provider_bitdance.exceptions import StorageError
from airflow_provider_bitdance.storage.base import LARGEST_FILE, parts_of, translate_errors, unsafe
from airflow_provider_bitdance.storage.naming import EXTENSIONS

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

S3, GCS, AZURE = "s3fs.core.S3FileSystem", "gcsfs.core.GCSFileSystem", "adlfs.spec.AzureBlobFileSystem"
ATOMIC = {S3, GCS, AZURE}
"""The filesystems whose ``pipe_file(mode="create")`` lets the server decide, each since version 2024.12.0:
``If-None-Match: *`` on S3 and Azure, ``ifGenerationMatch=0`` on Google Cloud. Others check first and then
write, as fsspec's own ``pipe_file`` does. See docs/operations/storage.md."""
PROOF = "checks/exclusive-creation.txt"
PROOF_TEXT = (
    b"Written once by airflow-provider-bitdance. The store refuses to create this file again, which shows\n"
    b"that two workers cannot both write one record. It may be deleted: it is written again when needed.\n"
)
DELETED_AT_ONCE = 1000
"""Objects that S3 deletes at a request."""
MEDIA_TYPES = {extension: media_type for media_type, extension in EXTENSIONS.items()}
CONFLICT_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8)
"""Seconds between tries to create an object that others create at this moment."""


class ObjectFolder:
    """A folder of an object store, through its fsspec filesystem.

    :param filesystem: The handle, resolved with its credentials.
    :param path: The folder's path as that filesystem writes it: bucket and key.
    :param uri: The folder's URI, for results and messages.
    """

    def __init__(self, filesystem: AbstractFileSystem, path: str, uri: str) -> None:
        self.uri = uri.rstrip("/")
        self._fs = filesystem
        self._path = path.rstrip("/")
        self._refuses_a_second: bool | None = None

    @property
    def endpoint(self) -> str:
        """The URL that the filesystem was given; without one it uses the vendor's."""
        return str(self._fs.storage_options.get("endpoint_url") or "")

    @functools.cached_property
    def _kinds(self) -> set[str]:
        """The full names of the filesystem's class and of those that it is made from."""
        return {f"{kind.__module__}.{kind.__qualname__}" for kind in type(self._fs).__mro__}

    def is_exclusive(self) -> bool:
        """Return whether the store itself refuses to create a file twice; else two workers could both do it.

        The store is tested, and not its version number: old libraries and some S3-compatible servers ignore
        the condition and overwrite. One small write, once a process; two if nobody has tested this folder
        before.
        """
        if self._refuses_a_second is None:
            self._refuses_a_second = self._is_refused_a_second()
        return self._refuses_a_second

    def _is_refused_a_second(self) -> bool:
        if self._kinds.isdisjoint(ATOMIC):
            return False
        for _ in range(2):
            try:
                self.create(PROOF, PROOF_TEXT)
            except FileExistsError:
                return True
        return False

    def create(self, name: str, data: bytes) -> None:
        """Write a new object. Where the store can, as S3 can, it refuses a second one itself."""
        with translate_errors("write", self.uri, name):
            for pause in (*CONFLICT_PAUSES, None):
                try:
                    self._fs.pipe_file(self._full(name), data, mode="create", **self._media_type(name))
                except OSError as error:
                    code = _s3_code(error)
                    # s3fs recognizes AWS's response by a field that SeaweedFS, for one, does not send.
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
        with translate_errors("write", self.uri, name):
            self._fs.pipe_file(self._full(name), data, **self._media_type(name))

    def _media_type(self, name: str) -> dict[str, Any]:
        """Return the option that tells the store what an image is, by each library's own name.

        A browser saves an object without a type instead of showing it.
        """
        media_type = MEDIA_TYPES.get(PurePosixPath(name).suffix)
        if media_type is None:
            return {}
        if S3 in self._kinds:
            return {"ContentType": media_type}
        if GCS in self._kinds:
            return {"content_type": media_type}
        if AZURE in self._kinds:
            from azure.storage.blob import ContentSettings

            return {"content_settings": ContentSettings(content_type=media_type)}
        return {}

    def read(self, name: str) -> bytes | None:
        """Return an object's bytes, or ``None`` where there is none."""
        with translate_errors("read", self.uri, name), contextlib.suppress(FileNotFoundError):
            try:
                data = bytes(self._fs.cat_file(self._full(name), start=0, end=LARGEST_FILE + 1))
            except FileNotFoundError:
                raise
            except Exception:
                if self._is_empty(name):  # stores refuse any range of an object that has no bytes
                    return b""
                raise
            if len(data) > LARGEST_FILE:
                raise unsafe(self.uri, name, "too large")
            return data
        return None

    def size(self, name: str) -> int | None:
        """Return an object's size in bytes, or ``None`` where there is none."""
        with translate_errors("read", self.uri, name), contextlib.suppress(FileNotFoundError):
            self._fs.invalidate_cache()  # a listing that others made with this handle may be old
            return int(self._fs.size(self._full(name)))
        return None

    def remove(self, name: str) -> None:
        """Delete an object; none of that name is no error."""
        with translate_errors("delete", self.uri, name), contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(self._full(name))

    def remove_folder(self, name: str) -> None:
        """Delete all objects below a name, the first one when the others are gone; none is no error."""
        names = sorted(self.names(name), reverse=True)
        for part in (names[:-1], names[-1:]):
            for start in range(0, len(part), DELETED_AT_ONCE):
                self._remove_all(name, part[start : start + DELETED_AT_ONCE])
            # s3fs drops the errors of single objects.
            left = set(names).intersection(self.names(name)) if part else set()
            if not left.isdisjoint(part):
                raise StorageError(
                    f"Could not delete {len(left)} of {len(names)} files below {self.uri}/{name}",
                    fix="Check that the credentials allow deleting below this path",
                )

    def _remove_all(self, folder: str, names: list[str]) -> None:
        with translate_errors("delete", self.uri, folder), contextlib.suppress(FileNotFoundError):
            paths = [self._full(each) for each in names]
            if has_magic("".join(paths)):  # fsspec would take a name for a pattern
                for path in paths:
                    self._fs.rm_file(path)
            else:
                self._fs.rm(paths)

    def names(self, below: str) -> list[str]:
        """Return the names of all objects at any depth below a folder in this one, in any order."""
        with translate_errors("list", self.uri, below), contextlib.suppress(FileNotFoundError):
            self._fs.invalidate_cache()  # as in size()
            top = str(self._fs._strip_protocol(self._path))  # as the paths that find() returns
            found = self._fs.find(f"{top}/{below}")
            # Some stores list a folder itself, too.
            return [path.removeprefix(f"{top}/") for path in found if path.startswith(f"{top}/{below}/")]
        return []

    def _is_empty(self, name: str) -> bool:
        with contextlib.suppress(StorageError):
            return self.size(name) == 0
        return False

    def _full(self, name: str) -> str:
        """Return the path of an object as the filesystem writes it; some filesystems follow a ``..``."""
        return "/".join([self._path, *parts_of(name)])


def _s3_code(error: Exception) -> str:
    """Return the code that S3 gave; s3fs keeps it only in the cause of the error that it raises."""
    response = getattr(error.__cause__, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""
