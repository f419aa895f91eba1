"""Rows of the engine alone where API or store is far away, against the script and against physics."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from airflow_provider_bitdance.storage import Folder
from benchmarks import alone, physics
from benchmarks.account import PROFILES, Account
from benchmarks.checks import Check, Result, Runs, all_there, median_ratio
from benchmarks.far_folder import FarFolder
from benchmarks.lab import Lab
from benchmarks.measure import Figures
from tests.s3 import running_s3

IN_FLIGHT = 100
API_SECONDS = 0.3
STORE_SECONDS = 0.03
UNANSWERED = 8
"""The default of ``max_unanswered``."""
MANY, MANY_UNANSWERED = "engine, 32 unanswered", 32


def far_api(lab: Lab) -> Result:
    """Row 9."""
    ways: dict[str, alone.Way] = dict(alone.WAYS)
    many = ways | {MANY: _engine(max_unanswered=MANY_UNANSWERED)}
    near, near_drawn = _take_turns(lab, ways, round_trip=0.0)
    far, far_drawn = _take_turns(lab, many, round_trip=API_SECONDS)
    near_physics = _physics(near_drawn)
    far_physics = _physics(far_drawn, round_trip=API_SECONDS)
    bounded = _physics(far_drawn, round_trip=API_SECONDS, unanswered=UNANSWERED)
    runs = _named(near, "0 ms") | _named(far, "300 ms")
    checks = [
        Check("0 ms, wall / physics", _wall(near["engine"]) / near_physics, 1.15),
        Check("300 ms, wall / physics with 8 unanswered", _wall(far["engine"]) / bounded, 1.03),
        Check("300 ms, 32 unanswered, wall / physics", _wall(far[MANY]) / far_physics, 1.12),
        Check("0 ms, CPU of an image, ms", _cpu(near["engine"]) / _images(lab) * 1000, 25),
        Check("0 ms, wall / asyncio", median_ratio(near["engine"], near["asyncio"]), 0.85),
        Check("300 ms, wall / asyncio", median_ratio(far["engine"], far["asyncio"]), 0.85),
        all_there(runs, _images(lab)),
    ]
    notes = {"physics, 0 ms": near_physics, "physics, 300 ms": far_physics}
    return Result(checks, runs, notes | {"physics, 300 ms, 8 unanswered": bounded})


def far_store(lab: Lab) -> Result:
    """Row 10."""
    disk = functools.partial(alone.far_away, seconds=STORE_SECONDS)
    found, drawn = _take_turns(lab, {"engine": _engine(store=disk)}, round_trip=API_SECONDS)
    limit = _physics(drawn, round_trip=API_SECONDS, operation=STORE_SECONDS)
    runs = _named(found, "300 ms, store 30 ms")
    s3 = _on_s3(lab)
    checks = [
        Check("wall / physics", _wall(found["engine"]) / limit, 1.25),
        all_there(runs, _images(lab)),
    ]
    few = _physics(drawn, round_trip=API_SECONDS, operation=STORE_SECONDS, unanswered=UNANSWERED)
    notes = {"physics": limit, "physics, 8 unanswered": few}
    return Result(checks, runs, notes | {"SeaweedFS with 30 ms more, wall / physics": s3 / limit})


def _on_s3(lab: Lab) -> float:
    """Return the seconds that it takes where the store is a real S3 server, 30 ms away."""
    with running_s3(lab.home / "s3-distance") as server, _account(lab, 0, API_SECONDS) as account:
        path = server.new_path()

        def store(_: Path) -> tuple[Folder, Folder]:
            images, records = server.folder(path), server.folder(f"{path}/.bitdance")
            return FarFolder(images, STORE_SECONDS), FarFolder(records, STORE_SECONDS)

        prompts = [f"image-{number:04}" for number in range(_images(lab))]
        with TemporaryDirectory(prefix="bitdance-bench-") as name:
            work = alone.by_engine(account, prompts, Path(name), IN_FLIGHT, store=store)
            return alone.run(alone.timed(work))


def _take_turns(
    lab: Lab, ways: Mapping[str, alone.Way], *, round_trip: float
) -> tuple[Runs, list[list[float]]]:
    """Play each way with each of some seeds, and return the runs and the latencies of each seed."""
    alone.warm_up(lab.home)
    runs: Runs = {}
    drawn = []
    for seed in range(lab.size(3, 1)):
        with _account(lab, seed, round_trip) as account:
            for way, make in list(ways.items())[:: 1 if seed % 2 else -1]:
                runs.setdefault(way, []).append(alone.play(make, account, _images(lab), IN_FLIGHT))
            drawn.append(_latencies(account))
    return runs, drawn


def _physics(drawn: list[list[float]], **distance: float) -> float:
    return median(physics.wall(latencies, in_flight=IN_FLIGHT, **distance) for latencies in drawn)


def _latencies(account: Account) -> list[float]:
    drawn = sorted(account.books().predictions, key=lambda image: image.submitted)
    return [image.latency for image in drawn]


def _account(lab: Lab, seed: int, round_trip: float) -> Account:
    return lab.account(PROFILES["5 s"], "--api-latency", str(round_trip), seed=seed)


def _engine(**options: Any) -> alone.Way:
    return functools.partial(alone.by_engine, **options)


def _named(runs: Runs, where: str) -> Runs:
    return {f"{way}, {where}": found for way, found in runs.items()}


def _wall(runs: list[Figures]) -> float:
    return median(run.wall for run in runs)


def _cpu(runs: list[Figures]) -> float:
    return median(run.cpu_seconds or 0.0 for run in runs)


def _images(lab: Lab) -> int:
    return lab.size(300, 12)
