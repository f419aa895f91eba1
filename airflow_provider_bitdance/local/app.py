"""The local service over HTTP: the door before the routes of ``api.py``, ``outputs.py`` and ``admin.py``.

Three kinds of paths: ``/api/v3`` asks for the key as WaveSpeed does, ``/outputs`` asks for none as its CDN
does, and ``/admin`` is ours: no key, and not in the event log.
"""

from __future__ import annotations

from email.utils import formatdate
from functools import lru_cache

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from airflow_provider_bitdance.local.admin import Admin
from airflow_provider_bitdance.local.api import Api
from airflow_provider_bitdance.local.inputs import Refused
from airflow_provider_bitdance.local.openapi import ADMIN, API, DescribedApp
from airflow_provider_bitdance.local.outputs import Outputs
from airflow_provider_bitdance.local.service import Event, Service
from airflow_provider_bitdance.local.webhooks import Webhooks
from airflow_provider_bitdance.local.wire import error


def create_app(service: Service, webhooks: Webhooks, *, base_url: str) -> ASGIApp:
    """Build the ASGI application.

    :param service: the state.
    :param webhooks: what the server sends.
    :param base_url: where clients reach it, for the URLs in answers.
    """
    app = DescribedApp()
    Outputs(service).add_to(app)
    Admin(service, webhooks).add_to(app)
    Api(service, base_url).add_to(app)

    async def refused(_: Request, reason: Exception) -> Response:
        assert isinstance(reason, Refused)
        return error(reason.status, reason.message, retry_after=reason.retry_after)

    async def no_route(_: Request, reason: Exception) -> Response:
        assert isinstance(reason, HTTPException)
        answer = error(reason.status_code, reason.detail)
        answer.headers.update(reason.headers or {})
        return answer

    app.add_exception_handler(Refused, refused)
    app.add_exception_handler(HTTPException, no_route)
    return _Door(app, service)


class _Door:
    """Writes the event log, asks for the key, and dates every answer, before any routing."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app = app
        self.service = service
        self.key = f"Bearer {service.options.api_key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        _, port = scope.get("client") or ("", 0)
        event = Event(scope["method"], path, self.service.clock(), port=port)
        if not path.startswith(ADMIN + "/"):
            self.service.log.append(event)

        async def dated(message: Message) -> None:
            if message["type"] == "http.response.start":
                event.status = message["status"]
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"date", _date(int(self.service.clock()))),
                ]
            await send(message)

        if path.startswith(API + "/") and (b"authorization", self.key) not in scope["headers"]:
            return await error(401, "Invalid API key")(scope, receive, dated)
        await self.app(scope, receive, dated)


@lru_cache(maxsize=1)
def _date(now: int) -> bytes:
    """Write a time as HTTP does. The service's clock dates its answers too, not the computer's."""
    return formatdate(now, usegmt=True).encode()
