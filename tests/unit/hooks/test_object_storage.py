"""Folders as users write their addresses."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from airflow_provider_bitdance.exceptions import InputError, UnsafeFileError
from airflow_provider_bitdance.hooks import object_storage
from airflow_provider_bitdance.hooks.object_storage import open_folder
from airflow_provider_bitdance.storage import LocalFolder


@pytest.mark.parametrize("form", ["{}", "file://{}", "{}/"])
def test_a_path_on_a_disk_is_a_local_folder(form: str, tmp_path: Path) -> None:
    folder = open_folder(form.format(tmp_path))
    assert isinstance(folder, LocalFolder)
    folder.create("x", b"1")
    assert (tmp_path / "x").read_bytes() == b"1"


@pytest.mark.parametrize("form", ["{}/.bitdance", "file://{}/.bitdance/"])
def test_records_in_an_output_folder_are_not_reached_through_a_link(form: str, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "outside" / "receipts").mkdir(parents=True)
    (tmp_path / "outside" / "receipts" / "theirs.json").write_bytes(b"{}")
    (tmp_path / "images" / ".bitdance").symlink_to(tmp_path / "outside")
    folder = open_folder(form.format(tmp_path / "images"))
    for use in (
        lambda: folder.create("receipts/x.json", b"1"),
        lambda: folder.replace("receipts/x.json", b"1"),
        lambda: folder.read("receipts/theirs.json"),
        lambda: folder.size("receipts/theirs.json"),
        lambda: folder.remove("receipts/theirs.json"),
        lambda: folder.names("receipts"),
    ):
        with pytest.raises(UnsafeFileError, match=rf"{tmp_path}/images/\.bitdance is a link"):
            use()
    assert [path.name for path in (tmp_path / "outside").rglob("*.json")] == ["theirs.json"]


def test_records_in_an_output_folder_that_is_a_link_itself_are_read_and_written(tmp_path: Path) -> None:
    (tmp_path / "mounted").mkdir()
    (tmp_path / "images").symlink_to(tmp_path / "mounted")
    folder = open_folder(f"{tmp_path}/images/.bitdance")
    folder.create("receipts/x.json", b"1")
    assert folder.uri == f"file://{tmp_path}/images/.bitdance"
    assert folder.names("receipts") == ["receipts/x.json"]
    assert (tmp_path / "mounted" / ".bitdance" / "receipts" / "x.json").read_bytes() == b"1"


@pytest.mark.parametrize("uri", ["file://data/images", "file://conn@data/images"])
def test_a_file_uri_with_a_host_is_refused(uri: str) -> None:
    with pytest.raises(InputError, match="not an absolute path"):
        open_folder(uri)


@pytest.mark.parametrize(
    ("uri", "fix"),
    [
        ("s3://bucket/x", r"airflow-provider-bitdance\[s3\]"),
        ("s3a://bucket/x", r"airflow-provider-bitdance\[s3\]"),
        ("gs://bucket/x", r"pip install 'airflow-provider-bitdance\[gcs\]' on every worker"),
        ("gcs://bucket/x", r"airflow-provider-bitdance\[gcs\]"),
        ("abfs://container/x", r"pip install 'airflow-provider-bitdance\[azure\]' on every worker"),
        ("abfss://container/x", r"airflow-provider-bitdance\[azure\]"),
        ("adl://container/x", r"airflow-provider-bitdance\[azure\]"),
        ("hdfs://host/x", "Install the Airflow provider for this kind of URI"),
    ],
)
def test_an_address_without_its_provider_is_told_what_to_install(
    uri: str, fix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_registered(scheme: str, *_: object) -> None:
        raise ValueError(f"No filesystem registered for scheme {scheme}")

    monkeypatch.setattr("airflow.sdk.io.store._STORE_CACHE", {})
    monkeypatch.setattr("airflow.sdk.io.get_fs", none_registered)
    with pytest.raises(InputError, match=fix) as caught:
        open_folder(uri)
    assert uri in str(caught.value)


def test_a_connection_that_is_not_defined_is_refused_and_not_passed_over() -> None:
    """Amazon's hook would go on with whatever credentials the worker has."""
    with pytest.raises(InputError, match="'nobody', which is not defined"):
        open_folder("s3://nobody@bucket/x")


def test_a_password_in_a_uri_is_not_shown() -> None:
    with pytest.raises(InputError, match="AKIA1") as refused:
        open_folder("s3://AKIA1:s3cr3t@bucket/x")
    assert "s3cr3t" not in str(refused.value)


@pytest.mark.parametrize("name", ["C#", "C?", "100%", "100%20", "a ", "e\u0301", "\u00e9", "a\\b", "x.", "#"])
def test_a_local_folder_is_the_one_that_was_written(name: str, tmp_path: Path) -> None:
    folder = open_folder(f"{tmp_path}/{name}/")
    folder.create("x", b"1")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert folder.uri == f"file://{tmp_path}/{name}"


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the paths that are written to a store; nothing is."""
    memory, paths = MemoryFileSystem(), list[str]()
    monkeypatch.setattr("airflow.sdk.io.path.ObjectStoragePath.fs", memory)
    monkeypatch.setattr(memory, "pipe_file", lambda path, *_, **__: paths.append(path))
    return paths


@pytest.mark.parametrize("name", ["C#", "C?", "a#b/c", "100%20", "a b", "a//b", "e\u0301", "x.", "a\\b"])
@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_a_stores_folder_is_the_one_that_was_written(scheme: str, name: str, written: list[str]) -> None:
    folder = open_folder(f"{scheme.upper()}://bucket/{name}/")
    folder.create("x", b"1")
    assert written == [f"bucket/{name}/x"]
    assert folder.uri == f"{scheme}://bucket/{name}"


def test_a_buckets_root_is_a_folder(written: list[str]) -> None:
    open_folder("s3://bucket/").create("x", b"1")
    assert written == ["bucket/x"]


def test_every_extra_that_an_error_names_is_one_of_the_package() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    assert set(object_storage._EXTRAS.values()) <= project["optional-dependencies"].keys()
