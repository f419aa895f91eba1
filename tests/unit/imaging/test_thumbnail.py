"""Small pictures of images."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

import pytest
from PIL import Image

from airflow_provider_bitdance.imaging.thumbnail import MAX_THUMBNAIL, SIDE, thumbnail, thumbnail_of_file
from airflow_provider_bitdance.imaging.validation import validate_image


def a_file(kind: str, mode: str, size: tuple[int, int]) -> bytes:
    file = BytesIO()
    Image.effect_noise(size, 60).convert(mode).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize(
    ("kind", "mode"), [("PNG", "RGB"), ("PNG", "RGBA"), ("PNG", "P"), ("PNG", "1"), ("JPEG", "L"),
                       ("JPEG", "CMYK"), ("WEBP", "RGB")]
)  # fmt: skip
@pytest.mark.parametrize("size", [(1024, 768), (300, 1536), (16, 9), (1, 1), (1536, 3)])
def test_a_thumbnail_has_the_images_shape_and_is_small(kind: str, mode: str, size: tuple[int, int]) -> None:
    data = a_file(kind, mode, size)
    for made in (thumbnail_of_file(data), validate_image(data, with_thumbnail=True).thumbnail):
        assert 0 < len(made) <= MAX_THUMBNAIL
        with Image.open(BytesIO(made)) as small:
            assert small.format == "WEBP"
            assert max(small.size) == min(SIDE, max(size))
            ratio = min(1.0, SIDE / max(size))
            assert small.size == tuple(max(1, round(side * ratio)) for side in size)


def test_none_is_made_unless_it_is_wanted() -> None:
    assert validate_image(a_file("PNG", "RGB", (64, 64))).thumbnail == b""


@pytest.mark.parametrize("data", [b"", b"text", a_file("PNG", "RGB", (64, 64))[:100]])
def test_of_what_is_no_image_there_is_none(data: bytes) -> None:
    assert thumbnail_of_file(data) == b""


def test_transparency_is_kept() -> None:
    made = thumbnail(Image.new("RGBA", (400, 400), (255, 0, 0, 0)))
    with Image.open(BytesIO(made)) as small:
        assert small.mode == "RGBA"
        assert small.getpixel((5, 5))[3] == 0  # type: ignore[index]  # of an image with four bands


def a_palette_with_more_transparent_colours_than_it_has() -> bytes:
    header = struct.pack(">IIBBBBB", 64, 64, 8, 3, 0, 0, 0)
    pixels = zlib.compress((b"\0" + b"\1" * 64) * 64)
    parts = ((b"IHDR", header), (b"PLTE", bytes(9)), (b"tRNS", bytes(300)), (b"IDAT", pixels), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in parts
    )


def test_a_picture_of_which_none_can_be_made_is_kept() -> None:
    """Pillow decodes it, and does not convert it. It is paid for."""
    data = a_palette_with_more_transparent_colours_than_it_has()
    valid = validate_image(data, with_thumbnail=True)
    assert (valid.data, valid.width, valid.thumbnail) == (data, 64, b"")
    assert thumbnail_of_file(data) == b""


def test_a_pillow_without_webp_keeps_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    data = a_file("PNG", "RGB", (64, 64))
    Image.init()
    monkeypatch.delitem(Image.SAVE, "WEBP")
    valid = validate_image(data, with_thumbnail=True)
    assert (valid.data, valid.thumbnail) == (data, b"")
