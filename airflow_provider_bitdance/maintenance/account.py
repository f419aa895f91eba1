"""What WaveSpeed's account knows: its predictions of the past 7 days, and its bill. Reads only; free."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from airflow_provider_bitdance.clock import Clock
from airflow_provider_bitdance.engine.account_history import (
    Allowance,
    Bill,
    History,
    read_bill,
    read_history,
    with_charged,
)
from airflow_provider_bitdance.exceptions import BitDanceError
from airflow_provider_bitdance.maintenance.scan import Finding
from airflow_provider_bitdance.wavespeed.client import AsyncClient
from airflow_provider_bitdance.wavespeed.responses import BillingRecord, Prediction


@dataclass(frozen=True, slots=True)
class Account:
    """What the account says of a period.

    :param histories: By model, each newest first.
    :param bill: ``None`` where it could not be read: a key may have no right to it.
    :param findings: Why not.
    """

    histories: Mapping[str, History]
    bill: Bill | None
    findings: tuple[Finding, ...] = ()

    @property
    def predictions(self) -> list[Prediction]:
        """All predictions, those of each model newest first."""
        return [item for history in self.histories.values() for item in history.items]


async def read_account(
    client: AsyncClient,
    clock: Clock,
    models: Collection[str],
    since: datetime,
    *,
    known: Collection[str],
    periods: Mapping[str, Sequence[tuple[float, float]]],
) -> Account:
    """Read the account's history and bill.

    :param models: Models whose predictions are of interest.
    :param known: Predictions that some record knows.
    :param periods: By model, between which times also what only the bill has is of interest.
    :raises BitDanceError: The API cannot be reached; a retry may help.
    """
    start, allowance = since.timestamp(), Allowance.of(clock)
    histories = {
        model: await read_history(client, allowance, model=model, since=start) for model in sorted(models)
    }
    try:
        bill = await read_bill(client, since, allowance)
    except BitDanceError as error:
        if error.retry_helps:
            raise
        return Account(histories, None, (Finding(f"{client.settings.host}, the bill", error.what),))
    completed = {
        model: await with_charged(
            client,
            history,
            bill,
            model=model,
            known=known,
            periods=periods.get(model, ()),
            allowance=allowance,
        )
        for model, history in histories.items()
    }
    return Account(completed, bill)


def charged(record: BillingRecord) -> float:
    """Return what a line of the bill took, in US dollars; a refund gives back, whatever its sign."""
    # WaveSpeed documents no list of types; seen: deduct, refund.
    is_refund = "refund" in record.billing_type.lower()
    return -abs(record.price) if is_refund else abs(record.price)
