"""Names: how ids become file names, and where an image goes. Pure; no path is opened."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from airflow_provider_bitdance.storage.address import address_of, refusal, without_connection

EXTENSIONS = {"image/png": ".png", "image/jpeg": ".jpg", "image/webp": ".webp"}
"""The extension of a stored image, by its real format."""

_KNOWN_EXTENSION = re.compile(r"\.(png|jpe?g|webp)$", re.IGNORECASE)
_LONGEST_NAME = 100
_PLAIN = re.compile(rf"(?!\.)[A-Za-z0-9._=-]{{1,{_LONGEST_NAME}}}")
_DISLIKED = re.compile(r"[^A-Za-z0-9._=-]")
_CONTROL = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
_ALLOWED = 'an absolute path or a URI; "/data/images/" is a folder, "/data/cover.png" a file'
_LONGEST_STEM = 240
"""In bytes; with its extension it stays below the 255 of common disks."""


def safe_name(text: str, *, parts: Sequence[str] = ()) -> str:
    """Return a file name that every store takes: as it is, or made plain, with a hash of what it was.

    The hash distinguishes two ids that differ only in colons, slashes and accents.

    :param parts: What ``text`` was joined from by dots, if dots within them could give two of them the same
        name.
    """
    if _PLAIN.fullmatch(text) and not any("." in part for part in parts):
        return text
    plain = _DISLIKED.sub("-", text)[: _LONGEST_NAME - 9].lstrip(".")
    whole = "\0".join(parts) or text
    digest = hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{plain}-{digest}"


def is_file_name(text: str) -> bool:
    """Say whether a text is the name of one file in a folder, without its extension: no path, and not too
    long."""
    is_path = "/" in text or text in ("", ".", "..")
    return not (
        is_path or _CONTROL.search(text) or len(text.encode("utf-8", "surrogatepass")) > _LONGEST_STEM + 5
    )


@dataclass(frozen=True, slots=True)
class Destination:
    """Where an image goes. Its extension is known only when its format is, so the destination does not
    include it.

    :param folder: The output folder, as the user wrote it, without a slash at its end.
    :param stem: The file's name without extension.
    :param extension: The extension the user gave, with its dot, or nothing.
    :param named: The user named the file, so another task may want the same destination.
    """

    folder: str
    stem: str
    extension: str = ""
    named: bool = field(default=False, compare=False)

    @property
    def identity(self) -> str:
        """The destination without the connection id, which is information and not identity."""
        return without_connection(f"{self.folder}/{self.stem}")

    @property
    def record_name(self) -> str:
        """The name of the records of this destination: readable, and different for different destinations."""
        digest = hashlib.sha256(self.identity.encode()).hexdigest()[:16]
        return f"{safe_name(self.stem)[:80]}-{digest}"

    def may_be_stored_as(self, file: str) -> bool:
        """Say whether a file of this name may be the image, in whichever format and spelling of it."""
        return _KNOWN_EXTENSION.sub("", file) == self.stem and file != self.stem

    def file_name(self, media_type: str) -> str:
        """Return the name of the stored file: its extension is that of the real format."""
        real, given = EXTENSIONS[media_type], self.extension
        return self.stem + (given if given.lower().replace(".jpeg", ".jpg") == real else real)


def has_known_extension(path: str) -> bool:
    """Say whether a path ends like an image's file."""
    return _KNOWN_EXTENSION.search(path) is not None


def parse_destination(output_path: object, *, default_stem: str) -> Destination:
    """Read an ``output_path``: with a slash at its end it is a folder, without one it names the file.

    :param output_path: An absolute path or a URI such as ``s3://conn_id@bucket/images/``.
    :param default_stem: The file's name where a folder is given.
    :raises InputError: It is blank, relative, has no folder, or cannot be a file's name.
    """
    text = address_of(output_path, field="output_path", allowed=_ALLOWED)
    scheme, _, path = text.partition("://")
    folder, _, name = path.rpartition("/")
    extension = match[0] if (match := _KNOWN_EXTENSION.search(name)) else ""
    stem = name.removesuffix(extension)
    faults = {
        "it has no folder": not folder.strip("/"),
        # Found here and not by the store, which would refuse such a name when the image is paid for.
        "it has no file name": name and not stem,
        "its file name is too long": len(stem.encode()) > _LONGEST_STEM,
        # What a template renders for nothing; the key of a row may be that.
        "a part of it is None": "None"
        in [*folder.split("/"), name.partition(".")[0] if default_stem else ""],
    }
    for fault, is_so in faults.items():
        if is_so:
            raise refusal(text, fault, field="output_path", allowed=_ALLOWED)
    folder = f"{scheme}://{folder.rstrip('/')}"
    return Destination(folder, stem, extension, named=True) if name else Destination(folder, default_stem)
