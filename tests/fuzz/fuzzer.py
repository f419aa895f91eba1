"""The fuzzer: gives a target its cases, round after round, and keeps what breaks a rule, made small."""

from __future__ import annotations

import pickle
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.cases import Case
from tests.fuzz.meter import Cost, measured
from tests.fuzz.sandbox import ROOT, Sandbox
from tests.fuzz.target import MIB, Fault, Target

A_ROUND = 25
_MEMORY = Path("/dev/shm")
"""Where files cost the least, where there is such a place."""
SHRINK_SECONDS = 10.0
"""A fault is made smaller for so long; what is left then is kept."""
LEAST_CPU = 0.05
"""CPU seconds that no case is too slow for: below it the garbage collector alone decides."""
OF_NORMAL = 3
"""Times the normal input, and a case that seems too slow, is measured: the least counts."""

IsWanted = Callable[[Fault], bool]


@dataclass(frozen=True)
class Found:
    """A fault, with the smallest case that was seen to have it."""

    target: str
    fault: Fault
    case: Case


class Fuzzer:
    """Fuzzes one target.

    :param pending: Where the case is written before it is tried, for those who look into a process that died.
    """

    def __init__(self, target: Target, sandbox: Sandbox, *, pending: Path | None = None) -> None:
        self.target = target
        self.examples = 0
        self.faults = 0
        self._found: list[Found] = []
        self._sandbox = sandbox
        self._folder = Path(
            tempfile.mkdtemp(prefix="bitdance-fuzz-", dir=_MEMORY if _MEMORY.is_dir() else None)
        )
        self._pending = pending
        self._known: set[str] = set()
        self._is_wanted: IsWanted = lambda _: True
        self._failing: Found | None = None
        self._shrink_until = 0.0
        normal = target.normal()
        _checked(target.check, normal, self._folder, sandbox)  # what is loaded at first use counts for nobody
        self._clear()
        self.normal = min(self._try(normal, bounded=False).cpu for _ in range(OF_NORMAL))

    def close(self) -> None:
        """Remove its folder."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def fuzz(self, number: int, *, shrinks: bool = True, is_wanted: IsWanted = lambda _: True) -> None:
        """Play one round, up to the first fault.

        :param number: Its seed: the same gives the same examples.
        :param shrinks: Make the fault's case small.
        :param is_wanted: Passes over other faults.
        """
        self._failing = None
        self._is_wanted = is_wanted
        chosen = settings(
            max_examples=A_ROUND,
            database=None,
            deadline=None,
            phases=(Phase.generate, Phase.shrink) if shrinks else (Phase.generate,),
            report_multiple_bugs=False,
            print_blob=False,
            suppress_health_check=list(HealthCheck),
        )

        def example(case: Case) -> None:
            self._example(case)

        try:
            seed(number)(chosen(given(case=self.target.cases)(example)))()
        except (_EnoughShrinking, Exception):
            if self._failing is None:
                raise
        if self._failing is not None:
            self._keep(self._failing)

    def replay(self, case: Case) -> None:
        """Try a case that was saved; its fault is found if it has one."""
        try:
            self._try(case)
        except Fault as fault:
            self._keep(Found(self.target.name, fault, case))

    def forget(self) -> None:
        """Report again what was reported before."""
        self._known.clear()

    def take_found(self) -> list[Found]:
        """Return what was found since the last call."""
        found, self._found = self._found, []
        return found

    def _keep(self, found: Found) -> None:
        self.faults += 1
        self._found.append(found)
        self._known.add(found.fault.kind)

    def _example(self, case: Case) -> None:
        if self._failing is not None and time.monotonic() > self._shrink_until:
            raise _EnoughShrinking
        self.examples += 1
        try:
            self._try(case)
        except Fault as fault:
            if fault.kind in self._known or not self._is_wanted(fault):
                return
            if self._failing is None:
                self._shrink_until = time.monotonic() + SHRINK_SECONDS
            elif fault.kind != self._failing.fault.kind:
                return
            self._failing = Found(self.target.name, fault, case)
            raise

    def _try(self, case: Case, *, bounded: bool = True) -> Cost:
        if self._pending is not None:
            self._pending.write_bytes(pickle.dumps((self.target.name, case)))
        cost = self._measured(case)
        if not bounded:
            return cost
        if cost.memory > self.target.most_mib * MIB:
            # A collector may have been late; what takes memory takes it again.
            cost.memory = min(cost.memory, self._measured(case).memory)
        if cost.memory > self.target.most_mib * MIB:
            raise Fault("too much memory", f"{cost.memory // MIB} MiB of {self.target.most_mib}")
        most = max(LEAST_CPU, self.target.times * self.normal)
        for _ in range(OF_NORMAL):
            if cost.cpu <= most:
                break
            cost.cpu = min(cost.cpu, self._measured(case).cpu)
        if cost.cpu > most:
            raise Fault("too slow", f"{cost.cpu:.3f} CPU seconds; a normal one takes {self.normal:.3f}")
        return cost

    def _measured(self, case: Case) -> Cost:
        try:
            with measured() as cost, self._sandbox.watching(self._folder):
                _checked(self.target.check, case, self._folder, self._sandbox)
        except Fault as fault:
            self._raise_for_acts(fault)
            raise
        finally:
            self._clear()
        self._raise_for_acts(None)
        return cost

    def _raise_for_acts(self, fault: Fault | None) -> None:
        """Raise what the sandbox refused: it comes before what followed from that."""
        for act in self._sandbox.acts:
            raise Fault(f"{act.partition(':')[0]}, which it may not", act) from fault

    def _clear(self) -> None:
        for path in self._folder.iterdir():
            path.unlink() if path.is_symlink() or not path.is_dir() else shutil.rmtree(path)


class _EnoughShrinking(BaseException):
    """Leaves hypothesis at once: of what is no ``Exception`` it takes no notice."""


def _checked(check: Callable[[Case, Path, Sandbox], Any], case: Case, folder: Path, sandbox: Sandbox) -> None:
    try:
        check(case, folder, sandbox)
    except Fault:
        raise
    except Exception as error:
        raise Fault(f"{type(error).__name__} in {_where(error)}", str(error)[:500]) from error


def _where(error: BaseException) -> str:
    """Return the innermost function of the package that an error came through."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "airflow_provider_bitdance" in frame.filename] or frames
    file = Path(ours[-1].filename)
    name = file.relative_to(ROOT).as_posix() if file.is_relative_to(ROOT) else file.name
    return f"{name}:{ours[-1].name}"
