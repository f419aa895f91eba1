"""The WaveSpeed v3 protocol without a network: calls to be sent, responses to be read.

Both clients, sync and async, send what is built here and read with what is here, so neither can drift.
The one thing to know: :func:`read` decides whether a refused or garbled submission may have been charged.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ValidationError

from airflow_provider_bitdance import exceptions
from airflow_provider_bitdance.exceptions import Paid
from airflow_provider_bitdance.redaction import redact
from airflow_provider_bitdance.wavespeed.image_request import BITDANCE_14B, ImageRequest
from airflow_provider_bitdance.wavespeed.responses import (
    Balance,
    BillingPage,
    BillingRecord,
    HistoryPage,
    Prediction,
    Price,
)

T = TypeVar("T")
PREFIX = "/api/v3"
_NO_MONEY = re.compile(r"insufficient\b.{0,20}\b(credit|balance|fund)", re.IGNORECASE)
_FLAGGED = re.compile(r"sensitive|nsfw|moderation", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request to the API and how its response is read.

    :param dated: Adds the API's own time to what was parsed, where that matters.
    :param buys: Whether this call spends money: only a submission does.
    :param prompt: The prompt it carries, to keep it short where the API's text quotes it.
    """

    method: str
    path: str
    parse: Callable[[Any], T]
    body: Mapping[str, Any] | None = field(default=None, repr=False)
    dated: Callable[[T, float | None], T] | None = None
    buys: bool = False
    prompt: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Response:
    """An HTTP response: status, lower-case headers, body."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


def submit(request: ImageRequest) -> Call[Prediction]:
    """Build ``POST /{model}``, the only call that costs money. Only documented keys are sent."""
    body = {"prompt": request.prompt, "size": request.size, "seed": request.seed}
    path = f"{PREFIX}/{request.model}"
    return Call("POST", path, Prediction.from_api, body, buys=True, prompt=request.prompt)


def get_prediction(prediction_id: str) -> Call[Prediction]:
    """Build ``GET /predictions/{id}/result``."""
    return Call("GET", f"{PREFIX}/predictions/{quote(prediction_id, safe='')}/result", Prediction.from_api)


def list_predictions(
    *,
    page: int = 1,
    page_size: int = 100,
    model: str | None = None,
    status: str | None = None,
    created_after: datetime | None = None,
    created_before: datetime | None = None,
) -> Call[HistoryPage]:
    """Build ``POST /predictions``: the account's predictions of the past 7 days, newest first."""
    body: dict[str, Any] = {"page": page, "page_size": page_size, "model": model, "status": status}
    body["created_after"] = created_after.isoformat() if created_after else None
    body["created_before"] = created_before.isoformat() if created_before else None
    given = {key: value for key, value in body.items() if value is not None}
    return Call("POST", f"{PREFIX}/predictions", _history_page, given, dated=_with_time)


def search_billings(
    *,
    page: int = 1,
    page_size: int = 100,
    start_time: datetime | None = None,
    end_time: datetime | None = None,
) -> Call[BillingPage]:
    """Build ``POST /billings/search``: the account's charges and refunds, newest first."""
    body: dict[str, Any] = {"page": page, "page_size": page_size}
    if start_time is not None:
        body["start_time"] = start_time.isoformat()
    if end_time is not None:
        body["end_time"] = end_time.isoformat()
    return Call("POST", f"{PREFIX}/billings/search", _billing_page, body)


def delete_predictions(ids: list[str]) -> Call[int]:
    """Build ``POST /predictions/delete``; the response is the number deleted. Unknown ids are ignored."""
    return Call("POST", f"{PREFIX}/predictions/delete", _deleted_count, {"ids": ids})


def get_balance() -> Call[Balance]:
    """Build ``GET /balance``: free, so it also serves to test a key."""
    return Call("GET", f"{PREFIX}/balance", Balance.model_validate)


def get_price(request: ImageRequest) -> Call[Price]:
    """Build ``POST /model/price``: what this request would cost. Free."""
    inputs = {"prompt": request.prompt, "size": request.size, "seed": request.seed}
    body = {"model_id": request.model, "inputs": inputs}
    return Call("POST", f"{PREFIX}/model/price", Price.model_validate, body, prompt=request.prompt)


def read(call: Call[T], response: Response) -> T:
    """Read the response to ``call``.

    :raises APIError: The HTTP status or the envelope's ``code`` is an error; both are checked.
    :raises GarbledResponseError: The status is good, but this is not what the API documents.
    """
    envelope = _json(response.body)
    status = response.status
    if 200 <= status < 300 and isinstance(envelope, dict):
        code = envelope.get("code", 200)
        status = code if isinstance(code, int) and not 200 <= code < 300 else status
    if not 200 <= status < 300:
        raise _refusal(call, response, status, envelope)
    if not isinstance(envelope, dict) or not isinstance(envelope.get("data"), dict):
        raise _garbled(call, "is not the JSON that the API documents")
    try:
        parsed = call.parse(envelope["data"])
        return call.dated(parsed, _http_date(response.headers.get("date", ""))) if call.dated else parsed
    except ValidationError as error:
        fields = ", ".join(sorted({str(finding["loc"][0]) for finding in error.errors() if finding["loc"]}))
        raise _garbled(call, f"has no usable {fields or 'data'}") from None


def failure_of(prediction: Prediction, *, prompt: str = "") -> exceptions.PredictionError:
    """Return the error that a prediction's end without an image means, by its status and code.

    :param prediction: One whose status is final and not ``completed``.
    :param prompt: The prompt sent, to keep it short where the API's text quotes it.
    """
    text = redact(prediction.error, prompt=prompt) or "no reason given"
    what = f"Prediction {prediction.id} ended as {prediction.status!r} (code {prediction.code}): {text}"
    if prediction.status in {"cancelled", "canceled", "deleted"}:
        return exceptions.PredictionGoneError(what, fix="Clear the task to buy the image again")
    if prediction.code == 1200 or _says(_FLAGGED, prediction.error, prompt):
        return exceptions.ModerationError(what, fix="Change the prompt")
    if prediction.code == 1407:
        return exceptions.PredictionRefusedError(what, fix="Top up the WaveSpeed account", paid=Paid.NO)
    if prediction.code in _REFUSED_INPUT:
        return exceptions.PredictionRefusedError(what, fix="Change the request")
    return exceptions.PredictionFailedError(what)


# docs/error-codes: missing or invalid parameter, media URL not reachable.
_REFUSED_INPUT = frozenset({1400, 1401, 1402})


def retry_after(headers: Mapping[str, str], *, now: float | None = None) -> float | None:
    """Return the seconds that ``Retry-After`` requests: a number, or a date against the API's clock.

    :param headers: With lower-case names.
    :param now: Unix time, for a response without a ``Date`` header.
    """
    value = headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]{1,9}", value):
        return float(value)
    until = _http_date(value)
    if until is None:
        return None
    here = _http_date(headers.get("date", "")) or (time.time() if now is None else now)
    return max(0.0, until - here)


def _refusal(call: Call[Any], response: Response, status: int, envelope: object) -> exceptions.APIError:
    """Choose the error for a status that is not 2xx. For a submission: can the task exist?

    4xx means that the API read the request and made no task; 408 comes from gateways that gave up waiting,
    so it is no 4xx in that sense. Everything else leaves it open (docs/errors-retries-timeouts).
    """
    said = envelope.get("message") if isinstance(envelope, dict) else None
    message = redact(said, prompt=call.prompt)
    what = f"{call.method} {call.path} got status {status}" + (f": {message}" if message else "")
    if status == 429:
        return exceptions.RateLimitError(
            what,
            retry_after=retry_after(response.headers),
            fix="Run fewer tasks at once, for example in an Airflow pool",
        )
    if status in {401, 403}:
        return exceptions.AuthenticationError(
            what,
            status=status,
            fix=("Check the API key in the connection; a key works only after the first top-up"),
        )
    # "No money" is a 400 whose text has to be read: WaveSpeed documents no other sign of it.
    if status == 402 or (status == 400 and _says(_NO_MONEY, said, call.prompt)):
        return exceptions.InsufficientCreditError(what, status=status, fix="Top up the WaveSpeed account")
    if status == 404:
        return exceptions.NotFoundError(what, status=status, fix="Check the connection's host and the model")
    if 400 <= status < 500 and status != 408:
        return exceptions.RequestRefusedError(what, status=status, fix="Change the request")
    return exceptions.ServerError(what, status=status, paid=Paid.POSSIBLY if call.buys else Paid.NO)


def _says(pattern: re.Pattern[str], message: object, prompt: str) -> bool:
    """Search what the API says: the words of a prompt that it quotes decide nothing."""
    text = str(message or "")
    return bool(pattern.search(text.replace(prompt, "") if pattern.search(prompt) else text))


def _garbled(call: Call[Any], why: str) -> exceptions.GarbledResponseError:
    return exceptions.GarbledResponseError(
        f"The response to {call.method} {call.path} {why}",
        fix="Check the connection's host: the response may come from a proxy",
        paid=Paid.POSSIBLY if call.buys else Paid.NO,
    )


def _json(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _history_page(data: dict[str, Any]) -> HistoryPage:
    read = _Rows.model_validate({"page": data.get("page") or 1, "items": data.get("items") or []})
    return HistoryPage(page=read.page, items=tuple(Prediction.from_api(item) for item in read.items))


def _with_time(page: HistoryPage, api_time: float | None) -> HistoryPage:
    return page.model_copy(update={"api_time": api_time})


def _billing_page(data: dict[str, Any]) -> BillingPage:
    read = _Rows.model_validate({"page": data.get("page") or 1, "items": data.get("items") or []})
    items = tuple(BillingRecord.from_api(item) for item in read.items)
    return BillingPage(page=read.page, has_more=data.get("has_more") is True, items=items)


def _deleted_count(data: dict[str, Any]) -> int:
    return _Deleted.model_validate({"deleted_count": data.get("deleted_count") or 0}).deleted_count


class _Rows(BaseModel):
    page: int
    items: list[dict[str, Any]]


class _Deleted(BaseModel):
    deleted_count: int


def _http_date(value: str) -> float | None:
    try:
        read = parsedate_to_datetime(value)
        return (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None


__all__ = [
    "BITDANCE_14B",
    "Call",
    "Response",
    "delete_predictions",
    "failure_of",
    "get_balance",
    "get_prediction",
    "get_price",
    "list_predictions",
    "read",
    "retry_after",
    "search_billings",
    "submit",
]
