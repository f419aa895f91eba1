"""Sends one request at a time and notes what came back. Nothing here is a purchase."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from airflow_provider_bitdance.check.observations import Answer, Echo
from airflow_provider_bitdance.check.shapes import names_of, shape_of
from airflow_provider_bitdance.clock import Clock
from airflow_provider_bitdance.engine.proof import Proof, proof_of
from airflow_provider_bitdance.exceptions import BitDanceError
from airflow_provider_bitdance.wavespeed.client import AsyncClient
from airflow_provider_bitdance.wavespeed.image_request import ImageRequest
from airflow_provider_bitdance.wavespeed.protocol import Call, Exchange
from airflow_provider_bitdance.wavespeed.responses import Prediction
from airflow_provider_bitdance.wavespeed.submission_outcome import submission_outcome

T = TypeVar("T", bound=BaseModel)
KNOWN_STATUSES = frozenset(
    {"created", "processing", "completed", "failed", "cancelled", "canceled", "timeout", "deleted"}
)
"""Statuses that WaveSpeed documents."""


SHORTEST_SECRET = 4
"""Characters: what is shorter is a part of every name."""


class Recorder:
    """Keeps the last response of a client, and what may be published of none.

    :param secrets: The key, prompts, ids and URLs: shared by all recorders of a check.
    :ivar error: What the last request ended with.
    """

    def __init__(self, secrets: set[str]) -> None:
        self.secrets = secrets
        self.last: Exchange | None = None
        self.error: BitDanceError | None = None

    def __call__(self, exchange: Exchange) -> None:
        """Take a response, and note whose values its names must not be."""
        self.last = exchange
        for item in predictions_in(exchange):
            self.secrets.update(values_of(item))


async def ask(
    client: AsyncClient, recorder: Recorder, call: Call[T], clock: Clock
) -> tuple[Answer, T | None]:
    """Send a free request, and return what came back: its shape, and what it is read as."""
    recorder.last, start = None, clock.time()
    response: T | None = None
    error: BitDanceError | None = None
    try:
        response = await client.send(call)
    except BitDanceError as failed:
        error = failed
    recorder.error = error
    return answer_of(recorder.last, error, recorder.secrets, seconds=clock.time() - start), response


def answer_of(
    exchange: Exchange | None, error: BitDanceError | None, secrets: Iterable[str], *, seconds: float = 0.0
) -> Answer:
    """Describe a response, and the error that it was read as."""
    return Answer(
        error=type(error).__name__ if error else "",
        outcome=submission_outcome(error).value,
        seconds=round(seconds, 3),
        shape=shape_of(exchange, secrets=tuple(secrets)),
    )


def predictions_in(exchange: Exchange | None) -> list[dict[str, Any]]:
    """Return the predictions of a response as they came: one, or the items of a list."""
    try:
        body = json.loads(exchange.body) if exchange is not None else {}
    except (ValueError, RecursionError):
        return []
    data = body.get("data", body) if isinstance(body, dict) else body
    items = data.get("items") if isinstance(data, dict) else data
    found = items if isinstance(items, list) else [data]
    return [item for item in found if isinstance(item, dict)]


def prediction_in(exchange: Exchange | None, prediction_id: str) -> dict[str, Any] | None:
    """Return one prediction of a response as it came, or ``None`` where it is not there."""
    return next((item for item in predictions_in(exchange) if item.get("id") == prediction_id), None)


def values_of(item: dict[str, Any]) -> set[str]:
    """Return what a prediction as it came has of its owner: id, model's inputs, outputs."""
    outputs = item.get("outputs")
    found = [item.get("id"), *(outputs if isinstance(outputs, list) else [])]
    for inputs in (item.get("input"), item.get("inputs")):
        found += inputs.values() if isinstance(inputs, dict) else []
    return {value for value in found if isinstance(value, str) and len(value) >= SHORTEST_SECRET}


def echo_of(item: dict[str, Any] | None, request: ImageRequest, secrets: Iterable[str]) -> Echo | None:
    """Describe how a prediction repeats the request that it was made for."""
    if item is None:
        return None
    name = next((name for name in ("inputs", "input") if isinstance(item.get(name), dict)), "")
    if not name:
        return Echo()
    found, sent = item[name], request.body()
    try:
        is_ours = proof_of(Prediction.model_validate(item), request) is Proof.OURS
    except ValidationError:
        is_ours = False
    return Echo(
        field=name,
        is_ours=is_ours,
        is_exact=all(
            type(found.get(key)) is type(value) and found[key] == value for key, value in sent.items()
        ),
        extra=names_of(found.keys() - sent.keys(), tuple(secrets)),
    )


def known_status(status: str) -> str:
    """Return a status that is documented, or "other"."""
    return status if status in KNOWN_STATUSES else "other"
