"""Thumbnails: small WebP pictures of stored images. Needs Pillow, so nothing of the api-server imports it."""

from __future__ import annotations

from base64 import b64encode
from io import BytesIO
from threading import Lock

from airflow_provider_bitdance.exceptions import OutputError
from airflow_provider_bitdance.imaging.validation import decodable

SIDE = 192
"""Pixels of the longer side."""
MAX_THUMBNAIL = 12 * 2**10
"""Bytes; one of 192 pixels has 3 to 9 kB."""
_QUALITIES = (80, 50, 20)


class Thumbnails:
    """Collects thumbnails of the first images that a process stores.

    :param limit: So many are made.
    :ivar found: By key, WebP as base64.
    """

    def __init__(self, limit: int) -> None:
        self.found: dict[str, str] = {}
        self._limit = limit
        self._turn = Lock()

    def take(self, key: str, data: bytes) -> None:
        """Make the thumbnail of a stored image, if there is room for it. Blocks."""
        with self._turn:  # of many that are stored at once, no more are decoded than there is room for
            if len(self.found) < self._limit and (made := thumbnail(data)):
                self.found[key] = b64encode(made).decode()


def thumbnail(data: bytes) -> bytes | None:
    """Return a small WebP of an image; nothing where that is not possible: the image is stored, and a picture
    of it is a help."""
    from PIL import Image

    try:
        with decodable(data) as (_, image):
            image.draft("RGB", (2 * SIDE, 2 * SIDE))  # a JPEG is decoded at an eighth of its size or more
            image.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC, reducing_gap=2.0)
            small = image.convert("RGBA" if image.has_transparency_data else "RGB")
    except OutputError:
        return None
    for quality in _QUALITIES:
        file = BytesIO()
        small.save(file, "WEBP", quality=quality, method=2)
        if file.tell() <= MAX_THUMBNAIL:
            return file.getvalue()
    return None
