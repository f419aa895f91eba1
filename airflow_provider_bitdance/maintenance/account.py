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
from airflow_provider_bitdance.redaction import some_of
from airflow_provider_bitdance.wavespeed.client import AsyncClient
from airflow_provider_bitdance.wavespeed.models import BITDANCE_14B
from airflow_provider_bitdance.wavespeed.responses import Prediction

MOST_MODELS = 20
"""Whose histories are read, ours first, then those with lost purchases: records may name any number."""


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
    listed, findings = _chosen(models, periods, f"{client.settings.host}, the history")
    histories = {model: await read_history(client, allowance, model=model, since=start) for model in listed}
    try:
        skew = min((history.skew for history in histories.values()), default=0.0)
        bill = await read_bill(client, since, allowance, skew=skew)
    except BitDanceError as error:
        if error.retry_helps:
            raise
        unread = Finding(f"{client.settings.host}, the bill", error.what)
        return Account(histories, None, (*findings, unread))
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
    return Account(completed, bill, findings)


def _chosen(
    models: Collection[str], lost: Collection[str], where: str
) -> tuple[list[str], tuple[Finding, ...]]:
    """Choose the models whose history is read, and say which is not."""
    ordered = sorted(models, key=lambda model: (model != BITDANCE_14B, model not in lost, model))
    listed, left_out = ordered[:MOST_MODELS], ordered[MOST_MODELS:]
    what = f"not read for {len(left_out)} of the models in the records: {some_of(left_out)}"
    return listed, (Finding(where, what),) if left_out else ()
