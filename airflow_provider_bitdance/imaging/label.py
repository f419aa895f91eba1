"""Label: marks a file as made by AI, as XMP, without touching a pixel.

Shops and search engines ask for the IPTC's mark (Google Merchant Center, "AI-generated content"; the EU's AI
Act, Art. 50, asks for a machine-readable one in general). Prompts do not go into files.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from xml.sax.saxutils import quoteattr

from airflow_provider_bitdance.exceptions import OutputError
from airflow_provider_bitdance.imaging.structure import Structure, read_structure, segments

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
"""Of the IPTC's vocabulary: "digital media created algorithmically using an AI model trained on captured
content"."""
TOOL = "airflow-provider-bitdance"
_PACKET = (
    b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/">'
    b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""'
    b' xmlns:xmp="http://ns.adobe.com/xap/1.0/"'
    b' xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
    b' xmp:CreatorTool="%b" Iptc4xmpExt:AISystemUsed=%b Iptc4xmpExt:DigitalSourceType="%b"/>'
    b'</rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
)
_APP0, _APP1, _APP11 = 0xE0, 0xE1, 0xEB
_XMP_IN_JPEG = b"http://ns.adobe.com/xap/1.0/\0"
_XMP_IN_PNG = b"XML:com.adobe.xmp\0"
_TEXT_CHUNKS = (b"iTXt", b"tEXt", b"zTXt")
_ALPHA, _XMP_FLAG = 0x10, 0x04


class NotLabelledError(ValueError):
    """A file cannot be labelled; it is whole, and stored as it was received."""


def label(data: bytes, *, model: str) -> bytes:
    """Return a file with the mark of what an AI model has made; one that has it already as it is.

    :param data: A whole PNG, JPEG or WebP.
    :param model: The model's path, which is written down as the system that made it.
    :raises NotLabelledError: It carries C2PA, which the mark would break, or metadata that nobody asked us to
        change, or has no room.
    """
    try:
        structure = read_structure(data)
        marked = _WRITERS[structure.kind](data, structure, _packet(model))
        is_whole = marked is data or _pixels(marked, read_structure(marked)) == _pixels(data, structure)
    except OutputError as error:
        raise NotLabelledError(error.what) from None
    except (struct.error, IndexError):
        raise NotLabelledError("its parts contradict one another") from None
    if not is_whole:
        raise NotLabelledError("its pixels would change")
    return marked


def _pixels(data: bytes, structure: Structure) -> bytes:
    """Return the parts of a file that make its pixels."""
    if structure.kind != "WEBP":
        return structure.picture
    chunks = _webp_chunks(data, structure.end)
    return b"".join(data[start:end] for name, start, end in chunks if name not in (b"VP8X", b"XMP "))


def _packet(model: str) -> bytes:
    """Return the XMP: who made it, by which system, and that it is a model's work."""
    return _PACKET % (TOOL.encode(), quoteattr(model).encode(), SOURCE_TYPE.encode())


def _check_free(xmp: bytes | None, *, has_c2pa: bool) -> bool:
    """Say whether there is a mark already.

    :param xmp: The file's own XMP, where it has some.
    :raises NotLabelledError: The file must not be changed.
    """
    if has_c2pa:
        raise NotLabelledError("it has C2PA content credentials, which a change would break")
    if xmp is None:
        return False
    if SOURCE_TYPE.rpartition("/")[2].encode() in xmp:
        return True
    raise NotLabelledError("it already has XMP metadata")


def _png(data: bytes, structure: Structure, packet: bytes) -> bytes:
    chunks = list(_png_chunks(data, structure.end))
    xmp = next((data[at + 8 : end] for name, at, end in chunks if _is_xmp(name, data, at)), None)
    if _check_free(xmp, has_c2pa=any(name == b"caBX" for name, _, _ in chunks)):
        return data
    body = b"iTXt" + _XMP_IN_PNG + b"\0\0\0\0" + packet  # not packed, no language, no translated keyword
    chunk = struct.pack(">I", len(packet) + len(_XMP_IN_PNG) + 4) + body + struct.pack(">I", zlib.crc32(body))
    _, _, after_header = chunks[0]
    return data[:after_header] + chunk + data[after_header:]


def _is_xmp(name: bytes, data: bytes, at: int) -> bool:
    return name in _TEXT_CHUNKS and data.startswith(_XMP_IN_PNG, at + 8)


def _png_chunks(data: bytes, whole: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield each chunk: its name, where it begins, where it ends."""
    start = 8
    while start < whole:
        length, name = struct.unpack_from(">I4s", data, start)
        end = start + 12 + length
        yield name, start, end
        start = end


def _jpeg(data: bytes, structure: Structure, packet: bytes) -> bytes:
    xmp, has_c2pa, place = None, False, 2
    for code, start, end in segments(data):
        content = data[start + 2 : end] if code in (_APP1, _APP11) else b""
        if code == _APP1 and content.startswith(_XMP_IN_JPEG):
            xmp = content
        has_c2pa = has_c2pa or (code == _APP11 and b"c2pa" in content)
        # JFIF has to come first, and Exif expects to.
        if place == start - 2 and (code == _APP0 or (code == _APP1 and content.startswith(b"Exif\0"))):
            place = end
    if _check_free(xmp, has_c2pa=has_c2pa):
        return data
    body = _XMP_IN_JPEG + packet
    segment = b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body
    return data[:place] + segment + data[place:]


def _webp(data: bytes, structure: Structure, packet: bytes) -> bytes:
    chunks = list(_webp_chunks(data, structure.end))
    xmp = next((data[start + 8 : end] for name, start, end in chunks if name == b"XMP "), None)
    if _check_free(xmp, has_c2pa=any(name == b"C2PA" for name, _, _ in chunks)):
        return data
    first, start, end = chunks[0]
    if first != b"VP8X" and len(chunks) > 1:
        # Without VP8X a decoder ignores what follows; with it, an animation or a second picture would count.
        raise NotLabelledError("it has parts that decoders ignore, but would show in a labelled file")
    head = data[start:end] if first == b"VP8X" else _extended(first, data, start)
    flags = head[8] | _XMP_FLAG
    body = head[:8] + bytes((flags,)) + head[9:] + data[end if first == b"VP8X" else start : structure.end]
    body += b"XMP " + struct.pack("<I", len(packet)) + packet + b"\0" * (len(packet) % 2)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body + data[structure.end :]


def _webp_chunks(data: bytes, whole: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield each chunk: its name, where it begins, where it ends with its padding."""
    start = 12
    while start + 8 <= whole:
        (length,) = struct.unpack_from("<I", data, start + 4)
        end = start + 8 + length + length % 2
        yield data[start : start + 4], start, end
        start = end


def _extended(name: bytes, data: bytes, start: int) -> bytes:
    """Return the header that a simple WebP needs for metadata: its canvas, and whether it is transparent."""
    if name == b"VP8L":
        bits = int.from_bytes(data[start + 9 : start + 13], "little")
        width, height, has_alpha = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, bool(bits >> 28 & 1)
    elif name == b"VP8 ":
        bits = int.from_bytes(data[start + 14 : start + 18], "little")
        width, height, has_alpha = bits & 0x3FFF, bits >> 16 & 0x3FFF, False
    else:
        raise NotLabelledError("its first part is of an unknown kind")
    canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"VP8X" + struct.pack("<I", 10) + bytes((_ALPHA if has_alpha else 0, 0, 0, 0)) + canvas


_WRITERS: dict[str, Callable[[bytes, Structure, bytes], bytes]] = {"PNG": _png, "JPEG": _jpeg, "WEBP": _webp}
