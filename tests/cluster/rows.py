"""The table of faults of a cluster: which part dies, and what the rules are."""

from __future__ import annotations

import signal

from airflow_provider_bitdance.engine.policy import MAX_UNANSWERED
from tests.chaos.acts import BATCH
from tests.chaos.rows import Row
from tests.cluster import acts
from tests.cluster.acts import act
from tests.cluster.cluster import SLOTS

MIX = f"1 in the worker, 1 deferred, {acts.MAPPED} mapped, a batch of {BATCH}"
SHOWN = "the account's history shows inputs"
NOT_SHOWN = "the history shows no inputs"
LOST = MAX_UNANSWERED + SLOTS - 1
"""A worker's tasks have at most so many submissions without a response: one batch, and an image a slot."""
AWAY = f"for {acts.AWAY:.0f} s"

ROWS = [
    Row("nothing happens", act(acts.nothing_happens), MIX, latency=2.0),
    Row(
        "worker SIGKILL, with all its processes · echo",
        act(acts.worker_dies),
        f"{MIX}; {SHOWN}",
        latency=4.0,
        echo=True,
        lost=LOST,
    ),
    Row(
        "worker SIGKILL, with all its processes · no echo",
        act(acts.worker_dies),
        f"{MIX}; {NOT_SHOWN}",
        latency=4.0,
        lost=LOST,
    ),
    Row(
        "worker SIGSTOP past its heartbeat, SIGCONT",
        act(acts.worker_freezes),
        f"{MIX}; {SHOWN}",
        latency=4.0,
        echo=True,
        lost=LOST,
    ),
    Row("worker SIGTERM, with time to finish", act(acts.worker_ends), MIX, latency=4.0),
    Row(
        f"worker SIGTERM, SIGKILL after {acts.GRACE:.0f} s",
        act(acts.worker_ends_too_slowly),
        f"{MIX}; {SHOWN}",
        latency=8.0,
        echo=True,
        lost=LOST,
    ),
    Row(
        "worker SIGQUIT",
        act(acts.worker_quits),
        f"{MIX}; {SHOWN}",
        latency=8.0,
        echo=True,
        lost=LOST,
    ),
    Row(
        f"every task redelivered after {acts.VISIBILITY} s",
        act(acts.redelivered),
        MIX,
        latency=10.0,
    ),
    Row(
        "Redis stopped",
        act(acts.broker_away(signal.SIGTERM)),
        f"{MIX}; 2 more while it is away, {AWAY}",
        latency=6.0,
    ),
    Row(
        "Redis SIGKILL",
        act(acts.broker_away(signal.SIGKILL)),
        f"{MIX}; 2 more while it is away, {AWAY}",
        latency=6.0,
    ),
    Row(
        "S3 SIGKILL",
        act(acts.store_is_killed),
        f"{MIX}; away {AWAY}; {SHOWN}",
        latency=4.0,
        echo=True,
        lost=2 * LOST,
    ),
    Row("S3 SIGSTOP, SIGCONT", act(acts.store_stops), f"{MIX}; silent {AWAY}", latency=4.0),
    Row(
        "Postgres restarted",
        act(acts.database_restarts),
        f"{MIX}; away for {acts.GRACE:.0f} s; {SHOWN}",
        latency=6.0,
        echo=True,
        lost=2 * LOST,
    ),
    Row(
        "triggerer SIGKILL, the other takes over",
        act(acts.triggerer_dies),
        f"4 deferred, a batch of {BATCH} deferred",
        latency=30.0,
    ),
    Row("scheduler SIGKILL, the other goes on", act(acts.scheduler_dies), f"{MIX}; 4 more", latency=6.0),
    Row(
        "the same items in two Dags at once",
        act(acts.same_items),
        f"two batches of the same {BATCH} items",
        latency=3.0,
    ),
    Row(
        "the same items in two Dags, a worker SIGKILL",
        act(acts.same_items_and_a_worker_dies),
        f"two batches of the same {BATCH} items, the first one's worker killed; {SHOWN}",
        latency=4.0,
        echo=True,
        lost=2 * MAX_UNANSWERED,
    ),
    Row(
        f"{acts.BATCHES} batches on one account",
        act(acts.ten_batches),
        f"{acts.BATCHES} batches of {acts.SMALL_BATCH}, each with 20 in flight; the account makes 20 at once",
        latency=2.0,
        limit=20,
    ),
]
