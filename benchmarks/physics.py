"""What no program could beat where API and store are far away: the round trips and nothing else.

Simulated: an image's place in flight is taken when its POST is sent, and free again when the response to a
poll sent at the best moment is back. There is no CPU, and a poll costs nothing.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence

STORED_BY = 2
"""Operations of the store after a download, one after the other: the file and its receipt."""


def wall(
    latencies: Sequence[float],
    *,
    in_flight: int,
    round_trip: float = 0.0,
    operation: float = 0.0,
    unanswered: float = math.inf,
) -> float:
    """Return the seconds from the first intent to the last receipt.

    :param latencies: Of the images, in the order of their submission.
    :param round_trip: Seconds from a request to its response.
    :param operation: Seconds of one operation of the store; an intent is written before each POST, and the
        response after it.
    :param unanswered: Images at most that have an intent and no record of the response.
    """
    places: list[float] = []
    records: list[float] = []
    sent, last = 0.0, 0.0
    for latency in latencies:
        intent = sent - operation if places else 0.0
        if len(records) >= unanswered:
            intent = max(intent, heapq.heappop(records))
        sent = intent + operation
        if len(places) >= in_flight:
            sent = max(sent, heapq.heappop(places))
        heapq.heappush(records, sent + round_trip + operation)
        seen = sent + round_trip + latency
        heapq.heappush(places, seen)
        last = max(last, seen + round_trip + STORED_BY * operation)
    return last
