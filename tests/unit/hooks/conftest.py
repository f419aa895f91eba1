"""A local service, and what makes a hook of a connection to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_bitdance.hooks.bitdance import BitDanceHook
from airflow_provider_bitdance.local import LocalService, Options, running_service
from tests.unit.hooks.support import KEY, Clock, Connect


@pytest.fixture(scope="module")
def shared() -> Iterator[LocalService]:
    """One service for all tests, each of which starts from its reset: a start and a stop cost 0.3 s."""
    with running_service(Options(api_key=KEY, latency=5)) as service:
        yield service


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Return a clock that the hook and the service go by."""
    clock = Clock()
    # The hook's own name for the module: the service's event loop needs the real one.
    own_time = SimpleNamespace(sleep=clock.sleep, monotonic=clock)
    monkeypatch.setattr("airflow_provider_bitdance.hooks.waiting.time", own_time)
    return clock


@pytest.fixture
def service(shared: LocalService, clock: Clock) -> LocalService:
    shared.reset()
    shared.service.clock = clock
    return shared


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Connect:
    """Return what makes a hook of a connection, as an environment variable holds it."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)

    def connect(uri: str | None = None, **fields: Any) -> BitDanceHook:
        given = uri or json.dumps({"conn_type": "bitdance", "password": KEY, **fields})
        monkeypatch.setenv("AIRFLOW_CONN_BITDANCE_TEST", given)
        return BitDanceHook("bitdance_test")

    return connect


@pytest.fixture
def hook(service: LocalService, connect: Connect) -> BitDanceHook:
    return connect(host=service.url)
