"""What clients send: the request bodies of the API, checked. Which model takes which is in ``catalogue.py``.

A refusal is an HTTP 400 in the words of kin-openapi, which checks the bodies at WaveSpeed: it names the field
and may quote the value, a prompt too. Keys that the API does not know are dropped in silence, as users of the
real one report.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Final, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
)
from pydantic_core import ErrorDetails

RECRAFT_SIZES: Final = {
    "1:1": (1024, 1024),
    "16:9": (1344, 768),
    "9:16": (768, 1344),
    "4:3": (1216, 896),
    "3:4": (896, 1216),
}
"""Pixels of each preset, which Recraft publishes and WaveSpeed does not."""

PictureFormat = Literal["png", "jpeg", "webp"]

_REASONS: Final = {
    "missing": 'property "{name}" is missing',
    "string_type": "value must be a string",
    "int_type": "value must be an integer",
    "bool_type": "value must be a boolean",
    "list_type": "value must be an array",
    "dict_type": "value must be an object",
    "greater_than_equal": "number must be at least {ge}",
    "less_than_equal": "number must be at most {le}",
    "literal_error": "value is not one of the allowed values [{expected}]",
}
"""What kin-openapi says, by pydantic's type of the error. What no JSON Schema checks has its own text."""


class Refused(Exception):
    """A request that the API refuses with an error envelope.

    :param status: HTTP status, and the envelope's code.
    :param message: the envelope's message.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def _seconds(moment: object) -> object:
    """Turn an ISO 8601 time into seconds since the epoch."""
    if not isinstance(moment, str):
        raise ValueError("must be an ISO 8601 time")
    try:
        parsed = datetime.fromisoformat(moment)
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise ValueError("must be an ISO 8601 time") from None


def _seconds_or_milliseconds(moment: object) -> object:
    # The docs show milliseconds as text, the official command line client sends ISO 8601.
    if isinstance(moment, str) and moment.isascii() and moment.isdigit() and len(moment) < 16:
        return int(moment) / 1000
    return _seconds(moment)


_A_TIME: Final = {"type": "string", "format": "date-time"}
Moment = Annotated[float, BeforeValidator(_seconds), Field(json_schema_extra=dict(_A_TIME))]
BillingMoment = Annotated[
    float, BeforeValidator(_seconds_or_milliseconds), Field(json_schema_extra=dict(_A_TIME))
]
Seed = Annotated[int, Field(ge=-1, le=2_147_483_647, description="-1 is any seed.")]
Size = Annotated[str, Field(description="W*H in pixels.")]
Page = Annotated[int, Field(ge=1, le=2_147_483_647)]
PageSize = Annotated[int, Field(ge=1, le=100)]


class Body(BaseModel):
    """What all bodies share."""

    model_config = ConfigDict(frozen=True, strict=True)


class ImageInputs(Body):
    """What the inputs of all text-to-image models share: a prompt, and two sides in pixels.

    Each model's inputs have ``size`` as W*H and ``seed`` too, as a parameter or not: -1 is any seed. An image
    of fewer than ``least_pixels`` is accepted and fails.
    """

    least_pixels: ClassVar[int] = 0

    prompt: Annotated[str, Field(description="What to show.", json_schema_extra={"pattern": r"\S"})]

    @field_validator("prompt")
    @classmethod
    def _not_blank(cls, prompt: str) -> str:
        if not prompt.strip():
            raise ValueError("must not be blank")
        return prompt

    def sides(self) -> tuple[int, int]:
        """Return width and height in pixels."""
        raise NotImplementedError


def _with_bounds_of_size(schema: dict[str, Any], kind: type[SizedInputs]) -> None:
    """Write the bounds of a side as WaveSpeed does: at a text, where JSON Schema gives them no meaning."""
    schema["properties"]["size"] |= {"minimum": kind.smallest, "maximum": kind.largest}


class SizedInputs(ImageInputs):
    """Inputs whose ``size`` is W*H, within the model's bounds."""

    model_config = ConfigDict(json_schema_extra=_with_bounds_of_size)

    smallest: ClassVar[int] = 256
    largest: ClassVar[int] = 1536

    size: Size = "1024*1024"

    @field_validator("size")
    @classmethod
    def _within_bounds(cls, size: str) -> str:
        if not all(cls.smallest <= side <= cls.largest for side in _sides(size)):
            raise ValueError(f"must be W*H with sides from {cls.smallest} to {cls.largest}")
        return size

    def sides(self) -> tuple[int, int]:
        """Return width and height in pixels."""
        return _sides(self.size)


class BitDanceInputs(SizedInputs):
    """Inputs of BitDance."""

    seed: Seed = -1


class FluxDevInputs(SizedInputs):
    """Inputs of FLUX.1 Dev. Of those that change a picture, only size and seed do here.

    It makes several images of one prompt where it is asked to; that is not here.
    """

    seed: Seed = -1
    num_inference_steps: Annotated[int, Field(ge=1, le=50)] = 28
    guidance_scale: Annotated[float, Field(ge=0, le=10)] = 3.5
    num_images: Annotated[int, Field(ge=1, le=1)] = 1
    output_format: PictureFormat = "jpeg"
    image: str = ""
    mask_image: str = ""
    strength: Annotated[float, Field(ge=0, le=1)] = 0.8


class SeedreamInputs(SizedInputs):
    """Inputs of Seedream V5.0 Lite, which has no seed."""

    smallest: ClassVar[int] = 1440
    largest: ClassVar[int] = 4096
    least_pixels: ClassVar[int] = 3_686_400
    seed: ClassVar[int] = -1

    size: Size = "2048*2048"


class RecraftInputs(ImageInputs):
    """Inputs of Recraft V4, which has presets of sizes and no seed."""

    seed: ClassVar[int] = -1

    image_size: Literal["1:1", "16:9", "9:16", "4:3", "3:4"] = "1:1"

    @property
    def size(self) -> str:
        """W*H."""
        return "{}*{}".format(*self.sides())

    def sides(self) -> tuple[int, int]:
        """Return width and height in pixels."""
        return RECRAFT_SIZES[self.image_size]


class OptimizerInputs(Body):
    """Inputs of the prompt optimizer, whose output is a text and not a picture."""

    size: ClassVar[str] = ""
    seed: ClassVar[int] = -1

    text: str = ""
    image: str = ""
    style: Literal["default", "artistic", "photographic", "technical", "anime", "realistic"] = "default"
    mode: Literal["image", "video"] = "image"
    enable_sync_mode: bool = False

    @property
    def prompt(self) -> str:
        """What fault rules match."""
        return self.text


Inputs = BitDanceInputs | FluxDevInputs | SeedreamInputs | RecraftInputs | OptimizerInputs


class HistoryQuery(Body):
    """Which predictions to list."""

    page: Page
    page_size: PageSize
    model: str | None = None
    status: Literal["created", "processing", "completed", "failed", "cancelled", "timeout"] | None = None
    created_after: Moment | None = None
    created_before: Moment | None = None
    # Not in the docs; WaveSpeed's own command line client sends it.
    include_inputs: bool = False


class DeleteQuery(Body):
    """Which predictions to delete."""

    ids: list[str]


class PriceQuery(Body):
    """What to quote a price for."""

    model_id: str
    inputs: dict[str, object] = {}


class BillingQuery(Body):
    """Which charges and refunds to list."""

    page: Page = 1
    page_size: PageSize = 10
    billing_type: str | None = None
    start_time: BillingMoment | None = None
    end_time: BillingMoment | None = None
    model_uuid: str | None = None
    prediction_uuids: list[str] | None = None


AnyBody = TypeVar("AnyBody", bound=Body)


def decoded(body: bytes) -> object:
    """Decode a request's body, whatever its content type.

    :param body: the bytes.
    :raises Refused: HTTP 400 when it is no JSON, or holds half a character (``\\ud800``), which no response
        could repeat.
    """
    try:
        text = body.decode()
        value = json.loads(text, parse_float=_number)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise Refused(400, "Request body must be JSON") from None
    return value


def checked(kind: type[AnyBody], body: object) -> AnyBody:
    """Check a body.

    :param kind: the class of the body.
    :param body: the decoded JSON.
    :raises Refused: HTTP 400, naming the first bad field.
    """
    if not isinstance(body, dict):
        raise Refused(400, "invalid request body, value must be an object")
    try:
        return kind.model_validate(body)
    except ValidationError as bad:
        raise _refused(bad.errors(include_url=False)[0]) from bad


def unsupported(name: str) -> Refused:
    """Refuse a key that the API does not know."""
    return Refused(400, f'invalid request body, Error at "/{name}": property "{name}" is unsupported')


def _refused(error: ErrorDetails) -> Refused:
    path, kind = [str(part) for part in error["loc"]], error["type"]
    if kind in _REASONS:
        reason = _REASONS[kind].format(name=path[-1], **error.get("ctx", {}))
    else:
        reason = error["msg"].removeprefix("Value error, ")
    # The value of a missing property would be all the others. Go writes JSON without escapes.
    value = "" if kind == "missing" else f"\nValue:\n  {json.dumps(error['input'], ensure_ascii=False)}"
    return Refused(400, f'invalid request body, Error at "/{"/".join(path)}": {reason}{value}')


def _sides(size: str) -> tuple[int, int]:
    width, _, height = size.partition("*")
    if not (width.isascii() and width.isdigit() and height.isascii() and height.isdigit()):
        return 0, 0
    if len(size) > 9:
        return 0, 0
    return int(width), int(height)


def _number(text: str) -> float | int:
    """Read 7.0 as 7, for JSON Schema does not distinguish them."""
    number = float(text)
    return int(number) if number.is_integer() else number
