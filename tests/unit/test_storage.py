"""One folder, on a disk and on fsspec filesystems: exclusive and whole, or an error that names the path."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Lock
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from airflow_provider_bitdance.api.errors import StorageError
from airflow_provider_bitdance.storage import Folder, LocalFolder, ObjectFolder, at, check_writable


class OneAtATime(MemoryFileSystem):  # type: ignore[misc]
    """A memory filesystem whose writes are atomic, as S3's are; fsspec's own looks first and writes then."""

    cachable = False
    lock = Lock()

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        with self.lock:
            super().pipe_file(path, value, mode=mode, **kwargs)


def on_disk(tmp_path: Path) -> Folder:
    return LocalFolder(tmp_path / "records")


def on_disk_without_links(tmp_path: Path) -> Folder:
    return LocalFolder(tmp_path / "records")


def on_fsspec_disk(tmp_path: Path) -> Folder:
    path = tmp_path / "records"
    return ObjectFolder(LocalFileSystem(auto_mkdir=True), str(path), f"file://{path}/")


def in_memory(tmp_path: Path) -> Folder:
    filesystem = OneAtATime(skip_instance_cache=True)
    filesystem.store = {}  # fsspec shares one store in the whole process
    filesystem.pseudo_dirs = [""]
    return ObjectFolder(filesystem, "/bucket/records/", "memory://bucket/records/")


KINDS: list[Callable[[Path], Folder]] = [on_disk, on_disk_without_links, on_fsspec_disk, in_memory]


def forbid_links(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    if request.param is on_disk_without_links:
        forbid_links(monkeypatch)
    made: Folder = request.param(tmp_path)
    return made


def files_below(path: Path) -> set[str]:
    return {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}


def test_a_created_file_is_read_back(folder: Folder) -> None:
    folder.create("jobs/a/000001.json", b"one")
    assert folder.read("jobs/a/000001.json") == b"one"
    assert folder.size("jobs/a/000001.json") == 3


def test_a_second_creation_fails_and_changes_nothing(folder: Folder) -> None:
    folder.create("jobs/000001.json", b"one")
    with pytest.raises(FileExistsError):
        folder.create("jobs/000001.json", b"two")
    assert folder.read("jobs/000001.json") == b"one"


def test_a_removed_file_can_be_created_anew(folder: Folder) -> None:
    folder.create("x", b"one")
    folder.remove("x")
    folder.create("x", b"two")
    assert folder.read("x") == b"two"


def test_a_replaced_file_holds_the_new_bytes_only(folder: Folder) -> None:
    folder.replace("receipts/x", b"a long first version")
    folder.replace("receipts/x", b"short")
    assert folder.read("receipts/x") == b"short"
    assert folder.size("receipts/x") == 5


def test_an_empty_file_is_a_file(folder: Folder) -> None:
    folder.replace("x", b"")
    assert folder.read("x") == b""
    assert folder.size("x") == 0


def test_what_is_not_there_is_none(folder: Folder) -> None:
    assert folder.read("jobs/nothing") is None
    assert folder.size("jobs/nothing") is None


def test_a_file_that_was_just_written_is_no_longer_missing(folder: Folder) -> None:
    assert folder.size("x") is None
    folder.replace("x", b"1234")
    assert folder.size("x") == 4
    folder.replace("x", b"123456")
    assert folder.size("x") == 6


def test_a_file_may_be_removed_twice(folder: Folder) -> None:
    folder.replace("x", b"1")
    folder.remove("x")
    folder.remove("x")
    assert folder.read("x") is None


def test_the_writable_check_leaves_nothing(folder: Folder, tmp_path: Path) -> None:
    check_writable(folder)
    assert files_below(tmp_path) == set()


def test_a_uri_has_no_slash_at_its_end(folder: Folder) -> None:
    assert at(folder, "a/b").endswith("/records/a/b")


@pytest.mark.parametrize("kind", [on_disk, on_disk_without_links, in_memory], ids=lambda kind: kind.__name__)
def test_of_many_creators_exactly_one_wins_and_its_bytes_stand(
    kind: Callable[[Path], Folder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind is on_disk_without_links:
        forbid_links(monkeypatch)
    folder = kind(tmp_path)
    racers, rounds = 8, 15
    start = Barrier(racers)

    def race(number: int) -> list[bool]:
        won = []
        for turn in range(rounds):
            start.wait(timeout=30)
            try:
                folder.create(f"jobs/{turn}", bytes([number]) * 5000)
            except FileExistsError:
                won.append(False)
            else:
                won.append(True)
        return won

    with ThreadPoolExecutor(racers) as pool:
        wins = list(pool.map(race, range(racers)))
    for turn in range(rounds):
        winners = [number for number in range(racers) if wins[number][turn]]
        assert len(winners) == 1
        assert folder.read(f"jobs/{turn}") == bytes(winners) * 5000


def test_a_reader_never_sees_half_of_a_new_file(tmp_path: Path) -> None:
    folder = on_disk(tmp_path)
    data = b"x" * 500_000
    seen: set[int | None] = set()

    def read_all() -> None:
        while (found := folder.read("x")) is None or len(found) < len(data):
            seen.add(None if found is None else len(found))

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read_all)
        folder.create("x", data)
        reading.result(timeout=30)
    assert seen <= {None}


def test_no_temporary_file_is_left(folder: Folder, tmp_path: Path) -> None:
    folder.create("jobs/1", b"one")
    folder.replace("x", b"two")
    with pytest.raises(FileExistsError):
        folder.create("jobs/1", b"three")
    assert files_below(tmp_path) <= {"records/jobs/1", "records/x"}


def no_space(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("write", ["create", "replace"])
@pytest.mark.parametrize("links", [True, False])
def test_a_full_disk_leaves_nothing_behind(
    write: str, links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not links:
        forbid_links(monkeypatch)
    folder = on_disk(tmp_path)
    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(StorageError, match="No space left") as caught:
        getattr(folder, write)("jobs/1", b"one")
    assert f"{folder.uri}/jobs/1" in str(caught.value)
    assert files_below(tmp_path) == set()


def test_a_disk_without_links_that_fills_up_during_the_second_write_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half an entry would stop every later process."""
    forbid_links(monkeypatch)
    calls: list[int] = []

    def fails_the_second_time(handle: int) -> None:
        calls.append(handle)
        if len(calls) == 2:
            no_space()

    monkeypatch.setattr(os, "fsync", fails_the_second_time)
    with pytest.raises(StorageError):
        on_disk(tmp_path).create("jobs/1", b"one")
    assert len(calls) == 2
    assert files_below(tmp_path) == set()


def test_a_rename_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = on_disk(tmp_path)
    folder.replace("x", b"old")
    monkeypatch.setattr(Path, "replace", no_space)
    with pytest.raises(StorageError):
        folder.replace("x", b"new")
    assert folder.read("x") == b"old"
    assert files_below(tmp_path) == {"records/x"}


OPERATIONS: dict[str, Callable[[Folder], object]] = {
    "create": lambda folder: folder.create("a/x", b"1"),
    "replace": lambda folder: folder.replace("a/x", b"1"),
    "replace at the top": lambda folder: folder.replace("x", b"1"),
    "create at the top": lambda folder: folder.create("x", b"1"),
    "read": lambda folder: folder.read("a/x"),
    "size": lambda folder: folder.size("a/x"),
    "remove": lambda folder: folder.remove("a/x"),
    "check_writable": check_writable,
}


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
@pytest.mark.parametrize("below", ["", "deeper"])
def test_a_folder_that_cannot_be_one_is_a_storage_error_that_names_it(
    operation: Callable[[Folder], object], below: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"not a folder")
    folder = LocalFolder(tmp_path / "file" / below)
    with pytest.raises(StorageError, match="file"):
        operation(folder)


class Broken:
    """A filesystem whose library fails as such libraries do: with a signed URL in the text."""

    def __getattr__(self, name: str) -> Callable[..., object]:
        def fail(*_: object, **__: object) -> object:
            raise RuntimeError("403 for https://acct.blob.example/records/x?sig=SECRET&se=2026")

        return (lambda *_: None) if name == "invalidate_cache" else fail


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_a_library_error_becomes_a_storage_error_with_the_path_and_without_secrets(
    operation: Callable[[Folder], object],
) -> None:
    folder = ObjectFolder(Broken(), "bucket/records", "s3://conn@bucket/records")
    with pytest.raises(StorageError, match="s3://conn@bucket/records/") as caught:
        operation(folder)
    assert "RuntimeError: 403" in str(caught.value)
    assert "SECRET" not in str(caught.value)
    assert caught.value.retry_helps
