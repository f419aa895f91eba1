"""Ends what a process has started, when that process ends without having done so itself: it was killed.

A process of its own that reads from a pipe which sessions to end, and acts at the pipe's end: the kernel
closes the pipe with the last process that could write to it, whatever ended that one. So it also works for
SIGKILL, on every Unix, and for what the children have started.

    python -m demo.guard   # reads lines from stdin: the number of a session
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # comes with Airflow; types-psutil would be one more package

_GRACE = 10.0
"""Seconds that the leaders of sessions have to end what is theirs."""
_lock = threading.Lock()
_guards: dict[int, subprocess.Popen[bytes]] = {}
"""By process: one that was forked off has no part in its parent's, whose pipe it must not hold open."""


def watch(session: int) -> None:
    """Have a session, by the number of its leader, end with this process at the latest."""
    with _lock:
        if os.getpid() not in _guards:
            _guards.clear()
            _guards[os.getpid()] = subprocess.Popen(
                [sys.executable, "-m", "demo.guard"],
                cwd=Path(__file__).resolve().parent.parent,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            atexit.register(_leave)
        pipe = _guards[os.getpid()].stdin
        assert pipe is not None
        with contextlib.suppress(OSError):
            pipe.write(f"{session}\n".encode())
            pipe.flush()


def _leave() -> None:
    """Close the pipe and wait: what is left is ended before this process is."""
    if guard := _guards.pop(os.getpid(), None):
        with contextlib.suppress(OSError):
            guard.communicate()


def alive(process: psutil.Process) -> bool:
    """Whether a process runs, and is not a zombie that nobody has collected."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _processes(sessions: set[int]) -> set[psutil.Process]:
    """Return the processes in some sessions, and all that come from them."""
    found = set()
    for pid in psutil.pids():
        with contextlib.suppress(psutil.Error, OSError):
            if os.getsid(pid) in sessions:
                process = psutil.Process(pid)
                found |= {process, *process.children(recursive=True)}
    return {process for process in found if alive(process)}


def _end(leaders: dict[int, psutil.Process]) -> None:
    """SIGTERM to the leaders, as from an init system; SIGKILL to what is left when they are gone, or late."""
    # The number of a leader that has ended may be a stranger's by now, if nothing of its session is left.
    sessions = {pid for pid, leader in leaders.items() if leader.is_running() or not psutil.pid_exists(pid)}
    left = _processes(sessions)
    for leader in leaders.values():
        with contextlib.suppress(psutil.Error):
            leader.terminate()
            leader.resume()  # a test may have stopped it
    until = time.monotonic() + _GRACE
    while left := {process for process in left | _processes(sessions) if alive(process)}:
        if time.monotonic() > until or not any(map(alive, leaders.values())):
            for process in left:
                with contextlib.suppress(psutil.Error):
                    process.kill()
        time.sleep(0.1)


def _main() -> None:
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)  # it ends by itself, within seconds
    leaders: dict[int, psutil.Process] = {}
    for line in sys.stdin:
        with contextlib.suppress(psutil.Error):
            leaders[int(line)] = psutil.Process(int(line))
    _end(leaders)


if __name__ == "__main__":
    _main()
