"""Columns: the values that a row may hold beside what is asked. They go into prompts and the manifest."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date, time
from decimal import Decimal
from uuid import UUID

from airflow_provider_bitdance.redaction import shorten

ASKED = ("key", "prompt", "size", "seed")
"""The columns of a row that say what to make."""

RESULT_COLUMNS = frozenset(
    {
        *("key", "variant_of", "status", "error", "uri", "receipt", "prediction_id", "model", "size"),
        *("width", "height", "media_type", "bytes", "sha256", "seed", "inference_ms", "estimated_cost_usd"),
        *("reused", "nsfw", "possibly_paid"),
    }
)
"""The manifest's own columns, which no free column may be called."""

Scalar = str | int | float | bool | None
"""What a column holds: the values of JSON without lists and objects."""


def free_columns(row: Mapping[object, object]) -> tuple[dict[str, Scalar], list[str]]:
    """Return the columns of a row that say nothing about what to make, and what is wrong with them."""
    columns: dict[str, Scalar] = {}
    faults = []
    for name, value in row.items():
        if name in ASKED:
            continue
        try:
            columns[_name(name)] = scalar(value)
        except ValueError as error:
            faults.append(f"column {shorten(repr(name))} {error}")
    return columns, faults


def scalar(value: object) -> Scalar:
    """Return a value as a manifest can hold it: times, decimals and UUIDs of a database become text.

    :raises ValueError: Says what is wrong with it.
    """
    if isinstance(value, str):
        if _has_surrogate(value):
            raise ValueError("holds a lone surrogate, which UTF-8 cannot carry")
        return value
    if isinstance(value, float | Decimal) and not math.isfinite(value):
        raise ValueError(f"is {value}, which is not a number")
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, Decimal | UUID):
        return str(value)
    kind = type(value).__name__
    raise ValueError(f"is of type {kind}; a column holds text, a number, true, false or nothing")


def _name(name: object) -> str:
    if not isinstance(name, str) or not name.strip() or _has_surrogate(name):
        raise ValueError("has no name that can be used")
    alike = name.strip().casefold()
    if alike in ASKED:
        raise ValueError(f"is not called {alike!r}, though it looks alike")
    if alike in ("width", "height"):
        raise ValueError('is not read; write a size, such as "1280*720"')
    if alike in RESULT_COLUMNS:
        raise ValueError(f"has the name of the manifest's own column {alike!r}; rename it")
    return name


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= char <= "\udfff" for char in text)
