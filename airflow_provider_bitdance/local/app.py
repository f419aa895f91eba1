"""The local service over HTTP: what happens to every request before its route in ``api.py`` or ``admin.py``.

Three kinds of paths: ``/api/v3`` asks for the key as WaveSpeed does, ``/outputs`` asks for none as its CDN
does, and ``/admin`` is ours: no key, and not in the event log.
"""

from __future__ import annotations

from asyncio import sleep
from email.utils import formatdate
from functools import lru_cache

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from airflow_provider_bitdance.local.admin import Admin
from airflow_provider_bitdance.local.api import Api
from airflow_provider_bitdance.local.faulty_responses import OutageError, in_outage
from airflow_provider_bitdance.local.inputs import Refused
from airflow_provider_bitdance.local.openapi import ADMIN, API, DescribedApp
from airflow_provider_bitdance.local.responses import error
from airflow_provider_bitdance.local.service import Event, Service


def create_app(service: Service, *, base_url: str) -> ASGIApp:
    """Build the ASGI application; ``base_url`` is where clients reach it, for the URLs in responses."""
    app = DescribedApp()
    Admin(service).add_to(app)
    Api(service, base_url).add_to(app)

    async def refused(_: Request, reason: Exception) -> Response:
        assert isinstance(reason, Refused)
        return error(reason.status, reason.message)

    async def outage(_: Request, reason: Exception) -> Response:
        assert isinstance(reason, OutageError)
        return in_outage(reason.rule)

    async def no_route(request: Request, reason: Exception) -> Response:
        assert isinstance(reason, HTTPException)
        if request.url.path.startswith(API):
            # The words of WaveSpeed's router, also where a path has other methods.
            return PlainTextResponse("404 page not found", 404)
        response = error(reason.status_code, reason.detail)
        response.headers.update(reason.headers or {})
        return response

    app.add_exception_handler(Refused, refused)
    app.add_exception_handler(OutageError, outage)
    app.add_exception_handler(HTTPException, no_route)
    return _Middleware(app, service)


class _Middleware:
    """Puts the API at its distance, writes the event log, checks the key, and dates every response."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app = app
        self.service = service
        self.key = f"Bearer {service.options.api_key}".encode()
        self.way = service.options.api_latency / 2

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        way = 0.0 if path.startswith(ADMIN + "/") else self.way
        if way:
            await sleep(way)
        _, port = scope.get("client") or ("", 0)
        event = Event(scope["method"], path, self.service.clock(), port=port)
        if not path.startswith(ADMIN + "/"):
            self.service.log.append(event)

        async def dated(message: Message) -> None:
            if message["type"] == "http.response.start":
                if way:
                    await sleep(way)
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
    """Write a time as HTTP does. The service's clock dates its responses too, not the computer's."""
    return formatdate(now, usegmt=True).encode()
