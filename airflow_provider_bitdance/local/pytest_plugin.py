"""Fixtures for the tests of your Dags, which pytest discovers by itself: see docs/how-to/testing.md.

Every pytest run in an environment with this package imports this module, so it stays cheap: the service,
FastAPI and uvicorn are loaded when a test uses a fixture.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from airflow_provider_bitdance.local import LocalService, Options


@pytest.fixture
def bitdance_service_options() -> Options:
    """The options of ``bitdance_service``. Override this fixture to change them."""
    from airflow_provider_bitdance.local import Options

    return Options()


@pytest.fixture
def bitdance_service(
    bitdance_service_options: Options, monkeypatch: pytest.MonkeyPatch
) -> Iterator[LocalService]:
    """Run a local WaveSpeed-compatible service, and set the connection ``bitdance_default`` to it.

    It starts empty and stops with the test. For a task with another ``bitdance_conn_id``, add this line:
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
