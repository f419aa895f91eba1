"""Metrics: what the events of a journal mean in counters. Pure; the operator passes them on to Airflow."""

from __future__ import annotations

from collections.abc import Iterator

from airflow_provider_bitdance.records import Adopted, Failed, JobState, Lost, Stored, Submitted
from airflow_provider_bitdance.records.events import Event

PREFIX = "bitdance"


def counts(events: tuple[Event, ...], state: JobState) -> Iterator[tuple[str, int]]:
    """Yield counters and what is added to them.

    :param events: Just written.
    :param state: The job after them.
    """
    for event in events:
        match event:
            case Submitted():
                yield f"{PREFIX}.bought", 1
                cost = state.images[event.key].plan.estimated_cost_usd
                yield f"{PREFIX}.estimated_cost_micro_usd", round(cost * 1e6)
            case Adopted():
                yield f"{PREFIX}.adopted", 1
            case Lost():
                yield f"{PREFIX}.possibly_paid", 1
            case Stored(reused=True):
                yield f"{PREFIX}.reused", 1
            case Stored():
                yield f"{PREFIX}.stored", 1
            case Failed():
                yield f"{PREFIX}.failed", 1
