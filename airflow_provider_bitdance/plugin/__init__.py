"""The Images tab of task instances and Dag runs in Airflow's UI.

Airflow loads plugins in each of its processes, so this module imports next to nothing: the app is made at its
first request, in the api-server.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from airflow.plugins_manager import AirflowPlugin

__all__ = ["BitDancePlugin", "LazyApp"]

PREFIX = "/bitdance"
OPERATORS = ["BitDanceTextToImageOperator", "BitDanceBatchOperator", "@task.bitdance"]
"""How the UI names the operators whose tasks have images."""

Message = MutableMapping[str, Any]


class LazyApp:
    """An ASGI app that is imported at its first request."""

    def __init__(self) -> None:
        self._app: Callable[..., Awaitable[None]] | None = None

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """Serve a request."""
        if self._app is None:
            from airflow_provider_bitdance.plugin.app import make_app

            self._app = make_app()
        await self._app(scope, receive, send)


def _view(destination: str, path: str, **more: object) -> dict[str, Any]:
    return {
        "name": "Images",
        # Without a slash at its start: Airflow may be below a path of a host.
        "href": f"{PREFIX[1:]}/images/{path}",
        "destination": destination,
        "url_route": f"bitdance-{destination.replace('_', '-')}",
        **more,
    }


class BitDancePlugin(AirflowPlugin):
    """Adds the tab and the pages that it shows."""

    name = "bitdance"
    fastapi_apps = [{"app": LazyApp(), "url_prefix": PREFIX, "name": "BitDance images"}]  # noqa: RUF012
    external_views = [  # noqa: RUF012
        # Airflow 3.4 shows the tab only where our operators are; earlier ones show it everywhere.
        _view(
            "task_instance",
            "{DAG_ID}/{RUN_ID}/{TASK_ID}/{MAP_INDEX}",
            applies_to={"task_instance.operator_name": OPERATORS},
        ),
        _view("dag_run", "{DAG_ID}/{RUN_ID}"),
    ]
