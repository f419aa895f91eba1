"""Row of one large batch on S3: memory, how soon a process that takes over goes on, and the time an image.

Each engine is a process of its own, for its memory. That of the large batch is killed when most images are
bought, and another one takes over.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from pathlib import Path
from uuid import uuid4

from airflow_provider_bitdance.storage import Folder
from benchmarks import alone
from benchmarks.account import PROFILES, Account
from benchmarks.checks import Check, Result
from benchmarks.lab import ROOT, Lab
from tests.s3 import S3Server, running_s3

IN_FLIGHT = 100
KILLED_AT = 0.9
PAUSE = 0.1
"""Seconds between two questions how far it is."""
LOST = 8
"""Purchases whose response a killed process may lose: the default of ``max_unanswered``."""


def play(lab: Lab) -> Result:
    """Row 14."""
    few, many = lab.size(1000, 100), lab.size(10_000, 200)
    with running_s3(lab.home / "s3-large-batch") as server:
        with lab.account(PROFILES["5 s"]) as account:
            ended = _engine(account, server, server.new_path(), few).wait()
            assert ended == 0, "the engine of the small batch failed"
            seconds_of_few = _seconds_an_image(account)
        with lab.account(PROFILES["5 s"]) as account:
            return _large(account, server, many, seconds_of_few)


def _large(account: Account, server: S3Server, images: int, seconds_of_few: float) -> Result:
    path, run_id = server.new_path(), uuid4().hex
    first = _engine(account, server, path, images, run_id=run_id)
    while account.bill().images < KILLED_AT * images:
        assert first.poll() is None, "the first process has ended"
        time.sleep(PAUSE)
    memory = [_peak_memory(first)]
    first.kill()
    first.wait()
    seconds_of_many = _seconds_an_image(account)
    killed_at = time.time()

    second = _engine(account, server, path, images, run_id=run_id, try_number=2)
    while second.poll() is None:
        memory.append(_peak_memory(second))
        time.sleep(PAUSE)
    assert second.returncode == 0, "the second process failed"
    books = account.books()
    went_on = min(request.time for request in books.requests if request.time > killed_at)
    bought_on = min(image.submitted for image in books.predictions if image.submitted > killed_at)
    stored = [name for name in server.filesystem().find(path) if name.endswith(".png")]
    checks = [
        Check("peak memory, MB", max(memory), 300),
        Check("second process, from its start to its first request, s", went_on - killed_at, 15),
        Check(f"seconds an image, {images:,} / 1,000 images", seconds_of_many / seconds_of_few, 1.05),
        Check("images missing", images - len(stored), 0, exactly=True),
        Check("images billed twice, lost by the kill", books.billed - images, LOST),
    ]
    notes = {
        "seconds an image, large batch": seconds_of_many,
        "seconds an image, small batch": seconds_of_few,
        # Before it buys, it searches the account's history for the responses that the kill lost.
        "second process, to its first purchase": bought_on - killed_at,
    }
    return Result(checks, notes=notes)


def _engine(
    account: Account, server: S3Server, path: str, images: int, *, run_id: str = "run", try_number: int = 1
) -> subprocess.Popen[bytes]:
    given = [account.url, account.api_key, server.url, server.bucket, path, images, run_id, try_number]
    return subprocess.Popen([sys.executable, "-m", "benchmarks.large_batch", *map(str, given)], cwd=ROOT)


def _seconds_an_image(account: Account) -> float:
    """Return the time from the first submission to the last image that is made, for each that is.

    Not to the last submission: the first hundred wait for nothing, so by physics alone an image of a batch of
    10,000 would take 1.10 times as long as one of 1,000.
    """
    made = account.books().predictions
    return (max(image.completed for image in made) - min(image.submitted for image in made)) / len(made)


def _peak_memory(process: subprocess.Popen[bytes]) -> float:
    """Return the most MB that a process has had in memory; 0 when it has ended."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except OSError:
        return 0.0
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) / 1000 if found else 0.0


def main() -> None:
    """Make a batch as one process does it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large_batch", description=__doc__)
    for name in ("url", "key", "s3", "bucket", "path"):
        parser.add_argument(name)
    parser.add_argument("images", type=int)
    parser.add_argument("run_id")
    parser.add_argument("try_number", type=int)
    given = parser.parse_args()
    server = S3Server(given.s3, given.bucket)

    def store(_: Path) -> tuple[Folder, Folder]:
        return server.folder(given.path), server.folder(f"{given.path}/.bitdance")

    prompts = [f"image-{number:05}" for number in range(given.images)]
    work = alone.by_engine(
        alone.Key(given.url, given.key),
        prompts,
        Path("/batch"),
        IN_FLIGHT,
        store=store,
        run_id=given.run_id,
        try_number=given.try_number,
    )
    alone.run(work)


if __name__ == "__main__":
    main()
