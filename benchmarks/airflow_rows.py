"""Rows of whole Dag runs in a real Airflow."""

from __future__ import annotations

import asyncio
from statistics import median

from benchmarks import engine_rows
from benchmarks.account import PROFILES, Account
from benchmarks.checks import Check, Result, Runs, all_there, median_ratio, worst
from benchmarks.engine_rows import profiles
from benchmarks.lab import Lab
from benchmarks.measure import Figures, quickest


def one_image(lab: Lab) -> Result:
    """Row 1."""
    runs = engine_rows.one_image(lab, lab.size(5, 1))
    for seed in range(lab.size(10, 1)):
        with lab.account(PROFILES["5 s"], seed=seed, pictures="drawn") as account:
            for dag_id in ("bitdance_1", "asyncio_100_in_flight"):
                runs.setdefault(f"{dag_id}, whole run", []).append(lab.run(dag_id, account, 1))
    walls, polls = {}, {}
    for name in profiles(lab):
        ours, theirs = runs[f"engine, {name}"], runs[f"asyncio, {name}"]
        walls[name] = median_ratio(ours, theirs)
        polls[name] = sum(each.polls for each in ours) / sum(each.polls for each in theirs)
    whole, rival = runs["bitdance_1, whole run"], runs["asyncio_100_in_flight, whole run"]
    polls["whole run"] = sum(each.polls for each in whole) / sum(each.polls for each in rival)
    return Result(
        [
            worst("engine alone, wall / asyncio", walls, 1.05),
            Check("whole Dag run at 5 s, wall / asyncio", _wall(whole) / _wall(rival), 1.2),
            worst("polls / asyncio", polls, 1.0),
        ],
        runs,
    )


def thousand_images(lab: Lab) -> Result:
    """Row 3."""
    images, in_flight = lab.size(1000, 20), 100
    floor = median(lab.floor() for _ in range(3))
    with lab.account(PROFILES["5 s"]) as account:
        run = lab.run("bitdance_100_in_flight", account, images)
    runs = {"bitdance_100_in_flight": [run]}
    limit = images * 5 / min(in_flight, images) + 5 + floor
    return Result(
        [
            Check("wall / limit", run.wall / limit, 1.06),
            Check("polls an image", run.polls, 2),
            all_there(runs, images),
        ],
        runs,
        {"Airflow's floor": floor, "limit": limit},
    )


def hundred_slow_images(lab: Lab) -> Result:
    """Row 5."""
    images = lab.size(100, 10)
    runs = _both_at_once(lab, 100, images)
    ours, theirs = runs["bitdance_100_in_flight"][0], runs["asyncio_100_in_flight"][0]
    return Result(
        [
            Check("slot-seconds / asyncio", _slots(ours) / _slots(theirs), 0.4),
            Check("wall / asyncio", ours.wall / theirs.wall, 1.15),
            all_there(runs, images),
        ],
        runs,
    )


def five_hundred_slow_images(lab: Lab) -> Result:
    """Row 6."""
    images = lab.size(500, 60)
    runs = _both_at_once(lab, 50, images)
    ours, theirs = runs["bitdance_50_in_flight"][0], runs["asyncio_50_in_flight"][0]
    return Result(
        [
            Check("wall / asyncio", ours.wall / theirs.wall, 1.06),
            Check("slot-seconds / asyncio", _slots(ours) / _slots(theirs), 1.0),
            Check("polls an image", ours.polls, 6),
            all_there(runs, images),
        ],
        runs,
    )


def _both_at_once(lab: Lab, in_flight: int, images: int) -> Runs:
    """Run both ways at the same time, each on an account of its own with the same latencies."""

    async def both(first: Account, second: Account) -> list[Figures]:
        ways = (f"bitdance_{in_flight}_in_flight", first), (f"asyncio_{in_flight}_in_flight", second)
        return await asyncio.gather(
            *(asyncio.to_thread(lab.run, dag_id, account, images) for dag_id, account in ways)
        )

    slow = lab.size(60, 20)
    profile = f"{slow * 0.9}-{slow * 1.1}"
    with lab.account(profile) as first, lab.account(profile) as second:
        ours, theirs = asyncio.run(both(first, second))
    return {f"bitdance_{in_flight}_in_flight": [ours], f"asyncio_{in_flight}_in_flight": [theirs]}


def bronze_account(lab: Lab) -> Result:
    """Row 7."""
    images = lab.size(10, 4)
    floor = lab.floor()
    with lab.account(PROFILES["5 s"], "--tier", "bronze") as account:
        run = lab.run("bitdance_unconfigured", account, images)
        predictions = account.books().predictions
    first = min(image.submitted for image in predictions)
    ideal = quickest([image.latency for image in predictions], in_flight=2, per_minute=2, windows_from=first)
    limit = ideal + floor
    return Result(
        [
            Check("stored", run.stored, images, exactly=True),
            Check("billed", run.billed, images, exactly=True),
            Check("wall / limit", run.wall / limit, 1.3),
            Check("slot-seconds / wall", _slots(run) / run.wall, 0.4),
        ],
        {"bitdance_unconfigured": [run]},
        {"limit": limit},
    )


def ways(lab: Lab) -> Result:
    """Play what a user would take instead: no row of its own to pass, but the comparison in the docs."""
    runs: Runs = {}
    many = lab.size(100, 10)
    one, batch = (
        ("bitdance_1", "asyncio_100_in_flight", "sdk_1", "http_1"),
        (
            "bitdance_100_in_flight",
            "asyncio_100_in_flight",
            f"sdk_{many}",
            f"http_{many}",
        ),
    )
    for number in range(lab.size(3, 1)):
        with lab.account(PROFILES["5 s"], seed=number) as account:
            for dag_id in one:
                runs.setdefault(f"{_way(dag_id)}, 1 image", []).append(lab.run(dag_id, account, 1))
    with lab.account(PROFILES["5 s"]) as account:
        for dag_id in batch:
            runs[f"{_way(dag_id)}, {many} images"] = [lab.run(dag_id, account, many)]
    return Result([], runs)


def _way(dag_id: str) -> str:
    names = {"bitdance": "this provider", "asyncio": "asyncio + httpx in one @task"}
    names |= {"sdk": "SDK in @task, mapped", "http": "HttpOperator + HttpSensor, mapped"}
    return names[dag_id.partition("_")[0]]


def _wall(runs: list[Figures]) -> float:
    return median(run.wall for run in runs)


def _slots(run: Figures) -> float:
    assert run.slot_seconds is not None
    return run.slot_seconds
