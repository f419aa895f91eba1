"""Where the links lead, and what they never do: fail a task, or show a secret."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from airflow_provider_bitdance.exceptions import ItemsFailedError
from airflow_provider_bitdance.hooks import object_storage
from airflow_provider_bitdance.links.bitdance import (
    LINKS,
    show_links,
    show_stored,
    stored_page,
    with_targets,
)
from airflow_provider_bitdance.local import LocalService
from airflow_provider_bitdance.operators.bitdance import BitDanceBatchOperator, BitDanceTextToImageOperator
from airflow_provider_bitdance.storage import LocalFolder, ObjectFolder
from tests.builders import context

WAVESPEED = "https://api.wavespeed.ai"
PAGE = "https://wavespeed.ai/predictions"
KEY = "_link_WaveSpeedLink"


def a_task() -> Any:
    return SimpleNamespace(link_targets={}, log=Mock())


def told(task: Any) -> dict[str, str]:
    """Return what Airflow puts into XCom when the task ends."""
    return {link.name: str(link.get_link(task, ti_key=Mock())) for link in with_targets(task)}


def test_a_task_shows_wavespeed_s_predictions_at_once() -> None:
    task, ti = a_task(), Mock()

    show_links(task, WAVESPEED, {"ti": ti}, with_images=False)  # type: ignore[typeddict-item]  # all that is needed

    ti.xcom_push.assert_called_once_with(key=KEY, value=PAGE)
    assert told(task) == {"WaveSpeed predictions": PAGE}


@pytest.mark.parametrize("api_url", ["http://127.0.0.1:8000", "https://gateway.corp", f"{WAVESPEED}:8443"])
def test_another_api_has_no_page_that_is_known(api_url: str) -> None:
    task, ti = a_task(), Mock()

    show_links(task, api_url, {"ti": ti}, with_images=False)  # type: ignore[typeddict-item]

    ti.xcom_push.assert_not_called()
    assert told(task) == {}


def test_a_link_that_cannot_be_shown_is_a_debug_line() -> None:
    task, ti = a_task(), Mock()
    ti.xcom_push.side_effect = RuntimeError("the API server is away")

    show_links(task, WAVESPEED, {"ti": ti}, with_images=False)  # type: ignore[typeddict-item]

    assert [call[0] for call in task.log.method_calls] == ["debug"]
    assert told(task)["WaveSpeed predictions"] == PAGE


def test_the_names_are_those_under_which_airflow_finds_them() -> None:
    assert [(link.name, link.xcom_key) for link in LINKS] == [
        ("Images", "_link_ImagesLink"),
        ("Stored result", "_link_StoredLink"),
        ("WaveSpeed predictions", KEY),
    ]


def test_the_tab_of_a_task_instance_is_linked_under_the_address_that_airflow_has() -> None:
    at = "https://air.corp/prefix/dags/d/runs/r%2B1/tasks/t/mapped/3"
    task, ti = a_task(), Mock(log_url=f"{at}?try_number=2")

    show_links(task, "https://gateway.corp", {"ti": ti}, with_images=True)  # type: ignore[typeddict-item]

    page = f"{at}/plugin/bitdance-task-instance"
    assert told(task) == {"Images": page}
    ti.xcom_push.assert_called_once_with(key="_link_ImagesLink", value=page)


@pytest.mark.parametrize(
    ("uri", "page"),
    [
        (
            "s3://my_s3@bucket/covers/a b.png",
            "https://console.aws.amazon.com/s3/object/bucket?prefix=covers/a%20b.png",
        ),
        ("s3a://bucket/x@y.png", "https://console.aws.amazon.com/s3/object/bucket?prefix=x%40y.png"),
        ("gs://bucket/covers/ü.png", "https://storage.cloud.google.com/bucket/covers/%C3%BC.png"),
        ("gcs://my_gcs@bucket/1?2#3.png", "https://storage.cloud.google.com/bucket/1%3F2%233.png"),
        ("https://cdn.example.com/a.png", "https://cdn.example.com/a.png"),
        ("https://user:secret@cdn.example.com/a@b.png", "https://cdn.example.com/a@b.png"),
        ("file:///data/images/a.png", ""),
        ("abfs://my_azure@container/a.png", ""),
        ("memory://images/a.png", ""),
    ],
)
def test_a_stored_file_is_linked_where_a_browser_can_open_it(uri: str, page: str) -> None:
    assert stored_page(uri) == page


def test_a_server_that_is_not_the_vendor_s_has_no_page_that_is_known() -> None:
    assert stored_page("s3://minio@bucket/a.png", endpoint="http://minio.corp:9000") == ""


def test_a_folder_knows_the_address_that_its_server_was_given() -> None:
    options = {"endpoint_url": "http://minio.corp:9000", "skip_instance_cache": True}
    task = a_task()

    show_stored(task, "s3://bucket/a.png", ObjectFolder(MemoryFileSystem(**options), "bucket", "s3://bucket"))
    assert told(task) == {}

    show_stored(task, "s3://bucket/a.png", ObjectFolder(MemoryFileSystem(), "bucket", "s3://bucket"))
    assert told(task)["Stored result"] == "https://console.aws.amazon.com/s3/object/bucket?prefix=a.png"


# The operators.


@pytest.fixture
def on_google(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Let folders of Google Cloud Storage lie on this disk; return one's address."""

    class Folder(LocalFolder):
        def __init__(self, uri: str) -> None:
            super().__init__(tmp_path / uri.partition("://")[2])
            self.uri = uri

    monkeypatch.setattr(object_storage, "open_folder", Folder)
    return "gs://my_gcs@bucket/covers"


def test_an_image_is_linked_when_it_is_stored(local: LocalService, on_google: str) -> None:
    task = BitDanceTextToImageOperator(
        task_id="image", prompt="A teapot", size="256*256", output_path=f"{on_google}/teapot"
    )

    task.execute(context())

    page = "https://storage.cloud.google.com/bucket/covers/teapot.png"
    assert told(task) == {"Stored result": page}


def test_a_batch_s_manifest_is_linked_also_where_the_task_then_fails(
    local: LocalService, on_google: str
) -> None:
    local.add_fault(on="submit", kind="failed", times=1)
    task = BitDanceBatchOperator(
        task_id="image", items=["A teapot", "A mug"], size="256*256", output_path=f"{on_google}/"
    )

    with pytest.raises(ItemsFailedError):
        task.execute(context())

    page = told(task)["Stored result"]
    assert page.startswith("https://storage.cloud.google.com/bucket/covers/")
    assert page.endswith(".manifest.jsonl")
