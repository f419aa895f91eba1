"""The pictures of the local service: a coloured ground that shows its own prompt, size, seed and id.

A picture depends on model, prompt, size and seed and on nothing else, so a test may draw it again and
compare it byte for byte, or read its labels and see at once that two images were swapped. The id is a short
name for these four, not the prediction's: the same request shall give the same bytes, however often it is
made. Pillow and its fonts draw, so another version of Pillow may give other bytes.

For load there are two kinds that cost little, with no text to look at and the same labels: one colour, and
noise, which has as many bytes as a photograph.
"""

from __future__ import annotations

import colorsys
import hashlib
import io
import json
import random
import struct
import zlib
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Final, Literal

from PIL import ExifTags, Image, ImageDraw, ImageFont, ImageOps
from PIL.PngImagePlugin import PngInfo, putchunk

MediaType = Literal["image/png", "image/jpeg", "image/webp"]
Colour = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_PALETTE: Final = 3
"""PNG's number for pictures whose pixels are numbers of colours."""
_RGB: Final = 2
"""PNG's number for pictures whose pixels are three bytes."""
MAX_SHOWN: Final = 1200
"""Characters of a prompt that are drawn at most."""
MAX_LABEL: Final = 5000
"""Characters of a prompt that the labels hold at most: a JPEG comment ends at 64 KiB."""


@dataclass(frozen=True, slots=True)
class Labels:
    """What a picture says about itself in its metadata.

    :param prompt: its first 5,000 characters.
    :param size: such as ``1024*1024``.
    :param id: eight hex digits that stand for model, prompt, size and seed.
    """

    model: str
    prompt: str
    size: str
    seed: int
    id: str


def draw(*, model: str, prompt: str, width: int, height: int, seed: int, media_type: MediaType) -> bytes:
    """Draw a picture and return it as a file's bytes.

    :param model: model id, such as ``wavespeed-ai/bitdance-14b/text-to-image``.
    :param prompt: the text to show.
    :param width: pixels.
    :param height: pixels.
    :param seed: the seed that was really used, never -1.
    :param media_type: ``image/png``, ``image/jpeg`` or ``image/webp``.
    """
    digest = _digest(model, prompt, width, height, seed)
    labels = _labels(model, prompt, width, height, seed, digest)
    picture = _ground(width, height, digest)
    _write(picture, prompt, labels)
    return _encoded(picture, labels, media_type)


def draw_fast(*, model: str, prompt: str, width: int, height: int, seed: int) -> bytes:
    """Make a valid PNG of one colour with the labels of :func:`draw`, in microseconds.

    :param model: model id.
    :param prompt: the text to put into the labels.
    :param width: pixels.
    :param height: pixels.
    :param seed: the seed that was really used, never -1.
    """
    digest = _digest(model, prompt, width, height, seed)
    text = _text_chunks(_labels(model, prompt, width, height, seed, digest))
    file = io.BytesIO(PNG_SIGNATURE)
    file.seek(0, io.SEEK_END)
    putchunk(file, b"IHDR", struct.pack(">IIBBBBB", width, height, 1, _PALETTE, 0, 0, 0))
    putchunk(file, b"PLTE", digest[:3])
    for name, value, *_ in text.chunks:
        putchunk(file, name, value)
    putchunk(file, b"IDAT", _first_colour_everywhere(width, height))
    putchunk(file, b"IEND", b"")
    return file.getvalue()


def draw_photo(*, model: str, prompt: str, width: int, height: int, seed: int) -> bytes:
    """Make a valid PNG as large as a photograph, 1 MB for 1024*1024, with the labels of :func:`draw`.

    Its top, 1/64 of it, is its own. What is below is drawn and compressed once for each size, so that a
    picture takes few milliseconds.

    :param model: model id.
    :param prompt: the text to put into the labels.
    :param width: pixels.
    :param height: pixels.
    :param seed: the seed that was really used, never -1.
    """
    digest = _digest(model, prompt, width, height, seed)
    text = _text_chunks(_labels(model, prompt, width, height, seed, digest))
    rows = max(1, height // 64)
    top = _noisy_rows(width, rows, digest)
    below, chunk = _below(width, height - rows)
    packer = zlib.compressobj(level=1)
    # After a full flush what follows needs nothing of what came before it: two streams may be joined.
    packed = packer.compress(top) + packer.flush(zlib.Z_FULL_FLUSH)
    checksum = zlib.adler32(below, zlib.adler32(top))
    file = io.BytesIO(PNG_SIGNATURE)
    file.seek(0, io.SEEK_END)
    putchunk(file, b"IHDR", struct.pack(">IIBBBBB", width, height, 8, _RGB, 0, 0, 0))
    for name, value, *_ in text.chunks:
        putchunk(file, name, value)
    putchunk(file, b"IDAT", packed)
    file.write(chunk)
    putchunk(file, b"IDAT", struct.pack(">I", checksum))
    putchunk(file, b"IEND", b"")
    return file.getvalue()


def labels(picture: bytes) -> Labels:
    """Read the labels of a picture that :func:`draw` made.

    :param picture: the file's bytes, PNG, JPEG or WebP, drawn or fast.
    :raises ValueError: when the picture carries no labels.
    """
    with Image.open(io.BytesIO(picture)) as image:
        if image.format == "PNG":
            image.load()  # Pillow reads text chunks only with the pixels.
            text = image.info.get("labels")
        elif image.format == "JPEG":
            text = image.info.get("comment")
        else:
            text = image.getexif().get(ExifTags.Base.ImageDescription)
    if not text:
        raise ValueError("this picture carries no labels: the local service did not draw it")
    return Labels(**json.loads(text))


def _digest(model: str, prompt: str, width: int, height: int, seed: int) -> bytes:
    return hashlib.sha256(f"{model}\n{width}*{height}\n{seed}\n{prompt}".encode()).digest()


def _labels(model: str, prompt: str, width: int, height: int, seed: int, digest: bytes) -> Labels:
    return Labels(model, prompt[:MAX_LABEL], f"{width}*{height}", seed, digest.hex()[:8])


def _ground(width: int, height: int, digest: bytes) -> Image.Image:
    """Two gradients laid over one another, in colours of the digest."""
    dark, middle, light = (_colour(digest[i], value) for i, value in ((0, 0.35), (1, 0.62), (2, 0.88)))
    slope = Image.linear_gradient("L").rotate(digest[3] * 360 / 256, resample=Image.Resampling.BILINEAR)
    slope = slope.crop((40, 40, 216, 216))  # The corners that the rotation left black.
    rings = Image.radial_gradient("L").crop((digest[4] // 2, digest[5] // 2, 256, 256)).resize(slope.size)
    small = Image.composite(
        ImageOps.colorize(slope, black=dark, white=light, mid=middle),
        ImageOps.colorize(rings, black=light, white=dark, mid=middle),
        ImageOps.invert(rings),
    )
    return small.resize((width, height), Image.Resampling.BILINEAR)


def _colour(byte: int, value: float) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(byte / 256, 0.55, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def _write(picture: Image.Image, prompt: str, labels: Labels) -> None:
    """Write prompt, size, seed and the request's short name on a dark panel."""
    width, height = picture.size
    margin = min(width, height) // 16
    size = max(13, min(width, height) // 22)
    font, line_height = _font(size), round(size * 1.35)
    lines = _wrapped(" ".join(prompt[:MAX_SHOWN].split()), font, width - 4 * margin)
    room = (height - 4 * margin) // line_height - 3
    if len(lines) > room or len(prompt) > MAX_SHOWN:
        lines = [*lines[: room - 1], "..."]
    lines += ["", f"{labels.size}   seed {labels.seed}", f"request {labels.id}"]
    panel = (margin, margin, width - margin, 3 * margin + line_height * len(lines))
    # Darkening the pixels below keeps the ground visible and the text legible on any colour.
    picture.paste(picture.crop(panel).point([level // 3 for level in range(256)] * 3), panel[:2])
    pen = ImageDraw.Draw(picture)
    for number, line in enumerate(lines):
        pen.text((2 * margin, 2 * margin + number * line_height), line, font=font, fill="white")


@lru_cache(maxsize=32)
def _font(size: int) -> Font:
    return ImageFont.load_default(size=size)


def _wrapped(text: str, font: Font, width: int) -> list[str]:
    """Break a text into lines of at most ``width`` pixels, inside words only where it must be."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
            continue
        if lines[-1]:
            lines.append("")
        for character in word:
            if font.getlength(lines[-1] + character) > width:
                lines.append("")
            lines[-1] += character
    return lines


def _encoded(picture: Image.Image, labels: Labels, media_type: MediaType) -> bytes:
    file = io.BytesIO()
    if media_type == "image/png":
        picture.save(file, "PNG", compress_level=1, pnginfo=_text_chunks(labels))
    elif media_type == "image/jpeg":
        picture.save(file, "JPEG", quality=88, comment=json.dumps(asdict(labels)))
    else:
        exif = Image.Exif()
        exif[ExifTags.Base.ImageDescription] = json.dumps(asdict(labels))
        picture.save(file, "WEBP", quality=85, method=0, exif=exif)
    return file.getvalue()


def _text_chunks(labels: Labels) -> PngInfo:
    """Make PNG text chunks: one for each label, for people, and one with all of them, for :func:`labels`."""
    said = asdict(labels)
    chunks = PngInfo()
    for name, value in said.items():
        chunks.add_itxt(name, str(value))
    chunks.add_itxt("labels", json.dumps(said))
    return chunks


@lru_cache(maxsize=64)
def _first_colour_everywhere(width: int, height: int) -> bytes:
    """Compress the rows of a picture of one bit a pixel, all of them 0: the first colour of its palette."""
    return zlib.compress(bytes((1 + (width + 7) // 8) * height))


@lru_cache(maxsize=8)
def _below(width: int, rows: int) -> tuple[bytes, bytes]:
    """Return rows of pixels, and the PNG chunk that has them compressed as the end of a zlib stream."""
    pixels = _noisy_rows(width, rows, b"below")
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    chunk = io.BytesIO()
    putchunk(chunk, b"IDAT", packer.compress(pixels) + packer.flush())
    return pixels, chunk.getvalue()


def _noisy_rows(width: int, rows: int, seed: bytes) -> bytes:
    """Return rows of pixels, each behind PNG's number for an unfiltered row: noise of 2 bits."""
    chance = random.Random(seed)
    offset = chance.randrange(256)
    levels = bytes((offset + level % 4) % 256 for level in range(256))
    noise = chance.randbytes(3 * width * rows).translate(levels)
    return b"".join(b"\0" + noise[3 * width * row : 3 * width * (row + 1)] for row in range(rows))
