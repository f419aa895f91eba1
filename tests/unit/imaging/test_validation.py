"""What is taken for a picture: content alone, whole, and of a sane size."""

from __future__ import annotations

import hashlib
import struct
import zlib
from io import BytesIO

import pytest
from PIL import Image, PngImagePlugin

from airflow_provider_bitdance.exceptions import OutputError, OutputRefusedError
from airflow_provider_bitdance.imaging import validation
from airflow_provider_bitdance.imaging.validation import validate_image
from tests.unit.support import a_picture


@pytest.mark.parametrize(
    ("extension", "media_type"), [("png", "image/png"), ("jpg", "image/jpeg"), ("webp", "image/webp")]
)
def test_a_whole_picture_is_measured(extension: str, media_type: str) -> None:
    data = a_picture(extension, side=40)
    found = validate_image(data)
    assert (found.media_type, found.width, found.height) == (media_type, 40, 40)
    assert found.data == data
    assert found.sha256 == hashlib.sha256(data).hexdigest()


def test_width_and_height_are_not_mixed_up() -> None:
    file = BytesIO()
    Image.new("RGB", (30, 20)).save(file, "PNG")
    found = validate_image(file.getvalue())
    assert (found.width, found.height) == (30, 20)


def test_a_jpeg_that_holds_a_second_picture_is_a_jpeg() -> None:
    file = BytesIO()
    image = Image.new("RGB", (30, 20))
    image.save(file, "MPO", save_all=True, append_images=[image])
    assert validate_image(file.getvalue()).media_type == "image/jpeg"


@pytest.mark.parametrize("extension", ["png", "jpg", "webp"])
def test_a_picture_that_was_cut_anywhere_is_refused(extension: str) -> None:
    data = a_picture(extension, side=24)
    ends = {*range(60), *range(60, len(data), 23), *range(len(data) - 40, len(data))}
    taken = []
    for end in sorted(ends):
        try:
            validate_image(data[:end])
        except OutputError as error:
            assert error.retry_helps  # noqa: PT017
        else:
            taken.append(end - len(data))
    assert taken == []


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html><body>503 Service Unavailable</body></html>",
        b'{"code": 404}',
        b"\x89PNG\r\n\x1a\n",
        a_picture("gif"),
        bytes(5000),
    ],
    ids=["empty", "HTML", "JSON", "only a signature", "GIF", "zeros"],
)
def test_what_is_no_png_jpeg_or_webp_is_refused(data: bytes) -> None:
    with pytest.raises(OutputError, match="not a whole PNG, JPEG or WebP"):
        validate_image(data)


def test_a_changed_byte_in_a_png_is_noticed() -> None:
    data = bytearray(a_picture("png", side=40))
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(OutputError):
        validate_image(bytes(data))


def png_header(width: int, height: int) -> bytes:
    """Return a PNG that says it is this large and holds next to nothing."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.fixture
def _nothing_decodes(monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(self: object) -> None:
        raise AssertionError("the picture was decoded")

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", decode)


@pytest.mark.usefixtures("_nothing_decodes")
@pytest.mark.parametrize("side", [30_000, 12_000, 4_097])
def test_a_decompression_bomb_is_refused_by_its_header(side: int) -> None:
    """30000 * 30000 is Pillow's error, 12000 * 12000 its warning, 4097 * 4097 our own limit."""
    with pytest.raises(OutputRefusedError, match="too many pixels") as caught:
        validate_image(png_header(side, side))
    assert not caught.value.retry_helps


def test_the_limit_itself_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "MAX_PIXELS", 24 * 24)
    assert validate_image(a_picture(side=24)).width == 24
    with pytest.raises(OutputRefusedError, match="at most 576"):
        validate_image(a_picture(side=25))
