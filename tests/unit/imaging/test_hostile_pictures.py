"""What keeps a decoder busy is refused before it starts; what no decoder needs is no reason to refuse."""

from __future__ import annotations

import contextlib
import hashlib
import random
import struct
import time
import zlib
from functools import cache
from io import BytesIO
from typing import Any

import pytest
from PIL import Image

from airflow_provider_bitdance.exceptions import OutputError, OutputRefusedError
from airflow_provider_bitdance.imaging import structure
from airflow_provider_bitdance.imaging.contact_sheet import comment_of, contact_sheet
from airflow_provider_bitdance.imaging.structure import MAX_PARTS, read_structure
from airflow_provider_bitdance.imaging.validation import validate_image
from airflow_provider_bitdance.wavespeed.models import BITDANCE_14B, BITDANCE_SIDES, largest_file
from tests.unit.support import a_picture

pytestmark = pytest.mark.usefixtures("no_garbage_collection")

CPU_SECONDS = 1.5
"""What a hostile picture may cost at most. They are refused in 0.07 s, and cost 3 to 54 s before."""
COMMENT = b"\xff\xfe\0\2"


def noise(side: int = 32, mode: str = "RGB", seed: int = 1) -> Image.Image:
    channels = len(Image.new(mode, (1, 1)).getbands())
    return Image.frombytes(mode, (side, side), random.Random(seed).randbytes(channels * side * side))


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(name: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_with(*chunks: bytes, before: bytes = b"IDAT") -> bytes:
    data = saved(noise(), "PNG")
    place = data.index(before) - 4
    return data[:place] + b"".join(chunks) + data[place:]


def webp_with(*chunks: bytes) -> bytes:
    image = saved(noise(), "WEBP", lossless=True)[12:]
    header = b"VP8X" + struct.pack("<IIHBHB", 10, 0, 31, 0, 31, 0)
    body = b"WEBP" + header + image + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def jpeg_with(segments: bytes) -> bytes:
    data = saved(noise(), "JPEG")
    return data[:2] + segments + data[2:]


def jpeg_of_scans(side: int, scans: int) -> bytes:
    """Return a progressive JPEG that repeats its last scan: 60 bytes and a pass over all pixels each."""
    data = saved(Image.new("RGB", (side, side)), "JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * (scans - data.count(b"\xff\xda")) + data[-2:]


MAX_BYTES = largest_file(BITDANCE_14B)
EMPTY = MAX_BYTES // 12
HOSTILE = {
    "3000 scans": (lambda: jpeg_of_scans(4096, 3000), "is a JPEG of 3000 scans. Allowed: at most 16 "),
    "1000 scans": (lambda: jpeg_of_scans(1024, 1000), "is a JPEG of 1000 scans. Allowed: at most 256 "),
    "empty texts": (lambda: png_with(chunk(b"tEXt") * EMPTY), "too many parts"),
    "empty pixels": (lambda: png_with(chunk(b"IDAT") * EMPTY), "too many parts"),
    "pixels after the pixels": (lambda: png_with(chunk(b"IDAT") * EMPTY, before=b"IEND"), "too many parts"),
    "comments": (lambda: jpeg_with(COMMENT * (MAX_BYTES // 4)), "too many parts"),
    "previews": (lambda: jpeg_with(b"\xff\xe1\0\x08Exif\0\0" * (MAX_BYTES // 10)), "too many parts"),
    "tables": (lambda: jpeg_with(b"\xff\xdb\0\2" * (MAX_BYTES // 4)), "too many parts"),
    "WebP chunks": (lambda: webp_with(b"JUNK\0\0\0\0" * (MAX_BYTES // 8)), "too many parts"),
}


@cache
def hostile(name: str) -> bytes:
    return HOSTILE[name][0]()


@pytest.mark.parametrize("name", HOSTILE)
def test_what_would_keep_the_decoder_busy_is_refused_in_no_time(name: str) -> None:
    data, said = hostile(name), HOSTILE[name][1]
    assert len(data) <= MAX_BYTES + 12_000
    start = time.thread_time()
    with pytest.raises(OutputRefusedError, match=said) as caught:
        validate_image(data)
    assert time.thread_time() - start < CPU_SECONDS
    assert not caught.value.retry_helps


CHEAP = {
    "many scans of few pixels": lambda: jpeg_of_scans(64, 2000),
    "fill bytes": lambda: jpeg_with(b"\xff" * (MAX_BYTES - 5000)),
    "as many chunks as there may be": lambda: png_with(chunk(b"IDAT") * (MAX_PARTS - 4)),
    "more pixels than it has": lambda: png_with(chunk(b"IDAT", zlib.compress(bytes(2**24))), before=b"IEND"),
}


@pytest.mark.parametrize("name", CHEAP)
def test_what_costs_little_is_taken(name: str) -> None:
    data = CHEAP[name]()
    start = time.thread_time()
    assert validate_image(data).data == data
    assert time.thread_time() - start < CPU_SECONDS


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_what_is_counted_costs_a_normal_image_less_than_a_millisecond(kind: str) -> None:
    data = saved(noise(600), kind, quality=95)
    best = 1.0
    for _ in range(5):
        start = time.thread_time()
        read_structure(data)
        best = min(best, time.thread_time() - start)
    assert best < 0.001 * max(1, len(data) / 2**20)


TEXT = b"workflow" * 400_000
"""3 MB, as ComfyUI and others write; Pillow refuses to unpack more than 1 MiB."""
LARGE = {
    "zTXt": chunk(b"zTXt", b"k\0\0" + zlib.compress(TEXT)),
    "iTXt": chunk(b"iTXt", b"k\0\1\0\0\0" + zlib.compress(TEXT)),
    "tEXt": chunk(b"tEXt", b"k\0" + TEXT),
    "iCCP": chunk(b"iCCP", b"k\0\0" + zlib.compress(TEXT)),
    "eXIf": chunk(b"eXIf", b"II*\0" + TEXT),
    "zTXt that is packed badly": chunk(b"zTXt", b"k\0\0" + zlib.compress(TEXT, 0)),
    "zTXt that cannot be unpacked": chunk(b"zTXt", b"k\0\0none"),
    "zTXt of 16 MiB": chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(2**24))),
    "200 of nearly a MiB": chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(900_000))) * 200,
}


@pytest.mark.parametrize("name", LARGE)
@pytest.mark.parametrize("before", [b"IDAT", b"IEND"])
def test_a_png_with_much_beside_its_pixels_is_kept_as_it_is(name: str, before: bytes) -> None:
    data = png_with(LARGE[name], before=before)
    found = validate_image(data)
    assert (found.data, found.width, found.trailing) == (data, 32, 0)
    assert found.sha256 == hashlib.sha256(data).hexdigest()


def test_a_damaged_text_is_a_damaged_png() -> None:
    data = png_with(chunk(b"tEXt", b"k\0text")).replace(b"k\0text", b"k\0test")
    with pytest.raises(OutputError, match="a checksum is wrong"):
        validate_image(data)


def test_pixels_that_are_interrupted_are_refused_as_viewers_do() -> None:
    data = saved(noise(300), "PNG")
    assert data.count(b"IDAT") > 1
    place = data.rindex(b"IDAT") - 4
    with pytest.raises(OutputError, match="its pixels are interrupted"):
        validate_image(data[:place] + chunk(b"tEXt") + data[place:])


@pytest.mark.parametrize("before", [b"IHDR", b"IDAT", b"IEND"])
def test_a_header_that_is_not_first_or_not_alone_is_refused_as_viewers_do(before: bytes) -> None:
    first = (
        chunk(b"PLTE") if before == b"IHDR" else chunk(b"IHDR", struct.pack(">IIBBBBB", 9, 9, 8, 2, 0, 0, 0))
    )
    with pytest.raises(OutputError, match="its header is not its first part, or not the only one"):
        validate_image(png_with(first, before=before))


FRAMES = [noise(seed=seed) for seed in (2, 3)]
KINDS = {
    "APNG": (lambda: saved(noise(), "PNG", save_all=True, append_images=FRAMES), "image/png"),
    "animated WebP": (lambda: saved(noise(), "WEBP", save_all=True, append_images=FRAMES), "image/webp"),
    "WebP with a profile": (lambda: saved(noise(), "WEBP", icc_profile=b"x" * 5000), "image/webp"),
    "WebP with transparency": (lambda: saved(noise(mode="RGBA"), "WEBP"), "image/webp"),
    "CMYK": (lambda: saved(noise(mode="CMYK"), "JPEG"), "image/jpeg"),
    "progressive": (lambda: saved(noise(), "JPEG", progressive=True), "image/jpeg"),
    "grayscale JPEG": (lambda: saved(noise(mode="L"), "JPEG"), "image/jpeg"),
    "grayscale PNG": (lambda: saved(noise(mode="L"), "PNG"), "image/png"),
    "16 bits": (lambda: saved(Image.new("I;16", (32, 32), 40_000), "PNG"), "image/png"),
    "a palette": (lambda: saved(noise().quantize(), "PNG", transparency=0), "image/png"),
    "JPEG with a preview": (
        lambda: saved(noise(), "JPEG", exif=b"Exif\0\0II*\0" + bytes(9999)),
        "image/jpeg",
    ),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_picture_is_kept_as_it_is(name: str) -> None:
    make, media_type = KINDS[name]
    data = make()
    found = validate_image(data)
    assert (found.data, found.media_type, found.width, found.height) == (data, media_type, 32, 32)
    assert found.trailing == 0


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_picture_that_was_cut_is_refused(name: str) -> None:
    data = KINDS[name][0]()
    for end in {len(data) - 1, len(data) - 9, len(data) // 2, 40, 12}:
        with pytest.raises(OutputError):
            validate_image(data[:end])


@pytest.mark.parametrize("extension", ["png", "jpg", "webp"])
@pytest.mark.parametrize(
    "tail", [b"<html><script>", b"PK\3\4" + bytes(500), bytes(7), a_picture("png"), a_picture("jpg")]
)
def test_what_follows_the_end_of_a_picture_is_counted_and_kept(extension: str, tail: bytes) -> None:
    data = a_picture(extension) + tail
    found = validate_image(data)
    assert (found.data, found.width, found.trailing) == (data, 12, len(tail))
    assert found.sha256 == hashlib.sha256(data).hexdigest()


def test_the_largest_picture_of_the_model_fits_uncompressed() -> None:
    largest = saved(Image.new("RGBA", (BITDANCE_SIDES[1], BITDANCE_SIDES[1])), "PNG", compress_level=0)
    assert MAX_BYTES - 2**20 < len(largest) < MAX_BYTES


@pytest.mark.parametrize("name", ["3000 scans", "empty texts", "comments"])
def test_a_contact_sheet_shows_a_placeholder_for_a_hostile_picture(name: str) -> None:
    data = hostile(name)
    start = time.thread_time()
    contact_sheet([("a", data)])
    comment_of(data)
    assert time.thread_time() - start < CPU_SECONDS


def test_a_comment_is_read_without_a_decoder() -> None:
    assert comment_of(contact_sheet([("a", a_picture())], comment="abc")) == "abc"
    assert comment_of(a_picture("jpg")) == ""
    assert comment_of(jpeg_with(COMMENT)) == ""
    for damaged in (b"", b"\xff\xd8", b"\xff\xd8\xff\xfe", b"\xff\xd8\xff\xfe\0", b"\xff\xd8\xff\xfe\0\0a"):
        assert comment_of(damaged) == ""


@pytest.mark.parametrize("extension", ["png", "jpg", "webp"])
def test_any_bytes_are_a_picture_or_our_error(extension: str) -> None:
    data, chance = a_picture(extension, side=24), random.Random(7)
    for _ in range(150):
        changed = bytearray(data)
        for _ in range(chance.randrange(1, 6)):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        with contextlib.suppress(OutputError):
            validate_image(bytes(changed))
        comment_of(bytes(changed))


def test_a_length_of_nothing_does_not_stop_the_walk() -> None:
    with pytest.raises(OutputRefusedError, match="too many parts"):
        structure.read_structure(b"\xff\xd8" + b"\xff\xe1\0\0" * (MAX_PARTS + 1))
