"""One client and one poller for all triggers of an account."""

from __future__ import annotations

import asyncio

import pytest

from airflow_provider_bitdance.local import LocalService
from airflow_provider_bitdance.triggers.shared import shared_poller
from tests.builders import connection_to
from tests.unit.support import FakeClock


def test_triggers_of_an_account_share_a_poller_and_the_last_one_closes_its_client(
    local: LocalService, clock: FakeClock
) -> None:
    async def scene() -> None:
        async with (
            shared_poller("bitdance_default", poll_interval=1.0, clock=clock) as first,
            shared_poller("bitdance_default", poll_interval=1.0, clock=clock) as second,
        ):
            assert first is second
        async with shared_poller("bitdance_default", poll_interval=1.0, clock=clock) as third:
            assert third is not first

    asyncio.run(scene())


def test_another_interval_or_another_key_has_a_poller_of_its_own(
    local: LocalService, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", connection_to(local, password="another_key"))

    async def scene() -> None:
        async with (
            shared_poller("bitdance_default", poll_interval=1.0, clock=clock) as first,
            shared_poller("bitdance_default", poll_interval=2.0, clock=clock) as second,
            shared_poller("other", poll_interval=1.0, clock=clock) as third,
        ):
            assert len({id(first), id(second), id(third)}) == 3

    asyncio.run(scene())
