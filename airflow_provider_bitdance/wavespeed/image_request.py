"""What is requested: the request for one image, checked hard before any money is spent.

Source: the model page (wavespeed.ai/docs/docs-api/wavespeed-ai/bitdance-14b-text-to-image).
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
)

from airflow_provider_bitdance.exceptions import InputError
from airflow_provider_bitdance.redaction import shorten
from airflow_provider_bitdance.text_checks import BYTE_ORDER_MARK, invisible_in, shows_nothing

BITDANCE_14B = "wavespeed-ai/bitdance-14b/text-to-image"
DEFAULT_SIZE = "1024*1024"
MIN_SIDE, MAX_SIDE = 256, 1536
MAX_SEED = 2**31 - 1
MAX_PROMPT = 2**15
"""Characters. WaveSpeed publishes no limit for this model; text encoders read a few thousand words. More is a
file in the place of a prompt, and would be in each record and response."""

SIZE_PRESETS = {
    "1:1": "1024*1024",
    "16:9": "1280*720",
    "9:16": "720*1280",
    "4:3": "1152*864",
    "3:4": "864*1152",
    "3:2": "1248*832",
    "2:3": "832*1248",
}
"""Our sizes for WaveSpeed's presets, whose pixel sizes are not published: exact ratios, multiples of 16."""

_ALLOWED = {
    "prompt": f"text of at most {MAX_PROMPT} characters, at least one of them not white space",
    "size": f'a preset ({", ".join(SIZE_PRESETS)}) or "W*H" with sides of {MIN_SIDE} to {MAX_SIDE} pixels',
    "width": f"{MIN_SIDE} to {MAX_SIDE} pixels, together with height and without size",
    "height": f"{MIN_SIDE} to {MAX_SIDE} pixels, together with width and without size",
    "seed": f"-1 (any seed) to {MAX_SEED}",
    "model": f'the path of a WaveSpeed text-to-image model, such as "{BITDANCE_14B}"',
}
_SIZE = re.compile(r"\s*(\d{1,5})\s*[*xX]\s*(\d{1,5})\s*")
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)+")

FIRST_FIELDS = frozenset({"prompt", "size", "seed", "model"})
"""The fields of 0.1.0: written and hashed whatever their value. See :meth:`ImageRequest.identity`."""

_Finding = tuple[str, str, object]
"""A field of a request, what is wrong with it, and its value."""


class ImageRequest(BaseModel):
    """One image as it is requested, in the one form in which it is sent, recorded and compared.

    :param prompt: The text, without surrounding white space.
    :param size: ``"W*H"`` in pixels.
    :param seed: 0 to 2147483647, or -1 for any; ``None`` for a model that takes none.
    :param model: The model's path on WaveSpeed.
    :param inputs: The model's other inputs. Records can hold them; no operator accepts any yet.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: str = Field(min_length=1)
    size: str = DEFAULT_SIZE
    seed: int | None = Field(default=-1, ge=-1, le=MAX_SEED)
    model: str = BITDANCE_14B
    inputs: dict[str, JsonValue] = {}

    @classmethod
    def of(
        cls,
        *,
        prompt: object,
        size: object = None,
        width: object = None,
        height: object = None,
        seed: object = -1,
        model: object = BITDANCE_14B,
    ) -> Self:
        """Check what a user gave, lax on rendered strings ("42"), and return the request.

        :param size: A preset such as ``"16:9"``, ``"W*H"`` or ``"WxH"``; default 1024*1024.
        :param width: Pixels, 256 to 1536; only together with ``height`` and without ``size``.
        :param height: Pixels, 256 to 1536; only together with ``width`` and without ``size``.
        :raises InputError: Names every field that is wrong, its value, and what is allowed.
        """
        asked_size, findings = _asked_size(size, width, height)
        if isinstance(prompt, str):
            prompt = prompt.replace(BYTE_ORDER_MARK, "")
            findings += _faults_of_prompt(prompt)
        seed = -1 if seed is None else seed
        try:
            request = cls.model_validate({"prompt": prompt, "size": asked_size, "seed": seed, "model": model})
        except ValidationError as error:
            findings += [
                (str(found["loc"][0]), _wrong(found["msg"]), found["input"])
                for found in error.errors(include_url=False)
            ]
        if findings:
            raise _input_error(findings)
        return request

    @field_validator("prompt", mode="before")
    @classmethod
    def _prompt(cls, value: object) -> str:
        if not isinstance(value, str):
            raise ValueError(f"is {type(value).__name__}, not text")
        if not (text := value.strip()):
            raise ValueError("is blank")
        if text == "None":
            raise ValueError("is what a template renders for a missing value")
        if any("\ud800" <= char <= "\udfff" for char in text):
            raise ValueError("contains a lone surrogate, which UTF-8 cannot encode")
        return text

    @field_validator("size", mode="before")
    @classmethod
    def _size(cls, value: object) -> str:
        match = _SIZE.fullmatch(SIZE_PRESETS.get(value.strip(), value)) if isinstance(value, str) else None
        if match is None:
            raise ValueError("is neither a preset nor a width and a height")
        sides = int(match[1]), int(match[2])
        if not all(MIN_SIDE <= side <= MAX_SIDE for side in sides):
            raise ValueError("has a side out of range")
        return f"{sides[0]}*{sides[1]}"

    @field_validator("seed", mode="before")
    @classmethod
    def _seed(cls, value: object) -> object:
        if isinstance(value, bool):
            raise ValueError("is a boolean, not a number")
        return value

    @field_validator("model")
    @classmethod
    def _model(cls, value: str) -> str:
        if not _MODEL.fullmatch(value):
            raise ValueError("is not a model's path")
        return value

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what came after 0.1.0 and is at its default."""
        fields = type(self).model_fields
        return {
            name: value
            for name, value in whole(self).items()
            if name in FIRST_FIELDS
            or getattr(self, name) != fields[name].get_default(call_default_factory=True)
        }

    def identity(self) -> dict[str, Any]:
        """Return what makes this request differ from another: what fingerprints and derived keys are made of.

        A field that a later version adds counts only where it is not at its default. Otherwise the version
        would change every fingerprint, find no image that is stored, and buy all of them again.
        """
        return self.model_dump(mode="json")

    def fingerprint(self, api_host: str) -> str:
        """Return the identity of what is requested: the same fingerprint means the same purchase.

        :param api_host: ``host`` or ``host:port`` of the API; an image of another service is another image.
        """
        identity = {**self.identity(), "api_host": api_host}
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _faults_of_prompt(prompt: str) -> list[_Finding]:
    """Say what is wrong with a prompt that a user gives. A recorded one was bought, and is read as it is."""
    if len(prompt) > MAX_PROMPT:
        return [("prompt", f"has {len(prompt)} characters", prompt)]
    if "\0" in prompt:
        return [("prompt", "contains a NUL character", prompt)]
    if prompt.strip() and shows_nothing(prompt):
        hidden = invisible_in(prompt) or f"U+{ord(prompt.strip()[0]):04X}"
        return [("prompt", f"has nothing that can be seen, only characters such as {hidden}", prompt)]
    return []


def _asked_size(size: object, width: object, height: object) -> tuple[object, list[_Finding]]:
    """Make one size of ``size``, ``width`` and ``height``, and say what is wrong with the sides."""
    if width is None and height is None:
        return DEFAULT_SIZE if size is None else size, []
    sides = (("width", width), ("height", height))
    if size is not None:
        given: list[_Finding] = [(name, "contradicts size", side) for name, side in sides if side is not None]
        return DEFAULT_SIZE, [("size", "contradicts width and height", size), *given]
    findings: list[_Finding] = []
    for name, side in sides:
        if side is None:
            findings.append((name, "is missing", side))
        elif isinstance(side, bool) or not re.fullmatch(r"\s*\d{1,5}\s*", str(side), re.ASCII):
            findings.append((name, "is not a whole number", side))
        elif not MIN_SIDE <= int(str(side)) <= MAX_SIDE:
            findings.append((name, "is out of range", side))
    return DEFAULT_SIZE if findings else f"{width}*{height}", findings


def _input_error(findings: list[_Finding]) -> InputError:
    what = "; ".join(f"{field} {wrong}: {shorten(repr(value))}" for field, wrong, value in findings)
    return InputError(what, allowed="; ".join(f"{field}: {_ALLOWED[field]}" for field, _, _ in findings))


def _wrong(message: str) -> str:
    return message.removeprefix("Value error, ").replace("Input should", "should")
