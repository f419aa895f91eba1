"""The meter: what an example costs, in CPU seconds of all threads and in bytes of memory at its peak."""

from __future__ import annotations

import contextlib
import re
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_RESET = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")
BACKSTOP = 4 * 2**30
"""Address space beyond what the process has when it begins. Bounds are checked afterwards; this keeps a bomb
from taking the machine."""


@dataclass
class Cost:
    """What was spent."""

    cpu: float = 0.0
    memory: int = 0


@contextmanager
def measured() -> Iterator[Cost]:
    """Measure what the block costs. Linux tells the peak of the block; elsewhere only a new peak counts."""
    cost = Cost()
    with contextlib.suppress(OSError):
        _RESET.write_text("5")  # the peak begins anew
    memory, cpu = _resident(), time.process_time()
    try:
        yield cost
    finally:
        cost.cpu = time.process_time() - cpu
        cost.memory = _peak() - memory


def set_backstop() -> None:
    """Let no example take all memory of the machine."""
    size = _status("VmSize")
    if size:
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (size + BACKSTOP, hard))


def _resident() -> int:
    return _status("VmRSS") or _peak()


def _peak() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _status(name: str) -> int:
    try:
        found = re.search(rf"{name}:\s*(\d+) kB", _STATUS.read_text())
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0
