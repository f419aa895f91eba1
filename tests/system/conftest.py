"""One real Airflow and one local service for all system tests, and how they look at what was stored."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import pytest

from airflow_provider_bitdance.local import LocalService, Options, running_service
from airflow_provider_bitdance.local.pictures import draw
from airflow_provider_bitdance.plugin import PREFIX
from airflow_provider_bitdance.records.receipts import Receipt
from demo.real_airflow import RealAirflow
from tests.s3 import S3Server

ROOT = Path(__file__).parents[2]
API_KEY = "wsk_system_test_5b1c0c2a9e"


@dataclass
class System:
    """A real Airflow, the service it buys from, and the folder it stores to.

    :ivar conn_id: The connection that leads to the service, for the Dags that take one.
    :ivar bought_before: The service's bill when the test began.
    """

    airflow: RealAirflow
    service: LocalService
    images: Path
    conn_id: str = "bitdance_default"
    bought_before: int = field(init=False)

    def __post_init__(self) -> None:
        self.bought_before = self.service.bill().billed

    @property
    def billed(self) -> int:
        return self.service.bill().billed - self.bought_before

    def trigger(self, dag_id: str, **conf: str) -> str:
        """Start a run that buys from the service, and return its id."""
        return self.airflow.trigger(dag_id, conf={"conn_id": self.conn_id, **conf})

    def results(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """The results of a run's tasks, each checked: the file is there and shows its own prompt."""
        found = []
        for task in self.airflow.task_instances(dag_id, run_id):
            result = self.airflow.xcom(dag_id, run_id, task["task_id"], task["map_index"])
            if isinstance(result, dict):
                check_picture(result)
                found.append(result)
        return found

    def images_tab(self, dag_id: str, run_id: str) -> list[str]:
        """The URIs of the images that the Images tab of a run shows."""
        api = self.airflow.url
        token = httpx.get(f"{api}/auth/token", trust_env=False).json()["access_token"]
        page = httpx.get(
            f"{api}{PREFIX}/images/{dag_id}/{quote(run_id, safe='')}",
            headers={"Authorization": f"Bearer {token}"},
            trust_env=False,
        )
        return re.findall(r"<code[^>]*>([^<]+)</code>", page.raise_for_status().text)

    def fails(self, dag_id: str, run_id: str) -> str:
        """What the logs say, for a run that did not end as it should."""
        return "\n".join(
            self.airflow.task_log(dag_id, run_id, task["task_id"], task["try_number"], task["map_index"])
            for task in self.airflow.task_instances(dag_id, run_id)
            if task["state"] != "success"
        )


def read_from_disk(uri: str) -> bytes:
    return Path(urlsplit(uri).path).read_bytes()


def check_picture(result: dict[str, Any], read: Callable[[str], bytes] = read_from_disk) -> None:
    """The stored file is byte for byte the picture that the service draws for the recorded request."""
    receipt = Receipt.model_validate_json(read(result["receipt"]))
    stored = read(result["uri"])
    width, height = map(int, receipt.request.size.split("*"))
    assert stored == draw(
        model=receipt.request.model,
        prompt=receipt.request.prompt,
        width=width,
        height=height,
        seed=receipt.request.seed,
        media_type=receipt.media_type,
    )


@pytest.fixture(scope="session")
def s3_path(s3: S3Server) -> str:
    """Return bucket and key of the folder in which the Dags on S3 store."""
    return s3.new_path()


# Not of the session: an Airflow that nobody needs any more takes a fifth of the machine.
@pytest.fixture(scope="package")
def running(
    tmp_path_factory: pytest.TempPathFactory, s3: S3Server, s3_path: str
) -> Iterator[tuple[RealAirflow, LocalService, Path]]:
    home = tmp_path_factory.mktemp("system")
    dags, images = home / "dags", home / "images"
    dags.mkdir()
    for folder in (ROOT / "example_dags", Path(__file__).parent / "dags"):
        for file in (*folder.glob("*.py"), *folder.glob("*.prompt")):
            shutil.copy(file, dags)
    with running_service(Options(api_key=API_KEY, latency=1.0)) as service:
        connection = {"conn_type": "bitdance", "host": service.url, "password": API_KEY}
        env = {
            "BITDANCE_OUTPUT_PATH": f"{images}/",
            "BITDANCE_S3_OUTPUT_PATH": f"s3://my_s3@{s3_path}/images/",
            "AIRFLOW_CONN_BITDANCE_DEFAULT": json.dumps(connection),
            "AIRFLOW_CONN_MY_S3": s3.connection(),
            # The examples say nothing of it, and five minutes are long for a test.
            "AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY": "1",
            # A machine that sleeps is missed after 20 seconds and not after five minutes.
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
            # The files stay as they are; to parse them again every 30 seconds took a tenth of the CPU time.
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "3600",
        }
        # A task that waits for its image in the worker holds a slot meanwhile.
        with RealAirflow(home / "airflow", dags_folder=dags, env=env, parallelism=10) as airflow:
            yield airflow, service, images


@pytest.fixture
def system(running: tuple[RealAirflow, LocalService, Path]) -> System:
    airflow, service, images = running
    return System(airflow, service, images)
