"""Estimate: what is there for a job, what is missing, and what that costs. Reads only, and spends nothing."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from airflow_provider_bitdance.engine.budget import ROUNDING, prices, usd
from airflow_provider_bitdance.engine.context import Wanted, compares_by_size
from airflow_provider_bitdance.engine.policy import Policy
from airflow_provider_bitdance.records.integrity import is_intact
from airflow_provider_bitdance.records.receipts import Receipts
from airflow_provider_bitdance.storage import Folder
from airflow_provider_bitdance.wavespeed.client import AsyncClient


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a task would reuse and buy, and what that would cost.

    :param reuse: Images that exist already.
    :param buy: Images to buy.
    :param cost_usd: The estimated cost of these images and of the prompts to enhance, in US dollars.
    :param max_cost_usd: The most that the task may spend, if it has a limit.
    :param prompts: Prompts to enhance.
    """

    reuse: int
    buy: int
    cost_usd: float
    max_cost_usd: float | None = None
    prompts: int = 0

    @property
    def is_within_budget(self) -> bool:
        """Whether the task would pass its budget check."""
        return self.max_cost_usd is None or self.cost_usd <= self.max_cost_usd + ROUNDING

    def __str__(self) -> str:
        to_buy = f"{self.buy} to buy"
        if self.prompts:
            to_buy += f", {self.prompts} prompt{'' if self.prompts == 1 else 's'} to enhance"
        text = f"{self.reuse} reused, {to_buy}, about {usd(self.cost_usd)}"
        if not self.is_within_budget:
            text += f"; would be refused, because max_cost_usd is {usd(self.max_cost_usd or 0.0)}"
        return text


async def estimate(
    client: AsyncClient, records: Folder, images: Folder, policy: Policy, wanted: list[Wanted]
) -> Estimate:
    """Check what is there, and count what is missing.

    :param records: The records path.
    :param images: The output folder.
    :raises BitDanceError: The store or, for a live price, the API could not be read.
    """
    price = await prices(client, policy, (item.request for item in wanted))
    missing, host = wanted, client.settings.host
    if policy.if_exists == "reuse":
        # The threads are few, and so bound how many reads there are at once.
        by_size = compares_by_size(len(wanted))
        reads = (asyncio.to_thread(_is_there, records, images, item, host, by_size) for item in wanted)
        there = await asyncio.gather(*reads)
        missing = [item for item, is_found in zip(wanted, there, strict=True) if not is_found]
    return Estimate(
        reuse=len(wanted) - len(missing),
        buy=len(missing),
        cost_usd=sum(price[item.request.kind] for item in missing),
        max_cost_usd=policy.max_cost_usd,
    )


def _is_there(records: Folder, images: Folder, item: Wanted, api_host: str, by_size: bool) -> bool:
    receipt = Receipts(records).find(item.destination)
    if receipt is None or receipt.fingerprint != item.fingerprint(api_host):
        return False
    return is_intact(images, receipt, by_size=by_size)
