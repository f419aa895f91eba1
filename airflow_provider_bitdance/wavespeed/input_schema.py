"""What a model takes beside prompt, size and seed: values checked by the JSON schema of its inputs.

The schema is that of an entry in :mod:`models`, or the one that ``GET /models`` has. Of the latter only plain
keywords count: a pattern could take minutes, a reference could lead anywhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Annotated, Any, Literal, Union

from pydantic import Field, StrictBool, StrictStr, TypeAdapter, ValidationError

from airflow_provider_bitdance.redaction import shorten
from airflow_provider_bitdance.wavespeed.urls import input_url_fault

MAX_INPUTS = 32 * 2**10
"""Bytes of all inputs as JSON: they are in each record and response."""
MAX_DEPTH = 8
_MOST = 200
"""Properties of a schema, and words of an enum, that are read: WaveSpeed's models have some 20."""
_NAMES_A_FILE = re.compile(r"(^|_)(image|images|mask|video|audio|url|urls|uri)(_|$)", re.IGNORECASE)
_URL = re.compile(r"\s*([a-z][a-z0-9+.-]*://|data:)", re.IGNORECASE)
_SET_BY_US = {
    "enable_sync_mode": "omit it: a response that takes as long as the image is lost too easily",
    "enable_base64_output": "omit it: the image is fetched from its URL",
    "webhook": "omit it: the result is polled",
    "webhook_url": "omit it: the result is polled",
}

Finding = tuple[str, str, object, str]
"""An input, what is wrong with it, its value, and what is allowed."""


@dataclass(frozen=True, slots=True)
class InputSchema:
    """The inputs of one model.

    :param properties: JSON schema of each, by its name.
    :param required: Names that a request must have.
    :param options: Names that have an option of their own, with its name: ``{"image_size": "size"}``.
    """

    properties: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    required: frozenset[str] = frozenset()
    options: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, schema: Mapping[str, Any], *, options: Mapping[str, str]) -> InputSchema:
        """Read the ``request_schema`` of a model in ``GET /models``; what is no schema is left out.

        :param options: Names that have an option of their own.
        """
        found, required = schema.get("properties"), schema.get("required")
        parts = islice(found.items(), _MOST) if isinstance(found, dict) else ()
        properties = {name: part for name, part in parts if isinstance(part, dict) and name not in options}
        names = required[:_MOST] if isinstance(required, list) else []
        return cls(
            properties,
            frozenset(name for name in names if isinstance(name, str) and name not in options),
            options,
        )

    def check(self, inputs: Mapping[str, Any]) -> tuple[dict[str, Any], list[Finding]]:
        """Return the inputs as they are sent, and all that is wrong with them.

        Lax on rendered strings: ``"28"`` is a number where a number is asked for.
        """
        sent: dict[str, Any] = {}
        findings: list[Finding] = []
        for name, value in inputs.items():
            try:
                sent[name] = self._checked(name, value)
            except _Refused as refused:
                findings.append((f"inputs.{shorten(name)}", refused.wrong, value, refused.allowed))
        missing = sorted(self.required - inputs.keys())
        findings += [
            (f"inputs.{name}", "is missing", None, described(self.properties.get(name, {})))
            for name in missing
        ]
        return sent, findings

    def _checked(self, name: str, value: Any) -> Any:
        if name in self.options:
            raise _Refused("is an option of its own", f"write {self.options[name]}=… instead")
        if name in _SET_BY_US:
            raise _Refused("is set by the provider", _SET_BY_US[name])
        if name not in self.properties:
            known = ", ".join(sorted(self.properties)) or "none"
            raise _Refused("is not an input of this model", shorten(f"its inputs are {known}", 400))
        if name in SEVERAL and str(value).strip() not in ("1", "1.0"):
            raise _Refused(
                "asks for several images, and a request buys one",
                "1; variants=n of a batch makes n images, each with its own seed and receipt",
            )
        part = self.properties[name]
        for text in _texts(value):
            if _URL.match(text) or part.get("format") == "uri" or (text and _NAMES_A_FILE.search(name)):
                _refuse_url(text)
        return _coerced(part, value)


SEVERAL = ("num_images", "num_outputs", "n", "max_images", "batch_size")
"""How models call the number of images that one request makes."""


def described(part: Mapping[str, Any]) -> str:
    """Say in words what one input may be."""
    if words := _words(part):
        return f"one of {shorten(', '.join(map(str, words)), 300)}"
    kind = part.get("type")
    names = {"integer": "a whole number", "number": "a number", "string": "text"}
    names |= {"boolean": "true or false", "array": "a list", "object": "an object"}
    bounds = [
        f"{word} {part[name]}{unit}"
        for name, word, unit in (
            ("minimum", "at least", ""),
            ("maximum", "at most", ""),
            ("minLength", "at least", " characters"),
            ("maxLength", "at most", " characters"),
            ("minItems", "at least", " entries"),
            ("maxItems", "at most", " entries"),
        )
        if _is_number(part.get(name))
    ]
    return ", ".join([names.get(str(kind), "a JSON value"), *bounds])


class _Refused(Exception):
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
            raise ValueError("is text that is no JSON") from None
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise ValueError("is no object with the names of inputs")
    try:
        text = json.dumps(dict(value), allow_nan=False, ensure_ascii=False)
        text.encode()
    except (TypeError, ValueError, RecursionError):
        raise ValueError("has a value that JSON cannot hold") from None
    if len(text) > MAX_INPUTS or _depth(value) > MAX_DEPTH:
        raise ValueError(f"has more than {MAX_INPUTS} characters as JSON, or {MAX_DEPTH} levels")
    return {name: part for name, part in json.loads(text).items() if part is not None}


def _depth(value: object) -> int:
    parts: list[Any] = []
    if isinstance(value, Mapping):
        parts = list(value.values())
    elif isinstance(value, list | tuple):
        parts = list(value)
    else:
        return 0
    return 1 + max(map(_depth, parts), default=0)


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _texts(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _texts(part)


def _refuse_url(url: str) -> None:
    if wrong := input_url_fault(url.strip()):
        raise _Refused(
            wrong,
            "a public https URL without a query: a signed URL would be in the records, and would make the "
            "request another one each day",
        )


def _words(part: Mapping[str, Any]) -> list[Any]:
    found = part.get("enum")
    words = found[:_MOST] if isinstance(found, list) else []
    return [word for word in words if isinstance(word, str | int | float | bool)]


def _coerced(part: Mapping[str, Any], value: Any) -> Any:
    if words := _words(part):
        # A template renders a number as text.
        same = [word for word in words if word == value or str(word) == str(value).strip()]
        if not same:
            raise _Refused("is not one of its words", described(part))
        return same[0]
    if isinstance(value, bool) and part.get("type") in ("integer", "number"):
        raise _Refused("is a boolean, not a number", described(part))
    if part.get("type") == "boolean" and isinstance(value, str) and value.strip().lower() in _BOOLEANS:
        value = _BOOLEANS[value.strip().lower()]
    try:
        return TypeAdapter(_annotation(part)).validate_python(value)
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]["msg"].replace("Input should", "should")
        raise _Refused(wrong[:1].lower() + wrong[1:], described(part)) from None


_BOOLEANS = {"true": True, "false": False}
_KINDS: dict[str, Any] = {
    "string": StrictStr,
    "integer": int,
    "number": float,
    "boolean": StrictBool,
    "object": dict[str, Any],
}


def _annotation(part: Mapping[str, Any], *, depth: int = 0) -> Any:
    """Return the type that pydantic checks. What is not understood of a schema restricts nothing."""
    choices = next((part[name] for name in ("anyOf", "oneOf") if isinstance(part.get(name), list)), None)
    if depth > MAX_DEPTH:
        return Any
    if choices:
        read = [_annotation(choice, depth=depth + 1) for choice in choices[:8] if isinstance(choice, dict)]
        return Union[tuple(read)] if read else Any  # noqa: UP007  # of a tuple
    if depth and (words := _words(part)):
        return Literal[tuple(words)]  # made here
    kind = part.get("type")
    if kind == "array":
        items = part.get("items")
        inner = _annotation(items, depth=depth + 1) if isinstance(items, dict) else Any
        return Annotated[list[inner], Field(**_bounds(part, "minItems", "maxItems"))]  # type: ignore[valid-type]
    found = _KINDS.get(kind, Any) if isinstance(kind, str) else Any
    if kind == "string":
        return Annotated[found, Field(**_bounds(part, "minLength", "maxLength"))]
    if kind in ("integer", "number"):
        return Annotated[found, Field(allow_inf_nan=False, **_bounds(part, "minimum", "maximum", "ge", "le"))]
    return found


def _bounds(
    part: Mapping[str, Any], low: str, high: str, least: str = "min_length", most: str = "max_length"
) -> dict[str, Any]:
    found = {least: part.get(low), most: part.get(high)}
    return {name: bound for name, bound in found.items() if _is_number(bound)}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
