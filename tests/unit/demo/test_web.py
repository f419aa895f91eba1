"""The demo's web server, and the addresses that it prints."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.request import urlopen

import pytest

from airflow_provider_bitdance.plugin import BitDancePlugin
from demo import __main__ as demo
from demo.results import Stored, TaskRun
from demo.service import Bill
from demo.web import Web, web_server

TASK = TaskRun("a_dag", "manual__2026-11-29T22:00:00+00:00", "fox", -1, "success", "BitDanceBatchOperator")
AIRFLOW: Any = SimpleNamespace(url="http://127.0.0.1:8080", xcom=lambda *_: None, check=lambda: None)


def stored(path: Path) -> Stored:
    return Stored(TASK, path, "1024x1024", 1234, 0.01, deferred=False)


def test_every_stored_file_has_a_url_that_a_browser_opens(tmp_path: Path) -> None:
    file = tmp_path / "images" / "daily" / "a 50% #1?.png"
    with web_server(tmp_path / "images") as web:
        file.parent.mkdir(parents=True)  # the demo's tasks make it later
        file.write_bytes(b"an image")
        with urlopen(f"{web.url_of(file)}?v=0badc0de") as response:
            assert response.read() == b"an image"


def test_each_stored_image_is_printed_with_its_file_and_its_url(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    web = Web(tmp_path, "http://127.0.0.1:8000")

    demo._report(AIRFLOW, web, [TASK], [stored(tmp_path / "a.png")], Bill(1, 0.01, 0))

    printed = capsys.readouterr().out
    assert f"  {tmp_path}/a.png\n      http://127.0.0.1:8000/a.png\n" in printed
    assert "1024x1024, 1,234 bytes · task fox: not deferred" in printed


def test_while_airflow_is_up_the_tab_images_of_each_run_with_images_is_linked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def ctrl_c(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo.time, "sleep", ctrl_c)

    demo._keep_up(AIRFLOW, [TASK], [stored(tmp_path / "a.png"), stored(tmp_path / "b.png")])

    (view,) = (view for view in BitDancePlugin.external_views if view["destination"] == "dag_run")
    run = "http://127.0.0.1:8080/dags/a_dag/runs/manual__2026-11-29T22%3A00%3A00%2B00%3A00"
    page = f"{run}/plugin/{view['url_route']}"
    assert capsys.readouterr().out.count(f"The Images tab: {page}\n") == 1
