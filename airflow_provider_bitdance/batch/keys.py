"""Keys: the names of a batch's items and of their files."""

from __future__ import annotations

import hashlib
import json
import re

from airflow_provider_bitdance.storage.naming import parse_destination, safe_name
from airflow_provider_bitdance.text_checks import invisible_in
from airflow_provider_bitdance.wavespeed.image_request import ImageRequest

CONTACT_SHEET = "-contact-sheet"
"""What follows an item's key in the name of its contact sheet."""

KEY_ALLOWED = (
    'key: a file name without extension, made of letters, digits, ".", "_", "=" and "-", '
    'not starting with ".", at most 100 characters, unique even if case is ignored'
)
_WORDS_SHOWN = 40


def check_key(key: object, *, suffix: str) -> None:
    """Check a key that the user gave: text or a whole number.

    :param suffix: The longest text that is put after it.
    :raises ValueError: Says what is wrong with it.
    """
    if isinstance(key, bool) or not isinstance(key, str | int):
        raise ValueError(f"is of type {type(key).__name__}, not text")
    text = str(key)
    if code_point := invisible_in(text):
        raise ValueError(f"has {code_point}, an invisible character")
    # The one rule for names of records and images; what it would change is no key.
    if safe_name(text + suffix) != text + suffix or text == "":
        raise ValueError("is not a safe file name")
    if extension := parse_destination(f"/keys/{text}", default_stem="").extension:
        raise ValueError(
            f"ends in {extension}; omit it, because a file gets the extension of its real format"
        )
    if text.casefold().endswith(CONTACT_SHEET):
        raise ValueError(f"ends in {CONTACT_SHEET}, the name of a contact sheet")


def derived_key(request: ImageRequest, *, style: str | None = None) -> str:
    """Return the key of a row that gives none: the same request has the same key, whatever the position of
    its row.

    Only the request counts and no free column: an image is found again when a column is added or a row's
    "updated_at" moves, and a changed request never replaces the image of the old one.

    :param style: In which the prompt is enhanced before it is sent.
    """
    identity = {**request.identity(), **({"enhance_prompt": style} if style else {})}
    requested = json.dumps(identity, sort_keys=True)
    digest = hashlib.sha256(requested.encode()).hexdigest()[:12]
    words = "-".join(re.findall(r"[a-z0-9]+", request.prompt.lower()))[:_WORDS_SHOWN].rstrip("-")
    return f"{words}-{digest}" if words else digest
