"""Polls one purchase closely and lists the account's history meanwhile: when it shows, and by which filters.

Everything here is free. It runs beside the engine, which polls and stores the image by itself; whatever goes
wrong here costs observations only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow_provider_bitdance.check.observations import Answer, Listing, Polling
from airflow_provider_bitdance.check.requests import (
    Recorder,
    ask,
    echo_of,
    known_status,
    prediction_in,
)
from airflow_provider_bitdance.clock import Clock
from airflow_provider_bitdance.engine.account_history import CLOCK_MARGIN
from airflow_provider_bitdance.wavespeed import protocol
from airflow_provider_bitdance.wavespeed.client import AsyncClient
from airflow_provider_bitdance.wavespeed.image_request import ImageRequest
from airflow_provider_bitdance.wavespeed.protocol import Call
from airflow_provider_bitdance.wavespeed.responses import HistoryPage, Prediction

PAUSES = (0.0, 0.5, 0.5, *[1.0] * 29, *[5.0] * 12)
"""Seconds before each round: 90 in all, after which the engine expects a purchase in the history."""
TRIES = 10
"""So many listings by a filter have to show what a listing without one shows."""
PLAIN, ENGINE = "all", "as the engine lists"
ANOTHER_MODEL = "wavespeed-ai/flux-dev"

Build = Callable[[str, datetime], Call[HistoryPage]]
LISTINGS: dict[str, Build] = {
    PLAIN: lambda _model, _since: protocol.list_predictions(include_inputs=False),
    "by model": lambda model, _since: protocol.list_predictions(model=model, include_inputs=False),
    "by date": lambda _model, since: protocol.list_predictions(created_after=since, include_inputs=False),
    "with inputs": lambda _model, _since: protocol.list_predictions(),
    ENGINE: lambda model, since: protocol.list_predictions(model=model, created_after=since),
}
"""The ways to list the history that are compared, by name."""


@dataclass(slots=True)
class Watch:
    """Watches one purchase.

    :param request: What was bought, with its real seed.
    :param sent_at: Unix time of the response to its submission.
    :param skew: Seconds by which the API's clock is ahead.
    """

    client: AsyncClient
    recorder: Recorder
    clock: Clock
    request: ImageRequest
    prediction_id: str
    sent_at: float
    skew: float
    polling: Polling = field(default_factory=Polling)
    listings: dict[str, Listing] = field(default_factory=lambda: {name: Listing() for name in LISTINGS})
    _has_ended: bool = False

    async def run(self) -> None:
        """Poll and list until all is seen, at most for the sum of :data:`PAUSES`."""
        for pause in PAUSES:
            await self.clock.sleep(pause)
            if not self._has_ended:
                await self._poll()
            for name in LISTINGS:
                if self._is_open(name):
                    await self._list(name)
            if self._has_ended and not any(map(self._is_open, LISTINGS)):
                return
        for name, listing in self.listings.items():
            if not listing.listings:
                await self._list(name)

    def _is_open(self, name: str) -> bool:
        """Whether a listing has still to show the purchase; before the plain one has, no other is tried."""
        listing, plain = self.listings[name], self.listings[PLAIN]
        if listing.shown_after is not None:
            return False
        return name == PLAIN or (plain.shown_after is not None and listing.listings < TRIES)

    async def _poll(self) -> None:
        answer, found = await self._ask(protocol.get_prediction(self.prediction_id))
        seen, age = self.polling, self._age()
        if seen.first is None:
            seen = replace(seen, first=answer)
        if not isinstance(found, Prediction):
            self.polling = replace(seen, unknown=seen.unknown + (answer.error == "NotFoundError"))
            return
        self.recorder.secrets.update(found.outputs)
        status = known_status(found.status)
        statuses = seen.statuses if status in seen.statuses[-1:] else (*seen.statuses, status)
        item = prediction_in(self.recorder.last, self.prediction_id)
        self._has_ended = found.is_terminal
        self.polling = replace(
            seen,
            known_after=age if seen.known_after is None else seen.known_after,
            statuses=statuses,
            ended_after=age if found.is_terminal else None,
            echo=echo_of(item, self.request, self.recorder.secrets),
            shape=answer.shape,
        )

    async def _list(self, name: str) -> None:
        since = datetime.fromtimestamp(self.sent_at + self.skew - CLOCK_MARGIN, UTC)
        model = self.request.model
        answer, _ = await self._ask(LISTINGS[name](model, since))
        if name == ENGINE and answer.error == "RequestRefusedError":
            # As the engine does: the docs do not have the flag for inputs.
            call = protocol.list_predictions(model=model, created_after=since, include_inputs=False)
            answer, _ = await self._ask(call)
        item, seen = prediction_in(self.recorder.last, self.prediction_id), self.listings[name]
        seen = replace(seen, listings=seen.listings + 1, error=answer.error)
        if item is not None:
            seen = replace(
                seen,
                shown_after=self._age(),
                echo=echo_of(item, self.request, self.recorder.secrets),
                shape=answer.shape,
            )
        self.listings[name] = seen

    async def excludes(self, call: Call[HistoryPage]) -> bool | None:
        """Say whether a listing does not show the purchase; ``None`` where it cannot be read."""
        answer, _ = await self._ask(call)
        return prediction_in(self.recorder.last, self.prediction_id) is None if answer.is_good else None

    async def excludes_model(self) -> bool | None:
        """Say whether the filter by model leaves out what is of another one."""
        return await self.excludes(protocol.list_predictions(model=ANOTHER_MODEL, include_inputs=False))

    async def excludes_date(self) -> bool | None:
        """Say whether the filter by date leaves out what is older."""
        tomorrow = datetime.fromtimestamp(self.sent_at + self.skew, UTC) + timedelta(days=1)
        return await self.excludes(protocol.list_predictions(created_after=tomorrow, include_inputs=False))

    async def _ask(self, call: Call[Any]) -> tuple[Answer, Any]:
        return await ask(self.client, self.recorder, call, self.clock)

    def _age(self) -> float:
        return round(self.clock.time() - self.sent_at, 2)


async def stop(watching: asyncio.Task[None]) -> None:
    """End a watch that waits for a purchase which was not made."""
    watching.cancel()
    await asyncio.wait([watching])
