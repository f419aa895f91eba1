"""The WaveSpeed v3 protocol without a network: calls to be sent, responses to be read.

The client sends what is built here, and reads with what is here.
The one thing to know: :func:`read` decides whether a refused or garbled submission may have been charged.
"""

from __future__ import annotations

import json
import math
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
from airflow_provider_bitdance.redaction import redact, shorten
from airflow_provider_bitdance.wavespeed.image_request import ImageRequest
from airflow_provider_bitdance.wavespeed.models import PROMPT_OPTIMIZER
from airflow_provider_bitdance.wavespeed.responses import (
    Balance,
    BillingPage,
    Catalogue,
    Deletion,
    HistoryPage,
    Prediction,
    Price,
    as_code,
    as_reason,
)

T = TypeVar("T", bound=BaseModel)
KIB, MIB = 2**10, 2**20
DAY = 86_400.0
PREFIX = "/api/v3"
PAGE_SIZE = 100
GAVE_UP = frozenset({408, 460, 499})
"""Statuses below 500 of gateways that gave up, or whose client did: the API may have the request. 460 is
AWS's, 499 nginx's."""
_NO_MONEY = re.compile(r"insufficient\b.{0,20}\b(credit|balance|fund)", re.IGNORECASE)
_FLAGGED = re.compile(r"sensitive|nsfw|moderation", re.IGNORECASE)
_NO_SUCH_TASK = re.compile(r"\b(task|prediction)s? (was |is )?(not found|unknown)", re.IGNORECASE)
_NO_SUCH_MODEL = re.compile(r"\b(model|product)s? (was |is )?not found", re.IGNORECASE)
# What the model refuses after the submission, in its own words: with the same request it always will.
_REFUSED_TEXT = re.compile(
    r"image size must|must be at (least|most)|check your inputs?|\brejected\b|not supported|unsupported",
    re.IGNORECASE,
)
# docs/error-codes: missing or invalid parameter, media URL not reachable.
_REFUSED_INPUT = frozenset({1400, 1401, 1402})

# More lenient than the standard: line breaks within a text, numbers of any length, anything after its end.
_LENIENT = json.JSONDecoder(
    strict=False, parse_int=lambda digits: int(digits) if len(digits) < 300 else math.inf
)
_ID_IN_DATA = re.compile(r'"data"\s*:\s*\{[^{}]{0,512}?"id"\s*:\s*"([A-Za-z0-9][A-Za-z0-9._-]{0,127})"')
_SEARCHED = 4 * KIB


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request to the API and how its response is read.

    :param reads: What the response's ``data`` is read as.
    :param paid: May an image be paid for if the response cannot be used? Only a submission spends money.
    :param prompt: The prompt it carries, to keep it short where the API's text quotes it.
    :param about: Id of the prediction that it asks for.
    :param room: Bytes of a response beside what repeats the request.
    """

    method: str
    path: str
    reads: type[T]
    body: Mapping[str, Any] | None = field(default=None, repr=False)
    paid: Paid = Paid.NO
    prompt: str = field(default="", repr=False)
    about: str = ""
    room: int = 64 * KIB

    @property
    def max_bytes(self) -> int:
        """The largest response that is read: the request may be in it twice, each byte as ``\\u00XX``."""
        sent = json.dumps(self.body or {}, ensure_ascii=False).encode(errors="replace")
        return self.room + 12 * len(sent)


@dataclass(frozen=True, slots=True)
class Exchange:
    """One response as it came, with the request's URL. It may hold the key, a prompt, an id, an output's URL.

    :param headers: Looked up by lower-case names.
    :param body: Decoded; of an output nothing.
    """

    method: str
    url: str = field(repr=False)
    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(default=b"", repr=False)


def submit(request: ImageRequest) -> Call[Prediction]:
    """Build ``POST /{model}``, the only call that costs money. Only what the model takes is sent."""
    path = f"{PREFIX}/{request.model}"
    return Call("POST", path, Prediction, request.body(), paid=Paid.POSSIBLY, prompt=request.prompt)


def enhance(text: str, style: str) -> Call[Prediction]:
    """Build a purchase of the Prompt Enhancer, $0.001: what it makes of the text is in ``outputs``."""
    body = {"text": text, "mode": "image", "style": style, "enable_sync_mode": False}
    path = f"{PREFIX}/{PROMPT_OPTIMIZER}"
    return Call("POST", path, Prediction, body, paid=Paid.POSSIBLY, prompt=text)


def get_prediction(prediction_id: str) -> Call[Prediction]:
    """Build ``GET /predictions/{id}/result``. It may echo a prompt whose length is not known here."""
    path = f"{PREFIX}/predictions/{quote(prediction_id, safe='')}/result"
    return Call("GET", path, Prediction, about=prediction_id, room=MIB)


def list_predictions(
    *,
    model: str = "",
    created_after: datetime | None = None,
    page: int = 1,
    page_size: int | None = None,
    include_inputs: bool = True,
) -> Call[HistoryPage]:
    """Build ``POST /predictions``: the account's predictions of the past 7 days, newest first.

    :param model: Of this model only; empty: of all.
    :param created_after: Made since then only.
    :param page_size: Rows of a page, 100 at most.
    :param include_inputs: WaveSpeed's own CLI asks for them with a flag that the docs do not have.
    """
    body: dict[str, Any] = {"page": page, "page_size": page_size or PAGE_SIZE}
    if model:
        body["model"] = model
    if created_after is not None:
        body["created_after"] = _moment(created_after)
    flag = {"include_inputs": True} if include_inputs else {}
    return Call("POST", f"{PREFIX}/predictions", HistoryPage, body | flag, room=8 * MIB)


def search_billings(
    *, start_time: datetime, page: int = 1, page_size: int | None = None
) -> Call[BillingPage]:
    """Build ``POST /billings/search``: the account's charges and refunds, newest first."""
    body = {"page": page, "page_size": page_size or PAGE_SIZE, "start_time": _moment(start_time)}
    return Call("POST", f"{PREFIX}/billings/search", BillingPage, body, room=8 * MIB)


def _moment(time: datetime) -> str:
    """Write a time as WaveSpeed's own clients do."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def delete_predictions(ids: list[str]) -> Call[Deletion]:
    """Build ``POST /predictions/delete``; unknown ids are ignored."""
    return Call("POST", f"{PREFIX}/predictions/delete", Deletion, {"ids": ids})


def get_balance() -> Call[Balance]:
    """Build ``GET /balance``: free, so it also serves to test a key."""
    return Call("GET", f"{PREFIX}/balance", Balance)


def list_models() -> Call[Catalogue]:
    """Build ``GET /models``: all models with the schemas of their inputs, a few megabytes. Free."""
    return Call("GET", f"{PREFIX}/models", Catalogue, room=16 * MIB)


def get_price(request: ImageRequest) -> Call[Price]:
    """Build ``POST /model/price``: what this request would cost. Free."""
    body = {"model_id": request.model, "inputs": request.body()}
    return Call("POST", f"{PREFIX}/model/price", Price, body, prompt=request.prompt)


def read(call: Call[T], status: int, headers: Mapping[str, str], body: bytes) -> T:
    """Read the response to ``call``.

    :param headers: Looked up by lower-case names.
    :raises APIError: The HTTP status or the envelope's ``code`` is an error; both are checked.
    :raises GarbledResponseError: The status is good, but this is not what the API documents.
    """
    is_accepted = 200 <= status < 300
    envelope = _envelope(call, body, is_accepted=is_accepted)
    is_bare = "data" not in envelope and {"id", "status"} <= envelope.keys()
    data, code = (envelope, None) if is_bare else (envelope.get("data"), as_code(envelope.get("code")))
    if is_accepted and code and not 200 <= code < 300:
        status = code
    if not 200 <= status < 300 and not _counts_all_the_same(call, data, is_accepted=is_accepted):
        raise _refusal(call, status, headers, as_reason(envelope), is_of_api=bool(envelope))
    if isinstance(data, list) and call.reads is Catalogue:
        data = {"items": data}
    if not isinstance(data, dict):
        raise garbled(call, "is not the JSON that the API documents")
    # Only pages have these; what has no such field drops it.
    beside = {"api_time": _http_date(headers.get("date", "")), "read_bytes": len(body)}
    return _validated(call, {**data, **beside})


def _validated(call: Call[T], data: dict[str, Any]) -> T:
    try:
        found = call.reads.model_validate(data)
    except ValidationError as error:
        # Of an item in a list, the field within the item.
        fields = {[part for part in found["loc"] if isinstance(part, str)][-1] for found in error.errors()}
        raise garbled(call, f"has no usable {', '.join(sorted(fields))}") from None
    if isinstance(found, Prediction) and call.about not in ("", found.id):
        raise garbled(call, "is about another prediction")
    return found


def _envelope(call: Call[Any], body: bytes, *, is_accepted: bool) -> dict[str, Any]:
    """Return the envelope of a response, or what remains of it; empty where there is none."""
    envelope, is_whole = _json_object(body)
    if is_accepted and not is_whole and not 200 <= (as_code(envelope.get("code")) or 200) < 300:
        envelope = {}  # a refusal, and something else behind it: nobody knows which of them counts
    return envelope or (_remains(body) if call.paid is not Paid.NO else {})


def _json_object(body: bytes) -> tuple[dict[str, Any], bool]:
    """Return the object that a body begins with, empty where it begins otherwise; and whether it is all."""
    text = _text(body)
    try:
        found, end = _LENIENT.raw_decode(text)
    except (ValueError, RecursionError):
        return {}, False
    return (found, not text[end:].strip()) if isinstance(found, dict) else ({}, False)


def _text(body: bytes) -> str:
    """Decode a body; what is not in its encoding, as in a prompt that is echoed, is no reason to drop the
    rest."""
    return body.decode(json.detect_encoding(body), errors="replace").lstrip(" \t\r\n")


def _remains(body: bytes) -> dict[str, Any]:
    """Return an envelope with the id in the response to a submission that is no whole JSON, if there is one.

    What was paid for is worth it: an echo may be nested too deep, or the end may be cut off. A page of HTML
    is never read so, and no id of an object within ``data``.
    """
    text = _text(body)[:_SEARCHED]
    found = _ID_IN_DATA.search(text) if text.startswith(("{", ")]}'")) else None
    return {"data": {"id": found[1]}} if found else {}


def _counts_all_the_same(call: Call[Any], data: object, *, is_accepted: bool) -> bool:
    """Whether there is a prediction, whatever the envelope's code says of it.

    An id in an accepted response to a submission is a purchase; in any other it is where the status is there
    that the API gives a prediction, for an error may have an id of its own. Where we ask for a prediction,
    that it has ended comes before a 402 or 500 around it, which is about its end.
    """
    try:
        found = Prediction.model_validate(data)
    except ValidationError:
        return False
    if call.paid is not Paid.NO:
        return is_accepted or bool(isinstance(data, dict) and data.get("status"))
    return found.id == call.about and found.is_terminal


def failure_of(prediction: Prediction, *, prompt: str = "") -> exceptions.PredictionError:
    """Return the error that a prediction's end without an image means, by its status and code.

    :param prediction: One whose status is final and not ``completed``.
    :param prompt: The prompt sent, to keep it short where the API's text quotes it.
    """
    text = redact(prediction.error, prompt=prompt) or "no reason given"
    what = (
        f"Prediction {prediction.id} ended as {shorten(prediction.status)!r} (code {prediction.code}): {text}"
    )
    if prediction.status in {"cancelled", "canceled", "deleted"}:
        return exceptions.PredictionGoneError(what, fix="Clear the task to buy the image again")
    if prediction.code == 1200 or _says(_FLAGGED, prediction.error, prompt):
        return exceptions.ModerationError(what, fix="Change the prompt")
    if prediction.code == 1407:
        return exceptions.PredictionRefusedError(what, fix="Top up the WaveSpeed account", paid=Paid.NO)
    if prediction.code in _REFUSED_INPUT or _says(_REFUSED_TEXT, prediction.error, prompt):
        return exceptions.PredictionRefusedError(what, fix="Change the request")
    return exceptions.PredictionFailedError(what)


def retry_after(headers: Mapping[str, str], *, now: float | None = None) -> float | None:
    """Return the seconds that ``Retry-After`` requests, a day at most: a number, or a date.

    A date is compared with the API's clock.

    :param headers: Looked up by lower-case names.
    :param now: Unix time, for a response without a ``Date`` header.
    """
    value = headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]{1,9}", value):
        return min(float(value), DAY)
    until = _http_date(value)
    if until is None:
        return None
    here = _http_date(headers.get("date", "")) or (time.time() if now is None else now)
    return min(max(0.0, until - here), DAY)


def _refusal(
    call: Call[Any], status: int, headers: Mapping[str, str], said: str, *, is_of_api: bool
) -> exceptions.APIError:
    """Choose the error for a status that is not 2xx. For a submission: can the task exist?

    4xx means that the API read the request and made no task; some come from gateways that gave up waiting,
    or for which we did, so they are no 4xx in that sense. Everything else leaves it open
    (docs/errors-retries-timeouts).

    :param is_of_api: The body is JSON, as all that the API itself says. A proxy's page or Go's text for an
        unknown path is not.
    """
    message = redact(said, prompt=call.prompt)
    what = f"{call.method} {call.path} got status {status}" + (f": {message}" if message else "")
    if status == 429:
        return exceptions.RateLimitError(
            what,
            retry_after=retry_after(headers),
            fix="Run fewer tasks at once, for example with an Airflow pool",
        )
    if status in {401, 403}:
        return exceptions.AuthenticationError(what, status=status, fix=_fix_of_key(status, is_of_api))
    # "No money" is a 400 whose text has to be read: WaveSpeed documents no other sign of it.
    if status == 402 or (status == 400 and _says(_NO_MONEY, said, call.prompt)):
        return exceptions.InsufficientCreditError(what, status=status, fix="Top up the WaveSpeed account")
    if status == 404 and not is_of_api:
        return exceptions.UnknownPathError(what, status=status, fix="Check the connection's host")
    if status == 404 or _is_unknown_task(call, status, said):
        return exceptions.NotFoundError(what, status=status, fix="Check the connection's host and the model")
    if 400 <= status < 500 and status not in GAVE_UP:
        return exceptions.RequestRefusedError(what, status=status, fix=_fix_of_request(call, said))
    return exceptions.ServerError(what, status=status, paid=call.paid)


def _fix_of_key(status: int, is_of_api: bool) -> str:
    if status == 403 and not is_of_api:
        return "The response is not WaveSpeed's JSON: check whether a proxy or a firewall refuses the request"
    return "Check the API key in the connection; a key works only after the first top-up"


def _fix_of_request(call: Call[Any], said: str) -> str:
    is_model = _says(_NO_SUCH_MODEL, said, call.prompt)
    return "Check the model's path on WaveSpeed" if is_model else "Change the request"


def _is_unknown_task(call: Call[Any], status: int, said: str) -> bool:
    """Whether it is a 404 by another status, as was met for a prediction that the API does not know."""
    return status == 400 and bool(call.about) and _says(_NO_SUCH_TASK, said, "")


def _says(pattern: re.Pattern[str], text: str, prompt: str) -> bool:
    """Search what the API says: the words of a prompt that it quotes, as JSON perhaps, decide nothing."""
    if prompt and pattern.search(prompt):
        for _ in range(3):
            text = text.replace(prompt, "")
            prompt = json.dumps(prompt, ensure_ascii=False)[1:-1]
    return bool(pattern.search(text))


def garbled(call: Call[Any], why: str) -> exceptions.GarbledResponseError:
    """Return the error of a good response that ``why`` it cannot be used."""
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
