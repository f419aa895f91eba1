"""What a response may be: its encoding, its size, and where it is read."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import threading
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from airflow_provider_bitdance import exceptions
from airflow_provider_bitdance.exceptions import BitDanceError, Paid
from airflow_provider_bitdance.wavespeed import bodies, protocol
from airflow_provider_bitdance.wavespeed.client import PARSED_ON_LOOP, AsyncClient, ClientSettings
from airflow_provider_bitdance.wavespeed.image_request import ImageRequest
from airflow_provider_bitdance.wavespeed.protocol import KIB, MIB
from airflow_provider_bitdance.wavespeed.urls import OutputRule
from tests.wire import httpx

REQUEST = ImageRequest.of(prompt="a lighthouse")
SUBMIT = protocol.submit(REQUEST)
CREATED = json.dumps({"data": {"id": "p-1"}}).encode()


def sent(call: protocol.Call[Any], *, body: bytes = b"", encoding: str = "", status: int = 200) -> Any:
    """Send a call to an API that responds so, as a network does: in parts, which nobody has unpacked."""

    async def parts() -> AsyncIterator[bytes]:
        for at in range(0, len(body), 50_000):
            yield body[at : at + 50_000]

    def answer(request: Any) -> Any:
        assert request.headers["Accept-Encoding"] == "identity"
        headers = {"Content-Encoding": encoding} if encoding else {}
        return httpx.Response(status, headers=headers, content=parts())

    async def run() -> Any:
        transport = httpx.MockTransport(answer)
        async with AsyncClient(ClientSettings("key-of-a-test"), transport=transport) as client:
            return await client.send(call)

    return asyncio.run(run())


def failure(call: protocol.Call[Any], **response: Any) -> BitDanceError:
    with pytest.raises(BitDanceError) as caught:
        sent(call, **response)
    return caught.value


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", " x-gzip ", "identity"])
def test_a_purchase_that_is_packed_all_the_same_has_its_id(encoding: str) -> None:
    body = CREATED if encoding == "identity" else gzip.compress(CREATED)
    assert sent(SUBMIT, body=body, encoding=encoding).id == "p-1"


@pytest.mark.parametrize("encoding", ["none", "utf-8", "chunked", "gzip", "br", "gzip, gzip"])
def test_a_purchase_that_is_only_said_to_be_packed_has_its_id(encoding: str) -> None:
    assert sent(SUBMIT, body=CREATED, encoding=encoding).id == "p-1"


@pytest.mark.parametrize("encoding", ["gzip", "gzip, identity", "identity,gzip"])
def test_a_purchase_that_is_packed_in_two_members_has_its_id(encoding: str) -> None:
    body = gzip.compress(CREATED[:9]) + gzip.compress(CREATED[9:])
    assert sent(SUBMIT, body=body, encoding=encoding).id == "p-1"


def test_a_bomb_of_two_members_takes_no_more_memory_than_one() -> None:
    body = gzip.compress(b" " * SUBMIT.max_bytes) + bomb(60 * MIB)
    tracemalloc.start()
    error = failure(SUBMIT, body=body, encoding="gzip")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (type(error), error.paid) == (exceptions.ResponseTooLargeError, Paid.POSSIBLY)
    assert peak < 3 * MIB


@pytest.mark.parametrize("encoding", ["gzip, gzip", "br", "zstd", "deflate", "compress", "gzip, br", "x"])
def test_any_other_encoding_is_refused_and_may_hide_a_purchase(encoding: str) -> None:
    body = gzip.compress(gzip.compress(CREATED))
    error = failure(SUBMIT, body=body, encoding=encoding)
    assert (type(error), error.paid) == (exceptions.GarbledResponseError, Paid.POSSIBLY)
    assert encoding in str(error)


@pytest.mark.parametrize(
    "body",
    [b"this is not gzip", gzip.compress(CREATED)[:-12], gzip.compress(CREATED)[:-8] + b"\0" * 8, b""],
    ids=["none", "cut", "wrong sum", "empty"],
)
def test_gzip_that_is_damaged_is_a_garbled_response(body: bytes) -> None:
    error = failure(SUBMIT, body=body, encoding="gzip")
    assert (type(error), error.paid) == (exceptions.GarbledResponseError, Paid.POSSIBLY)


NO = json.dumps({"code": 429, "message": "slow down"}).encode()
CUT = gzip.compress(NO)[:-8]


@pytest.mark.parametrize(
    ("body", "paid"),
    [
        (gzip.compress(NO), Paid.NO),
        (gzip.compress(NO) + b"\0" * 8, Paid.NO),
        (gzip.compress(NO[:9]) + gzip.compress(NO[9:]), Paid.NO),
        (CUT, Paid.POSSIBLY),
        (gzip.compress(NO[:9]) + gzip.compress(NO[9:])[:-8], Paid.POSSIBLY),
        (gzip.compress(NO) + b"<html>", Paid.POSSIBLY),
        (gzip.compress(NO) + gzip.compress(b"") * bodies.MEMBERS, Paid.POSSIBLY),
    ],
    ids=["whole", "padded", "two", "cut", "two, cut", "something behind", "many members"],
)
def test_a_packed_refusal_that_may_not_be_all_may_be_a_purchase(body: bytes, paid: Paid) -> None:
    assert zlib.decompressobj(31).decompress(CUT) == NO
    assert failure(SUBMIT, body=body, encoding="gzip").paid is paid


def test_a_purchase_whose_packing_is_cut_off_has_its_id() -> None:
    assert sent(SUBMIT, body=gzip.compress(CREATED)[:-8], encoding="gzip").id == "p-1"


@pytest.mark.parametrize("encoding", ["gzip", "br", ""])
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, exceptions.AuthenticationError),
        (429, exceptions.RateLimitError),
        (404, exceptions.UnknownPathError),
        (502, exceptions.ServerError),
    ],
)
def test_of_an_error_the_status_counts_whatever_its_page_is(
    status: int, kind: type[BitDanceError], encoding: str
) -> None:
    assert type(failure(SUBMIT, body=b"<h1>" * MIB, encoding=encoding, status=status)) is kind


def bomb(size: int) -> bytes:
    packer = zlib.compressobj(9, wbits=31)
    return b"".join(packer.compress(bytes(MIB)) for _ in range(size // MIB)) + packer.flush()


def test_a_bomb_takes_no_more_memory_than_the_bound() -> None:
    body = bomb(60 * MIB)
    assert len(body) < SUBMIT.max_bytes
    tracemalloc.start()
    error = failure(SUBMIT, body=body, encoding="gzip")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (type(error), error.paid) == (exceptions.ResponseTooLargeError, Paid.POSSIBLY)
    assert peak < 3 * MIB


def unpacked_of(call: protocol.Call[Any], status: int) -> int:
    """Return how many bytes are unpacked of a bomb."""
    bomb = gzip.compress(b" " * 20 * MIB)
    response = bodies.Response("https://api.test", status, {}, bomb, "gzip")
    try:
        return len(bodies.decoded(response, call))
    except BitDanceError:
        return call.max_bytes


def test_of_a_refusal_a_sentence_is_unpacked_and_of_a_purchase_all() -> None:
    assert unpacked_of(protocol.list_models(), 400) < 2 * bodies.LARGEST_REFUSAL
    assert unpacked_of(SUBMIT, 400) == SUBMIT.max_bytes


BOUNDS: list[tuple[protocol.Call[Any], int]] = [
    (protocol.get_balance(), 64 * KIB),
    (protocol.get_prediction("p-1"), MIB),
    (protocol.list_predictions(), 8 * MIB),
    (protocol.list_models(), 16 * MIB),
]


@pytest.mark.parametrize(("call", "bound"), BOUNDS, ids=lambda given: getattr(given, "path", None))
def test_each_response_has_a_bound_of_its_kind(call: protocol.Call[Any], bound: int) -> None:
    assert bound <= call.max_bytes < bound + 2 * KIB
    error = failure(call, body=b" " * (call.max_bytes + 1))
    assert type(error) is exceptions.ResponseTooLargeError
    assert type(failure(call, body=b" " * call.max_bytes)) is exceptions.GarbledResponseError


@pytest.mark.parametrize("prompt", ["a" * 32_768, "灯" * 32_768, "🗼" * 32_768], ids=["a", "CJK", "emoji"])
def test_a_purchase_whose_prompt_is_echoed_twice_and_escaped_is_read(prompt: str) -> None:
    call = protocol.submit(ImageRequest.of(prompt=prompt))
    echo = {"prompt": prompt, "size": "1024*1024", "seed": 7}
    body = json.dumps({"data": {"id": "p-1", "input": echo, "inputs": echo}}, ensure_ascii=True).encode()
    assert sent(call, body=body).input == echo


def test_what_is_large_or_packed_is_read_in_a_thread() -> None:
    readers: list[threading.Thread] = []

    async def read(body: bytes, encoding: str = "") -> threading.Thread:
        async def part() -> AsyncIterator[bytes]:
            yield body

        headers = {"Content-Encoding": encoding} if encoding else {}
        transport = httpx.MockTransport(lambda _: httpx.Response(200, headers=headers, content=part()))
        seen: Callable[[object], None] = lambda _: readers.append(threading.current_thread())  # noqa: E731
        settings = ClientSettings("key-of-a-test")
        async with AsyncClient(settings, transport=transport, on_response=seen) as client:
            await client.send(protocol.get_prediction("p-1"))
        return readers[-1]

    def padded(size: int) -> bytes:
        return CREATED.ljust(size)

    main = threading.main_thread()
    assert asyncio.run(read(padded(PARSED_ON_LOOP))) is main
    assert asyncio.run(read(padded(PARSED_ON_LOOP + 1))) is not main
    assert asyncio.run(read(gzip.compress(CREATED), "gzip")) is not main


PICTURE = b"\x89PNG and so on " * 1_000


def downloaded(body: bytes, *, encoding: str = "", status: int = 200, max_bytes: int = len(PICTURE)) -> bytes:
    """Download an output that its host sends so."""

    async def parts() -> AsyncIterator[bytes]:
        for at in range(0, len(body), 1_000):
            yield body[at : at + 1_000]

    async def address(_: str) -> list[str]:
        return ["93.184.215.14"]

    async def run() -> bytes:
        headers = {"Content-Encoding": encoding} if encoding else {}
        transport = httpx.MockTransport(lambda _: httpx.Response(status, headers=headers, content=parts()))
        settings = ClientSettings("key-of-a-test")
        rule = OutputRule(settings.base_url, resolve=address)
        into = io.BytesIO()
        async with AsyncClient(settings, transport=transport, output_rule=rule) as client:
            await client.download("https://cdn.example/a.png", into, max_bytes=max_bytes)
        return into.getvalue()

    return asyncio.run(run())


@pytest.mark.parametrize("encoding", ["gzip", " X-GZIP "])
def test_an_output_that_is_packed_all_the_same_is_unpacked(encoding: str) -> None:
    assert downloaded(gzip.compress(PICTURE), encoding=encoding) == PICTURE


@pytest.mark.parametrize("encoding", ["gzip", "identity", "br", "none"])
def test_an_output_that_is_not_packed_as_its_host_says_is_kept_as_it_is(encoding: str) -> None:
    assert downloaded(PICTURE, encoding=encoding) == PICTURE


def test_an_output_is_unpacked_up_to_its_bound() -> None:
    packed = gzip.compress(b"\0" * 50_000_000)
    tracemalloc.start()
    with pytest.raises(exceptions.OutputRefusedError, match="too large"):
        downloaded(packed, encoding="gzip", max_bytes=100_000)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 5_000_000


def test_an_output_that_a_proxy_has_passed_on_is_taken() -> None:
    assert downloaded(PICTURE, status=203) == PICTURE
