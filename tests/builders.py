"""What the tests build that go through Airflow: a connection, a task's context, a trigger made again."""

from __future__ import annotations

import json
from importlib import import_module
from types import SimpleNamespace
from typing import Any

from airflow_provider_bitdance.local import LocalService
from airflow_provider_bitdance.triggers.bitdance import BitDanceTrigger
from airflow_provider_bitdance.version_compat import AIRFLOW_VERSION
from airflow_provider_bitdance.wavespeed.models import BITDANCE_14B

try:
    from airflow.sdk.serde import deserialize, serialize
except ImportError:  # Airflow 3.1
    from airflow.serialization.serde import deserialize, serialize

API_KEY = "wsk_test_9c41d7e0b2"


def connection_to(service: LocalService, *, password: str | None = None, **extra: object) -> str:
    """Return the connection to a local service, as an environment variable holds it."""
    password = service.api_key if password is None else password
    return json.dumps(
        {"conn_type": "bitdance", "host": service.url, "password": password, "extra": json.dumps(extra)}
    )


def context(*, try_number: int = 1, max_tries: int = 2, map_index: int = -1, run_id: str = "run") -> Any:
    """Return the part of a task's context that the operator reads."""
    return {
        "ti": SimpleNamespace(
            dag_id="dag",
            run_id=run_id,
            task_id="image",
            map_index=map_index,
            try_number=try_number,
            max_tries=max_tries,
        )
    }


def trigger_again(trigger: BitDanceTrigger) -> BitDanceTrigger:
    """Make a trigger anew from what Airflow keeps of it in its database."""
    path, arguments = trigger.serialize()
    assert path == f"{type(trigger).__module__}.{type(trigger).__qualname__}"
    return type(trigger)(**deserialize(json.loads(json.dumps(serialize(arguments)))))


def load_dags(path: str) -> Any:
    """Return a DagBag of a Dag file or folder. Its home moved in Airflow 3.2."""
    home = "airflow.dag_processing.dagbag" if AIRFLOW_VERSION >= (3, 2) else "airflow.models.dagbag"
    return import_module(home).DagBag(path)


def posts(service: LocalService) -> int:
    """Return how many submissions came in, refused ones among them."""
    return sum(event.path == f"/api/v3/{BITDANCE_14B}" for event in service.requests())
