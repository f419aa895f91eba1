"""Faulty responses: what a :class:`~.faults.ResponseFault` does on the wire.

Some of them break HTTP itself, so they need the connection. ``server.py`` puts its transport into the
request's state under ``transport``, and into ``stopping`` an event that ends long responses when the service
stops.
"""

from __future__ import annotations

import asyncio
import json
import math
import socket
import struct
import zlib
from collections.abc import Callable
from typing import Any, Final

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from airflow_provider_bitdance.local import faults
from airflow_provider_bitdance.local.responses import error

PAGE: Final = b"<!doctype html><html><head><title>Bad gateway</title></head><body>nginx</body></html>"
DRIP_SECONDS: Final = 0.05
"""Between two drops."""
PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
MESSAGES: Final = {
    400: "Invalid request parameters",
    401: "Invalid API key",
    403: "Your account is suspended",
    404: "Not found",
    429: "You have reached your concurrency limit",
    500: "Internal server error",
    502: "Bad gateway",
    503: "Service unavailable",
    504: "Gateway timeout",
}


class OutageError(Exception):
    """A request that falls into an outage.

    :param rule: the outage.
    """

    def __init__(self, rule: faults.Outage) -> None:
        super().__init__("there is an outage")
        self.rule = rule


def in_outage(rule: faults.Outage) -> Response:
    """Make the response to a request in an outage."""
    return _Reset() if rule.response == "reset" else error(503, MESSAGES[503])


def faulty(rule: faults.ResponseFault, whole: Callable[[], Response]) -> Response:
    """Make the faulty response.

    :param rule: what goes wrong.
    :param whole: makes the right response; called only where some of it is used.
    """
    match rule:
        case faults.Status():
            return _status(rule)
        case faults.Redirect():
            return Response(status_code=rule.status, headers={"location": rule.url})
        case faults.Reset():
            return _Reset()
        case faults.Slow():
            return _Delayed(rule.seconds, whole)
        case faults.Drip():
            return _Dripping(rule.seconds, whole())
        case faults.Envelope():
            return JSONResponse({"code": rule.code, "message": rule.message, "data": None})
        case faults.NotFound():
            return error(404, "Prediction not found")
        case faults.TruncatedJson():
            return _half(whole())
        case faults.Bare():
            return JSONResponse(json.loads(bytes(whole().body))["data"])
        case faults.NoId() | faults.UnknownStatus() | faults.NullOutputs() | faults.FailureCode():
            return JSONResponse(_altered(rule, json.loads(bytes(whole().body))))
        case _:
            return _faulty_file(rule, whole)


def _altered(
    rule: faults.NoId | faults.UnknownStatus | faults.NullOutputs | faults.FailureCode,
    response: dict[str, Any],
) -> dict[str, object]:
    """Change the data of a right response, or the envelope around it."""
    data = response["data"]
    match rule:
        case faults.NoId():
            data = {key: value for key, value in data.items() if key not in ("id", "urls")}
        case faults.UnknownStatus():
            data = {**data, "status": rule.status, "outputs": []}
        case faults.NullOutputs():
            data = {**data, "outputs": None}
        case faults.FailureCode():
            return {"code": rule.code, "message": data["error"] or "Content flagged", "data": data}
    return {**response, "data": data}


def _faulty_file(rule: faults.ResponseFault, whole: Callable[[], Response]) -> Response:
    match rule:
        case faults.NotWhole():
            return _half(whole())
        case faults.Truncated():
            return _Truncated(whole())
        case faults.WrongType():
            return Response(PAGE, media_type=rule.media_type)
        case faults.Oversized():
            return _Oversized(rule.bytes, declared=rule.declared)
        case faults.Bomb():
            return Response(bomb(), media_type="image/png")
        case _:
            raise NotImplementedError(rule.kind)


def bomb() -> bytes:
    """Make a valid PNG of a few bytes whose header promises 30000x30000 pixels."""
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 64)), (b"IEND", b""))
    return PNG_SIGNATURE + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


def _status(rule: faults.Status) -> Response:
    if rule.body == "html":
        response = Response(PAGE, rule.status, media_type="text/html")
    elif rule.body == "empty":
        response = Response(status_code=rule.status)
    else:
        response = error(rule.status, rule.message or MESSAGES.get(rule.status, "Error"))
    if rule.retry_after is not None:
        response.headers["retry-after"] = str(rule.retry_after)
    return response


def _half(whole: Response) -> Response:
    body = bytes(whole.body)
    return Response(body[: len(body) // 2], media_type=whole.headers["content-type"])


class _Reset(Response):
    """Resets the connection without a response."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        transport: asyncio.Transport = scope["state"]["transport"]
        # With no time to linger the kernel sends RST, not FIN: what a crashed proxy looks like.
        transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        transport.abort()
        await _gone(receive)


class _Truncated(Response):
    """Sends half a body under the whole one's Content-Length and closes the connection."""

    def __init__(self, whole: Response) -> None:
        super().__init__()
        self.whole = whole

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = bytes(self.whole.body)
        await send({"type": "http.response.start", "status": 200, "headers": self.whole.raw_headers})
        await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
        transport: asyncio.Transport = scope["state"]["transport"]
        transport.close()
        await _gone(receive)


class _Delayed(Response):
    """Sends the right response late."""

    def __init__(self, seconds: float, whole: Callable[[], Response]) -> None:
        super().__init__()
        self.seconds = seconds
        self.whole = whole

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if await stopped_within(self.seconds, scope):
            # The response that was still to come, and its charge, never come.
            return await _abort(scope, receive)
        await self.whole()(scope, receive, send)


class _Dripping(Response):
    """Sends the right response a few bytes at a time."""

    def __init__(self, seconds: float, whole: Response) -> None:
        super().__init__()
        self.seconds = seconds
        self.whole = whole

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = bytes(self.whole.body)
        size = max(1, math.ceil(len(body) * DRIP_SECONDS / max(self.seconds, DRIP_SECONDS)))
        drops = [body[start : start + size] for start in range(0, len(body), size)]
        await send({"type": "http.response.start", "status": 200, "headers": self.whole.raw_headers})
        for drop in drops:
            if await stopped_within(self.seconds / len(drops), scope):
                return await _abort(scope, receive)
            await send({"type": "http.response.body", "body": drop, "more_body": True})
        await send({"type": "http.response.body"})


class _Oversized(Response):
    """Sends zeros until so many bytes are sent or the client hangs up."""

    def __init__(self, size: int, *, declared: bool) -> None:
        super().__init__()
        self.size = size
        self.declared = declared

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        transport: asyncio.Transport = scope["state"]["transport"]
        stopping: asyncio.Event = scope["state"]["stopping"]
        headers = [(b"content-type", b"image/png")]
        if self.declared:
            headers.append((b"content-length", str(self.size).encode()))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        left, chunk = self.size, PNG_SIGNATURE + bytes(65_536)
        while left > 0:
            if stopping.is_set() or transport.is_closing():
                return await _abort(scope, receive)
            await send({"type": "http.response.body", "body": chunk[:left], "more_body": left > len(chunk)})
            left, chunk = left - len(chunk), bytes(65_536)
            await asyncio.sleep(0)


async def stopped_within(seconds: float, scope: Scope) -> bool:
    """Wait so many seconds. Returns at once, and true, when the service stops meanwhile."""
    try:
        await asyncio.wait_for(scope["state"]["stopping"].wait(), seconds)
    except TimeoutError:
        return False
    return True


async def _abort(scope: Scope, receive: Receive) -> None:
    transport: asyncio.Transport = scope["state"]["transport"]
    transport.abort()
    await _gone(receive)


async def _gone(receive: Receive) -> None:
    """Wait until uvicorn knows that the connection is gone; else it would send a 500 or complain."""
    while (await receive())["type"] != "http.disconnect":
        pass
