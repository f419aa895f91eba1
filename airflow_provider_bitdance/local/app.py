"""The local service over HTTP: routes, the key, the event log. What they say is in ``answers.py``.

Three kinds of paths: ``/api/v3`` asks for the key as WaveSpeed does, ``/outputs`` asks for none as its CDN
does, and ``/admin`` is ours: no key, not in the event log, and the reason why the service binds to loopback
only.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Final

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from airflow_provider_bitdance.local import answers, faults, inputs, pictures
from airflow_provider_bitdance.local.service import Event, Prediction, Service
from airflow_provider_bitdance.local.spoiled import error, spoiled

API: Final = "/api/v3"
ADMIN: Final = "/admin"
MEDIA_TYPES: Final[dict[str, pictures.MediaType]] = {
    "png": "image/png",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
}


def create_app(service: Service, *, base_url: str) -> ASGIApp:
    """Build the ASGI application.

    :param service: the state.
    :param base_url: where clients reach it, for the URLs in answers.
    """
    app = FastAPI(title="Local BitDance service", docs_url=None, redoc_url=None)
    _Api(service, base_url).add_to(app)
    _Admin(service).add_to(app)

    async def refused(_: Request, reason: Exception) -> Response:
        assert isinstance(reason, inputs.Refused)
        return error(reason.status, reason.message)

    async def no_route(_: Request, reason: Exception) -> Response:
        assert isinstance(reason, HTTPException)
        return error(reason.status_code, reason.detail)

    app.add_exception_handler(inputs.Refused, refused)
    app.add_exception_handler(HTTPException, no_route)
    return _Door(app, service)


class _Door:
    """Writes the event log and asks for the key, before any routing."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app = app
        self.service = service
        self.key = f"Bearer {service.options.api_key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        if path.startswith(ADMIN + "/"):
            return await self.app(scope, receive, send)
        event = Event(scope["method"], path, self.service.clock())
        self.service.log.append(event)

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                event.status = message["status"]
            await send(message)

        if path.startswith(API + "/") and (b"authorization", self.key) not in scope["headers"]:
            return await error(401, "Invalid API key")(scope, receive, noting)
        await self.app(scope, receive, noting)


class _Api:
    """WaveSpeed's endpoints."""

    def __init__(self, service: Service, base_url: str) -> None:
        self.service = service
        self.base_url = base_url

    def add_to(self, app: FastAPI) -> None:
        for method, path, endpoint in (
            ("GET", API + "/predictions/{prediction_id}/result", self.result),
            ("GET", API + "/predictions/{prediction_id}", self.result),
            ("POST", API + "/predictions", self.history),
            ("POST", API + "/predictions/delete", self.delete),
            ("GET", API + "/balance", self.balance),
            ("POST", API + "/model/price", self.price),
            ("GET", "/outputs/{prediction_id}/{name}", self.output),
            # Last, for it matches every path.
            ("POST", API + "/{model_id:path}", self.submit),
        ):
            _route(app, method, path, endpoint)

    async def submit(self, model_id: str, request: Request) -> Response:
        service = self.service
        service.price(model_id)
        asked = inputs.checked(inputs.ImageInputs, await _json(request))
        shape = service.faults.shape(asked.prompt)
        rule = service.faults.spoiler("submit", prompt=asked.prompt)

        def create() -> Response:
            return _ok(self._shown(service.submit(model_id, asked, shape)))

        if isinstance(rule, faults.AnySpoiler) and rule.after_create:
            created = create()
            return spoiled(rule, lambda: created)
        return _answer(rule, create)

    async def result(self, prediction_id: str) -> Response:
        task = self.service.find(prediction_id)
        rule = self.service.faults.spoiler(
            "result",
            prompt=task.inputs.prompt,
            reads=task.reads,
            completed=task.status(self.service.clock()) == "completed",
        )
        task.reads += 1
        return _answer(rule, lambda: _ok(self._shown(task)))

    async def history(self, request: Request) -> Response:
        query = inputs.checked(inputs.HistoryQuery, await _json(request))
        rule = self.service.faults.spoiler("history")

        def page() -> Response:
            tasks = self.service.history(query)
            return _ok({"page": query.page, "items": [self._listed(task) for task in tasks]})

        return _answer(rule, page)

    async def delete(self, request: Request) -> Response:
        query = inputs.checked(inputs.DeleteQuery, await _json(request))
        return _ok({"deleted_count": self.service.delete(query.ids)})

    async def balance(self) -> Response:
        rule = self.service.faults.spoiler("balance")
        return _answer(rule, lambda: _ok({"balance": float(self.service.balance())}))

    async def price(self, request: Request) -> Response:
        query = inputs.checked(inputs.PriceQuery, await _json(request))
        return _ok(answers.price(query.model_id, self.service.price(query.model_id)))

    # Not async: FastAPI runs it on a thread, so that drawing does not hold up the API.
    def output(self, prediction_id: str, name: str) -> Response:
        task = self.service.output(prediction_id, name)
        rule = self.service.faults.spoiler("output", prompt=task.inputs.prompt)
        if rule is None:
            self.service.count_download(task)
            return self._picture(task)
        picture = self._picture(task) if isinstance(rule, _NEED_PICTURE) else Response()
        return spoiled(rule, lambda: picture)

    def _shown(self, task: Prediction) -> dict[str, object]:
        return answers.prediction(
            task,
            self.service.clock(),
            base_url=self.base_url,
            picture_format=self.service.options.picture_format,
        )

    def _listed(self, task: Prediction) -> dict[str, object]:
        shown = self._shown(task)
        return {**shown, "input": answers.inputs(task)} if self.service.options.echo_inputs else shown

    def _picture(self, task: Prediction) -> Response:
        media_type = MEDIA_TYPES[self.service.options.picture_format]
        picture = pictures.draw(
            model=task.model,
            prompt=task.inputs.prompt,
            width=task.inputs.width,
            height=task.inputs.height,
            seed=task.seed,
            media_type=media_type,
        )
        return Response(picture, media_type=media_type)


_NEED_PICTURE: Final = (faults.Slow, faults.Truncated, faults.NotWhole)


class _Admin:
    """Ours: the bill, what is behind the predictions, the event log, the faults."""

    def __init__(self, service: Service) -> None:
        self.service = service

    def add_to(self, app: FastAPI) -> None:
        for method, path, endpoint in (
            ("GET", ADMIN + "/bill", self.bill),
            ("GET", ADMIN + "/predictions", self.predictions),
            ("GET", ADMIN + "/requests", self.requests),
            ("GET", ADMIN + "/faults", self.faults),
            ("POST", ADMIN + "/faults", self.add_fault),
            ("DELETE", ADMIN + "/faults", self.clear_faults),
            ("POST", ADMIN + "/reset", self.reset),
        ):
            _route(app, method, path, endpoint)

    async def bill(self) -> Response:
        return JSONResponse(asdict(self.service.bill()))

    async def predictions(self) -> Response:
        return JSONResponse(answers.admin_predictions(self.service))

    async def requests(self) -> Response:
        return JSONResponse([asdict(event) for event in self.service.log])

    async def faults(self) -> Response:
        return JSONResponse([planned.as_json() for planned in self.service.faults.all()])

    async def add_fault(self, request: Request) -> Response:
        try:
            rule = faults.parse(await _json(request))
        except ValueError as bad:
            return error(422, str(bad))
        return JSONResponse(self.service.faults.add(rule).as_json(), 201)

    async def clear_faults(self) -> Response:
        self.service.faults.clear()
        return Response(status_code=204)

    async def reset(self) -> Response:
        self.service.reset()
        return Response(status_code=204)


def _route(app: FastAPI, method: str, path: str, endpoint: Callable[..., Any]) -> None:
    # response_model=None: the answers are built, not validated, and cost nothing on the way out.
    app.add_api_route(path, endpoint, methods=[method], response_model=None)


def _ok(data: answers.Json) -> Response:
    return JSONResponse(answers.envelope(data))


def _answer(rule: faults.Spoiler | None, whole: Callable[[], Response]) -> Response:
    return whole() if rule is None else spoiled(rule, whole)


async def _json(request: Request) -> object:
    try:
        return json.loads(await request.body())
    except (ValueError, RecursionError):
        raise inputs.Refused(400, "Request body must be JSON") from None
