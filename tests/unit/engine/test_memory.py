"""What a process keeps in memory of the images that went through its threads."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

from airflow_provider_bitdance.engine import memory

if {called}:
    memory.return_large_buffers()
together = Barrier(16)

def handle(_):
    for size in (4, 3, 2, 3):
        together.wait()
        image = bytearray(size * 2**20)
        together.wait()
        del image

with ThreadPoolExecutor(16) as pool:
    list(pool.map(handle, range(16)))
    print(re.search(r"VmRSS:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


def kept(*, called: bool) -> int:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(called=called)], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc keeps them")
def test_buffers_of_images_are_returned_to_the_system_when_they_are_freed() -> None:
    by_itself, ours = kept(called=False), kept(called=True)
    assert ours < by_itself - 16_000
