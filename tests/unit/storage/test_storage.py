"""One folder, on a disk and on fsspec filesystems: exclusive and whole, or an error that names the path."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Any, ClassVar

import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from airflow_provider_bitdance.exceptions import StorageError, UnsafeFileError
from airflow_provider_bitdance.storage import Folder, LocalFolder, ObjectFolder, check_writable, object_store
from airflow_provider_bitdance.storage.base import LARGEST_FILE
from airflow_provider_bitdance.storage.object_store import ATOMIC
from tests.suites.storage import FolderSuite, Place, RaceSuite, WholeSuite


class Atomic(MemoryFileSystem):  # type: ignore[misc]
    """A memory filesystem whose writes are atomic, as S3's are; fsspec's own looks first and writes then."""

    cachable = False
    lock = Lock()

    def __init__(self) -> None:
        super().__init__(skip_instance_cache=True)
        self.store: dict[str, Any] = {}  # fsspec shares one in the whole process
        self.pseudo_dirs = [""]

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        with self.lock:
            super().pipe_file(path, value, mode=mode, **kwargs)


class Forgetful(Atomic):
    """As an old library, or a server that knows no condition: it overwrites."""

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        super().pipe_file(path, value)


def called(name: str, kind: type) -> type:
    """Return a filesystem class that goes by another's full name."""
    module, _, qualname = name.rpartition(".")
    return type(qualname, (kind,), {"__module__": module, "__qualname__": qualname})


def on_disk(tmp_path: Path) -> Folder:
    return LocalFolder(tmp_path / "records")


def on_fsspec_disk(tmp_path: Path) -> Folder:
    path = tmp_path / "records"
    return ObjectFolder(LocalFileSystem(auto_mkdir=True), str(path), f"file://{path}/")


def in_memory(filesystem: MemoryFileSystem) -> ObjectFolder:
    return ObjectFolder(filesystem, "/bucket/records/", "memory://bucket/records/")


def forbid_links(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)


def files_below(path: Path) -> set[str]:
    return {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}


class TestOnDisk(FolderSuite, RaceSuite, WholeSuite):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        return Place(on_disk(tmp_path), lambda: files_below(tmp_path))


class TestOnADiskWithoutLinks(FolderSuite, RaceSuite):
    @pytest.fixture
    def place(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
        forbid_links(monkeypatch)
        return Place(on_disk(tmp_path), lambda: files_below(tmp_path))


class TestOnAnFsspecDisk(FolderSuite):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        return Place(on_fsspec_disk(tmp_path), lambda: files_below(tmp_path))


class TestOnAnAtomicStore(FolderSuite, RaceSuite, WholeSuite):
    @pytest.fixture(params=sorted(ATOMIC))
    def place(self, request: pytest.FixtureRequest) -> Place:
        filesystem = called(request.param, Atomic)()
        folder = in_memory(filesystem)
        return Place(folder, lambda: {name.removeprefix("/bucket/") for name in filesystem.store})


@pytest.mark.parametrize("name", sorted(ATOMIC))
def test_a_store_that_forgets_the_condition_is_found_out(name: str) -> None:
    assert not in_memory(called(name, Forgetful)()).is_exclusive()


def test_a_store_that_may_look_first_and_write_then_is_not_exclusive_and_is_not_asked(tmp_path: Path) -> None:
    assert not on_fsspec_disk(tmp_path).is_exclusive()
    assert not in_memory(Atomic()).is_exclusive()
    assert files_below(tmp_path) == set()


@pytest.mark.parametrize("name", ["s3fs.core.S3FileSystem", "adlfs.spec.AzureBlobFileSystem"])
def test_a_subclass_counts_as_what_it_extends(name: str) -> None:
    class Mine(called(name, Atomic)):  # type: ignore[misc]
        pass

    assert in_memory(Mine()).is_exclusive()


class Remembering(Atomic):
    """Remembers which options it was called with."""

    def __init__(self) -> None:
        super().__init__()
        self.options: list[dict[str, Any]] = []

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        self.options.append(kwargs)
        super().pipe_file(path, value, mode=mode)


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("s3fs.core.S3FileSystem", {"ContentType": "image/webp"}),
        ("gcsfs.core.GCSFileSystem", {"content_type": "image/webp"}),
        ("adlfs.spec.AzureBlobFileSystem", {"content_settings": {"content_type": "image/webp"}}),
        ("of.another.Store", {}),
    ],
)
def test_each_library_is_told_in_its_own_words_what_an_image_is(
    name: str, option: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """https://gcsfs.readthedocs.io and https://github.com/fsspec/adlfs name theirs otherwise than S3 does."""
    azure = ModuleType("azure.storage.blob")
    azure.ContentSettings = dict  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "azure.storage.blob", azure)
    filesystem = called(name, Remembering)()
    folder = in_memory(filesystem)
    folder.create("a.webp", b"1")
    folder.replace("a.webp", b"2")
    folder.replace("a.webp.json", b"3")
    assert filesystem.options == [option, option, {}]


def test_asking_a_store_writes_one_small_file_and_only_once() -> None:
    filesystem = called("s3fs.core.S3FileSystem", Atomic)()
    folder = in_memory(filesystem)
    folder.is_exclusive()
    (file,) = filesystem.store.values()
    written = file.modified
    assert folder.is_exclusive()
    assert list(filesystem.store) == ["/bucket/records/checks/exclusive-creation.txt"]
    assert file.modified == written


class ClientError(Exception):
    """As botocore has it, whose errors s3fs turns into its own."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.response = {"Error": {"Code": code}}


class Refusing(Atomic):
    """Answers creations as s3fs does when S3 says no, and then does as it is told."""

    def __init__(self, *codes: str) -> None:
        super().__init__()
        self.codes = list(codes)
        self.asked = 0

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        self.asked += 1
        if self.codes:
            raise OSError(errno.EINVAL, "no") from ClientError(self.codes.pop(0))
        super().pipe_file(path, value, mode=mode, **kwargs)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    slept: list[float] = []
    monkeypatch.setattr(object_store.time, "sleep", slept.append)
    return slept


@pytest.mark.parametrize("code", ["PreconditionFailed", "412"])
def test_a_failed_condition_means_that_the_file_exists(code: str) -> None:
    with pytest.raises(FileExistsError):
        in_memory(Refusing(code)).create("x", b"1")


def test_a_creation_that_meets_another_is_tried_again_until_one_of_them_has_won(pauses: list[float]) -> None:
    filesystem = Refusing("ConditionalRequestConflict", "409")
    in_memory(filesystem).create("x", b"1")
    assert (filesystem.asked, len(pauses)) == (3, 2)

    with pytest.raises(FileExistsError):
        in_memory(Refusing("ConditionalRequestConflict", "PreconditionFailed")).create("x", b"1")


def test_a_creation_that_meets_others_for_ever_is_a_storage_error(pauses: list[float]) -> None:
    folder = in_memory(Refusing(*["ConditionalRequestConflict"] * 6))
    with pytest.raises(StorageError):
        folder.create("x", b"1")
    assert pauses == sorted(pauses)
    assert sum(pauses) < 2
    folder.create("x", b"1")


@pytest.mark.parametrize("code", ["AccessDenied", "SlowDown", ""])
def test_every_other_refusal_is_a_storage_error_at_once(code: str, pauses: list[float]) -> None:
    with pytest.raises(StorageError):
        in_memory(Refusing(code)).create("x", b"1")
    assert pauses == []


@pytest.mark.parametrize(
    ("error", "fix"),
    [
        (FileNotFoundError("no such bucket"), "Create the bucket"),
        (PermissionError("Forbidden"), "Check the credentials"),
        (OSError(errno.ENOSPC, "No space left on device"), "Free some space"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "Free some space"),
        (ConnectionError("refused"), "reach this store"),
        (TypeError("got an unexpected keyword argument 'mode'"), "Update s3fs, gcsfs or adlfs"),
    ],
)
def test_the_error_says_what_to_do(error: Exception, fix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    filesystem = Atomic()
    monkeypatch.setattr(filesystem, "pipe_file", fail)
    with pytest.raises(StorageError, match=fix) as caught:
        in_memory(filesystem).replace("x", b"1")
    assert "Could not write memory://bucket/records/x: " in str(caught.value)
    assert "A retry may help. Nothing was charged for it." in str(caught.value)


@pytest.mark.parametrize("error", [PermissionError("Forbidden"), FileNotFoundError("a dead link")])
def test_of_a_disk_it_speaks_of_no_credentials_and_no_buckets(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(
        StorageError, match="Give the workers' user read and write access, or choose another path"
    ):
        LocalFolder(tmp_path).replace("x", b"1")


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
    monkeypatch.setattr(os, "replace", no_space)
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


READS: dict[str, Callable[[Folder, str], object]] = {
    "read": lambda folder, name: folder.read(name),
    "size": lambda folder, name: folder.size(name),
}
WRITES: dict[str, Callable[[Folder, str], object]] = {
    "create": lambda folder, name: folder.create(name, b"ours"),
    "replace": lambda folder, name: folder.replace(name, b"ours"),
    "remove": lambda folder, name: folder.remove(name),
}


@pytest.mark.parametrize("operation", [*READS.values(), *WRITES.values()], ids=[*READS, *WRITES])
@pytest.mark.parametrize("name", ["../secret", "a/../../secret", "/etc/passwd", "a//x", "./x", "", "a\0b"])
@pytest.mark.parametrize("kind", [on_disk, on_fsspec_disk])
def test_no_name_leads_out_of_the_folder(
    operation: Callable[[Folder, str], object], name: str, kind: Callable[[Path], Folder], tmp_path: Path
) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    folder = kind(tmp_path)
    folder.replace("a/x", b"1")
    with pytest.raises(UnsafeFileError, match="not the name of a file inside its folder"):
        operation(folder, name)
    assert files_below(tmp_path) == {"secret", "records/a/x"}


def test_a_folder_in_the_place_of_a_file_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "records" / "x").mkdir(parents=True)
    with pytest.raises(UnsafeFileError, match="x is a folder") as caught:
        on_disk(tmp_path).replace("x", b"ours")
    assert not caught.value.retry_helps
    assert files_below(tmp_path) == set()


@pytest.mark.parametrize("operation", [*READS.values(), *WRITES.values()], ids=[*READS, *WRITES])
def test_a_folder_that_is_a_link_is_not_followed(
    operation: Callable[[Folder, str], object], tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x").write_bytes(b"theirs")
    (tmp_path / "records" / "jobs").mkdir(parents=True)
    (tmp_path / "records" / "jobs" / "link").symlink_to(outside)
    with pytest.raises(UnsafeFileError, match="jobs/link is a link"):
        operation(on_disk(tmp_path), "jobs/link/x")
    assert {file.name: file.read_bytes() for file in outside.iterdir()} == {"x": b"theirs"}


def plant(path: Path, kind: str) -> None:
    """Put something in a file's place that is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    match kind:
        case "a link":
            path.symlink_to(path.parent.parent / "outside")
        case "a folder":
            path.mkdir()
        case "a named pipe":
            os.mkfifo(path)
        case "a device or a socket":
            with socket.socket(socket.AF_UNIX) as unix, contextlib.chdir(path.parent):
                unix.bind(path.name)
        case "too large":
            path.touch()
            os.truncate(path, 2**30)


@pytest.mark.parametrize("operation", READS.values(), ids=READS)
@pytest.mark.parametrize("kind", ["a link", "a folder", "a named pipe", "a device or a socket"])
def test_what_is_no_regular_file_is_refused_at_once(
    operation: Callable[[Folder, str], object], kind: str, tmp_path: Path
) -> None:
    (tmp_path / "outside").write_bytes(b"secret")
    plant(tmp_path / "records" / "x", kind)
    with pytest.raises(UnsafeFileError, match=f"records/x is {kind}") as caught:
        operation(on_disk(tmp_path), "x")
    assert "regular file" in str(caught.value)
    assert not caught.value.retry_helps


@pytest.mark.parametrize("kind", [on_disk, on_fsspec_disk])
def test_a_file_that_is_too_large_is_not_read(kind: Callable[[Path], Folder], tmp_path: Path) -> None:
    plant(tmp_path / "records" / "x", "too large")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UnsafeFileError, match="too large"):
        kind(tmp_path).read("x")
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown * 1024 < 4 * LARGEST_FILE


def test_what_is_written_replaces_a_link_and_does_not_follow_it(tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"theirs")
    plant(tmp_path / "records" / "x", "a link")
    folder = on_disk(tmp_path)
    with pytest.raises(FileExistsError):
        folder.create("x", b"ours")
    folder.replace("x", b"ours")
    assert folder.read("x") == b"ours"
    folder.remove("x")
    assert (tmp_path / "outside").read_bytes() == b"theirs"


def test_a_folder_may_itself_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "mounted").mkdir()
    (tmp_path / "records").symlink_to(tmp_path / "mounted")
    folder = on_disk(tmp_path)
    folder.create("jobs/1", b"one")
    assert folder.read("jobs/1") == b"one"
    assert folder.names("jobs") == ["jobs/1"]
    assert (tmp_path / "mounted" / "jobs" / "1").read_bytes() == b"one"


def test_a_listing_follows_no_link_and_ends(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").touch()
    jobs = tmp_path / "records" / "jobs"
    (jobs.joinpath(*["deeper"] * 60)).mkdir(parents=True)
    (jobs / "link").symlink_to(tmp_path / "outside")
    (jobs / "loop").symlink_to(jobs)
    plant(jobs / "pipe", "a named pipe")
    (jobs / "1").touch()
    names = on_disk(tmp_path).names("jobs")
    assert {"jobs/1", "jobs/link", "jobs/loop", "jobs/pipe"} < set(names)
    assert len(names) == 5

    (tmp_path / "records" / "receipts").symlink_to(tmp_path / "outside")
    with pytest.raises(UnsafeFileError, match="receipts is a link"):
        on_disk(tmp_path).names("receipts")


class Ranged(Atomic):
    """As S3: a range of an object that has no bytes is refused."""

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        if not self.store[path].size:
            raise OSError(errno.EINVAL, "The requested range is not satisfiable")
        return bytes(super().cat_file(path, start, end, **kwargs))


def test_an_object_without_bytes_is_read_where_the_store_refuses_its_range() -> None:
    folder = in_memory(Ranged())
    folder.replace("x", b"")
    assert folder.read("x") == b""


def test_a_folder_that_is_there_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    mkdir = os.mkdir

    def counted(path: str, *arguments: Any, **named: Any) -> None:
        made.append(path)
        mkdir(path, *arguments, **named)

    monkeypatch.setattr(os, "mkdir", counted)
    folder = LocalFolder(tmp_path, step="records")
    folder.create("a/b/1", b"1")
    assert made == ["records", "a", "b"]
    folder.create("a/b/2", b"2")
    folder.replace("a/b/1", b"3")
    assert made == ["records", "a", "b"]


def test_a_folder_is_removed_whole_and_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").write_text("kept")
    records = LocalFolder(tmp_path / "records")
    records.create("jobs/a/000001.json", b"one")
    (tmp_path / "records/jobs/a/link").symlink_to(elsewhere)
    (tmp_path / "records/jobs/b").symlink_to(elsewhere)

    records.remove_folder("jobs/a")
    with pytest.raises(UnsafeFileError, match="is no folder"):
        records.remove_folder("jobs/b")
    with pytest.raises(UnsafeFileError):
        records.remove_folder("jobs/../../elsewhere")

    assert (elsewhere / "kept").read_text() == "kept"
    assert [each.name for each in (tmp_path / "records/jobs").iterdir()] == ["b"]


class Busy(MemoryFileSystem):  # type: ignore[misc]
    """An S3 that is too busy for some deletes of many: s3fs says nothing of those."""

    cachable = False
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]

    def rm(self, path: Any, recursive: bool = False, maxdepth: int | None = None) -> None:
        super().rm(path[:2], recursive, maxdepth)


def test_what_a_store_did_not_delete_is_an_error() -> None:
    folder = ObjectFolder(Busy(), "/records", "memory://records")
    for number in range(5):
        folder.replace(f"jobs/x/{number}.json", b"{}")
    with pytest.raises(StorageError, match="3 of 5 files"):
        folder.remove_folder("jobs/x")
    assert folder.read("jobs/x/0.json") == b"{}"  # the first one goes last


def test_the_first_file_of_a_folder_is_deleted_last_and_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    deleted: list[list[str]] = []

    class Store(MemoryFileSystem):  # type: ignore[misc]
        cachable = False
        store: ClassVar[dict[str, Any]] = {}
        pseudo_dirs: ClassVar[list[str]] = [""]

        def rm(self, path: Any, recursive: bool = False, maxdepth: int | None = None) -> None:
            deleted.append([each.rpartition("/")[2] for each in path])
            super().rm(path, recursive, maxdepth)

    monkeypatch.setattr(object_store, "DELETED_AT_ONCE", 2)
    folder = ObjectFolder(Store(), "/records", "memory://records")
    for number in range(1, 5):
        folder.replace(f"jobs/x/{number:06}.json", b"{}")
    folder.remove_folder("jobs/x")
    assert deleted == [["000004.json", "000003.json"], ["000002.json"], ["000001.json"]]
    assert folder.names("jobs") == []
