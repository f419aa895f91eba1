"""Fixtures for the tests of your Dags, which pytest finds by itself: see docs/how-to/testing.md.

Every pytest run where this package is installed imports this module, so it imports nothing that costs time:
the service, FastAPI and uvicorn are loaded when a test asks for a fixture.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from airflow_provider_bitdance.local import LocalService, Options


@pytest.fixture
def bitdance_service_options() -> Options:
    """How ``bitdance_service`` behaves. Write a fixture of this name to change it."""
    from airflow_provider_bitdance.local import Options

    return Options()


@pytest.fixture
def bitdance_service(
    bitdance_service_options: Options, monkeypatch: pytest.MonkeyPatch
) -> Iterator[LocalService]:
    """Run a local WaveSpeed-compatible service, to which the connection ``bitdance_default`` leads.

    It starts empty and stops with the test. A task that has another ``conn_id`` needs one more line:
    ``monkeypatch.setenv("AIRFLOW_CONN_<CONN_ID>", bitdance_service.connection)``.
    """
    try:
        from airflow_provider_bitdance.local import running_service
    except ModuleNotFoundError as missing:
        pytest.fail(
            f"The fixture bitdance_service needs {missing.name}: "
            "pip install 'airflow-provider-bitdance[local]'",
            pytrace=False,
        )
    with running_service(bitdance_service_options) as service:
        monkeypatch.setenv("AIRFLOW_CONN_BITDANCE_DEFAULT", service.connection)
        yield service
