"""``output_path``, ``records_path`` and ``items``: path objects, and what is not filled in."""

from __future__ import annotations

import re
from pathlib import Path, PureWindowsPath
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.sdk import ObjectStoragePath
from upath import UPath

from airflow_provider_bitdance.decorators.bitdance import bitdance_task
from airflow_provider_bitdance.exceptions import InputError
from airflow_provider_bitdance.hooks.runtime import job_of
from airflow_provider_bitdance.local import LocalService
from airflow_provider_bitdance.manifest import read_manifest
from airflow_provider_bitdance.operators.bitdance import BitDanceBatchOperator, BitDanceTextToImageOperator
from tests.builders import context

KINDS = [Path, lambda path: ObjectStoragePath(f"file://{path}"), UPath]


def image(**given: Any) -> BitDanceTextToImageOperator:
    return BitDanceTextToImageOperator(**{"task_id": "image", "prompt": "A cat", "size": "256*256", **given})


def batch(**given: Any) -> BitDanceBatchOperator:
    return BitDanceBatchOperator(**{"task_id": "image", "items": ["A cat"], "size": "256*256", **given})


@pytest.mark.parametrize("kind", KINDS, ids=["Path", "ObjectStoragePath", "UPath"])
def test_a_path_object_that_loses_nothing_is_its_text(local: LocalService, tmp_path: Path, kind: Any) -> None:
    (tmp_path / "items.csv").write_text("key,prompt\ncat,A cat\n")

    one = image(output_path=kind(tmp_path / "one.png"), records_path=kind(tmp_path / "records"))
    many = batch(output_path=kind(tmp_path / "many"), items=kind(tmp_path / "items.csv"))

    assert one.execute(context())["uri"] == f"file://{tmp_path}/one.png"
    result = many.execute(context())
    (row,) = read_manifest(kind(result["manifest"].removeprefix("file://")))
    assert row.uri == f"file://{tmp_path}/many/cat.png"
    assert (tmp_path / "records" / "receipts").is_dir()


def test_the_connection_of_an_object_storage_path_stays() -> None:
    path = ObjectStoragePath("s3://bucket/covers", conn_id="my_s3")
    assert batch(output_path=path).output_path == "s3://my_s3@bucket/covers"


def test_a_path_object_is_a_template_as_its_text_is() -> None:
    task = image(output_path=Path("/data/{{ ds }}/cover.png"))
    task.render_template_fields({"ds": "2026-01-01"})  # type: ignore[typeddict-item]
    assert task.output_path == "/data/2026-01-01/cover.png"


@pytest.mark.parametrize(
    ("path", "wrong", "right"),
    [
        (Path("/data/covers/"), "drop a trailing slash", '"/data/covers/" for a folder'),
        (Path("/data/covers"), "drop a trailing slash", '"/data/covers.png" for a file'),
        (ObjectStoragePath("s3://bucket/covers"), "drop a trailing slash", '"s3://bucket/covers/" for'),
        (Path("/data/{{ ds }}/"), "drop a trailing slash", '"/data/{{ ds }}/" for a folder'),
        (Path("s3://bucket/cover.png"), "collapsed two slashes into one", "'s3://bucket/cover.png'"),
        (UPath("s3://bucket/cover.png", key="s3cr3t"), "options", "s3://conn_id@"),
        (ObjectStoragePath("s3://bucket/cover.png?versionId=1"), "options", "s3://conn_id@"),
        (Path("covers/cover.png"), "not an absolute path", "an absolute path or a URI"),
        (PureWindowsPath("C:/images/cover.png"), "not an absolute path", "an absolute path or a URI"),
        (Path("/data/../cover.png"), '".."', "an absolute path or a URI"),
    ],
)
def test_a_path_object_that_says_less_than_its_text_is_refused_when_the_dag_is_parsed(
    path: Any, wrong: str, right: str
) -> None:
    with pytest.raises(InputError, match="output_path") as refused:
        image(output_path=path)

    assert wrong in refused.value.what
    assert right in str(refused.value.allowed)
    assert "s3cr3t" not in str(refused.value)


@pytest.mark.parametrize("field", ["output_path", "records_path", "items"])
def test_every_path_of_a_batch_is_checked_when_the_dag_is_parsed(field: str) -> None:
    with pytest.raises(InputError, match=f"{field} is "):
        batch(**{"output_path": "/data/x/", field: Path("s3://bucket/x.csv")})


@pytest.mark.parametrize("field", ["output_path", "records_path", "items"])
@pytest.mark.parametrize("given", [False, 0, True, 5, 1.5, b"/data/x/"])
def test_a_path_that_is_no_text_is_refused_when_the_dag_is_parsed(field: str, given: object) -> None:
    with pytest.raises(InputError, match=f"{field} is {given!r}. Allowed: text"):
        batch(**{"output_path": "/data/x/", field: given})


def test_a_functions_path_object_names_a_file_or_is_refused() -> None:
    def draw() -> str:
        return "A cat"

    with pytest.raises(InputError, match="drop a trailing slash"):
        bitdance_task(draw, output_path=Path("/data/covers"))()


def test_a_path_object_that_a_task_before_returned_is_checked_before_anything_is_bought(
    local: LocalService, tmp_path: Path
) -> None:
    task = image(output_path="as if it were an XCom")
    task.output_path = ObjectStoragePath(f"file://{tmp_path}/covers")

    with pytest.raises(AirflowFailException, match=r"drop a trailing slash.*Nothing was charged"):
        task.execute(context())

    assert local.requests() == []


@pytest.mark.parametrize(
    ("left", "path"),
    [
        ("{{ ds }}", "/data/{{ ds }}/"),
        ("{% if x %}", "/data/{% if x %}a/"),
        ("{{", "/data/{{/"),
        ("{product}", "/data/{product}/"),
        ("{key}", "s3://bucket/{key}.png"),
        ("{product name}", "/data/{product name}/"),
        ("{Größe-1}", "/data/{Größe-1}/"),
        ("{# c #}", "/data/{# c #}/"),
        ("{}", "/data/{}/"),
    ],
)
@pytest.mark.parametrize("field", ["output_path", "records_path", "items"])
def test_a_path_in_which_something_is_not_filled_in_is_refused_before_anything_is_bought(
    local: LocalService, tmp_path: Path, field: str, left: str, path: str
) -> None:
    """As ``.expand(output_path=["/data/{{ ds }}/"])`` gives it, which Airflow does not render."""
    given = {"output_path": f"{tmp_path}/", field: path}
    tasks: list[Any] = [batch(**given)] if field == "items" else [batch(**given), image(**given)]
    for task in tasks:
        with pytest.raises(AirflowFailException) as failed:
            task.execute(context())
        assert f"{field} is {path!r}: {left} was not filled in" in str(failed.value)

    assert local.requests() == []


@pytest.mark.parametrize("path", ["s3://bucket/a", "s3://bucket/a/", "abfs://bucket/a/"])
def test_a_batchs_folder_may_end_in_a_slash(path: str) -> None:
    assert batch(output_path=path)._output_folder(job_of(context())) == path.removesuffix("/")


def test_a_batchs_folder_that_ends_in_two_slashes_is_refused() -> None:
    with pytest.raises(InputError, match="its folder ends in"):
        batch(output_path="s3://bucket/a//")._output_folder(job_of(context()))


def test_braces_that_are_no_columns_name_stay_in_a_path(local: LocalService, tmp_path: Path) -> None:
    result = image(output_path=f"{tmp_path}/{{0a1b-22}}/x").execute(context())
    assert result["uri"] == f"file://{tmp_path}/{{0a1b-22}}/x.png"


@pytest.mark.parametrize("left", ["{{ ds }}", "{{ds}}", "{% if x %}"])
def test_a_prompt_with_jinja_that_is_left_is_refused_before_anything_is_bought(
    local: LocalService, tmp_path: Path, left: str
) -> None:
    with pytest.raises(AirflowFailException, match=re.escape(f"prompt has {left}, which was not rendered")):
        image(output_path=f"{tmp_path}/", prompt=f"A cat, {left}").execute(context())

    assert local.requests() == []


@pytest.mark.parametrize("returned", ["A cat, {{ ds }}", ["A cat, {{ ds }}"]])
def test_what_a_function_returns_is_no_template(
    local: LocalService, tmp_path: Path, returned: object
) -> None:
    def draw() -> object:
        return returned

    task = bitdance_task(draw, output_path=f"{tmp_path}/", task_id="image")().operator

    task.execute(context())

    assert [made["prompt"] for made in local.predictions()] == ["A cat, {{ ds }}"]
