"""A store that fails from any one write or read on, or altogether: nothing is bought that could not be
recorded, nothing is recorded that did not happen; the next try ends with one image, billed as recorded."""

from __future__ import annotations

import errno
import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_bitdance.exceptions import RecordError, StorageError
from airflow_provider_bitdance.hooks import object_storage, runtime
from airflow_provider_bitdance.local import LocalService
from airflow_provider_bitdance.operators.bitdance import BitDanceTextToImageOperator
from airflow_provider_bitdance.records.receipts import Receipt
from airflow_provider_bitdance.storage import Folder, LocalFolder, ObjectFolder
from airflow_provider_bitdance.storage import local as disk_store
from tests.builders import API_KEY, context, posts
from tests.s3 import ACCESS_KEY, SECRET_KEY, S3Server

CLOSED_PORT = "http://127.0.0.1:9"
IMAGE = "dag.image.run.png"

WRITES = ["create 1", "create 2", "create image", "create receipt", "create 3"]
READS = [
    "read 1",  # is there a journal?
    "read receipt",  # is there an image?
]
"""What one image does to its store, in order."""
READS_TO_REPLACE = [
    *READS,
    "read receipt",  # whose is the file that is there?
    "read 3",  # has another process taken over, before the image is written?
    "read 3",  # and before its receipt is?
]
"""The same where a file is in the image's place."""
PAID = "The image is paid for."
NOT_PAID = "Nothing was charged for it."


# Where things lie


@dataclass
class Store:
    """A place for images, with the records in it, that can be looked at without the package.

    :ivar files: Returns all files below it by name.
    """

    uri: str
    files: Callable[[], dict[str, bytes]]


@pytest.fixture
def disk(tmp_path: Path) -> Store:
    def files() -> dict[str, bytes]:
        return {str(f.relative_to(tmp_path)): f.read_bytes() for f in tmp_path.rglob("*") if f.is_file()}

    return Store(str(tmp_path), files)


@pytest.fixture
def connected(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """Return the S3 server, to which ``my_s3`` leads."""
    monkeypatch.setattr("airflow.sdk.io.store._STORE_CACHE", {})  # Airflow keeps a filesystem for a process
    monkeypatch.setenv("AIRFLOW_CONN_MY_S3", s3.connection())
    return s3


@pytest.fixture
def bucket(connected: S3Server) -> Store:
    path = connected.new_path()
    return Store(f"s3://my_s3@{path}", lambda: connected.files(path))


def execute(store: Store, *, try_number: int = 1, **given: Any) -> dict[str, Any]:
    arguments = {"prompt": "A lighthouse", "size": "256*256", "output_path": f"{store.uri}/", "retries": 2}
    operator = BitDanceTextToImageOperator(task_id="image", **{**arguments, **given})
    return operator.execute(context(try_number=try_number))


def check_records(store: Store) -> None:
    """Whatever is recorded has happened."""
    files = store.files()
    for name, data in files.items():
        if "/receipts/" in name:
            receipt = Receipt.model_validate_json(data)
            assert hashlib.sha256(files[receipt.file]).hexdigest() == receipt.sha256
        if "/jobs/" in name and b'"stored"' in data:
            assert any("/receipts/" in other for other in files)


# Faults, each of the real library or the real system call


Fault = Callable[[Folder], AbstractContextManager[Folder]]


@contextmanager
def patched(owner: object, name: str, error: OSError, folder: Folder) -> Iterator[Folder]:
    def fail(*_: object, **__: object) -> None:
        raise error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, fail)
        yield folder


def full(folder: Folder) -> AbstractContextManager[Folder]:
    return patched(os, "fsync", OSError(errno.ENOSPC, "No space left on device"), folder)


def forbidden_to_write(folder: Folder) -> AbstractContextManager[Folder]:
    return patched(disk_store, "_open", PermissionError(errno.EACCES, "Permission denied"), folder)


def forbidden_to_read(folder: Folder) -> AbstractContextManager[Folder]:
    """Not even whether a file is there can be seen, as in a folder that may not be searched."""
    return patched(LocalFolder, "_opened", PermissionError(errno.EACCES, "Permission denied"), folder)


@dataclass
class Elsewhere:
    """The same path on a server that does not take it."""

    server: S3Server
    changes: dict[str, str] = field(default_factory=dict)
    bucket: str = ""

    def __call__(self, folder: Folder) -> AbstractContextManager[Folder]:
        path = folder.uri.removeprefix("s3://my_s3@")
        if self.bucket:
            path = path.replace(self.server.bucket, self.bucket)
        other = self.server.folder(path, **self.changes)
        other.uri = folder.uri
        return nullcontext(other)


class Interposed:
    """A folder whose operations of some kinds meet a fault from the n-th on."""

    def __init__(self, folder: LocalFolder | ObjectFolder, watch: Subscription) -> None:
        self.uri = folder.uri
        self.endpoint = folder.endpoint
        self._folder = folder
        self._subscription = watch

    def is_exclusive(self) -> bool:
        return self._folder.is_exclusive()

    def create(self, name: str, data: bytes) -> None:
        with self._subscription.at(f"create {_short(name)}", self._folder) as folder:
            folder.create(name, data)

    def replace(self, name: str, data: bytes) -> None:
        with self._subscription.at(f"replace {_short(name)}", self._folder) as folder:
            folder.replace(name, data)

    def read(self, name: str) -> bytes | None:
        with self._subscription.at(f"read {_short(name)}", self._folder) as folder:
            return folder.read(name)

    def size(self, name: str) -> int | None:
        return self._folder.size(name)

    def remove(self, name: str) -> None:
        self._folder.remove(name)

    def names(self, below: str) -> list[str]:
        return self._folder.names(below)


def _short(name: str) -> str:
    """Return an entry's number, "receipt" or "image"."""
    if name.startswith("jobs/"):
        return str(int(Path(name).stem))
    return "receipt" if name.startswith("receipts/") else "image"


@dataclass
class Subscription:
    """Sees all operations, and lets each meet a fault from one of them on, until the fault is taken away.

    :param point: Index among the operations of ``kinds``.
    :ivar bought: How many images were bought when the first operation met the fault.
    """

    service: LocalService
    kinds: tuple[str, ...]
    point: int = -1
    fault: Fault | None = None
    seen: list[str] = field(default_factory=list)
    bought: int = -1

    @contextmanager
    def at(self, operation: str, folder: Folder) -> Iterator[Folder]:
        fails = False
        if operation.split()[0] in self.kinds:
            fails = 0 <= self.point <= len(self.seen)
            if len(self.seen) == self.point:
                self.bought = self.service.bill().billed
            self.seen.append(operation)
        with self.fault(folder) if fails and self.fault else nullcontext(folder) as used:
            yield used


@pytest.fixture
def watched(local: LocalService, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Subscription]:
    def interpose(*args: Any) -> Subscription:
        watch = Subscription(local, *args)
        opened = object_storage.open_folder
        monkeypatch.setattr(object_storage, "open_folder", lambda uri: Interposed(opened(uri), watch))
        return watch

    return interpose


WRITE, READ = ("create", "replace"), ("read",)


@pytest.mark.parametrize(("kinds", "meant"), [(WRITE, WRITES), (READ, READS)], ids=["writes", "reads"])
def test_the_points_of_this_test_are_all_that_there_are(
    local: LocalService,
    disk: Store,
    watched: Callable[..., Subscription],
    kinds: tuple[str, ...],
    meant: list[str],
) -> None:
    watch = watched(kinds)
    execute(disk)
    assert watch.seen == meant


def test_the_points_of_a_replacement_are_all_that_there_are(
    local: LocalService, disk: Store, watched: Callable[..., Subscription]
) -> None:
    Path(disk.uri, IMAGE).write_bytes(b"a file without a receipt")
    watch = watched(READ)
    execute(disk)
    assert watch.seen == READS_TO_REPLACE


def test_only_the_entry_that_says_what_will_be_bought_is_written_before_the_purchase(
    local: LocalService, disk: Store, watched: Callable[..., Subscription]
) -> None:
    assert [_bought_at(local, disk, watched, point) for point in range(2)] == [0, 1]


def _bought_at(local: LocalService, store: Store, watched: Callable[..., Subscription], point: int) -> int:
    watch = watched(WRITE, point, full)
    with pytest.raises(RecordError):
        execute(store)
    watch.fault = None
    return watch.bought


def fails_and_goes_on(local: LocalService, store: Store, watch: Subscription) -> None:
    """The fault comes in the first try, and is gone in the second."""
    with pytest.raises(RecordError) as caught:
        execute(store)
    told = str(caught.value)
    operation = watch.seen[watch.point]
    before = watch.bought == 0
    assert caught.value.retry_helps
    assert store.uri in told
    assert (posts(local), local.bill().billed) == ((0, 0) if before else (1, 1))
    assert (NOT_PAID if before else PAID) in told
    assert (PAID if before else NOT_PAID) not in told
    for secret in (SECRET_KEY, ACCESS_KEY, API_KEY, "127.0.0.1", "/outputs/"):
        assert secret not in told
    check_records(store)

    watch.fault = None
    result = execute(store, try_number=2)
    # Where the id could not be written down, the image is bought anew, and the result says so.
    assert result["possibly_paid"] == (1 if operation == "create 2" else 0)
    assert local.bill().billed == 1 + result["possibly_paid"]
    if operation == "create 2":
        assert "Prediction" in told
        assert "is bought but could not be recorded" in told
    images = {name: data for name, data in store.files().items() if name.endswith(".png")}
    assert list(images) == [IMAGE]
    assert hashlib.sha256(images[IMAGE]).hexdigest() == result["sha256"]
    check_records(store)
    assert not [name for name in store.files() if name.endswith(".tmp")]


@pytest.mark.parametrize("point", range(len(WRITES)), ids=WRITES)
@pytest.mark.parametrize("fault", [full, forbidden_to_write], ids=lambda fault: fault.__name__)
def test_a_disk_that_fails_from_one_write_on(
    local: LocalService, disk: Store, watched: Callable[..., Subscription], fault: Fault, point: int
) -> None:
    fails_and_goes_on(local, disk, watched(WRITE, point, fault))


@pytest.mark.parametrize("point", range(len(READS)), ids=READS)
def test_a_disk_that_fails_from_one_read_on(
    local: LocalService, disk: Store, watched: Callable[..., Subscription], point: int
) -> None:
    fails_and_goes_on(local, disk, watched(READ, point, forbidden_to_read))


@pytest.mark.parametrize("point", range(len(READS), len(READS_TO_REPLACE)))
def test_a_disk_that_fails_from_one_read_of_a_replacement_on(
    local: LocalService, disk: Store, watched: Callable[..., Subscription], point: int
) -> None:
    Path(disk.uri, IMAGE).write_bytes(b"a file without a receipt")
    fails_and_goes_on(local, disk, watched(READ, point, forbidden_to_read))


@pytest.mark.parametrize("point", range(len(WRITES)), ids=WRITES)
@pytest.mark.parametrize(
    "elsewhere",
    [{"changes": {"url": CLOSED_PORT}}, {"changes": {"secret": "wrong"}}, {"bucket": "no-such-bucket"}],
    ids=["unreachable", "wrong credentials", "no bucket"],
)
def test_an_object_store_that_fails_from_one_write_on(
    local: LocalService,
    connected: S3Server,
    bucket: Store,
    watched: Callable[..., Subscription],
    elsewhere: dict[str, Any],
    point: int,
) -> None:
    fails_and_goes_on(local, bucket, watched(WRITE, point, Elsewhere(connected, **elsewhere)))


@pytest.mark.parametrize("point", range(len(READS)), ids=READS)
def test_an_object_store_that_fails_from_one_read_on(
    local: LocalService, connected: S3Server, bucket: Store, watched: Callable[..., Subscription], point: int
) -> None:
    elsewhere = Elsewhere(connected, {"url": CLOSED_PORT})
    fails_and_goes_on(local, bucket, watched(READ, point, elsewhere))


# A store that cannot be used at all


def refused(store: Store, **given: Any) -> str:
    """Return what the user is told."""
    with pytest.raises((AirflowFailException, StorageError)) as caught:
        execute(store, **given)
    return str(caught.value)


@pytest.mark.parametrize("images_elsewhere", [False, True], ids=["images and records", "images only"])
@pytest.mark.parametrize(
    ("changes", "path", "parts"),
    [
        (
            {"url": CLOSED_PORT},
            "",
            ["Could not", "EndpointConnectionError", "reach this store", "may help"],
        ),
        ({"secret": "wrong"}, "", ["Could not", "PermissionError", "Check the credentials", "may help"]),
        ({}, "no-such-bucket", ["Could not write", "bucket does not exist", "Create the bucket", "may help"]),
    ],
    ids=["unreachable", "wrong credentials", "no bucket"],
)
def test_an_object_store_that_cannot_be_used_is_found_out_before_anything_is_bought(
    local: LocalService,
    connected: S3Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, str],
    path: str,
    parts: list[str],
    images_elsewhere: bool,
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_MY_S3", connected.connection(**changes))
    store = Store(f"s3://my_s3@{path or connected.new_path()}", dict)
    records = {"records_path": str(tmp_path)} if images_elsewhere else {}

    told = refused(store, **records)

    assert posts(local) == 0
    for part in [*parts, store.uri, NOT_PAID]:
        assert part in told
    for secret in (SECRET_KEY, ACCESS_KEY, API_KEY, "127.0.0.1"):
        assert secret not in told


def test_a_full_disk_is_found_out_before_anything_is_bought(
    local: LocalService, disk: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with full(LocalFolder(Path("/"))):
        told = refused(disk)
    assert posts(local) == 0
    for part in (
        "Could not write",
        disk.uri,
        "No space left on device",
        "Free some space",
        "may help",
        NOT_PAID,
    ):
        assert part in told


@pytest.mark.parametrize(
    ("uri", "parts"),
    [
        ("s3://not_there@bucket/images", ["'not_there', which is not defined", "Define it"]),
        (
            "gopher://bucket/images",
            ["cannot be opened on this worker", "gopher", "Install the Airflow provider"],
        ),
        (
            "gs://bucket/images",
            ["cannot be opened on this worker", "pip install 'airflow-provider-bitdance[gcs]'"],
        ),
    ],
)
def test_an_address_that_cannot_be_opened_is_refused_for_good(
    local: LocalService, uri: str, parts: list[str]
) -> None:
    told = refused(Store(uri, dict))
    assert posts(local) == 0
    for part in [*parts, uri, "A retry does not help", NOT_PAID]:
        assert part in told


def test_a_missing_s3fs_is_named_with_the_extra_that_brings_it(
    local: LocalService, connected: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    told = refused(Store("s3://my_s3@bucket/images", dict))
    assert posts(local) == 0
    for part in ("s3fs", "pip install 'airflow-provider-bitdance[s3]'", "does not help", NOT_PAID):
        assert part in told


def test_a_missing_amazon_provider_is_named_with_the_extra_that_brings_it(
    local: LocalService, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_registered(scheme: str, *_: object) -> None:
        raise ValueError(f"No filesystem registered for scheme {scheme}")

    monkeypatch.setattr("airflow.sdk.io.store._STORE_CACHE", {})
    monkeypatch.setattr("airflow.sdk.io.get_fs", none_registered)
    told = refused(Store("s3://bucket/images", dict))
    assert posts(local) == 0
    assert "pip install 'airflow-provider-bitdance[s3]'" in told


def test_a_later_try_that_cannot_write_says_that_the_image_is_paid_for(
    local: LocalService, disk: Store, watched: Callable[..., Subscription]
) -> None:
    """The first try dies with the image bought; the second one cannot even claim the job."""
    watch = watched(WRITE, 2, full)
    with pytest.raises(RecordError, match=PAID):
        execute(disk)
    watch.fault = None
    with full(LocalFolder(Path("/"))), pytest.raises(RecordError, match="No space left") as caught:
        execute(disk, try_number=2)
    assert PAID in str(caught.value)
    assert execute(disk, try_number=3)["possibly_paid"] == 0
    assert local.bill().billed == 1


def test_a_later_try_that_cannot_read_does_not_say_that_nothing_was_charged(
    local: LocalService, disk: Store, watched: Callable[..., Subscription]
) -> None:
    watch = watched(WRITE, 2, full)
    with pytest.raises(RecordError):
        execute(disk)
    watch.fault = None
    with forbidden_to_read(LocalFolder(Path("/"))), pytest.raises(RecordError) as caught:
        execute(disk, try_number=2)
    assert "The image may have been charged." in str(caught.value)
    assert local.bill().billed == 1


def test_the_store_is_asked_once_a_job_before_anything_is_bought(
    local: LocalService, disk: Store, watched: Callable[..., Subscription], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, int]] = []
    monkeypatch.setattr(
        runtime, "warn_if_not_exclusive", lambda records, log: asked.append((records.uri, posts(local)))
    )
    watch = watched(WRITE, 2, full)
    with pytest.raises(RecordError):
        execute(disk)
    watch.fault = None
    execute(disk, try_number=2)
    assert asked == [(f"file://{disk.uri}/.bitdance", 0)]


# A stored image that somebody deletes or overwrites


@pytest.mark.parametrize(("place", "left"), [("disk", None), ("disk", b"another tool's"), ("bucket", None)])
def test_a_named_image_that_is_gone_or_was_changed_is_fetched_again_in_the_next_run(
    local: LocalService,
    place: str,
    left: bytes | None,
    request: pytest.FixtureRequest,
) -> None:
    store: Store = request.getfixturevalue(place)
    named = {"output_path": f"{store.uri}/cover.png"}
    first = execute(store, **named)
    folder = object_storage.open_folder(store.uri)
    folder.remove("cover.png")
    if left is not None:
        folder.replace("cover.png", left)

    operator = BitDanceTextToImageOperator(task_id="image", prompt="A lighthouse", size="256*256", **named)
    second = operator.execute(context(run_id="next"))

    assert (posts(local), second["reused"], second["estimated_cost_usd"]) == (1, True, 0.0)
    stored = store.files()["cover.png"]
    assert hashlib.sha256(stored).hexdigest() == second["sha256"] == first["sha256"]
