"""The mark of what an AI made: read back by two readers, with the pixels as they were."""

from __future__ import annotations

import json
import random
import shutil
import struct
import subprocess
import zlib
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from airflow_provider_bitdance.imaging.label import SOURCE_TYPE, TOOL, NotLabelledError, label
from airflow_provider_bitdance.imaging.validation import validate_image

MODEL = "wavespeed-ai/bitdance-14b/text-to-image"
PACKET = "XML:com.adobe.xmp"
KINDS: dict[str, list[dict[str, object]]] = {
    "PNG": [{}, {"optimize": True}],
    "JPEG": [{}, {"quality": 95, "subsampling": 0}, {"progressive": True}],
    "WEBP": [{"lossless": True}, {"quality": 80}],
}


def a_picture(kind: str, number: int) -> bytes:
    """Make a picture: sides, colours, transparency and what else it carries follow from the number."""
    dice = random.Random(f"{kind}:{number}")
    image = Image.effect_noise((dice.randint(1, 90), dice.randint(1, 90)), 90)
    modes = {"PNG": ("RGB", "RGBA", "L", "P", "1"), "JPEG": ("RGB", "L", "CMYK"), "WEBP": ("RGB", "RGBA")}
    mode = dice.choice(modes[kind])
    image = image.convert(mode)
    if mode == "RGBA":
        image.putalpha(Image.effect_noise(image.size, 90))
    options = dict(dice.choice(KINDS[kind]))
    if dice.random() < 0.4:
        exif = Image.Exif()
        exif[0x010E] = "a picture with Exif"
        options["exif"] = exif
    if dice.random() < 0.3 and kind != "PNG":
        options["icc_profile"] = b"not a profile, and not looked at" * 5
    file = BytesIO()
    image.save(file, kind, **options)
    more = dice.randbytes(dice.randint(1, 50)) if dice.random() < 0.2 else b""
    return file.getvalue() + more


PICTURES = [(kind, number) for kind in KINDS for number in range(20)]


def pixels(data: bytes) -> tuple[str, tuple[int, int], bytes]:
    with Image.open(BytesIO(data)) as image:
        return image.mode, image.size, image.tobytes()


def xmp_by_pillow(data: bytes) -> str:
    with Image.open(BytesIO(data)) as image:
        found = image.info.get("xmp") or image.info.get(PACKET)
        assert found, "no XMP"
        return found.decode() if isinstance(found, bytes) else str(found)


@pytest.mark.parametrize(("kind", "number"), PICTURES)
def test_the_mark_is_read_by_pillow_and_no_pixel_changes(kind: str, number: int) -> None:
    data = a_picture(kind, number)
    marked = label(data, model=MODEL)

    assert pixels(marked) == pixels(data)
    validate_image(marked)
    for text in (SOURCE_TYPE, TOOL, MODEL):
        assert text in xmp_by_pillow(marked)
    assert 500 < len(marked) - len(data) < 640
    assert label(marked, model="another/model") is marked, "it is written once"


@pytest.mark.skipif(shutil.which("exiftool") is None, reason="exiftool is a package of Debian")
def test_the_mark_is_read_by_exiftool_which_finds_nothing_wrong(tmp_path: Path) -> None:
    for kind, number in PICTURES:
        file = tmp_path / f"{kind}-{number}.{kind.lower()}"
        file.write_bytes(label(a_picture(kind, number), model=MODEL))
    command = ["exiftool", "-json", "-G1", "-XMP:all", "-Warning", "-Error", "-validate", str(tmp_path)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    assert len(found) == len(PICTURES)
    for tags in found:
        assert tags["XMP-iptcExt:DigitalSourceType"] == SOURCE_TYPE, tags
        assert tags["XMP-xmp:CreatorTool"] == TOOL
        assert tags["XMP-iptcExt:AISystemUsed"] == MODEL
        assert "ExifTool:Error" not in tags


def png_with(name: bytes, content: bytes) -> bytes:
    data = a_picture("PNG", 0)
    body = name + content
    return (
        data[:33] + struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body)) + data[33:]
    )


def jpeg_with(code: int, content: bytes) -> bytes:
    data = a_picture("JPEG", 3)
    return data[:2] + bytes((0xFF, code)) + struct.pack(">H", len(content) + 2) + content + data[2:]


def webp_with(name: bytes, content: bytes) -> bytes:
    data = label(a_picture("WEBP", 1), model=MODEL)
    body = data[12:] + name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


OWN_XMP = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta/>"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (png_with(b"caBX", b"jumb c2pa"), "C2PA"),
        (jpeg_with(0xEB, b"JP\0\1\0\0\0\1jumb...c2pa..."), "C2PA"),
        (webp_with(b"C2PA", b"jumb c2pa"), "C2PA"),
        (png_with(b"iTXt", PACKET.encode() + b"\0\0\0\0\0<x:xmpmeta/>"), "already has XMP metadata"),
        (jpeg_with(0xE1, OWN_XMP), "already has XMP metadata"),
        (b"GIF89a", "not a whole PNG, JPEG or WebP"),
        (a_picture("PNG", 0)[:60], "not a whole"),
        (a_picture("JPEG", 0)[:60], "not a whole"),
        (a_picture("WEBP", 0)[:60], "not a whole"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_must_not_be_changed_is_not(data: bytes, why: str) -> None:
    with pytest.raises(NotLabelledError, match=why):
        label(data, model=MODEL)


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_refused_or_marked_with_the_same_pixels(kind: str) -> None:
    data = a_picture(kind, 5)
    dice = random.Random(kind)
    for _ in range(300):
        damaged = bytearray(data)
        for _ in range(dice.randint(1, 4)):
            damaged[dice.randrange(len(damaged))] = dice.randrange(256)
        try:
            marked = label(bytes(damaged), model=MODEL)
        except NotLabelledError:
            continue
        assert SOURCE_TYPE.encode() in marked
        try:
            before = pixels(bytes(damaged))
        except Exception:
            continue  # no picture before, either
        assert pixels(marked) == before


@pytest.mark.parametrize("name", [b"VP8X", b"ALPH", b"ANIM", b"VP8 ", b"ABCD"])
@pytest.mark.parametrize("lossless", [False, True])
def test_a_simple_webp_with_more_than_its_picture_is_not_changed(name: bytes, lossless: bool) -> None:
    """Decoders ignore what follows the picture until a header says that it is there: then the file breaks."""
    simple = BytesIO()
    Image.effect_noise((48, 40), 60).convert("RGB").save(simple, "WEBP", lossless=lossless)
    body = simple.getvalue()[12:] + name + struct.pack("<I", 10) + bytes(10)
    data = b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body
    assert validate_image(data).width == 48
    with pytest.raises(NotLabelledError, match="would show in a labelled file"):
        label(data, model=MODEL)
    assert validate_image(label(simple.getvalue(), model=MODEL)).width == 48


def test_a_models_path_cannot_break_out_of_the_packet() -> None:
    marked = label(a_picture("PNG", 1), model='a"/><evil b="<&')
    assert "<evil" not in xmp_by_pillow(marked)
