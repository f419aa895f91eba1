"""Structure: the parts of a PNG, JPEG or WebP file, found without decoding any. Pure; needs no Pillow.

A decoder that runs in a thread cannot be stopped, so what would keep it busy is counted before it starts. It
gets only the parts that make the pixels: what else a file carries (text, profiles, previews, further frames)
is neither unpacked nor a reason to lose an image that is paid for.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from airflow_provider_bitdance.exceptions import OutputError, OutputRefusedError

MAX_PARTS = 2**14
"""Chunks of a PNG or WebP, segments of a JPEG. Pillow takes up to 12 microseconds for each: 0.2 s for these,
10 s for 8 MiB of empty ones. libpng writes 8 KiB a chunk, so the largest output that is taken has 1,280."""

_PNG = b"\x89PNG\r\n\x1a\n"
_TRANSPARENCY = b"tRNS"
_ANCILLARY = 0x20
"""The bit that a PNG chunk's first letter has where a decoder may leave the chunk out."""

_JPEG = b"\xff\xd8"
_MARKER = re.compile(rb"\xff+([^\x00\xff])")  # any number of fill bytes may come before the code
_END_OF_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # neither a stuffed byte nor a restart
_END_OF_IMAGE, _START_OF_SCAN, _COMMENT = 0xD9, 0xDA, 0xFE
_WITHOUT_PIXELS = frozenset({*range(0xE1, 0xEE), 0xEF, _COMMENT})
"""Comments and applications' segments, except JFIF's (E0) and Adobe's (EE), which explain the colours."""


@dataclass(frozen=True, slots=True)
class Structure:
    """What a file consists of.

    :param kind: As Pillow calls the format.
    :param picture: The file without the parts that make no pixels, for the decoder.
    :param end: Where the picture ends; what follows belongs to no picture.
    :param pixels: What is packed in the IDAT chunks of a PNG.
    :param scans: How often the decoder goes over all pixels: once, or more often in a JPEG.
    """

    kind: Literal["PNG", "JPEG", "WEBP"]
    picture: bytes
    end: int
    scans: int = 1
    pixels: tuple[memoryview, ...] = ()


def read_structure(data: bytes) -> Structure:
    """Return the structure of a file.

    :raises OutputRefusedError: It has more parts than are safe to decode.
    :raises OutputError: It is no whole PNG, JPEG or WebP.
    """
    if data.startswith(_PNG):
        return _png(data)
    if data.startswith(_JPEG):
        return _jpeg(data)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _webp(data)
    raise not_whole("its first bytes match none of these formats")


def jpeg_comment(data: bytes) -> bytes:
    """Return the first comment of a JPEG; none where there is none.

    :raises OutputError: It is no JPEG, or damaged before its comment.
    """
    for code, start, end in segments(data):
        if code == _COMMENT:
            return data[start + 2 : end]
    return b""


def _png(data: bytes) -> Structure:
    view = memoryview(data)
    kept: list[bytes | memoryview] = [_PNG]
    start = len(_PNG)
    pixels: list[memoryview] = []
    pixels_end = 0
    for _ in range(MAX_PARTS):
        length, name = _unpack(">I4s", data, start)
        end = start + 12 + length
        (checksum,) = _unpack(">I", data, end - 4)
        if zlib.crc32(view[start + 4 : end - 4]) != checksum:
            raise not_whole("a checksum is wrong")
        if (name == b"IHDR") != (start == len(_PNG)):
            raise not_whole("its header is not its first part, or not the only one")
        if name == b"IDAT":
            if pixels_end not in (0, start):
                raise not_whole("its pixels are interrupted")
            pixels_end = end
            pixels.append(view[start + 8 : end - 4])
        if name == _TRANSPARENCY or not name[0] & _ANCILLARY:
            kept.append(view[start:end])
        if name == b"IEND":
            return Structure("PNG", b"".join(kept), end, pixels=tuple(pixels))
        start = end
    raise _too_many_parts()


def _jpeg(data: bytes) -> Structure:
    view = memoryview(data)
    kept: list[bytes | memoryview] = [_JPEG]
    scans = end = 0
    for code, start, end in segments(data):
        scans += code == _START_OF_SCAN
        if code not in _WITHOUT_PIXELS:
            kept += (bytes((0xFF, code)), view[start:end])
    return Structure("JPEG", b"".join(kept), end, scans)


def segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield each segment up to the end of the image: its code, where it begins after that, where it ends."""
    if not data.startswith(_JPEG):
        raise not_whole("its first bytes match none of these formats")
    end = len(_JPEG)
    for _ in range(MAX_PARTS):
        marker = _MARKER.match(data, end)
        if marker is None:
            raise not_whole("it is truncated or damaged")
        code, start = marker[1][0], marker.end()
        if code == _END_OF_IMAGE:
            yield code, start, start
            return
        end = start + max(2, *_unpack(">H", data, start))
        if code == _START_OF_SCAN:
            after = _END_OF_SCAN.search(data, end)
            end = after.start() if after else len(data)
        yield code, start, end
    raise _too_many_parts()


def _webp(data: bytes) -> Structure:
    (length,) = _unpack("<I", data, 4)
    whole = 8 + length + length % 2
    if whole > len(data):
        raise not_whole("it is truncated")
    start = 12
    for _ in range(MAX_PARTS):
        if start >= whole:
            return Structure("WEBP", data[:whole], whole)
        (length,) = _unpack("<I", data, start + 4)
        start += 8 + length + length % 2
    raise _too_many_parts()


def _unpack(form: str, data: bytes, start: int) -> tuple[Any, ...]:
    try:
        return struct.unpack_from(form, data, start)
    except struct.error:
        raise not_whole("it is truncated") from None


def not_whole(why: str) -> OutputError:
    """Return the error for a file that cannot be a whole image; another download may be."""
    return OutputError(f"The output is not a whole PNG, JPEG or WebP image: {why}")


def _too_many_parts() -> OutputRefusedError:
    return OutputRefusedError("The output has too many parts", allowed=f"at most {MAX_PARTS}")
