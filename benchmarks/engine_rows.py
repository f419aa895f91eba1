"""Rows of the engine alone, against the script: in this process and without Airflow."""

from __future__ import annotations

import asyncio
import functools
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import median
from tempfile import TemporaryDirectory

from airflow_provider_bitdance.local.latency import parse
from benchmarks import alone
from benchmarks.account import PROFILES, Account
from benchmarks.checks import Check, Result, Runs, all_there, median_ratio, worst
from benchmarks.lab import Lab
from benchmarks.measure import figures, quickest


@dataclass(frozen=True, slots=True)
class Single:
    """One image of one way, which takes so many seconds."""

    way: str
    profile: str
    prompt: str
    seconds: float


def one_image(lab: Lab, repeats: int) -> Runs:
    """Play single images of both ways and all profiles at the same time: they do nothing but wait."""
    alone.warm_up(lab.home)
    singles = [
        Single(way, name, f"{way}-{number}-{repeat}", parse(profile).draw(Random(f"{name} {repeat}")))
        for repeat in range(repeats)
        for number, (name, profile) in enumerate(profiles(lab).items())
        for way in alone.WAYS
    ]
    runs: Runs = {}
    with lab.account("5", pictures="drawn") as account, TemporaryDirectory() as folder:
        for single in singles:
            account.let_take(single.prompt, single.seconds)
        walls = alone.run(_begun_one_by_one(singles, account, Path(folder)))
        books = account.books()
        for single, wall in zip(singles, walls, strict=True):
            found = figures(books.of(single.prompt), Path(folder), wall=wall)
            runs.setdefault(f"{single.way}, {single.profile}", []).append(found)
    return runs


async def _begun_one_by_one(singles: list[Single], account: Account, folder: Path) -> list[float]:
    async def play(position: int, single: Single) -> float:
        await asyncio.sleep(position / 2)
        return await alone.timed(alone.WAYS[single.way](account, [single.prompt], folder, 1))

    return await asyncio.gather(*(play(position, single) for position, single in enumerate(singles)))


def hundred_images(lab: Lab) -> Result:
    """Row 2."""
    alone.warm_up(lab.home)
    images = lab.size(100, 10)
    runs: Runs = {}
    for name, profile in profiles(lab).items():
        for seed in range(lab.size(1 if name == "40 s" else 3, 1)):
            with lab.account(profile, seed=seed) as account:
                ways = list(alone.WAYS.items())
                for way, make in ways if seed % 2 else reversed(ways):
                    runs.setdefault(f"{way}, {name}", []).append(alone.play(make, account, images, 100))
    ours = {name: runs[f"engine, {name}"] for name in profiles(lab)}
    walls = {name: median_ratio(ours[name], runs[f"asyncio, {name}"]) for name in ours}
    polls = {name: median(each.polls for each in found) for name, found in ours.items()}
    seen = {name: median(each.seen_share for each in found) for name, found in ours.items()}
    return Result(
        [
            worst("wall / asyncio", walls, 1.15),
            worst("polls an image", polls, 3),
            Check("polls an image at 5 s", polls["5 s"], 2),
            worst("lag to seen, p50, share of the latency", seen, 0.1),
            all_there(runs, images),
        ],
        runs,
    )


def explicit_limits(lab: Lab) -> Result:
    """Row 4."""
    alone.warm_up(lab.home)
    images, in_flight, per_minute = lab.size(120, 14), 10, lab.size(60, 12)
    with lab.account(PROFILES["5 s"]) as account:
        way = functools.partial(alone.by_engine, requests_per_minute=per_minute)
        run = alone.play(way, account, images, in_flight)
        latencies = [image.latency for image in account.books().predictions]
    limit = quickest(latencies, in_flight=in_flight, per_minute=per_minute)
    return Result(
        [
            Check("wall / limit", run.wall / limit, 1.1),
            Check("submissions in any 60 s", run.a_minute, per_minute),
            Check("in flight", run.in_flight, in_flight),
            all_there({"engine": [run]}, images),
        ],
        {"engine": [run]},
        {"limit": limit},
    )


def profiles(lab: Lab) -> dict[str, str]:
    """Return the latency profiles that are played."""
    return {name: PROFILES[name] for name in (["2 s", "5 s"] if lab.quick else PROFILES)}
