"""Validation: is a downloaded file a complete PNG, JPEG or WebP image of a sane size? By content alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

from airflow_provider_bitdance.exceptions import OutputError, OutputRefusedError
from airflow_provider_bitdance.imaging.png_pixels import are_pixels_complete
from airflow_provider_bitdance.imaging.structure import Structure, not_whole, read_structure
from airflow_provider_bitdance.imaging.thumbnail import thumbnail
from airflow_provider_bitdance.wavespeed.models import MAX_PIXELS

if TYPE_CHECKING:
    from PIL import Image

MAX_SCANNED_PIXELS = 16 * MAX_PIXELS
"""A progressive JPEG is decoded scan by scan, each over all pixels, and a scan may take 60 bytes: 3,000 of
them took 54 s. Encoders write about ten. This is 16 at the most pixels, 113 at the model's largest size, and
costs 0.3 s."""


@dataclass(frozen=True, slots=True)
class ValidImage:
    """An image whose last pixel is there.

    :param data: The file as it is stored.
    :param trailing: How many bytes at its end belong to no picture.
    :param thumbnail: A small WebP of it, where one was wanted.
    :param sha256_received: Hash of the file as it was received, where it has been labelled since.
    """

    data: bytes
    media_type: str
    width: int
    height: int
    trailing: int = 0
    thumbnail: bytes = b""
    sha256_received: str | None = None

    @property
    def sha256(self) -> str:
        """Hash of the file."""
        return hashlib.sha256(self.data).hexdigest()


def validate_image(data: bytes, *, with_thumbnail: bool = False) -> ValidImage:
    """Return what the file is. Blocks while it decodes. Of an animation, the first frame is decoded.

    Of most PNGs the pixels are unpacked and counted, which says as much as decoding them does.

    :param with_thumbnail: Make a small picture of it, too, now that it is decoded.
    :raises OutputRefusedError: More pixels, scans or parts than are safe to decode.
    :raises OutputError: Not a whole PNG, JPEG or WebP image.
    """
    from PIL import Image  # not at the top: Dag files import this package, and need no Pillow

    with decodable(data) as (structure, image):
        if with_thumbnail or not are_pixels_complete(structure.picture, structure.pixels):
            image.load()
        media_type = Image.MIME[structure.kind]
        small = thumbnail(image) if with_thumbnail else b""
        trailing = len(data) - structure.end
        return ValidImage(data, media_type, *image.size, trailing=trailing, thumbnail=small)


@contextmanager
def decodable(data: bytes) -> Iterator[tuple[Structure, Image.Image]]:
    """Open an image that is safe to decode. Everything that goes wrong within, decoding included, is an
    ``OutputError``; see :func:`validate_image`.
    """
    from PIL import Image

    too_many_pixels = OutputRefusedError("The output has too many pixels", allowed=f"at most {MAX_PIXELS}")
    try:
        structure = read_structure(data)
        with Image.open(BytesIO(structure.picture), formats=(structure.kind,)) as image:
            pixels = image.width * image.height
            if pixels > MAX_PIXELS:
                raise too_many_pixels
            if pixels * structure.scans > MAX_SCANNED_PIXELS:
                raise OutputRefusedError(
                    f"The output is a JPEG of {structure.scans} scans",
                    allowed=f"at most {MAX_SCANNED_PIXELS // pixels} at its size",
                )
            yield structure, image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise too_many_pixels from None
    except OutputError:
        raise
    except Exception as error:  # Pillow's decoders raise many kinds, SyntaxError among them
        raise not_whole(type(error).__name__) from error
