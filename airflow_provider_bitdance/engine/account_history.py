"""The account's history, as far as it can be about a purchase of ours: free to read, the past 7 days."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from airflow_provider_bitdance.clock import Clock
from airflow_provider_bitdance.exceptions import NotFoundError
from airflow_provider_bitdance.wavespeed import protocol
from airflow_provider_bitdance.wavespeed.client import AsyncClient
from airflow_provider_bitdance.wavespeed.responses import Prediction

CLOCK_MARGIN = 5.0
"""Seconds by which the times of two machines that agree may differ: an HTTP date has whole seconds."""
PAGE_SIZE = 100


@dataclass(frozen=True, slots=True)
class History:
    """Predictions of the account, newest first.

    :param skew: Seconds by which the API's clock is ahead of ours.
    """

    items: tuple[Prediction, ...]
    skew: float = 0.0

    def since(self, moment: float) -> list[Prediction]:
        """Return those made after a moment by our clock, oldest first; one without a time may be."""
        first = moment + self.skew - CLOCK_MARGIN
        return [
            item
            for item in reversed(self.items)
            if item.created_at is None or item.created_at.timestamp() >= first
        ]


async def read_history(client: AsyncClient, clock: Clock, *, model: str, since: float) -> History:
    """Read the predictions of a model since a moment by our clock.

    :raises BitDanceError: The history cannot be read.
    """
    skew, page, found = 0.0, 1, dict[str, Prediction]()
    asked_by_its_clock = False
    while True:
        after = datetime.fromtimestamp(since + skew - CLOCK_MARGIN, UTC)
        call = protocol.list_predictions(page=page, page_size=PAGE_SIZE, model=model, created_after=after)
        answer = await client.send(call)
        if answer.api_time is not None and not asked_by_its_clock:
            asked_by_its_clock = True
            skew = answer.api_time - clock.time()
            if abs(skew) > CLOCK_MARGIN:
                continue
        # By id, for what is made meanwhile moves items to the next page.
        found |= {item.id: item for item in answer.items}
        if len(answer.items) < PAGE_SIZE:
            return History(tuple(found.values()), skew)
        page += 1


async def with_inputs(client: AsyncClient, items: Iterable[Prediction]) -> list[Prediction]:
    """Ask for the inputs of predictions that the history shows without; the API may echo them elsewhere.

    Where it does not echo the first one's, it is not asked for the others'.
    """
    told: list[Prediction] = []
    echoes = True
    for item in items:
        if item.input is None and echoes:
            try:
                whole = await client.get_prediction(item.id)
            except NotFoundError:
                whole = item  # deleted, or too new to be looked at
            else:
                echoes = whole.input is not None
            told.append(item.model_copy(update={"input": whole.input}))
        else:
            told.append(item)
    return told
