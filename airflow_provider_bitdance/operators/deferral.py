"""How a task gives its worker back: what its trigger polls, from when on, and until when."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_provider_bitdance.redaction import some_of
from airflow_provider_bitdance.triggers.bitdance import BitDanceTrigger
from airflow_provider_bitdance.version_compat import REENTRY_SECONDS, SHORTEST_DEFERRAL

if TYPE_CHECKING:
    from airflow_provider_bitdance.engine import Waiting

DEFERRAL_MARGIN = timedelta(seconds=60)
"""Airflow's own time-out of a deferral comes this much after ours, which has the better message."""


def hand_over(operator: Any, waiting: Waiting) -> NoReturn:
    """Defer a task whose process has nothing left to do for a while.

    :raises TaskDeferred: Always; Airflow takes it from here.
    """
    left = max(waiting.deadline - waiting.now, SHORTEST_DEFERRAL)
    not_before, until = waiting.now + SHORTEST_DEFERRAL, waiting.deadline
    back = max(not_before, waiting.resume_at - REENTRY_SECONDS)
    if not waiting.enough:
        until = not_before = back
    elif waiting.resume_at > waiting.now:
        until = min(until, back)
    seconds, in_flight = until - waiting.now, some_of(waiting.pending) or "none"
    if waiting.to_buy:
        rest = "%s: deferring for up to %.0f s with %d images left. In flight: %s"
        operator.log.info(rest, waiting.waits_for, seconds, waiting.to_buy, in_flight)
    else:
        operator.log.info("Deferring for up to %.0f s. In flight: %s", seconds, in_flight)
    operator.defer(
        trigger=BitDanceTrigger(
            bitdance_conn_id=operator.bitdance_conn_id,
            pending=waiting.watched,
            deadline=until,
            not_before=not_before,
            poll_interval=operator.poll_interval,
            enough=waiting.enough,
        ),
        method_name="execute_complete",
        timeout=timedelta(seconds=left) + DEFERRAL_MARGIN,
    )
    raise AssertionError("unreachable: defer raises")
