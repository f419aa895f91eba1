"""The service's description of itself, at ``/openapi.json``.

Every route says here what it takes and what it responds. Responses are described by the types that
``responses.py`` returns, bodies by the classes that check them; nothing is described twice. FastAPI does not
check the bodies itself, for its messages are not the API's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Final, cast

from fastapi import Depends, FastAPI
from pydantic import TypeAdapter
from starlette.responses import JSONResponse, Response

from airflow_provider_bitdance.local import schemas

API: Final = "/api/v3"
ADMIN: Final = "/admin"
SCHEMAS: Final = "#/components/schemas/"

ABOUT: Final = """\
A local stand-in for the WaveSpeed v3 API, with pictures and money that are not real.

Paths under /api/v3 and /outputs are WaveSpeed's; those under /admin are the stand-in's own.
"""


class DescribedApp(FastAPI):
    """An application whose routes describe themselves."""

    def __init__(self) -> None:
        super().__init__(
            title="Local BitDance service", version="3", description=ABOUT, docs_url=None, redoc_url=None
        )
        self._bodies: dict[str, Any] = {}

    def add(
        self,
        method: str,
        path: str,
        endpoint: Callable[..., Any],
        response: Any = None,
        *,
        files: tuple[str, ...] = (),
        body: Any = None,
        status: int = 200,
        refuses: tuple[int, ...] = (),
        before: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Add a route.

        :param endpoint: returns a ready response; its docstring is the summary.
        :param response: type of the JSON response, for API paths that of its ``data``; None for no JSON.
        :param files: media types of a response that is a file.
        :param body: type of the JSON body; None for none.
        :param status: HTTP status of a good response.
        :param refuses: HTTP statuses of error envelopes, besides 400 for a body and 401 for API paths.
        :param before: is awaited before anything of the request is read.
        """
        is_api = path.startswith(API)
        responses = _errors((*((401,) if is_api else ()), *((400,) if body is not None else ()), *refuses))
        if response is not None or files:
            responses[status] = _good_response(response, files, in_envelope=is_api)
        self.add_api_route(
            path,
            endpoint,
            methods=[method],
            summary=(endpoint.__doc__ or "").removesuffix("."),
            description="",  # FastAPI takes the docstring for it, too.
            status_code=status,
            responses=responses,
            dependencies=[Depends(before)] if before is not None else [],
            openapi_extra=self._request(body, is_api=is_api),
            response_class=JSONResponse if response is not None else Response,
            response_model=None,  # responses are built, not validated
        )

    def _request(self, body: Any, *, is_api: bool) -> dict[str, Any]:
        """Describe what a request brings: the key, and a JSON body."""
        extra: dict[str, Any] = {"security": [{"key": []}]} if is_api else {}
        if body is not None:
            json_body = {"application/json": {"schema": self._schema(body)}}
            extra["requestBody"] = {"required": True, "content": json_body}
        return extra

    def openapi(self) -> dict[str, Any]:
        """Make the description, once."""
        if self.openapi_schema is None:
            described = super().openapi()
            components = described.setdefault("components", {})
            components["schemas"] = components.get("schemas", {}) | self._bodies
            components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            for operations in described["paths"].values():
                for operation in operations.values():
                    _drop_validation(operation["responses"])
            for name in ("HTTPValidationError", "ValidationError"):
                components["schemas"].pop(name, None)
        assert self.openapi_schema is not None
        return self.openapi_schema

    def _schema(self, body: Any) -> dict[str, Any]:
        schema = TypeAdapter(body).json_schema(ref_template=SCHEMAS + "{model}")
        self._bodies |= schema.pop("$defs", {})
        return schema


def _errors(statuses: tuple[int, ...]) -> dict[int | str, dict[str, Any]]:
    return {code: {"model": schemas.Error, "description": HTTPStatus(code).phrase} for code in statuses}


def _good_response(response: Any, files: tuple[str, ...], *, in_envelope: bool) -> dict[str, Any]:
    if files:
        file = {"schema": {"type": "string", "format": "binary"}}
        return {"content": dict.fromkeys(files, file), "description": "Done"}
    model = cast("Any", schemas.Envelope)[response] if in_envelope else response
    return {"model": model, "description": "Done"}


def _drop_validation(responses: dict[str, Any]) -> None:
    """Take out FastAPI's own 422, which no route here sends."""
    if "HTTPValidationError" in str(responses.get("422")):
        del responses["422"]
