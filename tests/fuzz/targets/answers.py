"""Answers: what the API, a proxy or a gateway sends back, status, headers and body, to each of the calls."""

from __future__ import annotations

import asyncio
import functools
import gzip
import json
import math
import re
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from airflow_provider_bitdance.exceptions import APIError, BitDanceError, Paid, TransportError
from airflow_provider_bitdance.wavespeed import protocol
from airflow_provider_bitdance.wavespeed.client import AsyncClient, ClientSettings
from airflow_provider_bitdance.wavespeed.image_request import ImageRequest
from airflow_provider_bitdance.wavespeed.responses import Balance, Catalogue, Prediction, Price
from tests.fuzz.cases import Case
from tests.fuzz.mutation import mutated_json, packed
from tests.fuzz.sandbox import Sandbox
from tests.fuzz.target import LONG_PROMPT, SECRET, Target, expect, expect_fit_for_people
from tests.wire import httpx

REQUEST = ImageRequest.of(prompt=LONG_PROMPT, seed=7)
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_PREDICTION = {
    "id": "pred-1",
    "model": "wavespeed-ai/bitdance-14b/text-to-image",
    "input": {"prompt": LONG_PROMPT, "size": "1024*1024", "seed": 7},
    "outputs": ["https://cdn.example/outputs/secret.png"],
    "urls": {"get": "https://api.wavespeed.ai/api/v3/predictions/pred-1/result"},
    "has_nsfw_contents": [False],
    "status": "completed",
    "created_at": "2026-05-28T20:26:40.123456789Z",
    "error": "",
    "executionTime": 1234,
    "timings": {"inference": 1234.5},
}
_FAILED = _PREDICTION | {"status": "failed", "error": f"refused: {LONG_PROMPT} {SECRET}", "outputs": []}
_LINE = {
    "uuid": "bill-1",
    "billing_type": "deduct",
    "price": 0.01,
    "created_at": "2026-05-28T20:26:40Z",
    "prediction": {"uuid": "pred-1"},
}
_SCHEMA = {"api_schemas": [{"request_schema": {"properties": {"prompt": {"type": "string"}}}}]}
CALLS: dict[str, tuple[protocol.Call[Any], list[Any]]] = {
    "submit": (protocol.submit(REQUEST), [_PREDICTION | {"status": "created", "outputs": []}]),
    "poll": (
        protocol.get_prediction("pred-1"),
        [_PREDICTION, _FAILED, _PREDICTION | {"status": "processing"}],
    ),
    "history": (protocol.list_predictions(), [{"page": 1, "items": [_PREDICTION, _FAILED] * 3, "total": 6}]),
    "balance": (protocol.get_balance(), [{"balance": 12.5}]),
    "price": (protocol.get_price(REQUEST), [{"price": 0.01, "discounted_price": 0.008}]),
    "models": (protocol.list_models(), [[{"model_id": "a/b", "api_schema": _SCHEMA}] * 3]),
}
SEEDS = {
    name: (
        *(json.dumps({"code": 200, "message": "success", "data": data}).encode() for data in datas),
        json.dumps({"code": 400, "message": f"Insufficient credits {SECRET}", "data": None}).encode(),
        json.dumps({"code": 429, "message": f"slow down {LONG_PROMPT}"}).encode(),
        json.dumps(datas[0]).encode(),
    )
    for name, (_, datas) in CALLS.items()
}
_PAGES = (
    b"<html><title>502 Bad Gateway</title>" + SECRET.encode() + b"</html>",
    f"404 page not found https://cdn.example/outputs/secret.png {SECRET}".encode(),
    b"data: {}\n\n",
    b"\x00" * 1_000_000,
    b" " * 20_000_000,
    b"9" * 1_000_000,
    b"\x1f\x8b\x08\x00",
)
_STATUSES = (
    200,
    200,
    200,
    200,
    201,
    202,
    204,
    206,
    299,
    300,
    301,
    302,
    304,
    307,
    400,
    401,
    402,
    403,
    404,
    405,
)
_MORE_STATUSES = (
    408,
    409,
    410,
    413,
    418,
    422,
    425,
    429,
    451,
    499,
    500,
    501,
    502,
    503,
    504,
    520,
    524,
    530,
    599,
)
_HEADERS = {
    "Content-Type": (
        "application/json",
        "text/html",
        "application/json; charset=utf-16",
        "x; charset=nonsense",
    ),
    "Retry-After": ("1", "-1", "99999999999", "1e9", "nan", "Wed, 21 Oct 2099 07:28:00 GMT", "soon", "٣"),
    "Date": (
        "Wed, 21 Oct 2026 07:28:00 GMT",
        "Wed, 99 Oct 9999 99:99:99 GMT",
        "x",
        "Fri, 31 Dec 9999 23:59:59 -2300",
    ),
    "Content-Length": ("0", "1", "-1", "x", "99999999999999999999", "٣"),
    "Location": ("https://evil.example/outputs/secret", "/", "//", "\x00", "x" * 5000),
    "Transfer-Encoding": ("chunked", "gzip"),
    "Set-Cookie": ("a=b", "x" * 5000),
}
_CODINGS = (
    "gzip",
    "gzip",
    "gzip",
    "gzip",
    "deflate",
    "br",
    "zstd",
    "identity",
    "gzip, gzip",
    "x-gzip",
    "nonsense",
    "GZIP",
)


@functools.cache
def _bomb() -> bytes:
    """Return a few hundred bytes that two layers of gzip made of 128 MiB."""
    return packed(_single_bomb())


@functools.cache
def _single_bomb() -> bytes:
    return packed(b" " * 2**27)


_PACKINGS: tuple[Callable[[bytes], bytes], ...] = (
    *(bytes, packed, packed, lambda body: packed(body, 2), lambda body: zlib.compress(body, 9)),
    *(lambda body: packed(body)[:-9], lambda _: _bomb(), lambda _: _single_bomb(), lambda _: _single_bomb()),
)


@st.composite
def cases(draw: DrawFn) -> Case:
    call = draw(st.sampled_from(sorted(CALLS)))
    body = draw(st.one_of(mutated_json(SEEDS[call]), mutated_json(SEEDS[call]), st.sampled_from(_PAGES)))
    headers = {
        name: draw(st.sampled_from(values))
        for name, values in _HEADERS.items()
        if draw(st.integers(0, 5)) == 0
    }
    if draw(st.integers(0, 3)) == 0:
        headers["Content-Encoding"] = draw(st.sampled_from(_CODINGS))
        body = draw(st.sampled_from(_PACKINGS))(body)
    return {
        "call": call,
        "status": draw(st.sampled_from(_STATUSES + _MORE_STATUSES)),
        "headers": headers,
        "body": body,
    }


class _Stream(httpx.AsyncByteStream):
    """A body as it comes from the wire, in parts, not decoded."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self._data), 65_536):
            yield self._data[start : start + 65_536]


def check(case: Case, folder: Path, sandbox: Sandbox) -> None:
    call, _ = CALLS[case["call"]]
    sent: list[httpx.Request] = []

    def respond(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        headers = [(name.encode(), value.encode("utf-8")) for name, value in case["headers"].items()]
        return httpx.Response(case["status"], headers=headers, stream=_Stream(case["body"]))

    async def ask() -> Any:
        async with AsyncClient(ClientSettings(SECRET), transport=httpx.MockTransport(respond)) as client:
            return await client.send(call)

    try:
        found = asyncio.run(ask())
    except (APIError, TransportError) as error:
        _check_error(case, error)
        return
    finally:
        expect(len(sent) <= 1, f"{case['call']} is sent more than once", len(sent))
    _check_found(case, found)


def _check_error(case: Case, error: BitDanceError) -> None:
    knows_prompt = bool(CALLS[case["call"]][0].prompt)
    expect_fit_for_people(str(error), "an error about an answer", prompt=LONG_PROMPT if knows_prompt else "")
    if case["call"] != "submit":
        expect(error.paid is Paid.NO, "an error of a call that is free speaks of money", error)
        return
    if 200 <= case["status"] < 300:
        said = _reference(case)
        refused = isinstance(said, dict) and not 200 <= _code(said) < 300
        expect(refused or error.paid is not Paid.NO, "a purchase may be lost, and is called not paid", error)
        expect(_created(said) is None, "the id of a paid prediction is lost", _created(said))


def _check_found(case: Case, found: Any) -> None:
    refuses = not 200 <= case["status"] < 300
    # What a refusal to a submission names by id and status was made, and is paid for.
    is_purchase = case["call"] == "submit" and refuses and found.id in _readable(case)
    is_result = not refuses or case["call"] == "poll" or is_purchase
    expect(is_result, "an answer that refuses is a result", case["status"])
    expect(SECRET not in repr(found), "a result shows the API key", found)
    if isinstance(found, Prediction):
        expect(_ID.fullmatch(found.id), "a prediction's id is not safe", found.id)
        expect("/outputs/" not in repr(found), "a prediction shows its output's URL")
        expect(all(isinstance(url, str) for url in found.outputs), "an output is no text")
        expect(found.inference_ms is None or 0 < found.inference_ms < 1e15, "a time is no time", found)
    elif isinstance(found, Balance):
        expect(math.isfinite(found.balance), "a balance is no number", found)
    elif isinstance(found, Price):
        expect(math.isfinite(found.charged) and found.charged < 1e15, "a price is no number", found)
    elif isinstance(found, Catalogue):
        expect(all(isinstance(model.request_schema, dict) for model in found.items), "a schema is none")
    created = _created(_reference(case)) if case["call"] == "submit" else None
    expect(created is None or found.id == created, "a prediction has another's id", (created, found))


def _reference(case: Case) -> Any:
    """Read an answer plainly, as far as that is not dangerous: identity or one layer of gzip, flat JSON."""
    body = _unpacked(case)
    if body is None or len(body) > 64 * 1024:
        return None
    try:
        return json.loads(body)  # in UTF-16 and UTF-32, too, as the client reads it
    except (ValueError, RecursionError):
        return None


def _unpacked(case: Case) -> bytes | None:
    coding, body = case["headers"].get("Content-Encoding", "identity"), case["body"]
    if body.lstrip().startswith(b"{"):
        return body  # whatever its coding is said to be
    if coding not in ("gzip", "x-gzip"):
        return body if coding == "identity" else None
    try:
        return gzip.decompress(body) if len(body) < 2000 else b""
    except (OSError, EOFError, zlib.error):
        return None


def _readable(case: Case) -> str:
    """Return what can be read of a body, though its packing may end too early."""
    body = _unpacked(case)
    if body is None:
        try:
            body = zlib.decompressobj(wbits=31).decompress(case["body"], 100_000)
        except zlib.error:
            return ""
    return body.decode(json.detect_encoding(body), "replace")


def _code(said: dict[str, Any]) -> int:
    code = said.get("code", 200)
    return (
        code if type(code) is int else int(code) if isinstance(code, str) and code.strip().isdigit() else 200
    )


def _created(said: Any) -> str | None:
    """Return the id that an accepted submission's answer gives plainly."""
    if not isinstance(said, dict) or not isinstance(said.get("data"), dict):
        return None
    found = said["data"].get("id")
    return found if isinstance(found, str) and _ID.fullmatch(found) and SECRET not in found else None


def normal() -> Case:
    items = [_PREDICTION] * 100
    body = json.dumps({"code": 200, "data": {"page": 1, "items": items}}).encode()
    return {"call": "history", "status": 200, "headers": {}, "body": body}


TARGETS = (Target("answers", cases(), check, normal, times=20, most_mib=96),)
