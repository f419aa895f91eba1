"""The account, for those who use the hook: predictions are listed and deleted, charges are added up."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Iterable
from datetime import UTC, datetime
from math import fsum
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_bitdance.clock import Clock
from airflow_provider_bitdance.engine.account_history import Allowance, Bill, History, read_bill, read_history
from airflow_provider_bitdance.exceptions import GarbledResponseError, InputError, Paid
from airflow_provider_bitdance.redaction import shorten
from airflow_provider_bitdance.wavespeed import protocol
from airflow_provider_bitdance.wavespeed.client import AsyncClient
from airflow_provider_bitdance.wavespeed.loop_thread import LoopThread
from airflow_provider_bitdance.wavespeed.models import PATH_ALLOWED, is_path
from airflow_provider_bitdance.wavespeed.responses import ID_PATTERN, Prediction

if TYPE_CHECKING:
    from airflow_provider_bitdance.hooks.bitdance import BitDanceHook

T = TypeVar("T")

MOST_PREDICTIONS = 10_000
BEGINNING = datetime(1970, 1, 2, tzinfo=UTC)
"""Before all predictions: the API lists those of 7 days."""
IDS_ALLOWED = "ids as returned by submit and history"
DELETED_AT_ONCE = 100
"""WaveSpeed publishes no limit; its pages have as many."""


def read_predictions(
    hook: BitDanceHook, *, model: str, since: datetime | None, limit: int
) -> list[Prediction]:
    """Return predictions of the account, newest first. Blocks.

    :raises InputError: An argument cannot be used.
    :raises BitDanceError: The history cannot be read.
    """
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MOST_PREDICTIONS:
        raise InputError(f"limit is {shorten(repr(limit))}", allowed=f"1 to {MOST_PREDICTIONS:,}")
    if model and not is_path(model):
        raise InputError(f"model is {shorten(repr(model))}", allowed=PATH_ALLOWED)
    start = BEGINNING if since is None else _in_utc(since)

    async def read(client: AsyncClient, allowance: Allowance) -> History:
        return await read_history(
            client, allowance, model=model, since=start.timestamp(), most=limit, kept=lambda item: item
        )

    found = _read(hook, read)
    if not found.is_end and len(found.items) < limit:
        hook.log.warning(
            "The account's history has more predictions than the %d that were read", len(found.items)
        )
    return list(found.items[:limit])


def read_charges(hook: BitDanceHook, *, since: datetime) -> float:
    """Return what the account paid since a time: charges less refunds, in US dollars. Blocks.

    :raises GarbledResponseError: The bill is not whole, so the sum would be too small.
    :raises BitDanceError: The bill cannot be read.
    """
    start = _in_utc(since)

    async def read(client: AsyncClient, allowance: Allowance) -> Bill:
        return await read_bill(client, start, allowance)

    bill = _read(hook, read)
    if not bill.is_whole:
        raise GarbledResponseError(
            "The account's bill could not be read to its end, so the charges are unknown"
        ).with_verdict(paid=Paid.NO)
    rows = (row for row in bill.rows if row.created_at is None or row.created_at >= start)
    return round(fsum(row.charged for row in rows), 6)


def delete_predictions(hook: BitDanceHook, prediction_ids: Iterable[str]) -> int:
    """Delete predictions, and return how many there were. Blocks.

    :raises InputError: There is none, or one is not a prediction id.
    """
    given = [prediction_ids] if isinstance(prediction_ids, str) else list(prediction_ids)
    ids = list(dict.fromkeys(given))
    if not ids:
        raise InputError("prediction_ids is empty", allowed=IDS_ALLOWED)
    for id_ in ids:
        check_prediction_id(id_)
    with hook.get_conn() as client:
        parts = (ids[start : start + DELETED_AT_ONCE] for start in range(0, len(ids), DELETED_AT_ONCE))
        return sum(client.send(protocol.delete_predictions(part)).deleted_count for part in parts)


def check_prediction_id(given: object) -> None:
    """Refuse what is no prediction id.

    :raises InputError: It is none.
    """
    if not (isinstance(given, str) and re.fullmatch(ID_PATTERN, given)):
        raise InputError(f"{shorten(repr(given))} is not a prediction id", allowed=IDS_ALLOWED)


def _read(hook: BitDanceHook, read: Callable[[AsyncClient, Allowance], Coroutine[Any, Any, T]]) -> T:
    """Read something of the account, on a thread with an event loop of its own."""
    client = hook.new_async_client()
    thread = LoopThread(client.aclose)
    try:
        return thread.run(read(client, Allowance.of(Clock())))
    finally:
        thread.close()


def _in_utc(time: datetime) -> datetime:
    if not isinstance(time, datetime):
        raise InputError(f"since is {shorten(repr(time))}", allowed="a datetime")
    return time if time.tzinfo else time.replace(tzinfo=UTC)
