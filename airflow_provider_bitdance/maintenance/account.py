"""What WaveSpeed's account knows: its predictions of the past 7 days, and its bill. Reads only; free."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from airflow_provider_bitdance.clock import Clock
from airflow_provider_bitdance.engine.account_history import (
    History,
    read_bill,
    read_history,
    with_charged,
)
from airflow_provider_bitdance.exceptions import BitDanceError
from airflow_provider_bitdance.maintenance.scan import Finding
from airflow_provider_bitdance.wavespeed.client import AsyncClient
from airflow_provider_bitdance.wavespeed.responses import BillingRecord


@dataclass(frozen=True, slots=True)
class Account:
    """What the account says of a period, newest first.

    :param bill: ``None`` where it could not be read: a key may have no right to it.
    :param findings: Why not.
    """

    history: History
    bill: list[BillingRecord] | None
    findings: tuple[Finding, ...] = ()


async def read_account(
    client: AsyncClient, clock: Clock, models: Collection[str], since: datetime, known: Collection[str]
) -> Account:
    """Read the account's history and bill.

    :param models: Models whose predictions are of interest.
    :param known: Predictions that some record knows.
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
        bill = await read_bill(client, since)
    except BitDanceError as error:
        if error.retry_helps:
            raise
        return Account(history, None, (Finding(f"{client.settings.host}, the bill", error.what),))
    history = await with_charged(client, history, bill, models=models, known=known, since=since.timestamp())
    return Account(history, bill)


def charged(record: BillingRecord) -> float:
    """Return what a line of the bill took, in US dollars; a refund gives back, whatever its sign."""
    # WaveSpeed documents no list of types; seen: deduct, refund.
    is_refund = "refund" in record.billing_type.lower()
    return -abs(record.price) if is_refund else abs(record.price)
