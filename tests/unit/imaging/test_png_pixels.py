"""What is said of a PNG's pixels without a decoder is what a decoder finds."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from airflow_provider_bitdance.exceptions import OutputError
from airflow_provider_bitdance.imaging.png_pixels import are_pixels_complete
from airflow_provider_bitdance.imaging.structure import read_structure
from airflow_provider_bitdance.imaging.validation import validate_image

MODES = ("1", "L", "LA", "RGB", "RGBA", "I;16")


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def a_png(rows: bytes, *, width: int = 5, height: int = 4, interlaced: int = 0, after: bytes = b"") -> bytes:
    """Return a PNG of 8-bit RGB with these unpacked rows, in three IDAT chunks and with right checksums."""
    packed = zlib.compress(rows) + after
    thirds = packed[:7], packed[7:9], packed[9:]
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, interlaced)
    pixels = b"".join(chunk(b"IDAT", part) for part in thirds)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


def is_complete(data: bytes) -> bool:
    structure = read_structure(data)
    return are_pixels_complete(structure.picture, structure.pixels)


def is_decoded(data: bytes) -> bool:
    try:
        with Image.open(BytesIO(data)) as image:
            image.load()
    except (OSError, SyntaxError):
        return False
    return True


ROW = b"\x00" + bytes(range(15))


@given(st.sampled_from(MODES), st.integers(1, 40), st.integers(1, 40))
def test_all_pixels_of_a_png_of_any_kind_are_found(mode: str, width: int, height: int) -> None:
    file = BytesIO()
    Image.new(mode, (width, height)).save(file, "PNG")
    assert is_complete(file.getvalue())


def test_a_decoder_has_to_say_whether_a_palette_can_be_used() -> None:
    """Pillow refuses one that is longer than it may be, which the pixels do not show."""
    file = BytesIO()
    Image.new("P", (3, 3)).save(file, "PNG")
    assert not is_complete(file.getvalue())
    assert validate_image(file.getvalue()).width == 3


@pytest.mark.parametrize("number", range(5))
def test_a_row_of_each_filter_is_a_row(number: int) -> None:
    data = a_png(ROW * 3 + bytes([number]) + ROW[1:])
    assert is_complete(data)
    assert is_decoded(data)


@pytest.mark.parametrize(
    "rows",
    [
        ROW * 3,
        ROW * 4 + b"\x00",
        ROW * 3 + ROW[:-1],
        ROW * 3 + b"\x05" + ROW[1:],
        b"\xff" + ROW[1:] + ROW * 3,
        b"",
    ],
    ids=["a row less", "a byte more", "a byte less", "no such filter", "no such filter at first", "none"],
)
def test_what_is_not_complete_is_left_to_the_decoder(rows: bytes) -> None:
    data = a_png(rows)
    assert not is_complete(data)
    if not is_decoded(data):
        with pytest.raises(OutputError):
            validate_image(data)
    else:
        assert validate_image(data).width == 5


@given(st.binary(max_size=80))
def test_nothing_is_complete_that_a_decoder_refuses(rows: bytes) -> None:
    data = a_png(rows)
    assert is_decoded(data) or not is_complete(data)


@pytest.mark.parametrize("at", [-1, -4])
def test_a_wrong_checksum_of_all_rows_is_left_to_the_decoder(at: int) -> None:
    packed = bytearray(zlib.compress(ROW * 4))
    packed[at] ^= 1
    header = struct.pack(">IIBBBBB", 5, 4, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", bytes(packed)) + chunk(b"IEND", b"")
    assert not is_complete(data)


def test_bytes_after_the_packed_rows_are_left_to_the_decoder() -> None:
    assert not is_complete(a_png(ROW * 4, after=b"more"))


def test_an_interlaced_png_is_left_to_the_decoder() -> None:
    assert not is_complete(a_png(ROW * 4, interlaced=1))


@pytest.mark.parametrize("first", [1, 2, 60, 1000])
def test_bytes_that_come_after_the_last_row_are_not_unpacked(first: int) -> None:
    packer = zlib.compressobj()
    parts = [packer.compress(ROW * 4 + bytes(first)) + packer.flush(zlib.Z_SYNC_FLUSH)]
    parts += [packer.compress(bytes(50_000_000)) + packer.flush()]
    whole = a_png(ROW * 4)
    tracemalloc.start()
    try:
        assert not are_pixels_complete(whole, map(memoryview, parts))
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_a_png_that_unpacks_to_far_more_than_it_says_is_not_unpacked() -> None:
    bomb = a_png(bytes(50_000_000))
    assert len(bomb) < 100_000
    assert not is_complete(bomb)
