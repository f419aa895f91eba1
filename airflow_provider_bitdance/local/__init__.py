"""A local service that speaks the WaveSpeed v3 API, for demos and tests without a key and without cost.

It stands apart: nothing else in this package imports it, and it imports nothing else of this package.
Importing it is cheap; FastAPI and uvicorn are loaded when a service is made.

.. code-block:: python

    from airflow_provider_bitdance.local import Options, running_service

    with running_service(Options(latency=2)) as local:
        print(local.url, local.api_key)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_bitdance.local.options import Options
    from airflow_provider_bitdance.local.server import LocalService, running_service

__all__ = ["LocalService", "Options", "running_service"]

_MODULES = {"LocalService": "server", "Options": "options", "running_service": "server"}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
