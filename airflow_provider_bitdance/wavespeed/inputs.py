"""The inputs of a request beside prompt, size and seed: how a user writes them, and what no request may have,
whichever the model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from airflow_provider_bitdance.redaction import redact, shorten
from airflow_provider_bitdance.text_checks import texts_in
from airflow_provider_bitdance.wavespeed.urls import input_url_fault

MAX_INPUTS: Final = 32 * 2**10
"""Characters of all inputs as JSON: they are in each record and response."""
MAX_DEPTH: Final = 8
"""Levels of lists and objects in the inputs."""
SEVERAL: Final = (
    "num_images",
    "num_outputs",
    "num_samples",
    "num_images_per_prompt",
    "number_of_images",
    "image_count",
    "n",
    "max_images",
    "batch_size",
)
"""How models call the number of images that one request makes."""

_SECRET = re.compile(
    r"[a-z][a-z0-9+.-]{0,20}://[^\s'\"]*|[?&][^\s'\"]{4,}"
    r"|(?:sig|signature|token|key|secret|credential|password)=[^\s'\"]+",
    re.IGNORECASE,
)
"""A URL, the query of one, or what is left of one."""
SET_BY_US: Final[Mapping[str, str]] = {
    "enable_sync_mode": "omit it: a response that waits for the image is lost too easily",
    "enable_base64_output": "omit it: the image is fetched from its URL",
    "webhook": "omit it: the result is polled",
    "webhook_url": "omit it: the result is polled",
}
_URL = re.compile(r"\s*([a-z][a-z0-9+.-]*://|data:[\w.+/-]*[;,])", re.IGNORECASE)
URL_ALLOWED: Final = (
    "a public https URL without a query: a signed URL would be stored in the records and would change the "
    "request every day"
)
Finding = tuple[str, str, object, str]
"""A field, what is wrong with it, its value, and what is allowed."""


class Refused(ValueError):
    """An input that is not sent.

    :param wrong: What is wrong with it, as the rest of a sentence about it.
    :param allowed: What it may be.
    """

    def __init__(self, wrong: str, allowed: str) -> None:
        super().__init__(wrong)
        self.wrong, self.allowed = wrong, allowed


def read_inputs(value: object) -> dict[str, Any]:
    """Read what a user gives as ``inputs``: an object, or JSON text of one, as a column of a file has it.

    :raises ValueError: Says what is wrong with it.
    """
    if isinstance(value, str):
        if len(value) > MAX_INPUTS:
            raise ValueError(f"has more than {MAX_INPUTS} characters")
        try:
            value = json.loads(value) if value.strip() else None
        except (ValueError, RecursionError):
            raise ValueError("is text that is not JSON") from None
    if value is None or value == {}:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise ValueError("is not an object of input names and values")
    if not is_within(value, MAX_DEPTH):
        raise ValueError(f"has more than {MAX_DEPTH} levels of lists and objects")
    try:
        text = json.dumps(dict(value), allow_nan=False, ensure_ascii=False)
        text.encode()
    except (TypeError, ValueError):
        raise ValueError("has a value that JSON cannot hold") from None
    if len(text) > MAX_INPUTS:
        raise ValueError(f"has more than {MAX_INPUTS} characters as JSON")
    return {name: part for name, part in json.loads(text).items() if part is not None}


def shown_input(value: object) -> str:
    """Return an input for an error: it may be a signed URL of any kind, also one that is mistyped."""
    return shorten(redact(_SECRET.sub("[url]", repr(value)[:1000])))


def refuse_what_no_model_gets(name: str, value: object) -> None:
    """Refuse an input that no request may have, of whichever model, and be it from a record.

    :raises Refused: It is set by the provider, makes several images, or has a URL that is not public.
    """
    if name in SET_BY_US:
        raise Refused("is set by the provider", SET_BY_US[name])
    if name in SEVERAL and not is_one(value):
        raise Refused(
            "makes several images, but one request buys one image",
            "1; variants=n of a batch makes n images, each with its own seed and receipt",
        )
    for text in texts_in(value):
        if _URL.match(text):
            refuse_url(text.strip())


def is_one(value: object) -> bool:
    """Say whether a number of images is one, also as text."""
    return str(value).strip() in ("1", "1.0")


def refuse_url(url: str) -> None:
    """Refuse a URL of an input that is not public, or may not be in records.

    :raises Refused: Says what is wrong with it.
    """
    if url and (wrong := input_url_fault(url)):
        raise Refused(wrong, URL_ALLOWED)


def is_within(value: object, levels: int) -> bool:
    """Say whether a JSON value has at most so many levels of lists and objects."""
    if isinstance(value, Mapping | list | tuple):
        parts = value.values() if isinstance(value, Mapping) else value
        return levels > 0 and all(is_within(part, levels - 1) for part in parts)
    return True
