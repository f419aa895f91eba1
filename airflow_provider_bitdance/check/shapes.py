"""Shapes: what a response looks like without what it says. Pure.

A bug report may hold names of keys and headers, counts and times, and nothing that belongs to an account. So
no value of a response gets beyond this module, and a name only if it cannot be one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from airflow_provider_bitdance.wavespeed.protocol import Exchange

OTHER = "(other)"
"""Stands for a name that might say something."""
DOCUMENTED = frozenset(
    {
        *("additionalProperties", "api_schema", "api_schemas", "balance", "base_price"),
        *("billing_type", "code", "created_at", "currency", "data", "default", "deleted_count"),
        *("discount_rate", "discounted_price", "error", "error_code", "executionTime", "formula"),
        *("get", "has_more", "has_nsfw_contents", "id", "inference", "input", "inputs", "items"),
        *("message", "model", "model_id", "model_uuid", "name", "order", "page", "price"),
        *("prediction", "prompt", "request_schema", "seed", "size", "status", "timings", "total"),
        *("type", "url", "urls", "outputs", "uuid"),
    }
)
"""Names of keys that WaveSpeed documents, or that its own clients read."""
MEDIA_TYPES = frozenset(
    {
        *("application/json", "application/octet-stream", "application/problem+json", "image/jpeg"),
        *("image/png", "image/webp", "text/html", "text/plain"),
    }
)
MAX_NAMES = 60
"""Of one object or of one response's headers: beyond that they are data."""
MAX_DEPTH = 4
_NAME = re.compile(r"(?!.*\d\D*\d\D*\d\D*\d)[A-Za-z][A-Za-z0-9_-]{0,39}")
_HOST = re.compile(r"[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63}){0,5}")


@dataclass(frozen=True, slots=True)
class Shape:
    """One response without its values.

    :param status: Of HTTP; 0 where no response came.
    :param media_type: One of a few known ones.
    :param headers: Names, sorted.
    :param keys: By the path of an object ("", "data", "data.items[]"), the names of its keys.
    """

    status: int = 0
    media_type: str = ""
    headers: tuple[str, ...] = ()
    keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def shape_of(exchange: Exchange | None, *, secrets: Collection[str] = ()) -> Shape:
    """Return the shape of a response.

    :param secrets: Texts of which no name may be a part, nor hold one.
    """
    if exchange is None:
        return Shape()
    keys: dict[str, tuple[str, ...]] = {}
    try:
        _add_keys(keys, "", json.loads(exchange.body), secrets, MAX_DEPTH)
    except (ValueError, RecursionError):
        keys = {}
    return Shape(
        status=exchange.status,
        media_type=media_type(exchange),
        headers=names_of(exchange.headers, secrets),
        keys=keys,
    )


def _add_keys(
    keys: dict[str, tuple[str, ...]], path: str, value: object, secrets: Collection[str], depth: int
) -> None:
    """Add the keys of a value; of a list those of its first item."""
    if isinstance(value, list):
        if value:
            _add_keys(keys, f"{path}[]", value[0], secrets, depth)
    elif isinstance(value, dict) and depth:
        keys[path] = names_of(value, secrets)
        for name, inner in list(value.items())[:MAX_NAMES]:
            shown = name_of(name, secrets)
            _add_keys(keys, f"{path}.{shown}" if path else shown, inner, secrets, depth - 1)


def names_of(names: Collection[str] | Mapping[str, object], secrets: Collection[str]) -> tuple[str, ...]:
    """Return names that may be shown, sorted, each once."""
    return tuple(sorted({name_of(name, secrets) for name in list(names)[:MAX_NAMES]}))


def name_of(name: str, secrets: Collection[str]) -> str:
    """Return a key's or a header's name; not one that may be an id, a word of a prompt or part of a key."""
    if name in DOCUMENTED:
        return name
    return name if _NAME.fullmatch(name) and not _is_secret(name, secrets) else OTHER


def media_type(exchange: Exchange) -> str:
    """Return the media type that a response declares, if it is one of the known ones."""
    declared = exchange.headers.get("content-type", "").partition(";")[0].strip().lower()
    return declared if not declared or declared in MEDIA_TYPES else OTHER


def host_of(url: str, secrets: Collection[str]) -> str:
    """Return the host of a URL; not one that may hold a secret."""
    try:
        host = (urlsplit(url).hostname or "").lower()
    except ValueError:
        host = ""
    return host if _HOST.fullmatch(host) and not _is_secret(host, secrets) else OTHER


def _is_secret(name: str, secrets: Collection[str]) -> bool:
    lower = name.lower()
    return any(lower in secret.lower() or secret.lower() in lower for secret in secrets if secret)
