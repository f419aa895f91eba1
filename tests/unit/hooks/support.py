"""What the tests of the hook share: a clock, a key, a prompt."""

from __future__ import annotations

from collections.abc import Callable

from airflow_provider_bitdance.hooks.bitdance import BitDanceHook

KEY = "wsk_Secret-0123456789"
PROMPT = "a very private lighthouse"
Connect = Callable[..., BitDanceHook]


class Clock:
    """Stands still until somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1_780_000_000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
