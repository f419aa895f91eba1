"""A folder of a local or mounted disk.

Others may write there, too. So a file is reached step by step from the folder, and no step may be a link:
what is read, written and deleted lies below it, even if somebody puts a link into a folder's place meanwhile.
Only regular files are read; a named pipe would keep its reader waiting for ever.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from airflow_provider_bitdance.storage.base import LARGEST_FILE, parts_of, translate_errors, unsafe

_HANDLE = os.O_DIRECTORY | getattr(os, "O_PATH", os.O_RDONLY)
"""How a folder on the way is opened. With ``O_PATH``, which Linux has, a server such as NFS is not asked."""
DEEPEST = 12
"""Folders below each other that are listed. Records have seven."""


class LocalFolder:
    """A folder of a local or mounted disk.

    :param path: Absolute; made when first written to. It may be a link itself, or lie below one.
    :param step: The name of a folder in it, of which this is the folder: that may be no link, for whoever may
        write in ``path`` could make it one.
    """

    endpoint = ""

    def __init__(self, path: Path, *, step: str = "") -> None:
        self.uri = f"file://{path / step}"
        self._path = path
        self._steps = [step] if step else []

    def is_exclusive(self) -> bool:
        """Return true: the file system decides, for every machine that mounts it."""
        return True

    def create(self, name: str, data: bytes) -> None:
        """Write a new file. The link fails where the name is taken, on NFS too, and shows no half file."""
        with (
            translate_errors("write", self.uri, name),
            self._written(name, data) as (folder, temporary, file),
        ):
            try:
                os.link(temporary, file, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
            except FileExistsError:
                raise
            except OSError:
                # A disk without hard links. A crash between these two lines leaves an empty file, which
                # stops its readers: that is safe, and needs a person.
                _write_new(file, data, folder)

    def replace(self, name: str, data: bytes) -> None:
        """Write a file by renaming a finished one; a link in its place is replaced and not followed."""
        with (
            translate_errors("write", self.uri, name),
            self._written(name, data) as (folder, temporary, file),
        ):
            try:
                os.replace(temporary, file, src_dir_fd=folder, dst_dir_fd=folder)
            except IsADirectoryError:
                raise unsafe(self.uri, name, "a folder") from None

    def read(self, name: str) -> bytes | None:
        """Return a file's bytes, or ``None`` where there is none."""
        with (
            translate_errors("read", self.uri, name),
            contextlib.suppress(FileNotFoundError),
            self._opened(name) as (folder, file),
        ):
            self._check_regular(name, os.stat(file, dir_fd=folder, follow_symlinks=False))
            with open(_open(file, os.O_RDONLY | os.O_NONBLOCK, folder), "rb") as opened:
                found = os.fstat(opened.fileno())
                self._check_regular(name, found)  # it may be another by now
                if found.st_size > LARGEST_FILE:
                    raise unsafe(self.uri, name, "too large")
                return opened.read(found.st_size)
        return None

    def size(self, name: str) -> int | None:
        """Return a file's size in bytes, or ``None`` where there is none."""
        with (
            translate_errors("read", self.uri, name),
            contextlib.suppress(FileNotFoundError),
            self._opened(name) as (folder, file),
        ):
            found = os.stat(file, dir_fd=folder, follow_symlinks=False)
            self._check_regular(name, found)
            return found.st_size
        return None

    def remove(self, name: str) -> None:
        """Delete a file; none of that name is no error."""
        with (
            translate_errors("delete", self.uri, name),
            contextlib.suppress(FileNotFoundError),
            self._opened(name) as (folder, file),
        ):
            os.unlink(file, dir_fd=folder)

    def remove_folder(self, name: str) -> None:
        """Delete a folder in this one with all files at any depth; none of that name is no error."""
        with (
            translate_errors("delete", self.uri, name),
            contextlib.suppress(FileNotFoundError),
            self._opened(name, flags=os.O_RDONLY) as (parent, folder),
        ):
            if not stat.S_ISDIR(os.stat(folder, dir_fd=parent, follow_symlinks=False).st_mode):
                raise unsafe(self.uri, name, "no folder")
            removed = f".{secrets.token_hex(8)}.tmp"
            os.rename(folder, removed, src_dir_fd=parent, dst_dir_fd=parent)
            shutil.rmtree(removed, dir_fd=parent)  # follows no links

    def names(self, below: str) -> list[str]:
        """Return the names of all files at any depth below a folder in this one, in any order.

        Whatever is not a folder is listed, also what :meth:`read` refuses. A link to a folder is no folder.
        """
        found: list[str] = []
        folders = [below]
        with translate_errors("list", self.uri, below):
            while folders:
                folder = folders.pop()
                with (
                    contextlib.suppress(FileNotFoundError),
                    self._opened(f"{folder}/_", flags=os.O_RDONLY) as (handle, _),
                    os.scandir(handle) as entries,
                ):
                    for entry in entries:
                        is_folder = entry.is_dir(follow_symlinks=False) and folder.count("/") < DEEPEST
                        (folders if is_folder else found).append(f"{folder}/{entry.name}")
        return found

    def _check_regular(self, name: str, found: os.stat_result) -> None:
        kinds = {stat.S_IFLNK: "a link", stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe"}
        if not stat.S_ISREG(found.st_mode):
            raise unsafe(self.uri, name, kinds.get(stat.S_IFMT(found.st_mode), "a device or a socket"))

    @contextmanager
    def _opened(self, name: str, *, make: bool = False, flags: int = _HANDLE) -> Iterator[tuple[int, str]]:
        """Open the folder that a file is in, step by step, and yield its handle and the file's own name.

        :param make: Make the folders that are missing.
        :param flags: How the last folder is opened.
        """
        *steps, file = [*self._steps, *parts_of(name)]
        handle = self._root(_HANDLE if steps else flags, make=make)
        try:
            for number, step in enumerate(steps, 1):
                is_last = number == len(steps)
                try:
                    deeper = _folder_in(handle, step, flags if is_last else _HANDLE, make=make)
                except OSError:
                    if stat.S_ISLNK(os.stat(step, dir_fd=handle, follow_symlinks=False).st_mode):
                        raise unsafe(f"file://{self._path}", "/".join(steps[:number]), "a link") from None
                    raise
                os.close(handle)
                handle = deeper
            yield handle, file
        finally:
            os.close(handle)

    def _root(self, flags: int, *, make: bool) -> int:
        """Open the folder itself."""
        try:
            return os.open(self._path, flags | os.O_DIRECTORY)
        except FileNotFoundError:
            if not make:
                raise
        try:
            self._path.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:  # not what create() means by it
            raise NotADirectoryError(*error.args, error.filename) from None
        return os.open(self._path, flags | os.O_DIRECTORY)

    @contextmanager
    def _written(self, name: str, data: bytes) -> Iterator[tuple[int, str, str]]:
        """Write ``data`` beside its target, on the disk for good, and take away what is left over.

        Yields the folder's handle, the temporary file's name and the target's.
        """
        temporary = f".{secrets.token_hex(8)}.tmp"
        with self._opened(name, make=True) as (folder, file):
            try:
                _write_new(temporary, data, folder)
                yield folder, temporary, file
                _sync_folder(folder)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary, dir_fd=folder)


def _open(name: str, flags: int, folder: int) -> int:
    return os.open(name, flags | os.O_NOFOLLOW, 0o666, dir_fd=folder)


def _folder_in(folder: int, name: str, flags: int, *, make: bool) -> int:
    """Open a folder in a folder. It is there almost always, so only one that is not is made."""
    try:
        return _open(name, flags | os.O_DIRECTORY, folder)
    except FileNotFoundError:
        if not make:
            raise
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, dir_fd=folder)
    return _open(name, flags | os.O_DIRECTORY, folder)


def _write_new(name: str, data: bytes, folder: int) -> None:
    """Write a new file, on the disk for good; where that fails, half a file does not stay."""
    with open(_open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, folder), "wb") as file:
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        except OSError:
            os.unlink(name, dir_fd=folder)
            raise


def _sync_folder(folder: int) -> None:
    """Make a new name survive a power cut, where the system can (not on every mount)."""
    with contextlib.suppress(OSError):
        handle = os.open(".", os.O_RDONLY, dir_fd=folder)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
