"""The WaveSpeed v3 protocol without a network: calls to be sent, responses to be read.

The client sends what is built here, and reads with what is here.
The one thing to know: :func:`read` decides whether the response to a submission is a purchase. Which error it
is where it is none, and whether it may have been charged, is in ``response_errors.py``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ValidationError

from airflow_provider_bitdance.exceptions import Paid
from airflow_provider_bitdance.wavespeed.image_request import ImageRequest
from airflow_provider_bitdance.wavespeed.models import PROMPT_OPTIMIZER
from airflow_provider_bitdance.wavespeed.response_errors import garbled, refusal_of
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
    http_date,
)

T = TypeVar("T", bound=BaseModel)
KIB, MIB = 2**10, 2**20
PREFIX = "/api/v3"
PAGE_SIZE = 100
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
        raise refusal_of(call, status, headers, as_reason(envelope), is_of_api=bool(envelope))
    if isinstance(data, list) and call.reads is Catalogue:
        data = {"items": data}
    if not isinstance(data, dict):
        raise garbled(call, "is not the JSON that the API documents")
    # Only pages have these; what has no such field drops it.
    beside = {"api_time": http_date(headers.get("date", "")), "read_bytes": len(body)}
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
