"""What is requested: the request for one image, checked hard before any money is spent.

What a model takes is in :mod:`models`.
"""

from __future__ import annotations

import hashlib
import json
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
from airflow_provider_bitdance.redaction import shorten
from airflow_provider_bitdance.wavespeed.inputs import read_inputs, refuse_what_no_model_gets
from airflow_provider_bitdance.wavespeed.models import (
    BITDANCE_14B,
    MAX_SEED,
    MODELS,
    SIZE_PATTERN,
    Model,
    checked_path,
    is_path,
)
from airflow_provider_bitdance.wavespeed.request_checks import RequestChecks

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
        checks = RequestChecks(known)
        fields = {
            "prompt": checks.prompt(prompt),
            "size": checks.size(size, width, height),
            "seed": checks.seed(seed),
            "model": known.path,
            "inputs": checks.inputs(inputs),
        }
        try:
            request = cls.model_validate(fields)
        except ValidationError as error:
            raise checks.error(*error.errors(include_url=False)) from None
        checks.seed_range(request.seed)
        if checks.findings:
            raise checks.error()
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
            f"model {shorten(text)} is unknown, and its schema has not been read from the API",
            allowed=", ".join(MODELS),
        )
    return MODELS[text]
