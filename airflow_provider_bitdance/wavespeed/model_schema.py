"""A model that is not in :mod:`models`, read from its ``request_schema`` in ``GET /models``.

It takes ``size`` and ``seed`` only where the schema has them by name and type. The schema is server data:
what makes no sense in it restricts nothing, and nothing in it may take much time or memory.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from airflow_provider_bitdance.exceptions import InputError
from airflow_provider_bitdance.redaction import shorten
from airflow_provider_bitdance.wavespeed.input_schema import InputSchema
from airflow_provider_bitdance.wavespeed.inputs import is_within
from airflow_provider_bitdance.wavespeed.models import (
    MAX_PIXELS,
    MAX_PROMPT,
    MAX_SEED,
    PATH_ALLOWED,
    SIZE,
    SIZE_PATTERN,
    Model,
    Sizes,
)

MAX_SCHEMA: Final = 256 * 2**10
"""Bytes of a model's schema as JSON; those of WaveSpeed have a few thousand."""
_SCHEMA_LEVELS = 32
_MAKES_IMAGES = re.compile(r"[\w-]{1,64}-to-image", re.ASCII)
MAX_SIDE: Final = 16_384
"""Pixels of a side, where a model's schema does not say."""


def read_model(path: str, schema: Mapping[str, Any], kind: str = "") -> Model:
    """Read a model from its ``request_schema`` in ``GET /models``.

    :param kind: The ``type`` that the catalogue says, ``text-to-image``; empty where it says none.
    :raises InputError: It makes no image of a prompt, or its schema is no plain one.
    """
    _check_schema(path, schema)
    found = schema.get("properties")
    properties = found if isinstance(found, dict) else {}
    prompt, size, seed = (_part(properties, name) for name in ("prompt", "size", "seed"))
    if prompt.get("type") != "string" or (kind and not _MAKES_IMAGES.fullmatch(kind)):
        what = f"is {shorten(kind)}" if kind and "prompt" in properties else "takes no prompt"
        raise InputError(
            f"model {shorten(path)} {what}, so it makes no image from a prompt", allowed=PATH_ALLOWED
        )
    names = schema.get("required")
    known = Model(
        path,
        sizes=_sizes_of(size),
        seeds=_seeds_of(seed),
        longest_prompt=min(max(_whole(prompt.get("maxLength"), MAX_PROMPT), 1), MAX_PROMPT),
        needs_size=(isinstance(names, list) and "size" in names) or _is_too_large(size.get("default")),
    )
    return replace(known, inputs=InputSchema.of(properties, required=names, without=known.options))


def _check_schema(path: str, schema: Mapping[str, Any]) -> None:
    """Refuse what could take much time or memory, here or in a record."""
    try:
        is_plain = is_within(schema, _SCHEMA_LEVELS)
        text = json.dumps(schema, allow_nan=False, ensure_ascii=False) if is_plain else ""
        is_plain = is_plain and len(text.encode()) <= MAX_SCHEMA
    except ValueError:
        is_plain = False
    if not is_plain:
        raise InputError(
            f"model {shorten(path)} has a schema in GET /models that cannot be used",
            allowed=f"JSON of at most {MAX_SCHEMA:,} bytes and {_SCHEMA_LEVELS} levels",
            fix="Use another model",
        )


def _part(properties: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = properties.get(name)
    return found if isinstance(found, dict) else {}


def _whole(value: object, default: int) -> int:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**53
    return int(value) if is_number else default  # type: ignore[call-overload]  # a number


def _seeds_of(part: Mapping[str, Any]) -> tuple[int, int] | None:
    if part.get("type") != "integer":
        return None
    least, most = max(_whole(part.get("minimum"), 0), 0), min(_whole(part.get("maximum"), MAX_SEED), MAX_SEED)
    return (least, most) if least <= most else (0, MAX_SEED)


def _is_too_large(size: object) -> bool:
    """Say whether an image of a size has more pixels than can be stored."""
    match = SIZE.fullmatch(size) if isinstance(size, str) else None
    return match is not None and int(match[1]) * int(match[2]) > MAX_PIXELS


def _sizes_of(part: Mapping[str, Any]) -> Sizes | None:
    """Read ``size``. WaveSpeed's schemas bound the sides by ``minimum`` and ``maximum`` of the text.

    More pixels than can be stored are refused, before they are paid for.
    """
    if part.get("type") != "string":
        return None
    if isinstance(found := part.get("enum"), list):
        words = [word for word in found if isinstance(word, str) and re.fullmatch(SIZE_PATTERN, word)]
        known = [(word, SIZE.fullmatch(word)) for word in words if not _is_too_large(word)]
        sides = {f"{int(match[1])}*{int(match[2])}": word for word, match in known if match}
        return Sizes({**sides, **{word: word for word, _ in known}}) if words else None
    least, most = max(_whole(part.get("minimum"), 1), 1), _whole(part.get("maximum"), MAX_SIDE)
    return Sizes(sides=(least, most) if least <= most else (1, MAX_SIDE), pixels=(1, MAX_PIXELS))
