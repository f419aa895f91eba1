"""Which error a response means, and in what words. Pure; the classes are in ``exceptions.py``.

There are three kinds of them: a status that is not 2xx, a body that cannot be used, and a prediction that
ended without an image. The one thing to know: of a submission, the first two say whether it may have been
charged all the same.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_bitdance import exceptions
from airflow_provider_bitdance.exceptions import Paid
from airflow_provider_bitdance.redaction import redact, shorten
from airflow_provider_bitdance.wavespeed.responses import Prediction, http_date

if TYPE_CHECKING:
    from airflow_provider_bitdance.wavespeed.protocol import Call

DAY = 86_400.0
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


def refusal_of(
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


def garbled(call: Call[Any], why: str) -> exceptions.GarbledResponseError:
    """Return the error of a good response that ``why`` it cannot be used."""
    return exceptions.GarbledResponseError(
        f"The response to {call.method} {call.path} {why}",
        fix="Check the connection's host: the response may come from a proxy",
        paid=call.paid,
    )


def too_large(call: Call[Any]) -> exceptions.ResponseTooLargeError:
    """Return the error for a response that is larger than its call allows."""
    return exceptions.ResponseTooLargeError(
        f"The response to {call.method} {call.path} is too large",
        allowed=f"at most {call.max_bytes} bytes",
        fix="Check the connection's host: the response may come from a proxy",
        paid=call.paid,
    )


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
    until = http_date(value)
    if until is None:
        return None
    here = http_date(headers.get("date", "")) or (time.time() if now is None else now)
    return min(max(0.0, until - here), DAY)


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
