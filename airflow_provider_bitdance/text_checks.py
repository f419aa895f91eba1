"""What no text of a user should hold: characters that nobody sees, and templates that nobody rendered."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping

BYTE_ORDER_MARK = "\ufeff"
"""Editors and exports put it before a text, and files that are joined have it in the middle."""

_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\u2800\u3164\ufeff\uffa0\ufff0-\ufffb\U000e0000-\U000e007f]"
)
"""Control and format characters without a form of their own, and letters that are drawn as nothing."""
_JINJA = re.compile(r"\{\{(?:(?!\{\{).)*?\}\}|\{%(?:(?!\{%).)*?%\}", re.DOTALL)
"""A search ends at the next opening: 32,000 characters of openings alone would take 13 s, in each row."""


def invisible_in(text: str) -> str:
    """Return the first character that nobody sees, such as ``U+200B``; empty if there is none."""
    found = _INVISIBLE.search(text)
    return f"U+{ord(found[0]):04X}" if found else ""


def shows_nothing(text: str) -> bool:
    """Say whether a text has nothing but white space, invisible characters, and accents without a letter."""
    return all(
        char.isspace() or _INVISIBLE.match(char) or unicodedata.category(char) in ("Mn", "Me")
        for char in text
    )


def texts_in(value: object) -> Iterator[str]:
    """Yield each text of a value of JSON, without the names of objects."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from texts_in(part)


def unrendered_in(text: str) -> str:
    """Return the first piece of Jinja that is left in a rendered text, such as ``{{ ds }}``; else empty."""
    found = _JINJA.search(text)
    return found[0] if found else ""
