"""Thumbnail: a small WebP of an image, for a person who looks at a task in Airflow's UI. Needs Pillow."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

from airflow_provider_bitdance.exceptions import OutputError

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 192
"""Pixels of the longer side."""
MAX_THUMBNAIL = 12 * 2**10
"""Bytes. One of 192 pixels has 2 to 9 kB; noise has more, and is made coarser."""
_QUALITIES = (80, 50, 20)


def thumbnail(image: Image) -> bytes:
    """Return a small WebP of a decoded image; nothing where none can be made, or even a coarse one is too
    large. Takes 7 ms of a megapixel.

    Pillow refuses to convert some pictures that it decodes, and may be built without WebP: that is no reason
    to lose an image that is paid for.
    """
    try:
        return _thumbnail(image)
    except Exception:
        return b""


def _thumbnail(image: Image) -> bytes:
    from PIL.Image import Resampling

    ratio = min(SIDE / max(image.size), 1.0)
    sides = max(1, round(image.width * ratio)), max(1, round(image.height * ratio))
    if image.mode not in ("RGB", "RGBA"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    small = image.resize(sides, Resampling.BICUBIC, reducing_gap=2.0)
    for quality in _QUALITIES:
        file = BytesIO()
        small.save(file, "WEBP", quality=quality, method=2)
        if file.tell() <= MAX_THUMBNAIL:
            return file.getvalue()
    return b""


def thumbnail_of_file(data: bytes) -> bytes:
    """Return a small WebP of a stored file; nothing where it is none: a picture of it is a help."""
    from airflow_provider_bitdance.imaging.validation import decodable

    try:
        with decodable(data) as (_, image):
            image.draft("RGB", (2 * SIDE, 2 * SIDE))  # a JPEG is decoded at an eighth of its size or more
            return thumbnail(image)
    except OutputError:
        return b""
