"""The WaveSpeed v3 protocol without a network: calls to be sent, responses to be read.

Both clients, sync and async, send what is built here and read with what is here, so neither can drift.
The one thing to know: :func:`read` decides whether a refused or garbled submission may have been charged.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ValidationError

from airflow_provider_bitdance import exceptions
from airflow_provider_bitdance.exceptions import Paid
from airflow_provider_bitdance.redaction import redact
from airflow_provider_bitdance.wavespeed.image_request import ImageRequest
from airflow_provider_bitdance.wavespeed.responses import Balance, BillingPage, HistoryPage, Prediction, Price

T = TypeVar("T", bound=BaseModel)
PREFIX = "/api/v3"
PAGE_SIZE = 100
_NO_MONEY = re.compile(r"insufficient\b.{0,20}\b(credit|balance|fund)", re.IGNORECASE)
_FLAGGED = re.compile(r"sensitive|nsfw|moderation", re.IGNORECASE)
# docs/error-codes: missing or invalid parameter, media URL not reachable.
_REFUSED_INPUT = frozenset({1400, 1401, 1402})


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request to the API and how its response is read.

    :param reads: What the response's ``data`` is read as.
    :param paid: May an image be paid for if the response cannot be used? Only a submission spends money.
    :param prompt: The prompt it carries, to keep it short where the API's text quotes it.
    """

    method: str
    path: str
    reads: type[T]
    body: Mapping[str, Any] | None = field(default=None, repr=False)
    paid: Paid = Paid.NO
    prompt: str = field(default="", repr=False)


def submit(request: ImageRequest) -> Call[Prediction]:
    """Build ``POST /{model}``, the only call that costs money. Only documented keys are sent."""
    body = {"prompt": request.prompt, "size": request.size, "seed": request.seed}
    path = f"{PREFIX}/{request.model}"
    return Call("POST", path, Prediction, body, paid=Paid.POSSIBLY, prompt=request.prompt)


def get_prediction(prediction_id: str) -> Call[Prediction]:
    """Build ``GET /predictions/{id}/result``."""
    return Call("GET", f"{PREFIX}/predictions/{quote(prediction_id, safe='')}/result", Prediction)


def list_predictions(*, model: str, created_after: datetime, page: int = 1) -> Call[HistoryPage]:
    """Build ``POST /predictions``: the account's predictions of the past 7 days, newest first."""
    since = created_after.isoformat()
    body = {"page": page, "page_size": PAGE_SIZE, "model": model, "created_after": since}
    return Call("POST", f"{PREFIX}/predictions", HistoryPage, body)


def search_billings(*, start_time: datetime, page: int = 1) -> Call[BillingPage]:
    """Build ``POST /billings/search``: the account's charges and refunds, newest first."""
    body = {"page": page, "page_size": PAGE_SIZE, "start_time": start_time.isoformat()}
    return Call("POST", f"{PREFIX}/billings/search", BillingPage, body)


def get_balance() -> Call[Balance]:
    """Build ``GET /balance``: free, so it also serves to test a key."""
    return Call("GET", f"{PREFIX}/balance", Balance)


def get_price(request: ImageRequest) -> Call[Price]:
    """Build ``POST /model/price``: what this request would cost. Free."""
    inputs = {"prompt": request.prompt, "size": request.size, "seed": request.seed}
    body = {"model_id": request.model, "inputs": inputs}
    return Call("POST", f"{PREFIX}/model/price", Price, body, prompt=request.prompt)


def read(call: Call[T], status: int, headers: Mapping[str, str], body: bytes) -> T:
    """Read the response to ``call``.

    :param headers: Looked up by lower-case names.
    :raises APIError: The HTTP status or the envelope's ``code`` is an error; both are checked.
    :raises GarbledResponseError: The status is good, but this is not what the API documents.
    """
    try:
        envelope = json.loads(body)
    except (ValueError, RecursionError):
        envelope = None
    if not isinstance(envelope, dict):
        envelope = {}
    code, data = envelope.get("code"), envelope.get("data")
    if 200 <= status < 300 and isinstance(code, int) and not 200 <= code < 300:
        status = code
    if not 200 <= status < 300:
        raise _refusal(call, status, headers, envelope.get("message"))
    if not isinstance(data, dict):
        raise _garbled(call, "is not the JSON that the API documents")
    try:
        # Only a page of the history has the API's own time; what has no such field drops it.
        return call.reads.model_validate({**data, "api_time": _http_date(headers.get("date", ""))})
    except ValidationError as error:
        # Of an item in a list, the field within the item.
        fields = {[part for part in found["loc"] if isinstance(part, str)][-1] for found in error.errors()}
        raise _garbled(call, f"has no usable {', '.join(sorted(fields))}") from None


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


def retry_after(headers: Mapping[str, str], *, now: float | None = None) -> float | None:
    """Return the seconds that ``Retry-After`` requests: a number, or a date against the API's clock.

    :param headers: Looked up by lower-case names.
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


def _refusal(call: Call[Any], status: int, headers: Mapping[str, str], said: object) -> exceptions.APIError:
    """Choose the error for a status that is not 2xx. For a submission: can the task exist?

    4xx means that the API read the request and made no task; 408 comes from gateways that gave up waiting,
    so it is no 4xx in that sense. Everything else leaves it open (docs/errors-retries-timeouts).
    """
    message = redact(said, prompt=call.prompt)
    what = f"{call.method} {call.path} got status {status}" + (f": {message}" if message else "")
    if status == 429:
        return exceptions.RateLimitError(
            what,
            retry_after=retry_after(headers),
            fix="Run fewer tasks at once, for example in an Airflow pool",
        )
    if status in {401, 403}:
        return exceptions.AuthenticationError(
            what,
            status=status,
            fix="Check the API key in the connection; a key works only after the first top-up",
        )
    # "No money" is a 400 whose text has to be read: WaveSpeed documents no other sign of it.
    if status == 402 or (status == 400 and _says(_NO_MONEY, said, call.prompt)):
        return exceptions.InsufficientCreditError(what, status=status, fix="Top up the WaveSpeed account")
    if status == 404:
        return exceptions.NotFoundError(what, status=status, fix="Check the connection's host and the model")
    if 400 <= status < 500 and status != 408:
        return exceptions.RequestRefusedError(what, status=status, fix="Change the request")
    return exceptions.ServerError(what, status=status, paid=call.paid)


def _says(pattern: re.Pattern[str], message: object, prompt: str) -> bool:
    """Search what the API says: the words of a prompt that it quotes decide nothing."""
    text = str(message or "")
    return bool(pattern.search(text.replace(prompt, "") if pattern.search(prompt) else text))


def _garbled(call: Call[Any], why: str) -> exceptions.GarbledResponseError:
    return exceptions.GarbledResponseError(
        f"The response to {call.method} {call.path} {why}",
        fix="Check the connection's host: the response may come from a proxy",
        paid=call.paid,
    )


def _http_date(value: str) -> float | None:
    try:
        read = parsedate_to_datetime(value)
        return (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None
