"""What WaveSpeed's account knows: its predictions of the past 7 days, and its bill. Reads only; free."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count

from airflow_provider_bitdance.clock import Clock
from airflow_provider_bitdance.engine.account_history import History, read_history
from airflow_provider_bitdance.exceptions import BitDanceError
from airflow_provider_bitdance.maintenance.scan import Finding
from airflow_provider_bitdance.wavespeed import protocol
from airflow_provider_bitdance.wavespeed.client import AsyncClient
from airflow_provider_bitdance.wavespeed.responses import BillingRecord

BILLING_MARGIN = timedelta(hours=1)
"""The bill is read from this much earlier on: its times are by WaveSpeed's clock, our records' by ours."""


@dataclass(frozen=True, slots=True)
class Account:
    """What the account says of a period, newest first.

    :param findings: The bill could not be read, and why: a key may have no right to it.
    """

    history: History
    bill: list[BillingRecord]
    findings: tuple[Finding, ...] = ()


async def read_account(client: AsyncClient, clock: Clock, models: Iterable[str], since: datetime) -> Account:
    """Read the account's history and bill.

    :param models: Models whose predictions are of interest.
    :raises BitDanceError: The API cannot be reached; a retry may help.
    """
    read = [
        await read_history(client, clock, model=model, since=since.timestamp()) for model in sorted(models)
    ]
    history = History(
        tuple(prediction for found in read for prediction in found.items),
        skew=read[0].skew if read else 0.0,
        is_whole=all(found.is_whole for found in read),
    )
    try:
        return Account(history, await read_bill(client, since))
    except BitDanceError as error:
        if error.retry_helps:
            raise
        return Account(history, [], (Finding(f"{client.settings.host}, the bill", error.what),))


async def read_bill(client: AsyncClient, since: datetime) -> list[BillingRecord]:
    """Return the account's charges and refunds that are about predictions, newest first.

    Reads page after page until one brings nothing new. Not until one is short: the API may return fewer than
    requested, and what is new at the top moves items down.

    :raises BitDanceError: The API cannot be reached.
    """
    found: dict[str | BillingRecord, BillingRecord] = {}
    for page in count(1):
        known = len(found)
        call = protocol.search_billings(page=page, start_time=since - BILLING_MARGIN)
        for record in (await client.send(call)).items:
            found.setdefault(record.uuid or record, record)
        if len(found) == known:
            break
    return [record for record in found.values() if record.prediction_id]


def charged(record: BillingRecord) -> float:
    """Return what a line of the bill took, in US dollars; a refund gives back, whatever its sign."""
    # WaveSpeed documents no list of types; seen: deduct, refund.
    is_refund = "refund" in record.billing_type.lower()
    return -abs(record.price) if is_refund else abs(record.price)
