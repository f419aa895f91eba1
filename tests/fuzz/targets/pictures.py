"""Pictures: PNG, JPEG and WebP, mutated by their chunks, segments and bytes, as a download gives them."""

from __future__ import annotations

import random
import struct
import zlib
from functools import cache
from io import BytesIO
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy
from PIL import Image

from airflow_provider_bitdance.exceptions import OutputError
from airflow_provider_bitdance.imaging.validation import validate_image
from tests.fuzz.cases import Case
from tests.fuzz.mutation import mutated_bytes
from tests.fuzz.sandbox import Sandbox
from tests.fuzz.target import Target, expect, expect_fit_for_people

LARGEST_SIDE = 1536
"""The largest that the model makes."""
_MAGIC = {"image/png": b"\x89PNG\r\n\x1a\n", "image/jpeg": b"\xff\xd8\xff", "image/webp": b"RIFF"}


def drawn(kind: str, side: int = 24, **options: object) -> bytes:
    """Return a picture with noise, which compresses badly, so that its data is long."""
    pixels = random.Random(side).randbytes(3 * side * side)
    file = BytesIO()
    Image.frombytes("RGB", (side, side), pixels).save(file, kind, **options)
    return file.getvalue()


SEEDS = {
    "png": drawn("PNG"),
    "jpeg": drawn("JPEG"),
    "progressive": drawn("JPEG", progressive=True),
    "webp": drawn("WEBP"),
    "lossless": drawn("WEBP", lossless=True),
}


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


Chunk = tuple[bytes, bytes, int]
"""Kind and data, and how often it comes."""


def png_chunks(data: bytes) -> list[Chunk]:
    at, found = 8, []
    while at + 8 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        found.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length], 1))
        at += 12 + length
    return found


def png(chunks: list[Chunk]) -> bytes:
    return _MAGIC["image/png"] + b"".join(png_chunk(kind, data) * times for kind, data, times in chunks)


@cache
def _huge() -> bytes:
    """Return a whole PNG of a few hundred kilobytes that takes 400 MB in memory."""
    side = 10_000
    packer, row = zlib.compressobj(1), bytes(3 * side + 1)
    data = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return png([(b"IHDR", header, 1), (b"IDAT", data, 1), (b"IEND", b"", 1)])


def jpeg_segments(data: bytes) -> list[bytes]:
    """Return a JPEG in its segments; one of a scan has its data with it."""
    marks = [at for at in range(len(data) - 1) if data[at] == 0xFF and data[at + 1] not in (0, 0xFF)]
    return [data[at:end] for at, end in zip(marks, [*marks[1:], len(data)], strict=True)]


@cache
def _packed_text(length: int) -> bytes:
    return zlib.compress(b"t" * length, 9)


@st.composite
def _pngs(draw: DrawFn) -> bytes:
    chunks = png_chunks(SEEDS["png"])
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(chunks) - 1))
        kind, data, times = chunks[at]
        change = draw(st.sampled_from(("double", "take", "swap", "put", "many", "text", "size", "data")))
        if change == "double":
            chunks.insert(at, chunks[at])
        elif change == "take" and len(chunks) > 1:
            del chunks[at]
        elif change == "swap":
            other = draw(st.integers(0, len(chunks) - 1))
            chunks[at], chunks[other] = chunks[other], chunks[at]
        elif change == "put":
            new = draw(
                st.sampled_from((b"IDAT", b"PLTE", b"tEXt", b"acTL", b"fcTL", b"iCCP", b"eXIf", b"abCd"))
            )
            chunks.insert(at, (new, draw(st.binary(max_size=40)), 1))
        elif change == "many":
            new = draw(st.sampled_from((b"IDAT", b"tEXt", b"abCd", b"fdAT", b"PLTE")))
            chunks.insert(at, (new, b"", draw(st.sampled_from((100, 20_000, 200_000)))))
        elif change == "text":
            text = _packed_text(draw(st.sampled_from((10, 70_000, 3 * 2**20, 100 * 2**20))))
            new = draw(st.sampled_from((b"zTXt", b"iTXt", b"iCCP")))
            chunks.insert(
                at, (new, b"k\x00" + (b"\x01\x00\x00\x00" if new == b"iTXt" else b"\x00") + text, 1)
            )
        elif change == "size" and kind == b"IHDR":
            sides = st.sampled_from((0, 1, 23, 25, 4096, 4097, 16_384, 65_536, 2**31 - 1, 2**32 - 1))
            chunks[at] = (kind, struct.pack(">II", draw(sides), draw(sides)) + data[8:], 1)
        else:
            chunks[at] = (kind, draw(mutated_bytes((data,))), times)
    return png(chunks)


@st.composite
def _jpegs(draw: DrawFn) -> bytes:
    segments = jpeg_segments(SEEDS[draw(st.sampled_from(("jpeg", "progressive")))])
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(segments) - 1))
        change = draw(st.sampled_from(("double", "take", "swap", "many", "size", "data", "scans")))
        if change == "double":
            segments.insert(at, segments[at])
        elif change == "take" and len(segments) > 1:
            del segments[at]
        elif change == "swap":
            other = draw(st.integers(0, len(segments) - 1))
            segments[at], segments[other] = segments[other], segments[at]
        elif change == "many":
            segments[at:at] = [segments[at]] * draw(st.sampled_from((10, 300)))
        elif change in ("size", "scans"):
            sides = draw(
                st.sampled_from(((1, 1), (4096, 4096), (4097, 4096), (65_535, 65_535), (3000, 5000)))
            )
            segments = [_sized(segment, sides) for segment in segments]
            if change == "scans":
                scans = [segment for segment in segments if segment[1:2] == b"\xda"]
                segments[-1:-1] = scans[-1:] * draw(st.sampled_from((10, 100, 1000)))
        else:
            segments[at] = draw(mutated_bytes((segments[at],)))
    return b"".join(segments)


def _sized(segment: bytes, sides: tuple[int, int]) -> bytes:
    is_frame = segment[1:2] in (b"\xc0", b"\xc1", b"\xc2") and len(segment) >= 9
    return segment[:5] + struct.pack(">HH", *sides) + segment[9:] if is_frame else segment


@st.composite
def _cut(draw: DrawFn) -> Case:
    """Draw a picture whose end is missing: of a JPEG more than its two last bytes, which say only that."""
    kind = draw(st.sampled_from(sorted(SEEDS)))
    data = SEEDS[kind]
    return {"data": data[: -draw(st.integers(16, len(data)))], "is_cut": True}


def cases() -> SearchStrategy[Case]:
    huge = st.deferred(lambda: st.just(_huge()))
    whole = st.one_of(_pngs(), _pngs(), _jpegs(), _jpegs(), mutated_bytes(tuple(SEEDS.values())), huge)
    return st.one_of(whole.map(lambda data: {"data": data, "is_cut": False}), _cut())


def check(case: Case, folder: Path, sandbox: Sandbox) -> None:
    data = case["data"]
    try:
        found = validate_image(data)
    except OutputError as error:
        expect_fit_for_people(str(error), "an error about a picture")
        return
    expect(not case["is_cut"], "a picture whose end is missing is taken")
    expect(found.data.startswith(_MAGIC[found.media_type]), "a picture's type is not that of its content")
    expect(len(found.data) <= len(data), "a picture is longer than what was received")
    expect((found.width, found.height) == _size_of(found.data), "a picture's size is not its own")


def _size_of(data: bytes) -> tuple[int, int]:
    if data.startswith(_MAGIC["image/png"]):  # Pillow refuses some that all others show
        width, height = struct.unpack(">II", data[16:24])
        return width, height
    with Image.open(BytesIO(data)) as image:
        return image.size


def normal() -> Case:
    """Return the kind that takes the longest of the largest pictures that the model makes."""
    return {"data": drawn("JPEG", LARGEST_SIDE, progressive=True), "is_cut": False}


TARGETS = (Target("pictures", cases(), check, normal, times=8, most_mib=320),)
