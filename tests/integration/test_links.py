"""A task's links in Airflow's database, where the UI reads them: there while the task runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from sqlalchemy import select

from airflow_provider_bitdance.links import bitdance as links
from airflow_provider_bitdance.local import LocalService
from airflow_provider_bitdance.wavespeed.client import AsyncClient
from tests.integration.test_dag_test import a_dag, run_of

pytestmark = pytest.mark.usefixtures("airflow_db")


def in_database(dag_id: str) -> dict[str, str]:
    """Return the links of a Dag's task, by their keys."""
    query = select(XComModel.key, XComModel.value).where(XComModel.dag_id == dag_id)
    with create_session() as session:
        return {key: value for key, value in session.execute(query) if key.startswith("_link_")}


def test_the_link_to_wavespeed_is_there_while_the_task_waits(
    local: LocalService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "DEFAULT_BASE_URL", local.url)
    seen = []
    get = AsyncClient.get_prediction

    async def counted(client: AsyncClient, prediction_id: str) -> Any:
        seen.append(in_database("linked"))
        return await get(client, prediction_id)

    monkeypatch.setattr(AsyncClient, "get_prediction", counted)

    run = run_of(a_dag(tmp_path, "linked"))

    assert run.state == "success"
    assert seen[0]["_link_WaveSpeedLink"] == "https://wavespeed.ai/predictions"
    assert seen[0]["_link_ImagesLink"].endswith("/tasks/image/plugin/bitdance-task-instance")
    assert in_database("linked") == seen[0], "no link without a target leaves an empty row"
