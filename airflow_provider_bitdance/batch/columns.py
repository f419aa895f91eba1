"""Columns: the values that a row may hold beside the request. They go into prompts and the manifest."""

from __future__ import annotations

import math
from datetime import date, time
from decimal import Decimal
from numbers import Integral
from typing import Any
from uuid import UUID

from airflow_provider_bitdance.redaction import shorten
from airflow_provider_bitdance.text_checks import invisible_in

REQUESTED = ("key", "prompt", "size", "seed", "inputs")
"""The columns of a row that say what to make."""

RESULT_COLUMNS = frozenset(
    {
        *("key", "variant_of", "status", "error", "uri", "receipt", "prediction_id", "model", "size"),
        *("width", "height", "size_differs", "media_type", "bytes", "sha256", "seed", "inference_ms"),
        *("estimated_cost_usd", "reused", "nsfw", "possibly_paid"),
        *("prompts_possibly_paid", "prompt_asked", "prompt_sent"),
    }
)
"""The manifest's own columns, which no free column may be called."""

URL_COLUMN = "url"
"""The manifest's own, too, where images have URLs. Elsewhere it is one of the user's, as tables have it."""

_MISSING = ("NaTType", "NAType")
"""The types of pandas' missing values. NaT passes for a time, and its text is "NaT"."""

Scalar = str | int | float | bool | None
"""What a column holds: the values of JSON without lists and objects."""


def column_name(name: object, *, is_published: bool = False) -> str:
    """Return the name of a free column.

    :param is_published: The manifest has the images' URLs.
    :raises ValueError: Names the column and says what is wrong with its name.
    """
    if not isinstance(name, str) or not name.strip() or has_surrogate(name):
        raise _fault(name, "has an unusable name")
    if code_point := invisible_in(name):
        raise _fault(name, f"has {code_point} in its name, an invisible character; remove it")
    alike = name.strip().casefold()
    if alike in REQUESTED:
        raise _fault(name, f"resembles {alike!r}; use exactly that name, or rename it")
    if alike in ("width", "height"):
        raise _fault(name, 'is not supported; use size, such as "1280*720"')
    if alike in RESULT_COLUMNS or (is_published and alike == URL_COLUMN):
        raise _fault(name, f"collides with the manifest's own column {alike!r}; rename it")
    return name


def plain(value: Any) -> Any:
    """Return a whole number of another type, as numpy's, as Python's own; anything else as it is."""
    return int(value) if isinstance(value, Integral) and not isinstance(value, int) else value


def scalar(name: object, value: object) -> Scalar:
    """Return a column's value as a manifest can hold it: a database's times, decimals and UUIDs become text.

    :raises ValueError: Names the column and says what is wrong with its value.
    """
    if isinstance(value, str):
        if has_surrogate(value):
            raise _fault(name, "contains a lone surrogate, which UTF-8 cannot encode")
        return value
    if isinstance(value, float | Decimal) and not _is_finite(value):
        raise _fault(name, f"is {value}, which is not a number")
    if type(value).__name__ in _MISSING:
        raise _fault(name, f"is {value}, which is not a value; omit it or use None")
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, Decimal | UUID):
        return str(value)
    kind = type(value).__name__
    raise _fault(name, f"is of type {kind}; a column can hold text, a number, true, false or null")


def _is_finite(number: float | Decimal) -> bool:
    # math.isfinite takes Decimal("1E+400") for infinite, and fails at a signaling NaN.
    return number.is_finite() if isinstance(number, Decimal) else math.isfinite(number)


def _fault(name: object, wrong: str) -> ValueError:
    return ValueError(f"column {shorten(repr(name))} {wrong}")


def has_surrogate(text: str) -> bool:
    """Say whether a text has half a character, which UTF-8 cannot encode."""
    return any("\ud800" <= char <= "\udfff" for char in text)
