"""One row on the cluster: as in `make chaos`, with images and records on S3, where all workers see them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, cast

from airflow_provider_bitdance.storage import Folder
from tests.chaos.scene import TASK_ID, Run, Scene
from tests.chaos.stage import until
from tests.cluster.cluster import S3_CONN_ID, Cluster

MARK = f"s3://{S3_CONN_ID}@"


class ClusterScene(Scene):
    """What a row plays on."""

    @property
    def cluster(self) -> Cluster:
        return cast("Cluster", self.airflow)

    @property
    def path(self) -> str:
        """Bucket and key of the row's images."""
        return f"{self.cluster.s3.bucket}/{self.folder.name}/images"

    @property
    def output(self) -> str:
        return f"{MARK}{self.path}/"

    @property
    def records(self) -> Folder:
        return self.cluster.s3.folder(f"{self.path}/.bitdance")

    def read(self, uri: str) -> bytes:
        return bytes(self._filesystem.cat_file(uri.removeprefix(MARK)))

    @cached_property
    def _filesystem(self) -> Any:
        """One handle for all that a row reads: to make one takes 0.2 s."""
        return self.cluster.s3.filesystem()

    def until_stored(self, number: int) -> None:
        records = self.records
        self.until(lambda: len(records.names("receipts")) >= number, f"{number} images to be stored")

    def files(self) -> dict[str, bytes]:
        """Return all that is stored, images and records, by name."""
        return self.cluster.s3.files(self.path)

    def worker_of(self, run: Run) -> str:
        """Return the worker that runs a run's task."""
        return self.cluster.worker_of(run.dag_id, run.run_id, TASK_ID)

    def try_number(self, run: Run) -> int:
        """Return the number of the try that runs, or has ended well; 0 while none does."""
        task = self.task(run)
        return int(task["try_number"]) if task["state"] in ("running", "success") else 0

    def until(self, there: Callable[[], object], what: str) -> None:
        # Two cores carry nine processes of Airflow: who asks often, slows down what he waits for.
        until(there, self.airflow.check, what, pause=0.5)
