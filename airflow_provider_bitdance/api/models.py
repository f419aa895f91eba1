"""What is asked and what is answered: the request, the prediction, the small answers.

Requests are checked hard, before any money is spent; answers are read leniently, except where we rely on
them (an id that is safe in URLs and paths). Sources: the model page
(wavespeed.ai/docs/docs-api/wavespeed-ai/bitdance-14b-text-to-image) and docs/get-result.
"""

from __future__ import annotations

import hashlib
import json
import re
from datetime import UTC, datetime
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator

from airflow_provider_bitdance.api.errors import InputError, shorten

__all__ = [
    "BITDANCE_14B",
    "DEFAULT_SIZE",
    "SIZE_PRESETS",
    "Balance",
    "HistoryPage",
    "ImageRequest",
    "Prediction",
    "Price",
]

BITDANCE_14B = "wavespeed-ai/bitdance-14b/text-to-image"
DEFAULT_SIZE = "1024*1024"
MIN_SIDE, MAX_SIDE = 256, 1536
MAX_SEED = 2**31 - 1

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
    "prompt": "text with at least one character that is not white space",
    "size": f'a preset ({", ".join(SIZE_PRESETS)}) or "W*H" with sides of {MIN_SIDE} to {MAX_SIDE} pixels',
    "width": f"{MIN_SIDE} to {MAX_SIDE} pixels, together with height and without size",
    "height": f"{MIN_SIDE} to {MAX_SIDE} pixels, together with width and without size",
    "seed": f"-1 (any seed) to {MAX_SEED}",
    "model": f'the path of a WaveSpeed text-to-image model, such as "{BITDANCE_14B}"',
}
_SIZE = re.compile(r"\s*(\d{1,5})\s*[*xX]\s*(\d{1,5})\s*")
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)+")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")

_Finding = tuple[str, str, object]
"""A field of a request, what is wrong with it, and its value."""


class ImageRequest(BaseModel):
    """One image as it is asked for, in the one form in which it is sent, recorded and compared.

    :param prompt: The text, without surrounding white space.
    :param size: ``"W*H"`` in pixels.
    :param seed: 0 to 2147483647, or -1 for any.
    :param model: The model's path on WaveSpeed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: str = Field(min_length=1)
    size: str = DEFAULT_SIZE
    seed: int = Field(default=-1, ge=-1, le=MAX_SEED)
    model: str = BITDANCE_14B

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

        :param prompt: The text. Required, not blank.
        :param size: A preset such as ``"16:9"``, ``"W*H"`` or ``"WxH"``; default 1024*1024.
        :param width: Pixels, 256 to 1536; only together with ``height`` and without ``size``.
        :param height: Pixels, 256 to 1536; only together with ``width`` and without ``size``.
        :param seed: -1 to 2147483647; -1 means any.
        :param model: The model's path on WaveSpeed.
        :raises InputError: Names every field that is wrong, its value, and what is allowed.
        """
        asked_size, findings = _asked_size(size, width, height)
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
            raise ValueError("is what a template renders for nothing")
        if any("\ud800" <= char <= "\udfff" for char in text):
            raise ValueError("holds a lone surrogate, which UTF-8 cannot carry")
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
            raise ValueError("is a truth value, not a number")
        return value

    @field_validator("model")
    @classmethod
    def _model(cls, value: str) -> str:
        if not _MODEL.fullmatch(value):
            raise ValueError("is not a model's path")
        return value

    def fingerprint(self, api_host: str) -> str:
        """Return the identity of what is asked: the same fingerprint means the same purchase.

        :param api_host: ``host`` or ``host:port`` of the API; an image of another service is another image.
        """
        asked = {**self.model_dump(), "api_host": api_host}
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


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
        elif isinstance(side, bool) or not re.fullmatch(r"\s*\d{1,5}\s*", str(side)):
            findings.append((name, "is not a whole number", side))
        elif not MIN_SIDE <= int(str(side)) <= MAX_SIDE:
            findings.append((name, "is out of range", side))
    return DEFAULT_SIZE if findings else f"{width}*{height}", findings


def _input_error(findings: list[_Finding]) -> InputError:
    what = "; ".join(f"{field} {wrong}: {shorten(repr(value))}" for field, wrong, value in findings)
    return InputError(what, allowed="; ".join(f"{field}: {_ALLOWED[field]}" for field, _, _ in findings))


def _wrong(message: str) -> str:
    return message.removeprefix("Value error, ").replace("Input should", "should")


def _safe_id(value: str) -> str:
    if not _ID.fullmatch(value):
        raise ValueError("is not safe in a URL or a path")
    return value


PredictionId = Annotated[str, AfterValidator(_safe_id)]


class Prediction(BaseModel):
    """WaveSpeed's task for one image, as the API last told it.

    Lenient: unknown fields are dropped and ``null`` means "not said". Strict: ``id``. Output URLs and the
    input are left out of ``repr``, so that they cannot reach a log.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    id: PredictionId
    model: str = ""
    status: str = "created"
    outputs: tuple[str, ...] = Field(default=(), repr=False)
    has_nsfw_contents: tuple[bool, ...] = ()
    created_at: datetime | None = None
    error: str = Field(default="", repr=False)
    code: int = 0
    inference_ms: float | None = None
    input: dict[str, Any] | None = Field(default=None, repr=False)

    @classmethod
    def from_api(cls, data: dict[str, Any]) -> Self:
        """Read the ``data`` of an answer.

        :raises ValidationError: There is no id, or it is not safe in a URL or a path.
        """
        timings = data.get("timings")
        inference = timings.get("inference") if isinstance(timings, dict) else None
        return cls(
            id=data.get("id"),  # type: ignore[arg-type]  # checked by the field
            model=_text(data.get("model")),
            status=_text(data.get("status")).lower() or "created",
            outputs=tuple(url for item in _list(data.get("outputs")) if (url := _output_url(item))),
            has_nsfw_contents=tuple(item is True for item in _list(data.get("has_nsfw_contents"))),
            created_at=_time(data.get("created_at")),
            error=_text(data.get("error")),
            code=_number(data.get("code")) or 0,
            inference_ms=_positive(inference) or _positive(data.get("executionTime")),
            input=data["input"] if isinstance(data.get("input"), dict) else None,
        )

    @property
    def is_completed(self) -> bool:
        """Whether the picture is ready."""
        return self.status == "completed"

    @property
    def is_terminal(self) -> bool:
        """Whether the status is final. An unknown status is not: WaveSpeed's rule is to poll on."""
        return self.is_completed or self.status in _ENDED_WITHOUT_PICTURE

    @property
    def is_nsfw(self) -> bool:
        """Whether the service flagged any output as not safe for work."""
        return any(self.has_nsfw_contents)


_ENDED_WITHOUT_PICTURE = frozenset({"failed", "cancelled", "canceled", "timeout", "deleted"})


class HistoryPage(BaseModel):
    """One page of the account's predictions of the past 7 days, newest first."""

    model_config = ConfigDict(frozen=True)

    page: int
    items: tuple[Prediction, ...]


class Balance(BaseModel):
    """The account's balance in US dollars."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    balance: float


class Price(BaseModel):
    """What one run costs, as quoted: an estimate in US dollars."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    price: float
    discounted_price: float | None = None
    currency: str = "USD"

    @property
    def charged(self) -> float:
        """The lower of the two figures that the quote gives."""
        return self.price if self.discounted_price is None else self.discounted_price


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _positive(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and value > 0 else None


def _output_url(item: object) -> str:
    return _text(item.get("url")) if isinstance(item, dict) else _text(item)


def _time(value: object) -> datetime | None:
    """Read an ISO time, UTC unless it says otherwise; of nine fractional digits Python keeps six."""
    try:
        read = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return read.replace(tzinfo=UTC) if read and read.tzinfo is None else read
