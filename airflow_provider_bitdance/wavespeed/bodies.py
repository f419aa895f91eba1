"""Bodies: what a response holds, without its encoding and within its bound. Pure; knows no HTTP library.

None that is packed is asked for. One that comes packed all the same may hold what is paid for: it is
unpacked, up to the bound.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import IO, Any

from airflow_provider_bitdance.exceptions import Paid
from airflow_provider_bitdance.redaction import redact
from airflow_provider_bitdance.wavespeed.protocol import Call
from airflow_provider_bitdance.wavespeed.response_errors import garbled, too_large

GZIP = frozenset({"gzip", "x-gzip"})
MEMBERS = 16
"""Of a response that is packed in gzip, so many are read."""
LARGEST_REFUSAL = 256 * 2**10
"""Bytes that are unpacked of a refusal: it holds a sentence, whatever a good response may hold. To unpack the
8 MiB of a page takes 0.15 s. Of a purchase all is read: it may name what is paid for."""
CUT_OFF = b"\0"
"""No JSON ends so."""


@dataclass(frozen=True, slots=True)
class Response:
    """The response to a call as it came.

    :param headers: Looked up by lower-case names.
    :param body: Not decoded yet.
    :param encoding: The ``Content-Encoding`` that the body still has; empty where it has none.
    """

    url: str = field(repr=False)
    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    encoding: str = ""

    @property
    def is_good(self) -> bool:
        """Whether the HTTP status is one of success."""
        return 200 <= self.status < 300


def decoded(response: Response, call: Call[Any]) -> bytes:
    """Return the body of a response without its encoding.

    Encoded ones are not asked for; one layer of gzip is read all the same, and JSON that is said to be
    encoded and is not, for it may hold the id of a prediction that is paid for. Unpacks up to the call's
    bound: not for an event loop.

    :raises GarbledResponseError: The response is good, and is encoded otherwise, or too large.
    """
    body, wrong = response.body, ""
    layers = {layer.strip() for layer in response.encoding.split(",")} - {"", "identity"}
    if not layers or body.lstrip().startswith(b"{"):
        pass
    elif response.encoding.count("gzip") == 1 and layers <= GZIP:
        try:
            is_short = not response.is_good and call.paid is Paid.NO
            body = _unpacked(body, min(call.max_bytes, LARGEST_REFUSAL) if is_short else call.max_bytes)
        except zlib.error:
            wrong = "is declared as gzip, but is not"
        if len(body) > call.max_bytes and response.is_good:
            raise too_large(call)
    else:
        wrong = f"has the encoding {redact(response.encoding)}, which was not requested"
    if wrong and response.is_good:
        raise garbled(call, wrong)
    return b"" if wrong else body[: call.max_bytes]


def _unpacked(packed: bytes, most: int) -> bytes:
    """Unpack gzip, which may have several members, up to one byte above the bound.

    Where that is not all, ``CUT_OFF`` stands for the rest: what reads it must not take it for whole.
    """
    body = b""
    for _ in range(MEMBERS):
        member = zlib.decompressobj(wbits=31)  # gzip only
        body += member.decompress(packed, most + 1 - len(body))
        packed = member.unused_data.lstrip(b"\0")  # it may be padded
        if len(body) > most or not packed.startswith(b"\x1f\x8b"):
            break
    return body if member.eof and not packed else body + CUT_OFF


def unpack_file(into: IO[bytes], max_bytes: int) -> bool:
    """Unpack a file in its place. What is no gzip stays: whether it is an image shows later.

    :returns: Whether it is not larger than that. At most one byte above the bound is unpacked.
    """
    into.seek(0)
    try:
        data = zlib.decompressobj(wbits=31).decompress(into.read(), max_bytes + 1)
    except zlib.error:
        return True
    into.seek(0)
    into.truncate()
    into.write(data)
    return len(data) <= max_bytes
