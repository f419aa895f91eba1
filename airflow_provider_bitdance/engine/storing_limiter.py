"""How many images are fetched, checked and written at once: as many as the distances ask for. No I/O.

Where API and store are near, a few at once use all that the process has, and more of them would only keep it
from polling and buying. Where they are far away, an image waits most of its time, and many must. What tells
one from the other is how much longer an image takes than the quickest one did.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from airflow_provider_bitdance.clock import Clock
from airflow_provider_bitdance.wavespeed.models import largest_file

STORED_BYTES = 320 * 2**20
"""Memory for the images that are stored at once, if each is as large as its model may make it: 32 of
BitDance's 10 MiB; most have 1 MB."""
FEW = 4
"""At once to begin with, and at least. With all 32, a hundred that ended within a second on a near API were
seen twice as late (`make bench ARGS=2`), and none was stored sooner."""
SLOWED = 2.0
"""So many times as long as the quickest one: they keep each other waiting. With 1.5, a far API's own chance
kept too few at once: 300 images took 6 % longer."""
QUICKEST = 0.02
"""Seconds that no image is quicker than: a clock that is set back must not make all others look slow."""
STUCK_AFTER = 10.0
"""Seconds after which an image no longer keeps another one waiting: four downloads that drip must not hold up
a batch for minutes."""


class StoringLimiter:
    """Admits images to be stored, and takes note of how long each takes.

    :param models: Of the images.
    :ivar at_once: How many it admits.
    """

    def __init__(self, models: Iterable[str], *, clock: Clock) -> None:
        self._most = max(1, STORED_BYTES // max(map(largest_file, models), default=1))
        self.at_once = min(FEW, self._most)
        self._clock = clock
        self._quickest = math.inf
        self._places = asyncio.Semaphore(self.at_once)
        self._surplus = 0

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Hold one of the places, from the first byte that is fetched to the last that is written."""
        await self._places.acquire()
        begun = self._clock.time()
        timer = asyncio.get_running_loop().call_later(STUCK_AFTER, self._admit_one_more)
        try:
            yield
            self._took(self._clock.time() - begun)
        finally:
            timer.cancel()
            if self._surplus:
                self._surplus -= 1
            else:
                self._places.release()

    def _took(self, seconds: float) -> None:
        """Admit one more at once after an image that took about as long as the quickest, else one less."""
        seconds = max(seconds, QUICKEST)
        self._quickest = min(self._quickest, seconds)
        if seconds > SLOWED * self._quickest:
            if self.at_once > min(FEW, self._most):
                self.at_once -= 1
                self._surplus += 1
        else:
            self._admit_one_more()

    def _admit_one_more(self) -> None:
        if self.at_once < self._most and self._places.locked():
            self.at_once += 1
            self._places.release()
