"""The plugin over HTTP, below a path of its host, with the users of both auth managers.

FAB is no dependency, so its part is skipped where it is not installed: ``make fab`` plays it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from airflow_provider_bitdance.plugin import BitDancePlugin
from airflow_provider_bitdance.preview.content import PREVIEW_KEY, Preview, PreviewImage
from airflow_provider_bitdance.preview.sheet import as_xcom, sheet_key
from tests.integration.plugin_rows import DAG_ID, RUN_ID, TASK_ID

PATH = "/below/a/path"
SHEET = b"RIFF\x0c\0\0\0WEBPVP8 \0\0\0\0"
IMAGE = PreviewImage(key="p-17", status="stored")
XCOMS = {
    PREVIEW_KEY: Preview(total=1, stored=1, images=(IMAGE,)).as_xcom(),
    sheet_key("jazz"): as_xcom(b64encode(SHEET).decode()),
}
FAB = "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager"
SIMPLE = "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager"
MAY_SEE = {"Admin", "Viewer", "of-the-dag"}


@dataclass(frozen=True, slots=True)
class Server:
    port: int
    tokens: dict[str, str]

    def get(self, path: str, user: str | None = None) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.tokens[user]}"} if user else {}
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", headers=headers, trust_env=False)


@pytest.fixture(scope="module", params=["simple", "fab"])
def server(request: pytest.FixtureRequest, tmp_path_factory: Any, airflow_db: None) -> Iterator[Server]:
    env = os.environ | {
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1{PATH}",
        "AIRFLOW__API_AUTH__JWT_SECRET": "a secret of a test " * 4,
        "AIRFLOW__CORE__AUTH_MANAGER": SIMPLE,
    }
    if request.param == "fab":
        if find_spec("airflow.providers.fab") is None:
            pytest.skip("FAB is not installed")
        env |= _home_of_fab(tmp_path_factory.mktemp("fab"))
        subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], env=env, check=True)
    command = [sys.executable, "-m", "tests.integration.plugin_server", json.dumps(XCOMS)]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=env, **pipes) as process:
        assert process.stdout is not None
        lines = (line for line in process.stdout if line.startswith('{"port"'))
        yield Server(**json.loads(next(lines, '{"port": 0, "tokens": {}}')))


def _home_of_fab(home: Path) -> dict[str, str]:
    database = f"sqlite:///{home}/airflow.db"
    return {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database,
        "AIRFLOW__CORE__AUTH_MANAGER": FAB,
    }


def _pages() -> list[str]:
    """Return the pages' addresses, as Airflow's UI resolves them against its own."""
    where = {"DAG_ID": DAG_ID, "RUN_ID": RUN_ID, "TASK_ID": TASK_ID, "MAP_INDEX": "-1"}
    views = [view["href"].format(**{k: quote(v, safe="") for k, v in where.items()}) for view in VIEWS]
    sheet = "/".join(["bitdance/sheets", DAG_ID, quote(RUN_ID, safe=""), TASK_ID, "-1", "jazz"])
    return [f"{PATH}/{address}" for address in (*views, sheet)]


VIEWS = BitDancePlugin.external_views
PAGES = _pages()


@pytest.mark.parametrize("page", PAGES)
def test_users_see_the_images_of_the_dags_whose_xcoms_they_may_read(server: Server, page: str) -> None:
    assert {"Admin", "Viewer", "nobody"} <= server.tokens.keys()
    for user in server.tokens:
        answer = server.get(page, user)
        assert answer.status_code == (200 if user in MAY_SEE else 403), user
        assert (b"p-17" in answer.content or answer.content == SHEET) is (user in MAY_SEE), user


@pytest.mark.parametrize("page", PAGES)
def test_without_a_login_nobody_sees_anything(server: Server, page: str) -> None:
    assert server.get(page).status_code == 401
    assert server.get(page.removeprefix(PATH)).status_code in (401, 404)


@pytest.mark.parametrize("page", PAGES)
def test_another_dags_address_is_asked_for_as_such(server: Server, page: str) -> None:
    for dag_id in ("~", "another"):
        for user in server.tokens:
            answer = server.get(page.replace(DAG_ID, dag_id), user)
            assert b"p-17" not in answer.content
            assert answer.content != SHEET
