"""Contact sheet: one JPEG with all variants of an item, for a person to choose from.

Images are opened one after the other and kept as thumbnails, so a sheet takes the memory of its largest image
and of the sheet itself. The same images give the same bytes, with one version of Pillow.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from io import BytesIO
from typing import TYPE_CHECKING

from airflow_provider_bitdance.exceptions import OutputError
from airflow_provider_bitdance.imaging.structure import jpeg_comment
from airflow_provider_bitdance.imaging.validation import decodable

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

    Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

SIDE = 512
"""The longest side of a thumbnail, pixels."""

_NARROWEST = 240
_GAP = 24
_LABEL_GAP = 10
_FONT_SIZE = 20
_LINE = 28
_BACKGROUND, _MISSING, _INK, _PALE = "#f4f4f2", "#dcdcd8", "#1d1d1b", "#6b6b66"
_QUALITY = 90
SMALL_SIDE = 384
"""The longest side of a thumbnail on a small sheet, pixels."""
_SMALLER = ((SMALL_SIDE, 80), (SMALL_SIDE, 50), (SMALL_SIDE, 25), (256, 25), (128, 25))
"""Sides and qualities of a small sheet, until it is small enough: four photographs take the first."""


def comment_of(sheet: bytes) -> str:
    """Return the comment that a sheet was made with; empty where it is none of ours."""
    try:
        return jpeg_comment(sheet).decode("ascii", "replace")
    except OutputError:
        return ""


def contact_sheet(images: Iterable[tuple[str, bytes]], *, comment: str = "") -> bytes:
    """Return one JPEG that shows all images in a grid, each above its label. Blocks while it decodes.

    A placeholder stands for an image that cannot be decoded: the sheet is a help, and its batch is paid for.

    :param images: Label and file of each, in the order to show; give a generator to have one file in
        memory at a time. A label has a line or two, such as ``"cat-v1\\nseed 42"``.
    :param comment: Goes into the file, in ASCII.
    :raises ValueError: There are none.
    """
    from PIL import Image, ImageDraw, ImageFont  # Dag files import this package, and need no Pillow

    cells = [(label.split("\n"), _thumbnail(data)) for label, data in images]
    if not cells:
        raise ValueError("A contact sheet needs an image")
    rows = math.isqrt(len(cells))
    columns = math.ceil(len(cells) / rows)
    shown = [thumbnail for _, thumbnail in cells if thumbnail is not None]
    width = max([_NARROWEST, *(thumbnail.width for thumbnail in shown)])
    height = max([_NARROWEST, *(thumbnail.height for thumbnail in shown)])
    label_height = _LABEL_GAP + _LINE * max(len(lines) for lines, _ in cells)
    step_x, step_y = width + _GAP, height + label_height + _GAP
    sheet = Image.new("RGB", (_GAP + columns * step_x, _GAP + rows * step_y), _BACKGROUND)
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(_FONT_SIZE)
    for number, (lines, thumbnail) in enumerate(cells):
        left, top = _GAP + number % columns * step_x, _GAP + number // columns * step_y
        if thumbnail is None:
            pen.rectangle((left, top, left + width - 1, top + height - 1), fill=_MISSING)
            pen.text((left + _GAP, top + _GAP), "cannot be decoded", font=font, fill=_PALE)
        else:
            # At the bottom of its cell, and so next to its label.
            sheet.paste(thumbnail, (left, top + height - thumbnail.height))
        _write(pen, lines, (left, top + height + _LABEL_GAP), width, font)
    file = BytesIO()
    sheet.save(file, "JPEG", quality=_QUALITY, comment=comment.encode("ascii"))
    return file.getvalue()


def small_sheet(sheet: bytes, *, limit: int) -> bytes:
    """Return a contact sheet as a smaller WebP, to be shown in a page. Blocks while it decodes.

    :param limit: Bytes.
    :return: Nothing where the sheet is no image that is safe to decode.
    """
    from PIL import Image

    try:
        with decodable(sheet) as (_, image):
            whole = image.convert("RGB")  # a stored sheet may be any image
            for side, quality in _SMALLER:
                sides = (max(1, whole.width * side // SIDE), max(1, whole.height * side // SIDE))
                file = BytesIO()
                whole.resize(sides, Image.Resampling.BICUBIC).save(file, "WEBP", quality=quality, method=2)
                if file.tell() <= limit:
                    return file.getvalue()
    except OutputError:
        pass
    return b""


def _thumbnail(data: bytes) -> Image.Image | None:
    from PIL import Image

    try:
        with decodable(data) as (_, image):
            image.draft("RGB", (SIDE, SIDE))  # lets a JPEG decode at a fraction of its size
            image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
            thumbnail = image.convert("RGBA")
    except OutputError:
        return None
    ground = Image.new("RGB", thumbnail.size, _BACKGROUND)
    ground.paste(thumbnail, mask=thumbnail)
    return ground


def _write(pen: ImageDraw.ImageDraw, lines: list[str], at: tuple[int, int], width: int, font: Font) -> None:
    for number, text in enumerate(lines):
        place = at[0], at[1] + number * _LINE
        pen.text(place, _fitted(text, font, width), font=font, fill=_PALE if number else _INK)


def _fitted(text: str, font: Font, width: int) -> str:
    """Cut a label that is too wide in its middle: the ends of keys distinguish variants."""
    shown, kept = text, len(text)
    while kept and font.getlength(shown) > width:
        kept -= 1
        end = kept // 2
        shown = f"{text[: kept - end]}...{text[len(text) - end :]}"
    return shown
