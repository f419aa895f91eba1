"""What a model takes beside prompt, size and seed: each input, read from its JSON schema, and its value.

The schema is that of an entry in :mod:`models`, or the one that ``GET /models`` has. Only plain keywords are
read: a pattern could take minutes, a reference could lead anywhere. A keyword that makes no sense restricts
nothing, because the API checks a request again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_bitdance.redaction import shorten
from airflow_provider_bitdance.text_checks import texts_in
from airflow_provider_bitdance.wavespeed.inputs import (
    MAX_DEPTH,
    SET_BY_US,
    SEVERAL,
    URL_ALLOWED,
    Finding,
    Refused,
    is_one,
    refuse_url,
    refuse_what_no_model_gets,
)

_MAX_WORDS = 1000
"""Words of an enum; a longer one restricts nothing."""
_MAX_CHOICES, _CHOICE_LEVELS = 8, 3
"""Alternatives of an input, and how many levels each counts as; what has more of them restricts nothing. Each
is tried for each value: 14,000 of them fit into a schema, and took half a second an image."""
_LARGEST = 1e300
"""Bounds beyond it restrict nothing. It also excludes NaN and infinity."""

_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}
_IN_WORDS = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}
_BOUNDS = {
    "string": ("minLength", "maxLength", " characters"),
    "integer": ("minimum", "maximum", ""),
    "number": ("minimum", "maximum", ""),
    "array": ("minItems", "maxItems", " entries"),
}
_NAMES_A_FILE = re.compile(r"(?:^|_)(?:image|mask|video|audio|ur[il])s?(?:_?\d+)?\Z", re.IGNORECASE)
"""``image``, ``mask_url`` and ``reference_image_2``; ``image_size`` is none."""


@dataclass(frozen=True, slots=True)
class Input:
    """What one input may be. Everything is allowed that is not excluded.

    :param type: Its JSON type; empty: any.
    :param words: Its values, where they are listed.
    :param least: The least number, or characters of a text, or entries of a list.
    :param most: The most of the same.
    :param entries: What the entries of a list may be.
    :param choices: Where it may be one of several things, those.
    :param is_url: It names a file that WaveSpeed fetches.
    :param default: What the API takes where it is not sent.
    """

    type: str = ""
    words: tuple[str | int | float | bool, ...] = ()
    least: float | None = None
    most: float | None = None
    entries: Input | None = None
    choices: tuple[Input, ...] = ()
    is_url: bool = False
    default: object = None

    @classmethod
    def of(cls, schema: object, *, name: str = "", depth: int = MAX_DEPTH) -> Input:
        """Read the JSON schema of an input; what is no schema allows everything.

        :param name: By it ``image`` and ``mask_url`` are known to be URLs.
        """
        if not isinstance(schema, Mapping) or depth <= 0:
            return cls()
        alternatives, kinds = _alternatives(schema), _types(schema)
        if not alternatives and len(kinds) > 1:
            alternatives = [{**schema, "type": kind} for kind in kinds]
        if alternatives:
            few = alternatives if len(alternatives) <= _MAX_CHOICES else []
            choices = tuple(cls.of(each, name=name, depth=depth - _CHOICE_LEVELS) for each in few)
            return cls(choices=choices, default=schema.get("default"))
        (kind,), words = kinds, _words(schema)
        least, most = _bounds(schema, kind)
        names_a_file = schema.get("format") in ("uri", "url") or _NAMES_A_FILE.search(name)
        return cls(
            kind,
            words,
            least,
            most,
            cls.of(schema.get("items"), name=name, depth=depth - 1) if kind == "array" else None,
            is_url=bool(names_a_file) and not words,
            default=schema.get("default"),
        )

    @property
    def unless_sent(self) -> object:
        """What the API takes at least where it is not sent, as far as that is known; else nothing."""
        least = self.least if self.least is not None and self.least > 1 else None
        words = None if any(map(is_one, self.words)) else next(iter(self.words), None)
        found = (self.default, least, words, *(choice.unless_sent for choice in self.choices))
        return next((each for each in found if each is not None), None)

    @property
    def allowed(self) -> str:
        """What it may be, in words."""
        if self.choices:
            return shorten(" or ".join(dict.fromkeys(choice.allowed for choice in self.choices)), 400)
        if self.words:
            return f"one of {shorten(', '.join(map(_text, self.words)), 300)}"
        if self.is_url and self.type in ("", "string"):
            return URL_ALLOWED
        unit = _BOUNDS[self.type][2] if self.type in _BOUNDS else ""
        least, most = (None if bound is None else f"{bound:.15g}{unit}" for bound in (self.least, self.most))
        bounds = [f"at least {least}" if least else "", f"at most {most}" if most else ""]
        what = _IN_WORDS.get(self.type, "any JSON value")
        return ", ".join(filter(None, [what, *bounds]))

    def read(self, value: Any) -> Any:
        """Return a value as it is sent. Lax on rendered text: ``"28"`` is a number where one is wanted.

        :raises Refused: It is not allowed.
        """
        if self.choices:
            return self._choose(value)
        if self.words:
            return self._word(value)
        value = self._as_type(value)
        size = value if self.type in ("integer", "number") else len(value) if self.type in _BOUNDS else 0
        if (self.least is not None and size < self.least) or (self.most is not None and size > self.most):
            raise Refused("is out of range", self.allowed)
        if self.entries is not None:
            value = [self.entries.read(part) for part in value]
        if self.is_url:
            value = value.strip() if isinstance(value, str) else value
            for text in texts_in(value):
                refuse_url(text)
        return value

    def _choose(self, value: Any) -> Any:
        refusals = []
        # Text stays text where text is one of the choices.
        for choice in sorted(self.choices, key=lambda choice: not choice._has_type_of(value)):
            try:
                return choice.read(value)
            except Refused as refused:
                refusals.append(refused)
        raise Refused(refusals[0].wrong, self.allowed)

    def _has_type_of(self, value: object) -> bool:
        is_of_type = isinstance(value, _TYPES.get(self.type, (object,)))
        return is_of_type and (not isinstance(value, bool) or self.type in ("boolean", ""))

    def _word(self, value: object) -> str | int | float | bool:
        for word in self.words:
            # True is 1 in Python, and not in JSON.
            if word == value and isinstance(word, bool) == isinstance(value, bool):
                return word
        for word in self.words:
            if isinstance(value, str) and _text(word) == value.strip():
                return word
        raise Refused("is not one of the allowed values", self.allowed)

    def _as_type(self, value: Any) -> Any:
        if isinstance(value, str) and self.type in ("integer", "number", "boolean"):
            with suppress(ValueError, RecursionError):
                value = json.loads(value.lower())
        if self.type == "integer" and isinstance(value, float) and value.is_integer():
            value = int(value)
        if not self._has_type_of(value) or (self.type in ("integer", "number") and _number(value) is None):
            raise Refused(f"is not {_IN_WORDS[self.type]}", self.allowed)
        # The same number has one form: what is requested is compared as it is written.
        return float(value) if self.type == "number" else value


def _alternatives(schema: Mapping[str, Any]) -> list[Any]:
    """Return what an input may be one of, where its schema says that."""
    found = (schema.get("anyOf"), schema.get("oneOf"))
    return next((each for each in found if isinstance(each, list) and each), [])


def _types(schema: Mapping[str, Any]) -> list[str]:
    """Return the types that a schema has, each once; an empty one where it may be any."""
    found = schema.get("type")
    kinds = found if isinstance(found, list) else [found]
    if not kinds or not all(isinstance(kind, str) and kind in _TYPES for kind in kinds):
        return [""]
    return list(dict.fromkeys(kinds))


def _bounds(schema: Mapping[str, Any], kind: str) -> tuple[float | None, float | None]:
    if kind not in _BOUNDS:
        return None, None
    least, most = (_number(schema.get(name)) for name in _BOUNDS[kind][:2])
    return (None, None) if least is not None and most is not None and least > most else (least, most)


def _words(schema: Mapping[str, Any]) -> tuple[str | int | float | bool, ...]:
    found = schema.get("enum")
    words = found if isinstance(found, list) and len(found) <= _MAX_WORDS else []
    return tuple(word for word in words if isinstance(word, str | bool) or _number(word) is not None)


def _text(word: str | int | float | bool) -> str:
    return word if isinstance(word, str) else json.dumps(word)


def _number(value: object) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and -_LARGEST < value < _LARGEST else None  # type: ignore[operator,return-value]


@dataclass(frozen=True, slots=True)
class InputSchema:
    """The inputs of one model beside those that have an option of their own.

    :param properties: What each may be, by its name.
    :param required: Names that a request must have.
    """

    properties: Mapping[str, Input] = field(default_factory=dict)
    required: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls, properties: Mapping[str, Any], *, required: object = (), without: Collection[str] = ()
    ) -> InputSchema:
        """Read ``properties`` and ``required`` of a JSON schema.

        :param without: Names that have an option of their own.
        """
        others = {*without, *SET_BY_US}
        names = required if isinstance(required, list) else []
        return cls(
            {name: Input.of(part, name=name) for name, part in properties.items() if name not in others},
            frozenset(name for name in names if isinstance(name, str) and name not in others),
        )

    @property
    def in_words(self) -> str:
        """The names of all, as an error says them."""
        names = shorten(", ".join(sorted(self.properties)), 400)
        return f"its inputs are {names}" if names else "it takes no other inputs"

    def check(
        self, inputs: Mapping[str, Any], *, options: Mapping[str, str]
    ) -> tuple[dict[str, Any], list[Finding]]:
        """Return the inputs as they are sent, and all that is wrong with them.

        :param options: Names that have an option of their own, with its name: ``{"image_size": "size"}``.
        """
        sent: dict[str, Any] = {}
        findings: list[Finding] = []
        for name, value in inputs.items():
            try:
                sent[name] = self._checked(name, value, options)
            except Refused as refused:
                findings.append((f"inputs.{shorten(name)}", refused.wrong, value, refused.allowed))
        for name in sorted(self.required - inputs.keys()):
            allowed = self.properties.get(name, Input()).allowed
            findings.append((f"inputs.{shorten(name)}", "is missing", None, allowed))
        for name in (name for name in SEVERAL if name in self.properties and name not in inputs):
            taken = self.properties[name].unless_sent
            if taken is not None and not is_one(taken):
                findings.append((f"inputs.{name}", "makes several images if it is omitted", taken, "1"))
        return sent, findings

    def _checked(self, name: str, value: Any, options: Mapping[str, str]) -> Any:
        if name in options:
            raise Refused("has its own option", f"use {options[name]}=… instead")
        refuse_what_no_model_gets(name, value)
        if name not in self.properties:
            raise Refused("is not an input of this model", self.in_words)
        return self.properties[name].read(value)
