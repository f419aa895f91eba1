"""A folder of a local or mounted disk."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from airflow_provider_bitdance.storage.base import translate_errors


class LocalFolder:
    """A folder of a local or mounted disk.

    :param path: Absolute; made when first written to.
    """

    endpoint = ""

    def __init__(self, path: Path) -> None:
        self.uri = f"file://{path}"
        self._path = path

    def is_exclusive(self) -> bool:
        """Return true: the file system decides, for every machine that mounts it."""
        return True

    def create(self, name: str, data: bytes) -> None:
        """Write a new file. The link fails where the name is taken, on NFS too, and shows no half file."""
        target = self._path / name
        with translate_errors("write", self.uri, name), self._temporary(target, data) as temporary:
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
        with translate_errors("write", self.uri, name), self._temporary(target, data) as temporary:
            temporary.replace(target)
            _sync_folder(target.parent)

    def read(self, name: str) -> bytes | None:
        """Return a file's bytes, or ``None`` where there is none."""
        with translate_errors("read", self.uri, name), contextlib.suppress(FileNotFoundError):
            return (self._path / name).read_bytes()
        return None

    def size(self, name: str) -> int | None:
        """Return a file's size in bytes, or ``None`` where there is none."""
        with translate_errors("read", self.uri, name), contextlib.suppress(FileNotFoundError):
            return (self._path / name).stat().st_size
        return None

    def remove(self, name: str) -> None:
        """Delete a file; none of that name is no error."""
        with translate_errors("delete", self.uri, name):
            (self._path / name).unlink(missing_ok=True)

    def names(self, below: str) -> list[str]:
        """Return the names of all files at any depth below a folder in this one, in any order."""

        def raise_unless_missing(error: OSError) -> None:
            if not isinstance(error, FileNotFoundError):
                raise error

        with translate_errors("list", self.uri, below):
            return [
                (Path(folder) / file).relative_to(self._path).as_posix()
                for folder, _, files in os.walk(self._path / below, onerror=raise_unless_missing)
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
