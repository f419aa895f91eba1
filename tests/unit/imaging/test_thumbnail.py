"""Small pictures of images."""

from __future__ import annotations

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
