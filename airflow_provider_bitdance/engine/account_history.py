"""The account's history and bill, as far as they can be about a purchase of ours: free to read.

The one reader of them, for lost responses and for ``reconcile``. It is patient: a page may be short, or
behind, without being the last. The history has the past 7 days.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from typing import TypeVar

from airflow_provider_bitdance.clock import Clock
from airflow_provider_bitdance.exceptions import (
    BitDanceError,
    NotFoundError,
    RequestRefusedError,
    ResponseTooLargeError,
)
from airflow_provider_bitdance.wavespeed import protocol
from airflow_provider_bitdance.wavespeed.client import AsyncClient
from airflow_provider_bitdance.wavespeed.responses import BillingRecord, HistoryPage, Page, Prediction

P = TypeVar("P", bound=Page)
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
MAX_BYTES = 64 * protocol.MIB
"""Of all pages of a list together: 10,000 predictions with prompts of 6,000 characters."""
MAX_SECONDS = 300.0
"""For all requests that a reading of the account takes, after which the next one is not sent."""
MOST_ECHOED = 64
"""Inputs of a prediction that are kept to prove whose it is; none that is a list or an object."""


@dataclass(slots=True)
class Allowance:
    """How long the account is read. Where the time is over, what was read counts, and is not the whole.

    :param until: Unix time after which no further request is sent.
    """

    clock: Clock
    until: float

    @classmethod
    def of(cls, clock: Clock, seconds: float = MAX_SECONDS) -> Allowance:
        """Allow so many seconds from now on, at most :data:`MAX_SECONDS`."""
        return cls(clock, clock.time() + min(seconds, MAX_SECONDS))

    @property
    def is_over(self) -> bool:
        """Whether no further request may be sent."""
        return self.clock.time() >= self.until


@dataclass(slots=True)
class _Place:
    """A place in a list of the API: the number of a page, and how many rows each has."""

    page: int = 1
    size: int = field(default_factory=lambda: protocol.PAGE_SIZE)
    pages: int = 0
    read_bytes: int = 0
    shows_inputs: bool = True

    def may_go_on(self, allowance: Allowance) -> bool:
        """Say whether a further page may be read."""
        return self.pages < MAX_PAGES and self.read_bytes < MAX_BYTES and not allowance.is_over

    def narrow(self) -> bool:
        """Go on from the same row with smaller pages; say whether there are any."""
        factor = next((part for part in range(2, self.size + 1) if self.size % part == 0), 0)
        if factor:
            self.page, self.size = (self.page - 1) * factor + 1, self.size // factor
        return bool(factor)

    def turn(self) -> None:
        """Go on to the next page."""
        self.page, self.pages = self.page + 1, self.pages + 1

    async def read(self, client: AsyncClient, build: Callable[..., protocol.Call[P]]) -> P:
        """Read the page, or a part of it where it is too large.

        :param build: Makes the call of ``page`` and ``page_size``.
        """
        while True:
            try:
                response = await client.send(build(page=self.page, page_size=self.size))
            except ResponseTooLargeError:
                if not self.narrow():
                    raise
            else:
                self.read_bytes += response.read_bytes
                return response


@dataclass(frozen=True, slots=True)
class History:
    """Predictions of the account, newest first.

    :param skew: Seconds by which the API's clock is ahead of ours.
    :param is_whole: Every row could be read, up to the last page, and the API's clock is known.
    :param is_end: The last page was read.
    """

    items: tuple[Prediction, ...]
    skew: float = 0.0
    is_whole: bool = True
    is_end: bool = True

    def made_at(self, item: Prediction) -> float | None:
        """Return the Unix time by our clock at which one was made, if it says so."""
        return item.created_at.timestamp() - self.skew if item.created_at else None

    def since(self, moment: float) -> list[Prediction]:
        """Return those made after a moment by our clock, oldest first; one without a time may be."""
        made = ((self.made_at(item), item) for item in reversed(self.items))
        return [item for when, item in made if when is None or when >= moment - CLOCK_MARGIN]


async def read_history(
    client: AsyncClient,
    allowance: Allowance,
    *,
    model: str,
    since: float,
    most: float = math.inf,
    kept: Callable[[Prediction], Prediction] | None = None,
) -> History:
    """Read the predictions of a model since a moment by our clock, page after page until one has nothing new.

    Not until one is short: the API may return fewer than requested, and what is made meanwhile moves
    items to the next page.

    :param model: Empty: of all models.
    :param most: Read no further page once there are so many.
    :param kept: Returns what is kept of each. Default: only what proves whose it is.

    :raises BitDanceError: The history cannot be read.
    """
    skew: float | None = None
    found: dict[str, Prediction] = {}
    place, unreadable, is_end = _Place(), 0, False
    while not is_end and len(found) < most and place.may_go_on(allowance):
        after = datetime.fromtimestamp(since + (skew or 0.0) - CLOCK_MARGIN, UTC)
        response = await _history_page(client, place, model, after)
        if skew is None and response.api_time is not None:
            skew = response.api_time - allowance.clock.time()
            if abs(skew) > MAX_SKEW:
                skew = None
            elif abs(skew) > CLOCK_MARGIN:
                continue  # ask again, for the period by the API's own clock
        unreadable += response.unreadable
        new = {item.id: (kept or _proving)(item) for item in response.items if item.id not in found}
        is_end = not new
        found |= new
        place.turn()
    is_whole = is_end and not unreadable and skew is not None
    return History(tuple(found.values()), skew or 0.0, is_whole, is_end)


async def _history_page(client: AsyncClient, place: _Place, model: str, after: datetime) -> HistoryPage:
    while True:
        build = partial(
            protocol.list_predictions, model=model, created_after=after, include_inputs=place.shows_inputs
        )
        try:
            return await place.read(client, build)
        except RequestRefusedError:
            if not place.shows_inputs:
                raise
            place.shows_inputs = False  # the docs do not have the flag


def _proving(item: Prediction) -> Prediction:
    """Leave out of a prediction what proves nothing."""
    shown = ((name, value) for name, value in (item.input or {}).items() if len(name) < 100)
    kept = dict(islice(((n, v) for n, v in shown if isinstance(v, str | int | float)), MOST_ECHOED))
    return item.model_copy(
        update={"input": None if item.input is None else kept, "outputs": (), "has_nsfw_contents": ()}
    )


@dataclass(frozen=True, slots=True)
class Bill:
    """The account's charges and refunds that are about predictions, newest first.

    :param is_whole: Every row could be read, and says which prediction it is about if it is a charge.
    """

    rows: tuple[BillingRecord, ...] = ()
    is_whole: bool = True


async def read_bill(client: AsyncClient, since: datetime, allowance: Allowance, *, skew: float = 0.0) -> Bill:
    """Read the account's bill.

    Reads page after page until one brings nothing new. Not until one is short: the API may return fewer than
    requested, and what is new at the top moves items down.

    :raises BitDanceError: The API cannot be reached.
    """
    found: dict[str | BillingRecord, BillingRecord] = {}
    start = since + timedelta(seconds=skew) - BILLING_MARGIN
    place, unreadable, is_end = _Place(), 0, False
    while not is_end and place.may_go_on(allowance):
        known = len(found)
        build = partial(protocol.search_billings, start_time=start)
        response = await place.read(client, build)
        unreadable += response.unreadable
        for record in response.items:
            found.setdefault(record.uuid or record, record)
        is_end = len(found) == known
        place.turn()
    nameless = [row for row in found.values() if not row.prediction_id and row.billing_type == "deduct"]
    return Bill(
        tuple(record for record in found.values() if record.prediction_id),
        is_whole=is_end and not unreadable and not nameless,
    )


async def with_charged(
    client: AsyncClient,
    history: History,
    bill: Bill,
    *,
    model: str,
    known: Collection[str],
    periods: Sequence[tuple[float, float]],
    allowance: Allowance,
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
    added: list[Prediction] = []
    asked = 0
    for name, moment in charges.items():
        if asked == MAX_ASKED or allowance.is_over:
            break
        asked += 1
        found = Prediction(id=name)  # whatever it is, it may be ours
        with contextlib.suppress(BitDanceError):
            found = _proving(await client.get_prediction(name))
        if found.model in names:
            made = found.created_at or moment
            added.append(found.model_copy(update={"id": name, "created_at": made}))
    is_whole = history.is_whole and asked == len(charges)
    return replace(history, items=(*added, *history.items), is_whole=is_whole)


def _is_within(periods: Sequence[tuple[float, float]], moment: datetime | None, skew: float) -> bool:
    made = None if moment is None else moment.timestamp() - skew
    return any(made is None or start <= made <= end for start, end in periods)


def controls(history: History, known: Collection[str], bill: Bill | None) -> tuple[float, ...]:
    """Return when purchases were made that our records know, and that history and bill both show.

    They show how far both can be believed (:func:`~.lost_response_decisions.decide_losses`): none, if a row
    cannot be read.

    :param bill: ``None`` where this key may not read it: then the history alone has to do.
    :return: Unix times by our clock.
    """
    charged = None if bill is None else {row.prediction_id for row in bill.rows}
    shown = (item for item in history.items if item.id in known and (charged is None or item.id in charged))
    made = [moment for item in shown if (moment := history.made_at(item)) is not None]
    return tuple(made) if history.is_whole and (bill is None or bill.is_whole) else ()


async def with_inputs(client: AsyncClient, history: History, allowance: Allowance) -> History:
    """Ask for the inputs of predictions that the history shows without; the API may echo them elsewhere.

    If it does not echo the first one's, it is not asked again for the others. Of more than
    :data:`MAX_ASKED` the newest are asked for; the others stay without, so any of them may be ours.
    """
    completed: list[Prediction] = []
    echoes, left = True, MAX_ASKED
    for item in history.items:
        inputs = item.input
        if inputs is None and echoes and left and not allowance.is_over:
            left -= 1
            with contextlib.suppress(NotFoundError):  # deleted, or too new to be seen there
                inputs = _proving(await client.get_prediction(item.id)).input
                echoes = inputs is not None
        completed.append(item.model_copy(update={"input": inputs}))
    return replace(history, items=tuple(completed))
