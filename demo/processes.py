"""Start processes, watch them, and end all that came from them.

Every component leads its own session, so a process is ours if it is in such a session or descends from its
leader: that holds for LocalExecutor's workers, the supervisors and the tasks (which have a process group of
their own). Only processes found that way are ever signalled. What is not ended here, because this process is
killed, `guard` ends.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # comes with Airflow; types-psutil would be one more package

from .guard import alive, watch


class ProcessDied(RuntimeError):
    """A process ended, or never became ready; the message ends with the last lines of its log file."""


class Component:
    """One long-running process with a log file; `quiet` keeps only its errors there."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        log: Path,
        quiet: bool = False,
    ) -> None:
        self.name = name
        self.log = log
        self._argv = list(argv)
        self._env = dict(env)
        self._cwd = cwd
        self._quiet = quiet
        self._popen: subprocess.Popen[bytes] | None = None
        #: Every session it ever led: children outlive a leader that was killed.
        self.sessions: set[int] = set()
        #: False from `kill` to the next `start`: then its death is what the caller wanted.
        self.expected = False

    def start(self, env: Mapping[str, str] | None = None) -> None:
        """Start it, leader of a new session; output is appended to the log file.

        :param env: Added to its environment, until its next start.
        """
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._popen = subprocess.Popen(
                self._argv,
                env=self._env | dict(env or {}),
                cwd=self._cwd,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL if self._quiet else log,
                stderr=log,
                start_new_session=True,
            )
        self.sessions.add(self._popen.pid)
        watch(self._popen.pid)
        self.expected = True

    @property
    def pid(self) -> int:
        """Process id; raises `ProcessDied` if it was never started."""
        if self._popen is None:
            raise ProcessDied(f"{self.name} was not started")
        return self._popen.pid

    @property
    def running(self) -> bool:
        """Whether it is alive now."""
        return self._popen is not None and self._popen.poll() is None

    def check(self) -> None:
        """Raise `ProcessDied` if it ended although nobody asked for it."""
        if self.expected and self._popen is not None and (code := self._popen.poll()) is not None:
            raise ProcessDied(f"{self.name} ended with exit code {code}. {self.report()}")

    def kill(self, sig: signal.Signals) -> None:
        """Send `sig` to this process alone, not to its children; with SIGKILL, wait until it is dead."""
        self.expected = self.expected and sig in (signal.SIGSTOP, signal.SIGCONT)
        if self.running:
            os.kill(self.pid, sig)
            if self._popen is not None and sig == signal.SIGKILL:
                self._popen.wait(30)

    def reap(self) -> None:
        """Collect the exit code of a process that has ended: until then it is a zombie."""
        if self._popen is not None:
            self._popen.wait(timeout=10)

    def run(self, timeout: float) -> None:
        """Start it and wait for its end; raises `ProcessDied` if it fails or takes longer than `timeout`."""
        self.start()
        try:
            code = self._popen.wait(timeout) if self._popen else None
        except subprocess.TimeoutExpired:
            raise ProcessDied(f"{self.name} took longer than {timeout:.0f} s. {self.report()}") from None
        finally:
            end([self], grace=2)
        if code != 0:
            raise ProcessDied(f"{self.name} ended with exit code {code}. {self.report()}")

    def report(self, lines: int = 30) -> str:
        """The log file's name and its last lines."""
        return f"Log file: {self.log}\n{tail(self.log, lines)}"


def tail(path: Path, lines: int) -> str:
    """Return the last `lines` lines of a text file, indented; empty if there is no such file."""
    with contextlib.suppress(OSError):
        text = path.read_text(encoding="utf-8", errors="replace")
        return "\n".join(f"    {line}" for line in text.splitlines()[-lines:])
    return ""


def family(components: Iterable[Component]) -> list[psutil.Process]:
    """Return the living processes of the components: themselves, their sessions, their descendants."""
    components = list(components)
    sessions = set().union(*(component.sessions for component in components))
    # The number of a leader that has ended may belong to a stranger by now.
    ended = sessions - {component.pid for component in components if component.running}
    found: set[psutil.Process] = set()
    for pid in set(psutil.pids()) - ended:
        with contextlib.suppress(psutil.Error, OSError):
            if os.getsid(pid) in sessions:
                process = psutil.Process(pid)
                # A task may start processes in a session of their own (BashOperator does).
                found |= {process, *process.children(recursive=True)}
    return [process for process in found if alive(process)]


def end(components: Sequence[Component], *, grace: float) -> None:
    """End the components and all that came from them: SIGTERM, up to `grace` seconds, then SIGKILL.

    SIGTERM goes to the components alone, as from an init system: sent to the whole group, it takes the runner
    away from under the triggerer, which then hangs (measured on 3.3.2). Returns when nothing is left; raises
    `ProcessDied` with the names if some survive SIGKILL.
    """
    known = set(family(components))
    for component in components:
        component.expected = False
        with contextlib.suppress(ProcessLookupError):
            if component.running:
                os.kill(component.pid, signal.SIGTERM)
                os.kill(component.pid, signal.SIGCONT)  # a test may have stopped it
    started = time.monotonic()
    while left := _left(components, known):
        waited = time.monotonic() - started
        if waited > grace + 10:
            raise ProcessDied(f"Still running after SIGKILL: {', '.join(map(str, left))}")
        if waited > grace:
            for process in left:
                with contextlib.suppress(psutil.Error):
                    process.kill()
        time.sleep(0.1)
    for component in components:
        component.reap()


def _left(components: Sequence[Component], known: set[psutil.Process]) -> list[psutil.Process]:
    """Which of `known`, and of what was born since, is alive."""
    known.update(family(components))
    return [process for process in known if alive(process)]


def title(process: psutil.Process) -> str:
    """What `ps` shows for a process; empty if it has ended."""
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline()).strip()
    return ""


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Ignore Ctrl-C and SIGTERM inside the block; without effect outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signals = (signal.SIGINT, signal.SIGTERM)
    previous = [signal.signal(each, signal.SIG_IGN) for each in signals]
    try:
        yield
    finally:
        for each, handler in zip(signals, previous, strict=True):
            signal.signal(each, handler)


def free_port() -> int:
    """Return a TCP port that is free on 127.0.0.1 now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
