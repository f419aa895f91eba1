"""What is requested: the request for one image, checked hard before any money is spent.

What a model takes is in :mod:`models`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
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
from airflow_provider_bitdance.redaction import redact, shorten
from airflow_provider_bitdance.text_checks import BYTE_ORDER_MARK, invisible_in, shows_nothing
from airflow_provider_bitdance.wavespeed.inputs import Finding, read_inputs, refuse_what_no_model_gets
from airflow_provider_bitdance.wavespeed.models import (
    BITDANCE_14B,
    MAX_SEED,
    MODELS,
    SIZE_PATTERN,
    Model,
    checked_path,
    is_path,
)

FIRST_FIELDS = frozenset({"prompt", "size", "seed", "model"})
"""The fields of 0.1.0: written and hashed whatever their value. See :meth:`ImageRequest.identity`."""

DEFAULT_SIZE = "1024*1024"


class ImageRequest(BaseModel):
    """One image as it is requested, in the one form in which it is sent, recorded and compared.

    :param prompt: The text, without surrounding white space.
    :param size: ``"W*H"`` in pixels, or the preset where a model takes presets only; ``None`` leaves it to
        the model.
    :param seed: 0 to 2147483647, or -1 for any; ``None`` for a model that takes none.
    :param model: The model's path on WaveSpeed.
    :param inputs: The model's other inputs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: str = Field(min_length=1)
    size: str | None = Field(default=DEFAULT_SIZE, pattern=SIZE_PATTERN)
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
        model: str | Model = BITDANCE_14B,
        inputs: object = None,
    ) -> Self:
        """Check what a user gave, lax on rendered strings ("42"), and return the request.

        :param size: As the model has it: a preset such as ``"16:9"``, ``"W*H"`` or ``"WxH"``.
        :param width: Pixels; only together with ``height`` and without ``size``.
        :param height: Pixels; only together with ``width`` and without ``size``.
        :param seed: -1 for any; of a model that takes none nothing else is allowed.
        :param model: Its path, or what is known of it.
        :param inputs: The model's other inputs, by name, or JSON text of them.
        :raises InputError: Names every field that is wrong, its value, and what is allowed.
        """
        known = model if isinstance(model, Model) else known_model(model)
        asked_size, findings = _asked_size(known, size, width, height)
        if isinstance(prompt, str):
            prompt = prompt.replace(BYTE_ORDER_MARK, "")
            findings += _faults_of_prompt(prompt, known)
        asked_seed, found = _asked_seed(known, seed)
        sent, wrong = _asked_inputs(known, inputs)
        findings += [*found, *wrong]
        fields = {"prompt": prompt, "size": asked_size, "seed": asked_seed, "model": known.path}
        try:
            request = cls.model_validate({**fields, "inputs": sent})
        except ValidationError as error:
            for fault in error.errors(include_url=False):
                name = str(fault["loc"][0])
                findings.append((name, _wrong(fault["msg"]), fault["input"], _allowed(known, name)))
        else:
            findings += _faults_of_seed(known, request.seed)
        if findings:
            raise _input_error(findings)
        return request

    def body(self) -> dict[str, Any]:
        """Return the inputs as they are sent: only what the model takes."""
        known = MODELS.get(self.model)
        size_field = known.sizes.field if known and known.sizes else "size"
        # A model of which only the schema is known may not know -1, and draws a seed where none is sent.
        seed = None if known is None and self.seed == -1 else self.seed
        own = {"prompt": self.prompt, size_field: self.size, "seed": seed}
        return {**self.inputs, **{name: value for name, value in own.items() if value is not None}}

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

    @field_validator("seed", mode="before")
    @classmethod
    def _seed(cls, value: object) -> object:
        if isinstance(value, bool):
            raise ValueError("is a boolean, not a number")
        return value

    @field_validator("model")
    @classmethod
    def _model(cls, value: str) -> str:
        if not is_path(value):
            raise ValueError("is not a model's path")
        return value

    @field_validator("inputs")
    @classmethod
    def _inputs(cls, value: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
        """Refuse what no request may have: whoever can write a record must not thereby buy more, or send the
        output elsewhere.
        """
        for name, part in read_inputs(value).items():
            refuse_what_no_model_gets(name, part)
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

    @property
    def kind(self) -> str:
        """What decides the price of a request: all but its prompt and seed."""
        return json.dumps([self.model, self.size, self.inputs], sort_keys=True)

    def fingerprint(self, api_host: str, *, enhance_prompt: str | None = None) -> str:
        """Return the identity of what is requested: the same fingerprint means the same purchase.

        :param api_host: ``host`` or ``host:port`` of the API; an image of another service is another image.
        :param enhance_prompt: The style in which the prompt is enhanced before it is sent.
        """
        style = {"enhance_prompt": enhance_prompt} if enhance_prompt else {}
        identity = {**self.identity(), **style, "api_host": api_host}
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def known_model(path: object) -> Model:
    """Return what the provider knows of a model by itself.

    :raises InputError: It knows nothing of it, or this is no model's path.
    """
    text = checked_path(path)
    if text not in MODELS:
        raise InputError(
            f"model {shorten(text)} is not known here, and nobody has asked the API for its schema",
            allowed=", ".join(MODELS),
        )
    return MODELS[text]


def _faults_of_prompt(prompt: str, model: Model) -> list[Finding]:
    """Say what is wrong with a prompt that a user gives. A recorded one was bought, and is read as it is."""
    allowed = _allowed(model, "prompt")
    if len(prompt) > model.longest_prompt:
        return [("prompt", f"has {len(prompt)} characters", prompt, allowed)]
    if "\0" in prompt:
        return [("prompt", "contains a NUL character", prompt, allowed)]
    if prompt.strip() and shows_nothing(prompt):
        hidden = invisible_in(prompt) or f"U+{ord(prompt.strip()[0]):04X}"
        return [
            ("prompt", f"has nothing that can be seen, only characters such as {hidden}", prompt, allowed)
        ]
    return []


def _asked_size(
    model: Model, size: object, width: object, height: object
) -> tuple[str | None, list[Finding]]:
    """Make one size of ``size``, ``width`` and ``height``, and say what is wrong with them."""
    sides = {"width": width, "height": height}
    given = {name: side for name, side in sides.items() if side is not None}
    if size is not None and given:
        faults = [("size", "contradicts width and height", size, _allowed(model, "size"))]
        faults += [(name, "contradicts size", side, _allowed(model, name)) for name, side in given.items()]
        return None, faults
    if model.sizes is None:
        refused = {"size": size, **given} if size is not None else given
        return None, [
            (name, "is not an option of this model", value, _allowed(model, name))
            for name, value in refused.items()
        ]
    if size is None and not given:
        is_missing = model.needs_size and model.sizes.default is None
        fault = ("size", "is missing", size, _allowed(model, "size"))
        return model.sizes.default, [fault] if is_missing else []
    faults = []
    for name, side in sides.items() if size is None else ():
        if side is None:
            faults.append((name, "is missing", side, _allowed(model, name)))
        elif isinstance(side, bool) or not re.fullmatch(r"\s*\d{1,5}\s*", str(side), re.ASCII):
            faults.append((name, "is not a whole number", side, _allowed(model, name)))
        elif model.sizes.sides and not model.sizes.sides[0] <= int(str(side)) <= model.sizes.sides[1]:
            faults.append((name, "is out of range", side, _allowed(model, name)))
    if faults:
        return None, faults
    asked = f"{width}*{height}" if size is None else size
    try:
        return model.sizes.read(asked), []
    except ValueError as error:
        return None, [("size", str(error), asked, _allowed(model, "size"))]


def _asked_seed(model: Model, seed: object) -> tuple[object, list[Finding]]:
    """Return the seed that is requested, ``None`` of a model that takes none."""
    seed = -1 if seed is None else seed
    if model.seeds is not None:
        return seed, []
    is_any = str(seed).strip() == "-1"
    fault = ("seed", "is not an option of this model", seed, _allowed(model, "seed"))
    return None, [] if is_any else [fault]


def _faults_of_seed(model: Model, seed: int | None) -> list[Finding]:
    """Say what is wrong with a seed that some model takes, and perhaps not this one."""
    least, most = model.seeds or (0, MAX_SEED)
    is_right = seed is None or seed == -1 or least <= seed <= most
    return [] if is_right else [("seed", "is out of range", seed, _allowed(model, "seed"))]


def _asked_inputs(model: Model, inputs: object) -> tuple[dict[str, Any], list[Finding]]:
    try:
        return model.inputs.check(read_inputs(inputs), options=model.options)
    except ValueError as error:
        allowed = f"an object with the names of the model's inputs: {model.inputs.names}"
        return {}, [("inputs", str(error), inputs, allowed)]


def _allowed(model: Model, name: str) -> str:
    """Say what a field may be, for one model."""
    sides = model.sizes.sides if model.sizes else None
    if name == "prompt":
        return f"text of at most {model.longest_prompt} characters, at least one of them not white space"
    if name == "size":
        return model.sizes.allowed if model.sizes else _others(model)
    if name in ("width", "height"):
        other = "height" if name == "width" else "width"
        if sides is None:
            return f"the sides of {model.sizes.allowed}" if model.sizes else _others(model)
        return f"{sides[0]} to {sides[1]} pixels, together with {other} and without size"
    if name == "seed":
        if model.seeds is None:
            return f"omit it: {model.path} draws its own, and the API does not return it"
        least, most = model.seeds
        return f"-1 (any seed) to {most}" if least == 0 else f"-1 (any seed), or {least} to {most}"
    return "see the model's page on WaveSpeed"


def _others(model: Model) -> str:
    return f"omit it; the names of the model's inputs: {model.inputs.names}"


def _input_error(findings: list[Finding]) -> InputError:
    what = "; ".join(f"{field} {wrong}: {_shown(field, value)}" for field, wrong, value, _ in findings)
    allowed = dict.fromkeys(f"{field}: {allowed}" for field, _, _, allowed in findings)
    return InputError(what, allowed="; ".join(allowed))


def _shown(field: str, value: object) -> str:
    """Return a value for an error. An input may be a signed URL."""
    return shorten(redact(repr(value)) if field.startswith("inputs") else repr(value))


def _wrong(message: str) -> str:
    return message.removeprefix("Value error, ").replace("Input should", "should")
