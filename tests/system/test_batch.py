"""Batches on a real Airflow: a thousand images in one task, whose process is killed three times.

CI kills at 300 images, and at 100 on S3; ``make batch-proof`` kills at the full size.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_bitdance.local import LocalService, Options, running_service
from airflow_provider_bitdance.local.pictures import labels
from airflow_provider_bitdance.manifest import ManifestRow
from demo.real_airflow import RealAirflow
from tests.s3 import S3Server
from tests.system.conftest import read_from_disk

API_KEY = "wsk_batches_3f6a90d1c4"
FULL_SIZE = bool(os.environ.get("BITDANCE_BATCH_PROOF"))
KILLED_AT = (0.1, 0.5, 0.9)
PATIENCE = 300.0
KB = 1000


@pytest.fixture(scope="module")
def opened_account(running: tuple[RealAirflow, LocalService, Path]) -> Iterator[LocalService]:
    """Open an account whose pictures are quickly made, and tell Airflow of it."""
    airflow, _, _ = running
    options = Options(api_key=API_KEY, latency=(2, 5), pictures="fast", balance_usd=1000)
    with running_service(options) as service:
        connection = {"conn_type": "bitdance", "host": service.url, "password": API_KEY}
        airflow.post("/connections", {"connection_id": "batches", **connection})
        yield service


@pytest.fixture
def account(opened_account: LocalService) -> LocalService:
    opened_account.reset()
    return opened_account


@dataclass
class Batch:
    """A run of one of the Dags, and where its images go.

    :ivar output: The output folder, as the Dag gets it.
    :ivar read: Returns a stored file's bytes.
    :ivar stored: Counts the receipts that there are.
    """

    airflow: RealAirflow
    service: LocalService
    images: int
    output: str
    read: Callable[[str], bytes]
    stored: Callable[[], int]
    dag_id: str = "batch"
    run_id: str = ""

    def start(self, folder: Path) -> None:
        items = folder / f"{self.images}-items.jsonl"
        lines = (json.dumps({"key": f"k-{n}", "subject": subject(n)}) for n in range(self.images))
        items.write_text("\n".join(lines))
        conf = {"file": str(items), "output_path": self.output}
        self.run_id = self.airflow.trigger(self.dag_id, conf=conf)

    def kill_at(self, share: float, *, but: int | None) -> int:
        """Kill the task's process once so many images are stored, and return its id.

        :param but: The process that was killed before.
        """
        # Asked for beforehand: it takes a while, and by then the rest may be stored.
        pid = self.wait_for(lambda: self.airflow.task_pid(self.dag_id, self.run_id, "batch"), but)
        self.wait_for(lambda: self.stored() >= share * self.images, False)
        os.kill(pid, signal.SIGKILL)
        return pid

    def wait_for(self, look: Callable[[], Any], but: Any) -> Any:
        """Wait until there is something, and something else."""
        deadline = time.monotonic() + PATIENCE
        while (found := look()) is None or found == but:
            self.airflow.check()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.1)
        return found

    def result(self) -> dict[str, Any]:
        """Wait for the run's success, and return the task's result."""
        state = self.airflow.wait_for_run(self.dag_id, self.run_id, timeout=PATIENCE)
        assert state == "success", self.log()
        result: dict[str, Any] = self.airflow.xcom(self.dag_id, self.run_id, "batch")
        return result

    def tries(self) -> int:
        return int(self.airflow.task_instance(self.dag_id, self.run_id, "batch")["try_number"])

    def log(self) -> str:
        return self.airflow.task_log(self.dag_id, self.run_id, "batch", self.tries())

    def check(self, result: dict[str, Any]) -> None:
        """Every item has a row, in order, and an image that shows its own prompt; the bill is explained."""
        assert (result["items"], result["stored"], result["failed"]) == (self.images, self.images, 0)
        rows = [ManifestRow.model_validate_json(line) for line in self.read(result["manifest"]).splitlines()]
        assert [(row.key, row.status, row.columns) for row in rows] == [
            (f"k-{n}", "stored", {"subject": subject(n)}) for n in range(self.images)
        ]
        for row in rows:
            shown = labels(self.read(str(row.uri)))
            assert (shown.prompt, shown.seed) == (f"A poster of {row.columns['subject']}", row.seed)
        assert result["possibly_paid"] == sum(row.possibly_paid for row in rows)
        assert self.images <= self.service.bill().billed <= self.images + result["possibly_paid"]
        assert self.stored() == self.images


def subject(number: int) -> str:
    return f"thing number {number}"


def on_disk(airflow: RealAirflow, service: LocalService, folder: Path, images: int) -> Batch:
    def stored() -> int:
        return sum(1 for _ in folder.glob(".bitdance/receipts/*.json"))

    return Batch(airflow, service, images, f"{folder}/", read_from_disk, stored)


def on_s3(airflow: RealAirflow, service: LocalService, s3: S3Server, images: int) -> Batch:
    path = s3.new_path()
    folder = s3.folder(path)

    def read(uri: str) -> bytes:
        data = folder.read(uri.removeprefix(f"{folder.uri}/"))
        assert data is not None, uri
        return data

    return Batch(
        airflow,
        service,
        images,
        f"{folder.uri}/",
        read,
        lambda: len(folder.names(".bitdance/receipts")),
    )


def test_a_thousand_images_in_one_task_are_stored_and_billed_once(
    running: tuple[RealAirflow, LocalService, Path], account: LocalService, tmp_path: Path
) -> None:
    batch = on_disk(running[0], account, tmp_path / "images", 1000)
    start = time.monotonic()
    batch.start(tmp_path)
    result = batch.result()
    print(f"1,000 images: {time.monotonic() - start:.0f} s")

    batch.check(result)
    assert (account.bill().billed, result["possibly_paid"], batch.tries()) == (1000, 0, 1)
    assert len(json.dumps(result)) <= 2 * KB


def test_what_a_deferred_batch_leaves_in_airflows_database_is_small(
    running: tuple[RealAirflow, LocalService, Path], account: LocalService, tmp_path: Path
) -> None:
    images, latency = (1000, 90) if FULL_SIZE else (200, 20)
    batch = on_disk(running[0], account, tmp_path / "images", images)
    batch.dag_id = "batch_deferred"
    start = time.monotonic()
    account.add_fault(on="submit", kind="latency", seconds=latency)
    batch.start(tmp_path)
    batch.airflow.wait_for_task(batch.dag_id, batch.run_id, "batch", ["deferred"], timeout=PATIENCE)
    with sqlite3.connect(batch.airflow.database) as database:
        [(kept,)] = database.execute("select kwargs from trigger").fetchall()
    database.close()
    result = batch.result()
    waited_for = len(re.findall("[0-9a-f]{32}", kept))
    print(
        f"{images} images, deferred: {time.monotonic() - start:.0f} s, {waited_for} ids in {len(kept)} bytes"
    )

    batch.check(result)
    assert (account.bill().billed, result["possibly_paid"]) == (images, 0)
    assert waited_for > 0.9 * images
    assert len(kept) <= 64 * KB / 1000 * images
    events = [line for line in batch.log().splitlines() if "Trigger fired event" in line]
    assert events
    assert max(map(len, events)) <= 4 * KB
    assert len(json.dumps(result)) <= 2 * KB


@pytest.mark.parametrize("where", ["disk", "s3"])
def test_a_task_that_is_killed_three_times_buys_each_image_once(
    running: tuple[RealAirflow, LocalService, Path],
    account: LocalService,
    s3: S3Server,
    tmp_path: Path,
    where: str,
) -> None:
    if where == "disk":
        batch = on_disk(running[0], account, tmp_path / "images", 1000 if FULL_SIZE else 300)
    else:
        batch = on_s3(running[0], account, s3, 200 if FULL_SIZE else 100)
    start = time.monotonic()
    batch.start(tmp_path)
    killed = None
    for share in KILLED_AT:
        killed = batch.kill_at(share, but=killed)
    result = batch.result()
    print(
        f"{batch.images} images on {where}, killed {len(KILLED_AT)} times: {time.monotonic() - start:.0f} s, "
        f"billed {account.bill().billed}, possibly paid {result['possibly_paid']}"
    )

    batch.check(result)
    assert batch.tries() == 1 + len(KILLED_AT)
