"""Where the description of a model comes from: our table, this process, the records, the API's catalogue."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_bitdance.exceptions import InputError, ServerError, StorageError
from airflow_provider_bitdance.hooks import model_lookup
from airflow_provider_bitdance.hooks.bitdance import BitDanceHook
from airflow_provider_bitdance.hooks.model_lookup import KEPT, find_model
from airflow_provider_bitdance.local import LocalService
from airflow_provider_bitdance.wavespeed.image_request import ImageRequest
from airflow_provider_bitdance.wavespeed.model_schema import read_model
from airflow_provider_bitdance.wavespeed.models import BITDANCE_14B, MODELS, Model
from airflow_provider_bitdance.wavespeed.protocol import Call
from airflow_provider_bitdance.wavespeed.responses import Catalogue
from tests.unit.support import FakeClock, MemoryFolder

UNSEEN = "vendor/unseen-v2"
SCHEMA = {"properties": {"prompt": {"type": "string"}, "steps": {"type": "integer", "maximum": 50}}}


class CatalogueHook:
    """A hook whose API has two models, and counts how often it is asked for them."""

    def __init__(self, host: str = "api.wavespeed.ai") -> None:
        self.settings = SimpleNamespace(host=host)
        self.asked = 0
        self.schema: Any = SCHEMA
        self.error: Exception | None = None
        self.more: list[dict[str, Any]] = []

    @contextmanager
    def get_conn(self) -> Iterator[CatalogueHook]:
        yield self

    def send(self, call: Call[Catalogue]) -> Catalogue:
        self.asked += 1
        if self.error:
            raise self.error
        api_schema = {"api_schemas": [{"request_schema": self.schema}]}
        unseen = {"model_id": UNSEEN, "type": "text-to-image", "api_schema": api_schema}
        rows = [unseen, {"model_id": "vendor/talker", "type": "llm"}, {"model_id": "\x1b[31m" * 9000}]
        return call.reads.model_validate({"items": [*rows, *self.more]})


@pytest.fixture(autouse=True)
def _new_process() -> Iterator[None]:
    model_lookup._found.clear()
    yield
    model_lookup._found.clear()


@pytest.fixture
def records() -> MemoryFolder:
    return MemoryFolder({}, "memory://records")


def new_process() -> None:
    model_lookup._found.clear()


def look_up(
    hook: CatalogueHook,
    records: MemoryFolder | None = None,
    *,
    path: Any = UNSEEN,
    clock: FakeClock | None = None,
) -> Model:
    return find_model(path, hook, records, clock=clock or FakeClock())  # type: ignore[arg-type]


@pytest.mark.parametrize("path", MODELS)
def test_a_model_of_our_table_is_not_asked_for(path: str, records: MemoryFolder) -> None:
    hook = CatalogueHook()
    assert look_up(hook, records, path=f" {path} ") is MODELS[path]
    assert hook.asked == 0
    assert records.disk == {}


def test_another_model_is_asked_for_once_a_process_and_a_day(records: MemoryFolder) -> None:
    hook, clock = CatalogueHook(), FakeClock()
    assert look_up(hook, clock=clock) == read_model(UNSEEN, SCHEMA, "text-to-image")
    clock.now += KEPT - 1
    assert look_up(hook, clock=clock) == look_up(hook, records, clock=clock)
    assert hook.asked == 1
    clock.now += 1
    look_up(hook, clock=clock)
    assert hook.asked == 2


def test_what_one_task_has_asked_another_finds_in_the_records_for_a_day(records: MemoryFolder) -> None:
    clock, first, other = FakeClock(), CatalogueHook(), CatalogueHook()
    known = look_up(first, records, clock=clock)
    new_process()
    clock.now += KEPT - 1
    assert look_up(other, records, clock=clock) == known
    assert (first.asked, other.asked) == (1, 0)
    # The day begins when the API is asked, and not when the record is read.
    clock.now += 1
    look_up(other, records, clock=clock)
    assert other.asked == 1
    assert [path for path in records.disk if "models/" in path] == list(records.disk)


@pytest.mark.parametrize(
    "change",
    [
        {"host": "127.0.0.1:8000"},
        {"model": "vendor/another"},
        {"time": "2099-01-01T00:00:00Z"},
        {"format": 99},
        {"format": 0},
        {"kind": "llm"},
        {"request_schema": {}},
        {"request_schema": []},
        {"unknown": 1},
    ],
)
def test_a_record_that_cannot_be_used_is_asked_for_again(
    records: MemoryFolder, change: dict[str, Any]
) -> None:
    hook, clock = CatalogueHook(), FakeClock()
    look_up(hook, records, clock=clock)
    new_process()
    ((path, data),) = records.disk.items()
    records.disk[path] = json.dumps(json.loads(data) | change).encode()
    assert look_up(hook, records, clock=clock) == read_model(UNSEEN, SCHEMA, "text-to-image")
    assert hook.asked == 2
    assert records.disk[path] == data


@pytest.mark.parametrize("data", [b"", b"\xff", b"[" * 100_000, b"{}"])
def test_a_damaged_record_is_asked_for_again(records: MemoryFolder, data: bytes) -> None:
    hook = CatalogueHook()
    look_up(hook, records)
    new_process()
    records.disk.update(dict.fromkeys(records.disk, data))
    look_up(hook, records)
    assert hook.asked == 2


def test_each_host_has_models_of_its_own(records: MemoryFolder) -> None:
    one, other = CatalogueHook(), CatalogueHook("127.0.0.1:8000")
    other.schema = {"properties": {"prompt": {"type": "string"}}}
    assert look_up(one, records) != look_up(other, records)
    new_process()
    assert look_up(one, records) != look_up(other, records)
    assert one.asked == other.asked == 1


class BrokenFolder(MemoryFolder):
    """A store that cannot be reached."""

    def read(self, name: str) -> bytes | None:
        raise StorageError("The store is down")

    def replace(self, name: str, data: bytes) -> None:
        raise StorageError("The store is down")


def test_a_store_that_is_down_costs_a_request_and_nothing_else() -> None:
    hook = CatalogueHook()
    assert look_up(hook, BrokenFolder({}, "memory://records")).path == UNSEEN
    assert hook.asked == 1


def test_a_model_that_there_is_not_is_refused_with_those_of_similar_names() -> None:
    with pytest.raises(InputError, match="WaveSpeed has no model vendor/unseen-v3") as caught:
        look_up(CatalogueHook(), path="vendor/unseen-v3")
    assert caught.value.allowed == f"model: {UNSEEN}"
    with pytest.raises(InputError) as caught:
        look_up(CatalogueHook(), path="zzz/qqq")
    assert caught.value.allowed == "model: a path from wavespeed.ai/models"


def test_an_unknown_path_is_compared_with_a_large_catalogue_in_little_time() -> None:
    """10,000 paths of 200 characters took a minute."""
    hook = CatalogueHook()
    hook.more = [{"model_id": f"v/{'ab' * 45}{number}"} for number in range(9_000)]
    hook.more += [{"model_id": f"v/{'ab' * 95}{number}"} for number in range(900)]
    began = time.process_time()
    with pytest.raises(InputError, match="WaveSpeed has no model"):
        look_up(hook, path="v/" + "ba" * 97)
    assert time.process_time() - began < 15


def test_what_is_refused_is_not_recorded(records: MemoryFolder) -> None:
    hook = CatalogueHook()
    with pytest.raises(InputError, match="makes no image from a prompt"):
        look_up(hook, records, path="vendor/talker")
    hook.schema = {"properties": {"prompt": {"type": "string", "title": "x" * 2**19}}}
    with pytest.raises(InputError, match="schema in GET /models that cannot be used"):
        look_up(hook, records)
    assert records.disk == {}


def test_an_api_that_is_down_is_no_fault_of_the_input() -> None:
    hook = CatalogueHook()
    hook.error = ServerError("The API failed", status=503)
    with pytest.raises(ServerError) as caught:
        look_up(hook)
    assert caught.value.retry_helps
    hook.error = None
    assert look_up(hook).path == UNSEEN


@pytest.mark.parametrize("path", ["wavespeed-ai/prompt-optimizer", "", None, "a/../b", "{{ params.model }}"])
def test_what_is_no_model_of_images_is_refused_without_a_request(path: object) -> None:
    hook = CatalogueHook()
    with pytest.raises(InputError, match="model "):
        look_up(hook, path=path)
    assert hook.asked == 0


def test_the_hook_asks_for_a_model_that_is_not_in_the_table(
    hook: BitDanceHook, service: LocalService, monkeypatch: pytest.MonkeyPatch
) -> None:
    flux = "wavespeed-ai/flux-dev"
    monkeypatch.delitem(MODELS, flux)  # type: ignore[attr-defined]  # as if nobody had added it
    for _ in range(2):
        hook.submit(prompt="a lighthouse", model=flux, size="512*512", seed=7, inputs={"strength": "0.5"})
    assert [task["size"] for task in service.predictions()] == ["512*512"] * 2
    with pytest.raises(InputError, match=r"inputs\.strength is (not a number|not an input)"):
        hook.submit(prompt="a lighthouse", model=flux, inputs={"strength": "much"})
    assert service.bill().billed == 2
    assert len([request for request in service.requests() if request.path.endswith("/models")]) == 1


def test_bitdance_needs_no_request(hook: BitDanceHook, service: LocalService) -> None:
    assert find_model(BITDANCE_14B, hook).path == BITDANCE_14B
    assert ImageRequest.of(prompt="a").model == BITDANCE_14B
    assert service.requests() == []
