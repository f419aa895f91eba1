"""Responses: predictions, history, money.

They are read leniently: unknown fields are dropped and ``null`` means "not said". Strict is what we rely
on: an id that is safe in URLs and paths. Sources: docs/get-result, docs/docs-common-api/predictions.
"""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Annotated, Any, ClassVar, get_args

from pydantic import (
    AfterValidator,
    AliasPath,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)


def _only(kind: type, default: object) -> BeforeValidator:
    """Take what is not of this very kind (a boolean is no number) for "not said"."""
    return BeforeValidator(lambda value: value if type(value) is kind else default)


def as_code(value: object) -> int | None:
    """Read the API's own code, a number or one as text; ``None`` where it says nothing that could be one."""
    text = value if isinstance(value, str) else str(value) if type(value) is int and abs(value) < 1e9 else ""
    return int(text) if re.fullmatch(r"\s*[0-9]{1,9}\s*", text) else None


def as_reason(value: object, *, depth: int = 4) -> str:
    """Read why something failed: a text, or the first text of an object or a list that says it."""
    if isinstance(value, dict) and depth:
        names = ("message", "detail", "error", "reason", "msg")
        texts = (as_reason(value.get(name), depth=depth - 1) for name in names)
        return next(filter(None, texts), "")
    if isinstance(value, list) and depth:
        return "; ".join(filter(None, (as_reason(item, depth=depth - 1) for item in value[:5])))
    return value if isinstance(value, str) else ""


def _items(value: object) -> list[Any] | tuple[Any, ...]:
    return value if isinstance(value, list | tuple) else ()


def _output_urls(value: object) -> list[str]:
    items = [value] if isinstance(value, str | dict) else _items(value)
    urls = (item.get("url") if isinstance(item, dict) else item for item in items)
    return [url.strip() for url in urls if isinstance(url, str) and url.strip()]


def _flags(value: object) -> list[bool]:
    """Read flags so that the guard fails closed: what does not say "no" counts as flagged."""
    items = value if isinstance(value, list | tuple) else () if value is None else (value,)
    return [_is_flag(item) for item in items]


def _is_flag(value: object) -> bool:
    if isinstance(value, str):
        return value.strip().lower() not in {"", "false", "0", "no", "none", "null"}
    return bool(value)


def _positive(value: object) -> float | None:
    is_number = isinstance(value, int | float) and 0 < value < MAX_NUMBER  # not infinite, nor NaN
    return float(value) if is_number else None  # type: ignore[arg-type]


def _time(value: object) -> datetime | None:
    """Read an ISO time, UTC unless it says otherwise; of nine fractional digits Python keeps six."""
    try:
        read = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        return None
    if not isinstance(read, datetime):
        return None
    return read if read.tzinfo else read.replace(tzinfo=UTC)


def http_date(value: str) -> float | None:
    """Read the date of a header, UTC unless it says otherwise, as Unix time."""
    try:
        read = parsedate_to_datetime(value)
        return (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None


MAX_NUMBER = 1e15
"""No duration is larger; what is, was garbled."""
MAX_DOLLARS = 1e9
"""Likewise of a balance or a charge."""
MAX_PRICE = 10_000.0
"""Likewise of one image, in US dollars."""
_Text = Annotated[str, _only(str, "")]
_Time = Annotated[datetime | None, BeforeValidator(_time)]
_Milliseconds = Annotated[float | None, BeforeValidator(_positive)]
_Dollars = Annotated[float, Field(ge=-MAX_DOLLARS, le=MAX_DOLLARS, allow_inf_nan=False)]
_Price = Annotated[float, Field(ge=0, le=MAX_PRICE, allow_inf_nan=False)]


ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
"""A prediction's id: it becomes a part of URLs, file names and log lines."""


class _Response(BaseModel):
    model_config = ConfigDict(frozen=True, populate_by_name=True)


class Prediction(_Response):
    """WaveSpeed's task for one image, as the API last reported it.

    Output URLs and the input are left out of ``repr``, so that they cannot reach a log.
    """

    id: str = Field(pattern=ID_PATTERN)
    model: _Text = ""
    status: Annotated[_Text, AfterValidator(lambda status: status.lower() or "created")] = "created"
    outputs: Annotated[tuple[str, ...], BeforeValidator(_output_urls)] = Field(default=(), repr=False)
    has_nsfw_contents: Annotated[tuple[bool, ...], BeforeValidator(_flags)] = ()
    created_at: _Time = None
    error: Annotated[str, BeforeValidator(as_reason)] = Field(default="", repr=False)
    code: Annotated[int, BeforeValidator(lambda value: as_code(value) or 0)] = 0
    timed_ms: _Milliseconds = Field(default=None, validation_alias=AliasPath("timings", "inference"))
    executed_ms: _Milliseconds = Field(default=None, validation_alias="executionTime")
    input: Annotated[dict[str, Any] | None, _only(dict, None)] = Field(default=None, repr=False)

    @model_validator(mode="before")
    @classmethod
    def _inputs_are_input(cls, data: Any) -> Any:
        """The history may have them in ``inputs`` (asked for with ``include_inputs``), or in ``input``."""
        if not isinstance(data, dict):
            return data
        shown = (data.get(name) for name in ("inputs", "input"))
        return {**data, "input": next((each for each in shown if isinstance(each, dict) and each), None)}

    @property
    def inference_ms(self) -> float | None:
        """The service's own figure, milliseconds, from where the response has one."""
        return self.timed_ms or self.executed_ms

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


class Page(_Response):
    """A page of a list, newest first. A row that cannot be read does not spoil it.

    :param unreadable: So many rows are there, too, and cannot be read, or are more than a page may have.
    :param read_bytes: Size of the response.
    """

    most_rows: ClassVar[int] = 100
    items: tuple[BaseModel, ...] = ()
    unreadable: int = 0
    read_bytes: int = 0

    @model_validator(mode="before")
    @classmethod
    def _leave_out_unreadable(cls, data: Any) -> Any:
        rows = (data.get("items") or []) if isinstance(data, dict) else None
        if not isinstance(rows, list):
            return data  # which is no page
        kind, _ = get_args(cls.model_fields["items"].annotation)
        readable: list[BaseModel] = []
        for row in rows[: cls.most_rows]:
            with suppress(ValidationError):
                readable.append(kind.model_validate(row))
        return {**data, "items": readable, "unreadable": len(rows) - len(readable)}


class HistoryPage(Page):
    """One page of the account's predictions of the past 7 days.

    :param api_time: Unix time of the response by the API's own clock, where it said so.
    """

    items: tuple[Prediction, ...] = ()
    api_time: float | None = None


class Deletion(_Response):
    """How many predictions were deleted."""

    deleted_count: Annotated[int, BeforeValidator(lambda value: value or 0)] = 0


class Balance(_Response):
    """The account's balance in US dollars."""

    balance: _Dollars


class Price(_Response):
    """What one run costs, as quoted: an estimate in US dollars."""

    price: _Price
    discounted_price: _Price | None = None

    @property
    def charged(self) -> float:
        """The lower of the two figures that the quote gives. A discounted price of 0 is no discount."""
        return self.discounted_price or self.price


class BillingRecord(_Response):
    """One line of the account's bill (wavespeed-cli, src/lib/api.ts).

    :param billing_type: What it is: a charge, a refund, a top-up.
    :param price: US dollars.
    :param prediction_id: The prediction that it is about; empty for a top-up.
    """

    uuid: _Text = ""
    billing_type: _Text = ""
    price: _Dollars
    created_at: _Time = None
    prediction_id: _Text = Field(
        default="", pattern=f"^$|{ID_PATTERN}", validation_alias=AliasPath("prediction", "uuid")
    )

    @property
    def charged(self) -> float:
        """What it took, in US dollars; a refund gives back, whatever its sign."""
        # WaveSpeed documents no list of types; seen: deduct, refund.
        is_refund = "refund" in self.billing_type.lower()
        return -abs(self.price) if is_refund else abs(self.price)


class BillingPage(Page):
    """One page of the account's bill."""

    items: tuple[BillingRecord, ...] = ()


class CatalogueModel(_Response):
    """One model of the catalogue.

    :param kind: What it makes of what, such as ``text-to-image``; empty where the API does not say.
    :param api_schema: How it is called, as the API describes it.
    """

    model_id: str
    kind: _Text = Field(default="", validation_alias="type")
    api_schema: Annotated[dict[str, Any] | None, _only(dict, None)] = Field(default=None, repr=False)

    @property
    def request_schema(self) -> dict[str, Any]:
        """The JSON schema of the inputs; empty where there is none."""
        schemas = (self.api_schema or {}).get("api_schemas")
        first = schemas[0] if isinstance(schemas, list) and schemas else None
        found = first.get("request_schema") if isinstance(first, dict) else None
        return found if isinstance(found, dict) else {}


class Catalogue(Page):
    """All models. It is a list and no page, but a row that cannot be read does not spoil it, either."""

    most_rows: ClassVar[int] = 10_000
    items: tuple[CatalogueModel, ...] = ()
