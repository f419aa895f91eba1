"""What clients send: the request bodies of the API, checked.

A refusal is an HTTP 400 whose message names the field, as the real API's does. Keys that the API does not
know are dropped in silence, which is what the official command line client reports of the real one.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

DEFAULT_SIZE = "1024*1024"
MIN_SIDE, MAX_SIDE = 256, 1536
STATUSES = frozenset({"created", "processing", "completed", "failed", "cancelled", "timeout"})


class Refused(Exception):
    """A request that the API answers with an error envelope.

    :param status: HTTP status, and the envelope's code.
    :param message: the envelope's message.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Body(BaseModel):
    """What all bodies share."""

    model_config = ConfigDict(frozen=True, strict=True)


class ImageInputs(Body):
    """Inputs of a text-to-image task."""

    prompt: str
    size: str = DEFAULT_SIZE
    seed: Annotated[int, Field(ge=-1, le=2_147_483_647)] = -1

    @field_validator("prompt")
    @classmethod
    def _not_blank(cls, prompt: str) -> str:
        if not prompt.strip():
            raise ValueError("must not be blank")
        return prompt

    @field_validator("size")
    @classmethod
    def _width_and_height(cls, size: str) -> str:
        if not all(MIN_SIDE <= side <= MAX_SIDE for side in _sides(size)):
            raise ValueError(f"must be W*H with sides from {MIN_SIDE} to {MAX_SIDE}, such as {DEFAULT_SIZE}")
        return size

    @property
    def width(self) -> int:
        """Pixels."""
        return _sides(self.size)[0]

    @property
    def height(self) -> int:
        """Pixels."""
        return _sides(self.size)[1]


class HistoryQuery(Body):
    """Which predictions to list."""

    page: Annotated[int, Field(ge=1)]
    page_size: Annotated[int, Field(ge=1, le=100)]
    model: str | None = None
    status: str | None = None
    created_after: float | None = None
    created_before: float | None = None

    @field_validator("status")
    @classmethod
    def _known(cls, status: str | None) -> str | None:
        if status is not None and status not in STATUSES:
            raise ValueError(f"must be one of {', '.join(sorted(STATUSES))}")
        return status

    @field_validator("created_after", "created_before", mode="before")
    @classmethod
    def _seconds(cls, moment: object) -> float | None:
        if moment is None:
            return None
        if not isinstance(moment, str):
            raise ValueError("must be an ISO 8601 time")
        try:
            parsed = datetime.fromisoformat(moment)
            return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            raise ValueError("must be an ISO 8601 time") from None


class DeleteQuery(Body):
    """Which predictions to delete."""

    ids: list[str]


class PriceQuery(Body):
    """What to quote a price for."""

    model_id: str
    inputs: dict[str, object] = {}


AnyBody = TypeVar("AnyBody", bound=Body)


def checked(kind: type[AnyBody], body: object) -> AnyBody:
    """Check a body.

    :param kind: the class of the body.
    :param body: the decoded JSON.
    :raises Refused: HTTP 400, naming the first bad field.
    """
    if not isinstance(body, dict):
        raise Refused(400, "Request body must be a JSON object")
    try:
        return kind.model_validate(body)
    except ValidationError as bad:
        first = bad.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise Refused(
            400, f"Invalid parameter {field}: {first['msg'].removeprefix('Value error, ')}"
        ) from bad


def _sides(size: str) -> tuple[int, int]:
    width, _, height = size.partition("*")
    if not (width.isascii() and width.isdigit() and height.isascii() and height.isdigit()):
        return 0, 0
    if len(size) > 9:
        return 0, 0
    return int(width), int(height)
