"""``url_base``: where a web server or CDN shows what is stored, for tables, feeds and pages.

The provider does not serve, copy or check anything there: the URL says where the image is to be seen once the
output folder is published.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow_provider_bitdance.exceptions import InputError
from airflow_provider_bitdance.operators.validation import rendered_path
from airflow_provider_bitdance.redaction import shorten
from airflow_provider_bitdance.storage.path_objects import text_of_path

if TYPE_CHECKING:
    from airflow_provider_bitdance.engine import Finished

_ALLOWED = (
    "an http or https URL of at most 1024 characters, percent-encoded, without user, query or fragment, "
    "such as https://cdn.example.com/images/"
)
_LONGEST = 1024
_BASE = re.compile(
    r"https?://(?:[A-Z0-9._-]+|\[[0-9A-F:.]+\])(?::[0-9]{1,5})?"
    r"(?:/(?:[A-Z0-9._~!$&'()*+,;=:@/-]|%[0-9A-F]{2})*)?",
    re.IGNORECASE | re.ASCII,
)
_TEMPLATE = re.compile(r"\{[{%#]")
_USER = re.compile(r"(?<=//)[^/]*@")
_VERSION_DIGITS = 8
"""Of the file's hash: enough that a browser or CDN fetches an image anew when it was replaced."""


def text_of_url_base(value: Any) -> Any:
    """Return ``url_base`` as the Dag file has it; a template and another task's result are checked later.

    :raises InputError: It is text without a template, and no such URL.
    """
    if isinstance(value, bool | int | float | bytes):
        raise InputError(f"url_base is {shorten(repr(value))}", allowed=_ALLOWED)
    text = text_of_path("url_base", value, kind="folder")
    if isinstance(text, str) and not _TEMPLATE.search(text):
        _checked(text)
    return text


def rendered_url_base(value: Any) -> str:
    """Return the base with a slash at its end, after Airflow has rendered it; empty where there is none.

    :raises InputError: Something in it is not filled in, or it is no such URL.
    """
    text = rendered_path("url_base", value, kind="folder")
    return "" if text is None else _checked(text)


def with_urls(finished: Finished, base: str) -> Finished:
    """Return what was made with the URL of each stored image beside its URI.

    :param base: As :func:`rendered_url_base` returns it; without one nothing changes.
    """
    if not base:
        return finished
    stored = {
        key: {"uri": result["uri"], "url": _url_of(result, base), **result}
        for key, result in finished.stored.items()
    }
    return replace(finished, stored=stored)


def _url_of(result: dict[str, Any], base: str) -> str:
    name = result["uri"].rpartition("/")[2]  # as it lies in the folder: no URI of a store is percent-encoded
    return f"{base}{quote(name, safe='')}?v={result['sha256'][:_VERSION_DIGITS]}"


def _checked(base: Any) -> str:
    text = str(base).strip()
    if not isinstance(base, str) or len(text) > _LONGEST or not _BASE.fullmatch(text):
        # A query may hold a signature.
        shown = _USER.sub("***@", re.sub(r"(?<=[?#]).*", "…", text))
        raise InputError(f"url_base is {shorten(repr(shown), 200)}", allowed=_ALLOWED)
    return text.rstrip("/") + "/"
