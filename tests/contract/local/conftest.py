"""The local service over real sockets. The clock is moved by hand, so that no test waits for a latency."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from airflow_provider_bitdance.local import LocalService, Options, running_service
from tests.contract.local.caller import Caller, Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def shared() -> Iterator[LocalService]:
    """One service for most tests, which start from its reset: a start and a stop cost 0.3 s."""
    with running_service(Options(latency=4)) as local:
        yield local


@pytest.fixture
def caller(shared: LocalService, clock: Clock) -> Iterator[Caller]:
    shared.reset()
    shared.service.clock = clock
    caller = Caller(shared, clock)
    with caller.http:
        yield caller
