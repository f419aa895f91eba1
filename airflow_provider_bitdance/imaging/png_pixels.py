"""PNG pixels: are all pixels of a PNG there? Says so without making an image of them, which takes half of the
time, and lets other threads run meanwhile. Pure; needs no Pillow.

What it cannot say is left to a decoder: it confirms, and refuses nothing.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable

_HEADER = 8 + 8
"""Bytes before what the first chunk of a PNG says: the signature, its length and name."""
_SAMPLES = {0: 1, 2: 3, 4: 2, 6: 4}
"""Samples a pixel, by colour type. Of one with a palette a decoder has to say whether that can be used."""
_STEP = 32 * 2**10
"""Bytes that are unpacked at a time. An encoder may write all pixels as one chunk: unpacked at once, they are
megabytes in each thread that checks an image, and glibc keeps them for that thread: 120 MB of a batch."""
_MOST_FILTER = 4
"""Each row begins with the number of its filter, 0 to 4: https://www.w3.org/TR/png-3/#9Filter-types."""


def are_pixels_complete(picture: bytes, pixels: Iterable[memoryview]) -> bool:
    """Say whether a PNG has each of its rows, and the checksum of all is right. Blocks.

    :param picture: The file, with a header that says no more pixels than are safe to unpack.
    :param pixels: What is packed in its IDAT chunks, in their order.
    :return: Not of an interlaced PNG, or of one that only a decoder can judge.
    """
    width, height, depth, colour, *_, interlaced = struct.unpack_from(">IIBBBBB", picture, _HEADER)
    if interlaced or colour not in _SAMPLES:
        return False
    row = 1 + (width * depth * _SAMPLES[colour] + 7) // 8
    try:
        return _are_rows(pixels, row, height)
    except zlib.error:
        return False


def _are_rows(packed: Iterable[memoryview], row: int, rows: int) -> bool:
    """Say whether what is packed is so many rows of so many bytes. Keeps none.

    :raises zlib.error: It is damaged.
    """
    unpacker, count, most = zlib.decompressobj(), 0, row * rows
    for part in (chunk[start : start + _STEP] for chunk in packed for start in range(0, len(chunk), _STEP)):
        piece = unpacker.decompress(part, most + 1 - count)
        if max(piece[-count % row :: row], default=0) > _MOST_FILTER:
            return False
        count += len(piece)
        if count > most:  # the next piece would have no bound
            return False
    return unpacker.eof and not unpacker.unused_data and count == most
