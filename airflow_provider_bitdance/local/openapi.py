"""The service's description of itself, at ``/openapi.json``.

Every route says here what it takes and answers. Answers are described by the types that ``answers.py``
returns, bodies by the classes that check them; nothing is described twice. FastAPI does not check the bodies
itself, for its messages are not the API's.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI
from pydantic import TypeAdapter
from starlette.responses import JSONResponse, Response

from airflow_provider_bitdance.local import shapes

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
        *,
        summary: str,
        answer: object = None,
        content: tuple[str, ...] = (),
        body: Any = None,
        status: int = 200,
        refuses: tuple[int, ...] = (),
    ) -> None:
        """Add a route.

        :param method: HTTP method.
        :param path: with its parameters in braces.
        :param endpoint: answers with a ready response.
        :param summary: one line on what it does.
        :param answer: type of the JSON answer; None for one that is no JSON.
        :param content: media types of a response that is no JSON.
        :param body: type of the JSON body; None for none.
        :param status: HTTP status of a good answer.
        :param refuses: HTTP statuses of error envelopes; 401 is understood for API paths.
        """
        of_api = path.startswith(API)
        responses: dict[int | str, dict[str, Any]] = {
            code: {"model": shapes.Error, "description": HTTPStatus(code).phrase}
            for code in ((401, *refuses) if of_api else refuses)
        }
        if answer is not None:
            responses[status] = {"model": answer, "description": "Done"}
        if content:
            file = {"schema": {"type": "string", "format": "binary"}}
            responses[status] = {"content": dict.fromkeys(content, file), "description": "Done"}
        extra: dict[str, Any] = {"security": [{"key": []}]} if of_api else {}
        if body is not None:
            json_body = {"application/json": {"schema": self._schema(body)}}
            extra["requestBody"] = {"required": True, "content": json_body}
        self.add_api_route(
            path,
            endpoint,
            methods=[method],
            summary=summary,
            status_code=status,
            responses=responses,
            openapi_extra=extra,
            response_class=JSONResponse if answer else Response,
            # The answers are built, not validated, and cost nothing on the way out.
            response_model=None,
        )

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


def _drop_validation(responses: dict[str, Any]) -> None:
    """Take out FastAPI's own 422, which no route here answers with."""
    if "HTTPValidationError" in str(responses.get("422")):
        del responses["422"]
