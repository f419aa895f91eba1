"""Forecast: what a job would reuse and buy, and what that would cost. Reads only, and spends nothing."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from airflow_provider_bitdance.api.client import AsyncClient
from airflow_provider_bitdance.engine.bench import Policy, Wanted
from airflow_provider_bitdance.engine.budget import prices, usd
from airflow_provider_bitdance.receipts import Receipts
from airflow_provider_bitdance.storage import Folder

__all__ = ["Forecast", "forecast"]

TYPICAL_SECONDS = 12.4
"""For one image of 1024 x 1024, from a write-up of the paper; WaveSpeed publishes no figure."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a task would do if it ran now.

    :param reuse: Images that are there already.
    :param buy: Images to buy.
    :param cost_usd: What they cost, estimated.
    :param seconds: About how long it takes until they are made.
    :param max_cost_usd: What the task may spend, where it has a limit.
    """

    reuse: int
    buy: int
    cost_usd: float
    seconds: float
    max_cost_usd: float | None = None

    @property
    def is_within_budget(self) -> bool:
        """Whether the task would not be refused for its cost."""
        return self.max_cost_usd is None or self.cost_usd <= self.max_cost_usd + 1e-9

    def __str__(self) -> str:
        text = f"{self.reuse} reused, {self.buy} to buy, about {usd(self.cost_usd)}"
        if self.buy:
            text += f", about {self.seconds:.0f} s"
        if not self.is_within_budget:
            text += f". Would be refused: max_cost_usd is {usd(self.max_cost_usd or 0.0)}"
        return text


async def forecast(
    client: AsyncClient, records: Folder, images: Folder, policy: Policy, wanted: list[Wanted]
) -> Forecast:
    """Look at what is there, and count what is missing.

    :param records: The records path.
    :param images: The output folder.
    :raises BitDanceError: The store or, for a live price, the API could not be read.
    """
    price = await prices(client, policy, wanted)
    missing = [
        item
        for item in wanted
        if policy.if_exists != "reuse"
        or not await asyncio.to_thread(_is_there, records, images, item, client.settings.host)
    ]
    return Forecast(
        reuse=len(wanted) - len(missing),
        buy=len(missing),
        cost_usd=sum(price[item.request.model, item.request.size] for item in missing),
        seconds=TYPICAL_SECONDS if missing else 0.0,
        max_cost_usd=policy.max_cost_usd,
    )


def _is_there(records: Folder, images: Folder, item: Wanted, api_host: str) -> bool:
    receipt = Receipts(records).find(item.address)
    if receipt is None or receipt.fingerprint != item.request.fingerprint(api_host):
        return False
    return images.size(receipt.file) == receipt.bytes
