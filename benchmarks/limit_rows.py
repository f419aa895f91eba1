"""Rows of the engine alone, nothing configured: batches find the limit of their account and share it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import alone
from benchmarks.account import PROFILES, Account, Books
from benchmarks.checks import Check, Result, all_there, at_least
from benchmarks.lab import Lab
from benchmarks.measure import batches_of, figures, in_flight_on_average, while_all_buy


def one_batch(lab: Lab) -> Result:
    """Row 11."""
    alone.warm_up(lab.home)
    images, limit = lab.size(2000, 100), lab.size(100, 10)
    return _shared(lab, batches=1, images=images, limit=limit, slots=1, refused=0.03)


def ten_batches(lab: Lab) -> Result:
    """Row 12."""
    alone.warm_up(lab.home)
    batches, images = lab.size(10, 3), lab.size(60, 20)
    return _shared(lab, batches=batches, images=images, limit=20, slots=lab.size(4, 2), refused=0.05)


def _shared(lab: Lab, *, batches: int, images: int, limit: int, slots: int, refused: float) -> Result:
    with (
        lab.account(PROFILES["5 s"], "--max-in-flight", str(limit)) as account,
        TemporaryDirectory(prefix="bitdance-bench-") as name,
    ):
        folder = Path(name)
        wall = alone.run(alone.timed(_play(account, folder, batches, images, slots)))
        books = account.books()
        run = figures(books, folder, wall=wall)
    began, ended = while_all_buy(books, slots)
    share = in_flight_on_average(books.predictions, began, ended) / limit
    checks = [
        at_least("in flight while all slots buy, share of the limit", share, 0.9),
        Check("refused, share of the submissions", books.refused / (books.refused + books.billed), refused),
        all_there({"engine": [run]}, batches * images),
    ]
    if batches > 1:
        slowest, mean = _speeds(books)
        checks.insert(2, at_least("slowest batch / mean", slowest / mean, 0.5))
    return Result(checks, {"engine": [run]}, {"seconds in which all slots buy": ended - began})


async def _play(account: Account, folder: Path, batches: int, images: int, slots: int) -> None:
    """Make all batches, so many at a time; each engine has a client and a limiter of its own."""
    free = asyncio.Semaphore(slots)

    async def play(number: int) -> None:
        async with free:
            below = folder / f"b{number}"
            below.mkdir()
            prompts = [f"b{number}-{image:04}" for image in range(images)]
            await alone.by_engine(account, prompts, below, None)

    await asyncio.gather(*(play(number) for number in range(batches)))


def _speeds(books: Books) -> tuple[float, float]:
    """Return the images a second of the slowest batch, and those of a batch on average."""
    seconds = {
        batch: max(each.completed for each in found) - min(each.submitted for each in found)
        for batch, found in batches_of(books).items()
    }
    slowest = min(len(found) / seconds[batch] for batch, found in batches_of(books).items())
    return slowest, len(books.predictions) / sum(seconds.values())
