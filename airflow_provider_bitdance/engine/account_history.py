"""The account's history and bill, as far as they can be about a purchase of ours: free to read.

The one reader of them, for lost responses and for ``reconcile``. It is patient: a page may be short, or
behind, without being the last. The history has the past 7 days.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TypeVar

from pydantic import BaseModel

from airflow_provider_bitdance.clock import Clock
from airflow_provider_bitdance.exceptions import (
    BitDanceError,
    NotFoundError,
    RequestRefusedError,
    ResponseTooLargeError,
)
from airflow_provider_bitdance.wavespeed import protocol
from airflow_provider_bitdance.wavespeed.client import AsyncClient
from airflow_provider_bitdance.wavespeed.responses import BillingRecord, Prediction

P = TypeVar("P", bound=BaseModel)
CLOCK_MARGIN = 5.0
"""Seconds by which the times of two machines that agree may differ: an HTTP date has whole seconds."""
BILLING_MARGIN = timedelta(hours=1)
"""The bill is read from this much earlier on: its times are by WaveSpeed's clock, our records' by ours."""
MINUTE = 60.0
MAX_SKEW = 24 * 3600.0
"""Seconds. An API that is further off has no clock that one could go by."""
MAX_ASKED = 100
"""Predictions that only the bill has; where there are more, other programs are busy with the account."""
MAX_PAGES = 100
"""Of 100 predictions each: an API that never comes to an end must not hold a worker."""


@dataclass(slots=True)
class _Place:
    """A place in a list of the API: the number of a page, and how many rows each has."""

    page: int = 1
    size: int = field(default_factory=lambda: protocol.PAGE_SIZE)

    def narrow(self) -> bool:
        """Go on from the same row with smaller pages; say whether there are any."""
        factor = next((part for part in range(2, self.size + 1) if self.size % part == 0), 0)
        if factor:
            self.page, self.size = (self.page - 1) * factor + 1, self.size // factor
        return bool(factor)

    async def read(self, client: AsyncClient, build: Callable[..., protocol.Call[P]]) -> P:
        """Read the page, or a part of it where it is too large.

        :param build: Makes the call of ``page`` and ``page_size``.
        """
        while True:
            try:
                return await client.send(build(page=self.page, page_size=self.size))
            except ResponseTooLargeError:
                if not self.narrow():
                    raise


@dataclass(frozen=True, slots=True)
class History:
    """Predictions of the account, newest first.

    :param skew: Seconds by which the API's clock is ahead of ours.
    :param is_whole: Every row could be read, up to the last page, and the API's clock is known.
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
    place, pages, unreadable, include_inputs = _Place(), 0, 0, True
    while pages < MAX_PAGES:
        after = datetime.fromtimestamp(since + (skew or 0.0) - CLOCK_MARGIN, UTC)
        build = partial(
            protocol.list_predictions, model=model, created_after=after, include_inputs=include_inputs
        )
        try:
            response = await place.read(client, build)
        except RequestRefusedError:
            if not include_inputs:
                raise
            include_inputs = False  # the docs do not have the flag
            continue
        if skew is None and response.api_time is not None:
            skew = response.api_time - clock.time()
            if abs(skew) > MAX_SKEW:
                skew = None
            elif abs(skew) > CLOCK_MARGIN:
                continue  # ask again, for the period by the API's own clock
        unreadable += response.unreadable
        new = {item.id: item for item in response.items if item.id not in found}
        if not new:
            break
        found |= new
        place.page, pages = place.page + 1, pages + 1
    is_whole = pages < MAX_PAGES and not unreadable and skew is not None
    return History(tuple(found.values()), skew or 0.0, is_whole)


@dataclass(frozen=True, slots=True)
class Bill:
    """The account's charges and refunds that are about predictions, newest first.

    :param is_whole: Every row could be read, and says which prediction it is about if it is a charge.
    """

    rows: tuple[BillingRecord, ...] = ()
    is_whole: bool = True


async def read_bill(client: AsyncClient, since: datetime) -> Bill:
    """Read the account's bill.

    Reads page after page until one brings nothing new. Not until one is short: the API may return fewer than
    requested, and what is new at the top moves items down.

    :raises BitDanceError: The API cannot be reached.
    """
    found: dict[str | BillingRecord, BillingRecord] = {}
    place, pages, unreadable = _Place(), 0, 0
    while pages < MAX_PAGES:
        known = len(found)
        build = partial(protocol.search_billings, start_time=since - BILLING_MARGIN)
        response = await place.read(client, build)
        unreadable += response.unreadable
        for record in response.items:
            found.setdefault(record.uuid or record, record)
        if len(found) == known:
            break
        place.page, pages = place.page + 1, pages + 1
    nameless = [row for row in found.values() if not row.prediction_id and row.billing_type == "deduct"]
    return Bill(
        tuple(record for record in found.values() if record.prediction_id),
        is_whole=pages < MAX_PAGES and not unreadable and not nameless,
    )


async def with_charged(
    client: AsyncClient,
    history: History,
    bill: Bill,
    *,
    model: str,
    known: Collection[str],
    periods: Sequence[tuple[float, float]],
) -> History:
    """Add to a history what it does not show, though the bill has it: a second witness of what was made.

    Each of these predictions is polled once. What is of another model is left out, if the API calls ours as
    we do.

    :param known: Predictions that our records know; they are not asked for.
    :param periods: Unix times by our clock between which charges are of interest.
    """
    shown = {item.id for item in history.items}.union(known)
    names = {"", model, *(item.model for item in history.items if item.id in known)}
    charges = {
        row.prediction_id: row.created_at
        for row in bill.rows
        if row.prediction_id not in shown and _is_within(periods, row.created_at, history.skew)
    }
    added = []
    for name, moment in list(charges.items())[:MAX_ASKED]:
        try:
            found = await client.get_prediction(name)
        except BitDanceError:
            found = Prediction(id=name)  # whatever it is, it may be ours
        if found.model in names:
            made = found.created_at or moment
            added.append(found.model_copy(update={"id": name, "created_at": made}))
    return replace(
        history,
        items=(*added, *history.items),
        is_whole=history.is_whole and len(charges) <= MAX_ASKED,
    )


def _is_within(periods: Sequence[tuple[float, float]], moment: datetime | None, skew: float) -> bool:
    made = None if moment is None else moment.timestamp() - skew
    return any(made is None or start <= made <= end for start, end in periods)


def controls(history: History, known: Collection[str], bill: Bill | None) -> tuple[float, ...]:
    """Return when purchases were made that our records know, and that history and bill both show.

    They show how far both can be believed (:func:`~.decisions.decide_losses`): none, if a row cannot be read.

    :param bill: ``None`` where this key may not read it: then the history alone has to do.
    :return: Unix times by our clock.
    """
    charged = None if bill is None else {row.prediction_id for row in bill.rows}
    shown = (item for item in history.items if item.id in known and (charged is None or item.id in charged))
    made = [moment for item in shown if (moment := history.made_at(item)) is not None]
    return tuple(made) if history.is_whole and (bill is None or bill.is_whole) else ()


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
