"""A store that is far away: each operation of the folder below it takes so many seconds more."""

from __future__ import annotations

import time

from airflow_provider_bitdance.storage import Folder


class FarFolder:
    """A folder around another one, of local disk or of an object store.

    :param seconds: Of each operation, slept in the thread that calls it.
    """

    def __init__(self, folder: Folder, seconds: float) -> None:
        self.uri = folder.uri
        self._folder, self._seconds = folder, seconds

    @property
    def endpoint(self) -> str:
        """Return that of the folder."""
        return self._folder.endpoint

    def is_exclusive(self) -> bool:
        """Return what the folder says: this asks no store."""
        return self._folder.is_exclusive()

    def create(self, name: str, data: bytes) -> None:
        """Write a new file."""
        time.sleep(self._seconds)
        self._folder.create(name, data)

    def replace(self, name: str, data: bytes) -> None:
        """Write a file."""
        time.sleep(self._seconds)
        self._folder.replace(name, data)

    def read(self, name: str) -> bytes | None:
        """Return a file's bytes, or ``None`` where there is none."""
        time.sleep(self._seconds)
        return self._folder.read(name)

    def size(self, name: str) -> int | None:
        """Return a file's size, or ``None`` where there is none."""
        time.sleep(self._seconds)
        return self._folder.size(name)

    def remove(self, name: str) -> None:
        """Delete a file."""
        time.sleep(self._seconds)
        self._folder.remove(name)

    def remove_folder(self, name: str) -> None:
        """Delete a folder."""
        time.sleep(self._seconds)
        self._folder.remove_folder(name)

    def names(self, below: str) -> list[str]:
        """Return the names of all files below a folder."""
        time.sleep(self._seconds)
        return self._folder.names(below)
