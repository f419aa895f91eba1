"""What is counted: from the service's books, the stored files and Airflow's event log."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.account import Books, Prediction

PREDICTIONS = "/api/v3/predictions"
MINUTE = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What one run of one way came to. Lags are medians over the images.

    :ivar wall: Seconds; of a Dag run from its request to its end.
    :ivar stored: Files in the output folder whose name is that of an image asked for.
    :ivar polls: Looks at predictions, an image.
    :ivar seen: Seconds from an image's completion to the first look that finds it.
    :ivar seen_share: The same as a part of the image's latency.
    :ivar kept: Seconds from an image's completion to its file.
    :ivar connections: TCP connections that the service was asked over.
    :ivar in_flight: The most predictions at once.
    :ivar a_minute: The most submissions in any 60 seconds.
    :ivar slot_seconds: How long tasks ran, all together; None outside Airflow.
    :ivar cpu_seconds: Of the process that made the images; None within Airflow.
    """

    wall: float
    stored: int
    billed: int
    refused: int
    polls: float
    seen: float
    seen_share: float
    kept: float
    connections: int
    in_flight: int
    a_minute: int
    slot_seconds: float | None = None
    cpu_seconds: float | None = None


def figures(books: Books, folder: Path, *, wall: float, slot_seconds: float | None = None) -> Figures:
    """Count one run."""
    written = {path.stem: path.stat().st_mtime for path in folder.rglob("*.png")}
    stored = [image for image in books.predictions if image.prompt in written]
    looks = [request for request in books.requests if request.path.startswith(PREDICTIONS)]
    seen = lags(books)
    late = {image.id: image.latency for image in books.predictions}
    return Figures(
        wall=wall,
        stored=len({image.prompt for image in stored}),
        billed=books.billed,
        refused=books.refused,
        polls=len(looks) / max(1, len(books.predictions)),
        seen=_median(seen.values()),
        seen_share=_median(lag / late[found] for found, lag in seen.items()),
        kept=_median(written[image.prompt] - image.completed for image in stored),
        connections=len({request.port for request in books.requests}),
        in_flight=most_in_flight(books.predictions),
        a_minute=most_a_minute(image.submitted for image in books.predictions),
        slot_seconds=slot_seconds,
    )


def lags(books: Books) -> dict[str, float]:
    """Return by prediction the seconds from its completion to the first look that found it so."""
    completed = {image.id: image.completed for image in books.predictions}
    found: dict[str, float] = {}
    for request in books.requests:
        asked = request.path.removeprefix(f"{PREDICTIONS}/").removesuffix("/result")
        if asked in completed and asked not in found and request.time >= completed[asked]:
            found[asked] = request.time - completed[asked]
    return found


def most_in_flight(predictions: Iterable[Prediction]) -> int:
    """Return how many predictions there were at once, at most."""
    ends: list[float] = []
    most = 0
    for image in sorted(predictions, key=lambda image: image.submitted):
        while ends and ends[0] <= image.submitted:
            heapq.heappop(ends)
        heapq.heappush(ends, image.completed)
        most = max(most, len(ends))
    return most


def most_a_minute(times: Iterable[float]) -> int:
    """Return how many of these moments lie within 60 seconds, at most."""
    ordered, first, most = sorted(times), 0, 0
    for number, moment in enumerate(ordered):
        while ordered[first] <= moment - MINUTE:
            first += 1
        most = max(most, number - first + 1)
    return most


def batches_of(books: Books) -> dict[str, list[Prediction]]:
    """Return the predictions by batch: what stands before the last hyphen of the prompt."""
    found: dict[str, list[Prediction]] = {}
    for image in books.predictions:
        found.setdefault(image.prompt.rpartition("-")[0], []).append(image)
    return found


def while_all_buy(books: Books, slots: int) -> tuple[float, float]:
    """Return from when to when as many batches have something to buy as there are slots; Unix times."""
    last = sorted(max(image.submitted for image in found) for found in batches_of(books).values())
    return min(image.submitted for image in books.predictions), last[-slots]


def in_flight_on_average(predictions: Iterable[Prediction], began: float, ended: float) -> float:
    """Return how many predictions there are at once between two moments."""
    held = (min(image.completed, ended) - max(image.submitted, began) for image in predictions)
    return sum(max(0.0, seconds) for seconds in held) / (ended - began)


def quickest(
    latencies: Sequence[float],
    *,
    in_flight: int,
    per_minute: int | None = None,
    windows_from: float | None = None,
) -> float:
    """Return the seconds from the first submission to the last completion, were nothing ever late.

    :param per_minute: So many submissions in any 60 seconds; with `windows_from` in each minute of the clock.
    :param windows_from: The first submission's Unix time, where minutes are those of the clock.
    """
    running: list[float] = []
    starts: list[float] = []
    for latency in latencies:
        start = starts[-1] if starts else 0.0
        if len(running) >= in_flight:
            start = max(start, heapq.heappop(running))
        if per_minute is not None and len(starts) >= per_minute:
            before = starts[-per_minute]
            into_minute = MINUTE if windows_from is None else MINUTE - (windows_from + before) % MINUTE
            start = max(start, before + into_minute)
        starts.append(start)
        heapq.heappush(running, start + latency)
    return max(running, default=0.0)


def held(events: Iterable[Mapping[str, Any]]) -> float:
    """Return for how long worker slots were held: between a task's "running" and what came next.

    :param events: Airflow's event log of a run: each leg of a deferred task, and each try, has its own pair.
    """
    began: dict[tuple[str, int], datetime] = {}
    total = 0.0
    for event in sorted(events, key=lambda event: str(event["when"])):
        task = (str(event["task_id"]), int(event["map_index"] if event["map_index"] is not None else -1))
        when = datetime.fromisoformat(str(event["when"]))
        if task in began and event["event"] in ENDS:
            total += (when - began.pop(task)).total_seconds()
        if event["event"] == "running":
            began[task] = when
    return total


ENDS = frozenset({"success", "failed", "deferred", "up_for_retry", "skipped"})


def _median(values: Iterable[float]) -> float:
    found = list(values)
    return median(found) if found else math.nan
