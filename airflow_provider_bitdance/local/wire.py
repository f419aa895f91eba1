"""JSON in and out: what all endpoints share."""

from __future__ import annotations

import json

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from airflow_provider_bitdance.local.inputs import Refused
from airflow_provider_bitdance.local.shapes import Envelope, Error


async def body_of(request: Request) -> object:
    """Decode a request's body, whatever its content type.

    :param request: the request.
    :raises Refused: HTTP 400 when it is no JSON, or holds half a character (``\\ud800``), which no answer
        could repeat.
    """
    try:
        text = (await request.body()).decode()
        body = json.loads(text, parse_float=_number)
        if "\\u" in text:
            json.dumps(body, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise Refused(400, "Request body must be JSON") from None
    return body


def ok(data: object) -> Response:
    """Answer with data in an envelope."""
    return JSONResponse(Envelope(code=200, message="success", data=data))


def error(status: int, message: str, *, retry_after: int | None = None) -> Response:
    """Answer with an error envelope."""
    headers = None if retry_after is None else {"retry-after": str(retry_after)}
    return JSONResponse(Error(code=status, message=message, data=None), status, headers)


def _number(text: str) -> float | int:
    """Read 7.0 as 7, for JSON Schema tells no difference."""
    number = float(text)
    return int(number) if number.is_integer() else number
