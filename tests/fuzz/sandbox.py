"""The sandbox: refuses, and remembers, what an example does outside of its folder, in all threads.

It listens to Python's audit events, so it sees what any library does in Python. An audit hook cannot be taken
away: that is one reason why fuzzing has a process of its own.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_READABLE = tuple(
    os.path.realpath(path)
    for path in (*sys.path, sys.prefix, sys.base_prefix, ROOT, "/usr/share", "/usr/lib", "/etc/localtime")
    if path
)
"""What the interpreter and the libraries read at any time: modules, time zones."""
_CHANGES = {
    **{"os.remove": (0, 1), "os.rmdir": (0, 1), "os.mkdir": (0, 2), "os.chmod": (0, 2), "os.chown": (0, 3)},
    **{"os.utime": (0, 3), "os.truncate": (0, None), "os.symlink": (1, 2), "sqlite3.connect": (0, None)},
}
"""Events that change a file: which argument is its path, and which the handle that it is relative to."""
_MOVES = {"os.rename", "os.link"}
_LISTS = {"os.listdir", "os.scandir"}
_NEVER = {
    *("socket.connect", "socket.sendto", "socket.bind", "socket.getaddrinfo", "socket.gethostbyname"),
    *("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty"),
}


class OutsideError(PermissionError):
    """An act outside of the sandbox, refused."""


class Sandbox:
    """Watches this process, while it is told to.

    :ivar acts: What was refused, in the order of the attempts.
    """

    def __init__(self) -> None:
        self.acts: list[str] = []
        self._writable: tuple[str, ...] = ()
        self._readable: tuple[str, ...] = ()
        self._is_watching = False
        self._thread = threading.local()
        self._open, os.open = os.open, self._open_relative  # type: ignore[assignment]
        sys.addaudithook(self._notice)

    @contextmanager
    def watching(self, folder: Path) -> Iterator[None]:
        """Refuse every act outside of this folder, and forget what was refused before."""
        self.acts = []
        self.allow(writable=[folder])
        self._is_watching = True
        try:
            yield
        finally:
            self._is_watching = False

    def allow(self, *, writable: Sequence[Path] = (), readable: Sequence[Path] = ()) -> None:
        """From here on allow this and nothing else: a target calls it when its case's files are laid out."""
        self._writable = tuple(os.path.realpath(path) for path in writable)
        self._readable = (*self._writable, *(os.path.realpath(path) for path in readable), *_READABLE)

    def _open_relative(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        """Open a file as ``os.open`` does; its audit event does not say what a path is relative to."""
        if self._is_watching and dir_fd is not None:
            self._check("write" if flags & _WRITING else "read", path, dir_fd)
            self._thread.is_checked = True
        try:
            return self._open(path, flags, mode, dir_fd=dir_fd)
        finally:
            self._thread.is_checked = False

    def _notice(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._is_watching:
            return
        if event == "open":
            path, mode, flags = arguments
            writes = any(sign in mode for sign in "wax+") if isinstance(mode, str) else flags & _WRITING
            if not getattr(self._thread, "is_checked", False):
                self._check("write" if writes else "read", path)
        elif event in _CHANGES:
            path, handle = _CHANGES[event]
            act = event.partition(".")[2]
            self._check(act, arguments[path], None if handle is None else arguments[handle], changes=True)
        elif event in _MOVES:
            source, target, of_source, of_target = arguments
            self._check(event.partition(".")[2], source, of_source, changes=True)
            self._check(event.partition(".")[2], target, of_target, changes=True)
        elif event in _LISTS:
            self._check("list", arguments[0])
        elif event in _NEVER:
            self._refuse(f"{event}: {_shown(arguments)}")

    def _check(self, act: str, path: object, handle: int | None = None, *, changes: bool = False) -> None:
        if not isinstance(path, str | bytes | os.PathLike):
            return  # an open file, which was checked when it was opened
        name = os.fsdecode(path)
        if handle is not None and handle >= 0 and not os.path.isabs(name):
            name = os.path.join(os.readlink(f"/proc/self/fd/{handle}"), name)
        # What is deleted or moved may be a link: it is the link that goes, and not what it leads to.
        folder, last = os.path.split(os.path.abspath(name))
        whole = os.path.join(os.path.realpath(folder), last) if changes else os.path.realpath(name)
        allowed = self._writable if changes or act == "write" else self._readable
        if whole != os.devnull and not any(whole == top or whole.startswith(top + os.sep) for top in allowed):
            self._refuse(f"{act} outside: {whole}")

    def _refuse(self, act: str) -> None:
        self.acts.append(act)
        raise OutsideError(act)


def _shown(arguments: tuple[Any, ...]) -> str:
    return " ".join(repr(part) for part in arguments if not isinstance(part, socket.socket))[:200]
