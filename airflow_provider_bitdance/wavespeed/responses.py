"""Responses: predictions, history, money.

They are read leniently: unknown fields are dropped and ``null`` means "not said". Strict is what we rely
on: an id that is safe in URLs and paths. Sources: docs/get-result, docs/docs-common-api/predictions.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

__all__ = ["Balance", "BillingPage", "BillingRecord", "HistoryPage", "Prediction", "Price"]

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def _safe_id(value: str) -> str:
    if not _ID.fullmatch(value):
        raise ValueError("is not safe in a URL or a path")
    return value


PredictionId = Annotated[str, AfterValidator(_safe_id)]


class Prediction(BaseModel):
    """WaveSpeed's task for one image, as the API last reported it.

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
        """Read the ``data`` of a response.

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
        """Whether the image is ready."""
        return self.status == "completed"

    @property
    def is_terminal(self) -> bool:
        """Whether the status is final. An unknown status is not: WaveSpeed's rule is to poll on."""
        return self.is_completed or self.status in _ENDED_WITHOUT_IMAGE

    @property
    def is_nsfw(self) -> bool:
        """Whether the service flagged any output as not safe for work."""
        return any(self.has_nsfw_contents)


_ENDED_WITHOUT_IMAGE = frozenset({"failed", "cancelled", "canceled", "timeout", "deleted"})


class HistoryPage(BaseModel):
    """One page of the account's predictions of the past 7 days, newest first.

    :param api_time: Unix time of the response by the API's own clock, where it said so.
    """

    model_config = ConfigDict(frozen=True)

    page: int
    items: tuple[Prediction, ...]
    api_time: float | None = None


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


class BillingRecord(BaseModel):
    """One line of the account's bill.

    :param billing_type: What it is: a charge, a refund, a top-up.
    :param price: US dollars.
    :param prediction_id: The prediction that it is about; empty for a top-up.
    """

    model_config = ConfigDict(frozen=True)

    uuid: str
    billing_type: str
    price: float
    created_at: datetime | None
    prediction_id: str

    @classmethod
    def from_api(cls, data: dict[str, Any]) -> Self:
        """Read one item of the response (wavespeed-cli, src/lib/api.ts).

        :raises ValidationError: There is no price.
        """
        about = data.get("prediction")
        return cls(
            uuid=_text(data.get("uuid")),
            billing_type=_text(data.get("billing_type")),
            price=data.get("price"),  # type: ignore[arg-type]  # checked by the field
            created_at=_time(data.get("created_at")),
            prediction_id=_text(about.get("uuid")) if isinstance(about, dict) else "",
        )


class BillingPage(BaseModel):
    """One page of the account's bill, newest first."""

    model_config = ConfigDict(frozen=True)

    page: int
    has_more: bool
    items: tuple[BillingRecord, ...]


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
