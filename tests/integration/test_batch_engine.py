"""Big batches, engine only, each try a process of its own: killed at random moments, weighed, and counted.

CI weighs 1,000 images; ``make batch-proof`` weighs 10,000 and compares their time with that of 1,000.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_bitdance.local import LocalService, Options, running_service
from airflow_provider_bitdance.local.pictures import labels
from airflow_provider_bitdance.records import Journal
from airflow_provider_bitdance.records.journal import READ_AHEAD
from airflow_provider_bitdance.records.receipts import Receipt
from tests.integration.batch_process import CountingFolder, prompt_of
from tests.unit.support import a_writer

ROOT = Path(__file__).parents[2]
FULL_SIZE = bool(os.environ.get("BITDANCE_BATCH_PROOF"))
SEED = 20261122
PATIENCE = 900.0
MOST_MB = 300 if FULL_SIZE else 100
MOST_RATIO = 11.0


@pytest.fixture
def service() -> Iterator[LocalService]:
    with running_service(Options(latency=0.3, pictures="fast", balance_usd=1000)) as service:
        yield service


class Batch:
    """One job, and the processes that enter it one after another."""

    def __init__(self, service: LocalService, folder: Path, images: int, **options: Any) -> None:
        self.service = service
        self.folder = folder
        self.images = images
        self.options = options
        self.tries = 0

    def start(self) -> subprocess.Popen[str]:
        """Start the next try; returns once it is about to enter the job."""
        self.tries += 1
        given = {
            "url": self.service.url,
            "api_key": self.service.api_key,
            "folder": str(self.folder),
            "images": self.images,
            "try_number": self.tries,
        }
        argv = [sys.executable, "-m", "tests.integration.batch_process", json.dumps(given | self.options)]
        process = subprocess.Popen(
            argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "entering\n"
        return process

    def finish(self) -> dict[str, Any]:
        """Let the next try end, and return what it measured."""
        process = self.start()
        try:
            said, _ = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
        assert process.returncode == 0
        measured: dict[str, Any] = json.loads(said)
        assert measured["stored"] == self.images
        return measured

    def kill(self, process: subprocess.Popen[str]) -> None:
        assert process.poll() is None, "it has ended before it was killed"
        process.kill()
        process.communicate()

    def stored(self) -> int:
        return sum(1 for _ in self.folder.glob(".bitdance/receipts/*.json"))

    def check(self, measured: dict[str, Any]) -> None:
        """Every image is there once and shows its own prompt; the bill is explained."""
        pictures = {path.stem: labels(path.read_bytes()) for path in self.folder.glob("*.png")}
        assert {key: shown.prompt for key, shown in pictures.items()} == {
            f"k-{number}": prompt_of(number) for number in range(self.images)
        }
        receipts = self.folder.glob(".bitdance/receipts/*.json")
        seeds = {
            receipt.file: receipt.request.seed
            for receipt in (Receipt.model_validate_json(path.read_bytes()) for path in receipts)
        }
        assert seeds == {f"{key}.png": shown.seed for key, shown in pictures.items()}
        billed = self.service.bill().billed
        assert self.images <= billed <= self.images + measured["possibly_paid"]


def test_a_batch_that_is_killed_ten_times_at_random_moments_is_bought_once(
    service: LocalService, tmp_path: Path
) -> None:
    chance = random.Random(SEED)
    service.add_fault(on="submit", kind="slow", seconds=0.2)  # so that a kill finds unanswered submissions
    batch = Batch(service, tmp_path, 200, max_in_flight=10)
    for _ in range(10):
        bought = service.bill().submitted
        process = batch.start()
        while service.bill().submitted == bought:
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.6))
        batch.kill(process)
    measured = batch.finish()
    print(f"seed {SEED}: billed {service.bill().billed}, possibly paid {measured['possibly_paid']}")
    batch.check(measured)


def test_a_big_batch_needs_little_memory_and_is_re_entered_with_a_look_an_entry(
    service: LocalService, tmp_path: Path
) -> None:
    batch = Batch(service, tmp_path, 10_000 if FULL_SIZE else 1_000)
    process = batch.start()
    while batch.stored() < 0.9 * batch.images:
        assert process.poll() is None
        time.sleep(0.2)
    batch.kill(process)

    records = CountingFolder(tmp_path / ".bitdance")
    state = Journal(records, a_writer(try_number=2)).load()
    reads = records.calls
    measured = batch.finish()
    print(f"{batch.images} images, killed at 90 %, {reads} reads of {state.number} entries; then {measured}")

    assert reads <= state.number + READ_AHEAD + 1  # and a listing of notes
    assert measured["peak_mb"] <= MOST_MB
    batch.check(measured)


if FULL_SIZE:  # it takes ten minutes: make batch-proof

    def test_ten_times_the_images_take_ten_times_the_time(service: LocalService, tmp_path: Path) -> None:
        # The machine may be busier at one time than at another: small ones before and after the large one.
        small = [Batch(service, tmp_path / f"before-{number}", 1_000).finish() for number in range(2)]
        large = Batch(service, tmp_path / "large", 10_000).finish()
        small += [Batch(service, tmp_path / f"after-{number}", 1_000).finish() for number in range(2)]

        def ratio(what: str) -> float:
            return float(large[what] / statistics.mean(each[what] for each in small))

        print(f"10,000 to 1,000: time {ratio('seconds'):.1f}, CPU {ratio('cpu_seconds'):.1f}")
        print(large, small)

        assert large["peak_mb"] <= MOST_MB
        assert ratio("seconds") <= MOST_RATIO
