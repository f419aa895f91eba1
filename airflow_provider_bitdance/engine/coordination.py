"""Coordination: what the coroutines of one job share. In one process, and never on disk."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

__all__ = ["Coordination"]


@dataclass(slots=True, eq=False)
class Coordination:
    """What the coroutines of one job share.

    :ivar killed: Set when Airflow stops the task.
    :ivar starting: Keys of images whose intent is about to be written; the budget counts them.
    :ivar resolving: Held while the account's history is searched, so that no two intents take one prediction.
    :ivar reserved: By key, the number of the last reservation that this process has seen at an image's
        destination, and that is of the same request.
    :ivar vacant: Keys of images at whose destinations only this process may have stored anything: the plan
        found no receipt there, and nobody had reserved them. A receipt is not looked for again.
    :ivar creates: The store of the images refuses to create a file twice. Then an image is created where
        nothing was, and nothing is read before.
    :ivar intact: By URI, the sha256 of files whose content this process has compared with their receipts.
    :ivar taken: Ids of predictions that this process has taken for an image or a prompt; the journal is
        behind.
    :ivar submitted: Unix times of what this process has submitted before its images, for the rate limit.
    :ivar doubted: Ids of predictions that are already counted, each as one lost purchase.
    """

    killed: asyncio.Event = field(default_factory=asyncio.Event)
    starting: set[str] = field(default_factory=set)
    resolving: asyncio.Lock = field(default_factory=asyncio.Lock)
    vacant: set[str] = field(default_factory=set)
    creates: bool = False
    intact: dict[str, str] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)
    submitted: list[float] = field(default_factory=list)
    doubted: set[str] = field(default_factory=set)
    reserved: dict[str, int] = field(default_factory=dict)
