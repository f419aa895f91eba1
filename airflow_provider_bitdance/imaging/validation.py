"""Validation: is a downloaded file a complete PNG, JPEG or WebP image of a sane size? By content alone."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from io import BytesIO

from airflow_provider_bitdance.exceptions import OutputError, OutputRefusedError

MAX_BYTES = 64 * 2**20
MAX_PIXELS = 4096 * 4096
"""Nearly three times the side that the model offers; an image of that size takes 64 MB in memory."""

_END_OF_PNG = b"IEND\xaeB`\x82"


@dataclass(frozen=True, slots=True)
class ValidImage:
    """An image that was decoded to its last pixel."""

    data: bytes
    media_type: str
    width: int
    height: int

    @property
    def sha256(self) -> str:
        """Hash of the file."""
        return hashlib.sha256(self.data).hexdigest()


def validate_image(data: bytes) -> ValidImage:
    """Return what the file is. Blocks while it decodes.

    :raises OutputRefusedError: More pixels than are safe to decode.
    :raises OutputError: Not a whole PNG, JPEG or WebP image.
    """
    from PIL import Image  # not at the top: Dag files import this package, and need no Pillow

    bomb = OutputRefusedError("The output has too many pixels", allowed=f"at most {MAX_PIXELS}")
    try:
        with Image.open(BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as image:
            if image.width * image.height > MAX_PIXELS:
                raise bomb
            # Pillow distinguishes a JPEG with a second image in it (a preview) from a JPEG; nothing else
            # does.
            media_type = Image.MIME["JPEG" if image.format == "MPO" else image.format or ""]
            width, height = image.size
            image.verify()
            if image.format == "PNG" and _END_OF_PNG not in data:
                raise EOFError  # Pillow does not miss the last four bytes
        with Image.open(BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as image:
            image.load()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise bomb from None
    except OutputError:
        raise
    except Exception as error:  # Pillow's decoders raise many kinds, SyntaxError among them
        raise OutputError(
            f"The output is not a whole PNG, JPEG or WebP image: {type(error).__name__}"
        ) from error
    return ValidImage(data, media_type, width, height)
