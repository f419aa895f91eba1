"""What a machine says for itself: its stores, its proxy and its certificates."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_bitdance.check.machine import environment, try_store, versions
from airflow_provider_bitdance.exceptions import InputError, StorageError
from airflow_provider_bitdance.storage import LocalFolder
from tests.unit.check.support import DiskFolder
from tests.unit.support import MemoryFolder


class Overwriting(MemoryFolder):
    """A store that lets everybody create."""

    def create(self, name: str, data: bytes) -> None:
        self.replace(name, data)

    def is_exclusive(self) -> bool:
        return False


class Broken(DiskFolder):
    """A store that cannot be listed."""

    def names(self, below: str) -> list[str]:
        raise StorageError("no")


def test_a_disk_lets_one_writer_create_and_nothing_is_left(tmp_path: Path) -> None:
    store = try_store(LocalFolder(tmp_path / "records"))

    assert (store.winners, store.is_exclusive, store.is_listed, store.is_local) == (1, True, True, True)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_store_that_overwrites_is_found_out() -> None:
    store = try_store(Overwriting({}, "mem://disk"))

    assert store.winners > 1
    assert not store.is_exclusive
    assert not store.is_local


def test_a_store_that_fails_is_said_to_and_the_file_is_taken_away() -> None:
    disk: dict[str, bytes] = {}
    store = try_store(Broken(disk, "mem://disk"))

    assert store.error == "StorageError"
    assert disk == {}


def test_a_folder_that_may_not_be_written_is_said_to_be_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    assert try_store(LocalFolder(tmp_path / "file" / "below")).error == "StorageError"


@pytest.mark.parametrize(
    ("variables", "is_ignored"),
    [
        ({}, False),
        ({"REQUESTS_CA_BUNDLE": "/ca.pem"}, True),
        ({"CURL_CA_BUNDLE": "/ca.pem", "SSL_CERT_FILE": __file__}, False),
        ({"SSL_CERT_FILE": __file__}, False),
    ],
)
def test_a_bundle_for_other_programs_only_is_noticed(variables: dict[str, str], is_ignored: bool) -> None:
    found = environment("https://api.wavespeed.ai", variables)

    assert found.has_ignored_bundle is is_ignored
    assert set(found.variables) == variables.keys()


def test_a_certificate_file_that_is_not_there_is_named() -> None:
    with pytest.raises(InputError, match="SSL_CERT_FILE"):
        environment("https://api.wavespeed.ai", {"SSL_CERT_FILE": "/nowhere.pem"})


def test_the_names_of_proxy_variables_are_seen_in_either_case() -> None:
    assert environment("http://127.0.0.1", {"https_proxy": "http://user:pass@proxy"}).variables == (
        "HTTPS_PROXY",
    )


def test_what_runs_here_is_supported() -> None:
    found = versions()

    assert found.is_supported
    assert found.provider
    assert found.airflow
    assert found.httpx
