"""The account's history, as far as it can be about a purchase of ours: free to read, the past 7 days.

The one reader of it, for lost responses and for ``reconcile``. It is patient: a page may be short, or behind,
without being the last.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from airflow_provider_bitdance.clock import Clock
from airflow_provider_bitdance.exceptions import NotFoundError, RequestRefusedError
from airflow_provider_bitdance.wavespeed import protocol
from airflow_provider_bitdance.wavespeed.client import AsyncClient
from airflow_provider_bitdance.wavespeed.responses import Prediction

CLOCK_MARGIN = 5.0
"""Seconds by which the times of two machines that agree may differ: an HTTP date has whole seconds."""
MAX_PAGES = 100
"""Of 100 predictions each: an API that never comes to an end must not hold a worker."""


@dataclass(frozen=True, slots=True)
class History:
    """Predictions of the account, newest first.

    :param skew: Seconds by which the API's clock is ahead of ours.
    :param is_whole: Every row could be read, up to the last page.
    """

    items: tuple[Prediction, ...]
    skew: float = 0.0
    is_whole: bool = True

    def made_at(self, item: Prediction) -> float | None:
        """Return the Unix time by our clock at which one was made, if it says so."""
        return item.created_at.timestamp() - self.skew if item.created_at else None

    def since(self, moment: float) -> list[Prediction]:
        """Return those made after a moment by our clock, oldest first; one without a time may be."""
        made = ((self.made_at(item), item) for item in reversed(self.items))
        return [item for when, item in made if when is None or when >= moment - CLOCK_MARGIN]


async def read_history(client: AsyncClient, clock: Clock, *, model: str, since: float) -> History:
    """Read the predictions of a model since a moment by our clock, page after page until one has nothing new.

    Not until one is short: the API may return fewer than requested, and what is made meanwhile moves
    items to the next page.

    :raises BitDanceError: The history cannot be read.
    """
    skew: float | None = None
    found: dict[str, Prediction] = {}
    page, unreadable, include_inputs = 1, 0, True
    while page <= MAX_PAGES:
        after = datetime.fromtimestamp(since + (skew or 0.0) - CLOCK_MARGIN, UTC)
        call = protocol.list_predictions(
            page=page, model=model, created_after=after, include_inputs=include_inputs
        )
        try:
            response = await client.send(call)
        except RequestRefusedError:
            if not include_inputs:
                raise
            include_inputs = False  # the docs do not have the flag
            continue
        if skew is None and response.api_time is not None:
            skew = response.api_time - clock.time()
            if abs(skew) > CLOCK_MARGIN:
                continue  # ask again, for the period by the API's own clock
        unreadable += response.unreadable
        new = {item.id: item for item in response.items if item.id not in found}
        if not new:
            break
        found |= new
        page += 1
    return History(tuple(found.values()), skew or 0.0, is_whole=page <= MAX_PAGES and not unreadable)


async def with_inputs(client: AsyncClient, items: Iterable[Prediction]) -> list[Prediction]:
    """Ask for the inputs of predictions that the history shows without; the API may echo them elsewhere.

    If it does not echo the first one's, it is not asked again for the others.
    """
    completed: list[Prediction] = []
    echoes = True
    for item in items:
        inputs = item.input
        if inputs is None and echoes:
            with contextlib.suppress(NotFoundError):  # deleted, or too new to be seen there
                inputs = (await client.get_prediction(item.id)).input
                echoes = inputs is not None
        completed.append(item.model_copy(update={"input": inputs}))
    return completed
