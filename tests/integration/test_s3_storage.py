"""Folders and journals on a real S3 server: what holds on a disk holds there, between processes, too."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor

import pytest

from airflow_provider_bitdance.exceptions import FencedError, StorageError
from airflow_provider_bitdance.maintenance.prune import CLOSED_FOR, PruneReport, Pruning
from airflow_provider_bitdance.records import Journal
from airflow_provider_bitdance.storage import ObjectFolder, check_writable
from tests.s3 import S3Server
from tests.suites.storage import FolderSuite, Place, RaceSuite, WholeSuite
from tests.unit.maintenance.support import Office
from tests.unit.support import START, Crash, a_writer

WRITERS, ENTRIES = 3, 12
CLOSED_PORT = "http://127.0.0.1:9"


class TestOnS3(FolderSuite, RaceSuite, WholeSuite):
    # SeaweedFS looks once a second whether a lock has become free, as soon as three wait for one.
    racers, rounds = 4, 5

    @pytest.fixture
    def place(self, s3: S3Server) -> Place:
        path = s3.new_path()
        return Place(s3.folder(f"{path}/records/"), lambda: set(s3.files(path)))


def test_what_one_worker_writes_another_sees_at_once(s3: S3Server) -> None:
    """fsspec's handles remember listings, and Airflow has one handle for a whole process."""
    path = s3.new_path()
    handle = s3.filesystem()
    here, there = ObjectFolder(handle, path, "s3://here"), s3.folder(path)
    assert (here.read("a/x"), here.size("a/x")) == (None, None)
    there.replace("a/x", b"123")
    assert (here.read("a/x"), here.size("a/x")) == (b"123", 3)
    assert handle.ls(f"{path}/a") == [f"{path}/a/x"]
    there.replace("a/x", b"12345")
    assert (here.read("a/x"), here.size("a/x")) == (b"12345", 5)
    there.remove("a/x")
    assert (here.read("a/x"), here.size("a/x")) == (None, None)


class DyingFolder(ObjectFolder):
    """Its process dies in the middle of a removal: all files but the first one are gone."""

    def _remove_all(self, folder: str, names: list[str]) -> None:
        super()._remove_all(folder, names)
        raise Crash(folder)


def test_what_a_killed_prune_left_of_a_journal_on_s3_is_removed_by_the_next(s3: S3Server) -> None:
    office, path = Office(), s3.new_path()
    office.task()
    office.wait(days=31)
    folder = s3.folder(path)
    for name, data in office.disk.items():
        if name.startswith(f"{office.folder.uri}/"):
            folder.create(name.removeprefix(f"{office.folder.uri}/"), data)

    def prune(records: ObjectFolder) -> PruneReport:
        return Pruning(records, office.open_folder, dry_run=False, clock=office.clock).run()

    with pytest.raises(Crash):
        prune(DyingFolder(s3.filesystem(), path, folder.uri))
    assert [name.rpartition("/")[2] for name in folder.names("jobs")] == ["000001.json"]
    office.wait(seconds=CLOSED_FOR)
    assert prune(s3.folder(path)).findings == ()
    assert folder.names("jobs") == []


@pytest.mark.parametrize("write", [ObjectFolder.create, ObjectFolder.replace])
def test_an_image_on_s3_has_its_media_type_so_that_a_browser_shows_it(
    s3: S3Server, write: Callable[[ObjectFolder, str, bytes], None]
) -> None:
    path, filesystem = s3.new_path(), s3.filesystem()
    names = ["a.png", "a.jpg", "covers/a.webp", "a.json"]
    for name in names:
        write(s3.folder(path), name, b"123")
    kinds = [filesystem.info(f"{path}/{name}", refresh=True).get("ContentType") for name in names]
    assert kinds[:3] == ["image/png", "image/jpeg", "image/webp"]
    assert "image" not in kinds[3]


def write_entries(server: S3Server, path: str, token: str) -> list[int]:
    """Be one worker: write entries, one number after the other, and return the numbers that were ours."""
    journal = Journal(server.folder(path), a_writer(token=token))
    won = []
    while journal.load().number < ENTRIES:
        try:
            won.append(journal.claim(START, START).number)
        except FencedError:
            continue
    return won


def threads() -> Executor:
    return ThreadPoolExecutor(WRITERS)


def processes() -> Executor:
    return ProcessPoolExecutor(WRITERS, mp_context=multiprocessing.get_context("spawn"))


@pytest.mark.parametrize("workers", [threads, processes])
def test_of_several_writers_of_a_journal_exactly_one_wins_each_number(
    s3: S3Server, workers: type[Executor]
) -> None:
    path = s3.new_path()
    tokens = [f"writer-{number}" for number in range(WRITERS)]
    with workers() as pool:
        won = list(pool.map(write_entries, [S3Server(s3.url, s3.bucket)] * WRITERS, [path] * WRITERS, tokens))

    claims = [(number, token) for token, numbers in zip(tokens, won, strict=True) for number in numbers]
    assert sorted(number for number, _ in claims) == list(range(1, len(claims) + 1))
    entries = [json.loads(data) for data in s3.files(path).values()]
    assert {entry["number"]: entry["writer"]["token"] for entry in entries} == dict(claims)
    assert len(claims) >= ENTRIES


def test_a_writer_whose_answer_was_lost_finds_its_own_entry(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """s3fs repeats a write that may have arrived; the repetition is refused."""
    folder = s3.folder(s3.new_path())
    create = folder.create

    def twice(name: str, data: bytes) -> None:
        create(name, data)
        create(name, data)

    monkeypatch.setattr(folder, "create", twice)
    journal = Journal(folder, a_writer())
    assert journal.claim(START, START).number == 1


FAULTS = {
    "wrong credentials": ({"secret": "wrong"}, "Forbidden|signature", "Check the credentials"),
    "nothing at the address": ({"url": CLOSED_PORT}, "Could not connect", "reach this store"),
}


@pytest.mark.parametrize(
    "operation", ["create", "replace", "read", "size", "remove", "is_exclusive", "check"]
)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_store_that_cannot_be_used_is_a_storage_error(s3: S3Server, fault: str, operation: str) -> None:
    handle, what, fix = FAULTS[fault]
    folder = s3.folder(s3.new_path(), **handle)
    calls = {
        "create": lambda: folder.create("x", b"1"),
        "replace": lambda: folder.replace("x", b"1"),
        "read": lambda: folder.read("x"),
        "size": lambda: folder.size("x"),
        "remove": lambda: folder.remove("x"),
        "is_exclusive": folder.is_exclusive,
        "check": lambda: check_writable(folder),
    }
    with pytest.raises(StorageError, match=what) as caught:
        calls[operation]()
    assert fix in str(caught.value)
    assert folder.uri in str(caught.value)
    assert "127.0.0.1" not in str(caught.value)


def test_a_missing_bucket_holds_nothing_and_takes_nothing(s3: S3Server) -> None:
    folder = s3.folder("no-such-bucket/records")
    assert folder.read("x") is None
    assert folder.size("x") is None
    for write in (lambda: folder.create("x", b"1"), lambda: folder.replace("x", b"1"), folder.is_exclusive):
        with pytest.raises(StorageError, match="Create the bucket"):
            write()
