"""The trigger: waits for predictions in the triggerer, and only reads.

So it may run twice at once, which happens when a triggerer is replaced, and after a restart it starts again
from its arguments. Its arguments and its event hold no prompt, key or URL, because Airflow keeps both in its
database and logs the event.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from enum import StrEnum
from importlib import import_module
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_bitdance.clock import Clock
from airflow_provider_bitdance.exceptions import BitDanceError
from airflow_provider_bitdance.polling.policy import DEFAULT_POLL_INTERVAL
from airflow_provider_bitdance.redaction import some_of

__all__ = ["BitDanceTrigger", "Reason"]


class Reason(StrEnum):
    """Why a trigger fired. Only for the log: the operator checks everything itself."""

    READY = "ready"
    RESTED = "rested"
    DEADLINE = "deadline"
    UNREACHABLE = "unreachable"


class BitDanceTrigger(BaseTrigger):
    """Polls predictions until enough have ended, the deadline is reached, or polling fails. Free.

    :param bitdance_conn_id: The connection with the API key.
    :param pending: Prediction ids, each with the Unix time of its submission.
    :param deadline: Unix time of the last poll. It is wall-clock time, which is still valid after a triggerer
        has restarted.
    :param not_before: Unix time before which no event is sent.
    :param poll_interval: The shortest pause between two polls of one prediction, in seconds. With several
        predictions, pauses may be as short as a tenth of this.
    :param enough: How many predictions have to end. Default: all. With 0 the trigger does not poll; it waits
        until ``not_before``.
    """

    def __init__(
        self,
        *,
        bitdance_conn_id: str,
        pending: dict[str, float],
        deadline: float,
        not_before: float = 0.0,
        poll_interval: float = DEFAULT_POLL_INTERVAL,
        enough: int | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bitdance_conn_id = bitdance_conn_id
        self.pending = pending
        self.deadline = deadline
        self.not_before = not_before
        self.poll_interval = poll_interval
        self.enough = len(pending) if enough is None else min(enough, len(pending))

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments, all plain JSON."""
        return (
            "airflow_provider_bitdance.triggers.bitdance.BitDanceTrigger",
            {
                "bitdance_conn_id": self.bitdance_conn_id,
                "pending": self.pending,
                "deadline": self.deadline,
                "not_before": self.not_before,
                "poll_interval": self.poll_interval,
                "enough": self.enough,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and fire one event: a reason and two counts."""
        clock = Clock()
        reason, ended = await self._wait(clock) if self.enough else (Reason.RESTED, 0)
        # The last poll comes a moment early; an early event would only be deferred again.
        earliest = max(self.not_before, self.deadline) if reason is Reason.DEADLINE else self.not_before
        await clock.sleep(max(0.0, earliest - clock.time()))
        event = {"reason": reason.value, "ended": ended, "pending": len(self.pending) - ended}
        yield TriggerEvent(event)  # type: ignore[no-untyped-call]

    async def _wait(self, clock: Clock) -> tuple[Reason, int]:
        """Wait for the predictions, and say why no longer, and how many have ended."""
        try:
            # In a thread: the first trigger of a triggerer loads the client, and others want the loop.
            shared = await asyncio.to_thread(import_module, "airflow_provider_bitdance.triggers.shared")
            async with shared.shared_poller(
                self.bitdance_conn_id, poll_interval=self.poll_interval, clock=clock
            ) as poller:
                ended = await shared.wait_for(poller, self.pending, until=self.deadline, enough=self.enough)
            return Reason.READY if len(ended) >= self.enough else Reason.DEADLINE, len(ended)
        except Exception as error:
            # Whatever it is, a connection that only workers see among it: the worker polls itself.
            what = error if isinstance(error, BitDanceError) else type(error).__name__
            self.log.warning("Polling %d predictions failed: %s", len(self.pending), what)
            return Reason.UNREACHABLE, 0

    async def on_kill(self) -> None:
        """Say what stays collectable. It cancels nothing: Airflow also calls this when another triggerer,
        or a new try that waits for the same predictions, has taken over (apache/airflow#73454, #72100)."""
        self.log.info("Stopped waiting. Collectable for 7 days: %s", some_of(self.pending))
