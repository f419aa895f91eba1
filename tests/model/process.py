"""A process of the model: the engine in a thread and event loop of its own, which go so many steps at a time.

A step is a store call, an API call or a sleep; a process stops before it and, where it changes something,
after it. Only one thread runs at any moment, and no clock but the model's counts, so a run is repeated to the
letter. A stopped process may be killed, or wake up an hour later: then it is a zombie.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

START = 1_780_000_000.0
MOST_STEPS = 5_000
"""No process of a few images has an honest use for more: this one does not end."""
HANDOVER_SECONDS = 60.0
"""Real ones. A thread that takes longer hangs."""


@dataclass
class WorldClock:
    """The time of all processes and of the service. It moves when a process sleeps, or by a jump."""

    now: float = START


class Crash(BaseException):
    """The process was killed: nothing in the package may catch this."""


class Process:
    """One process.

    :param clock: The model's.
    :param work: What it does; steps are taken by :meth:`step`.
    :param seed: Of the order in which its own threads come to their turn.
    :param most_steps: After so many it is taken for one that does not end.
    :ivar outcome: What the work returned or raised, once it has ended.
    """

    def __init__(
        self,
        clock: WorldClock,
        work: Callable[[Process], Coroutine[Any, Any, object]],
        *,
        seed: int,
        most_steps: int = MOST_STEPS,
    ) -> None:
        self.clock = clock
        self.outcome: object = None
        self.has_ended = False
        self.is_killed = False
        self.steps = 0
        self.most_steps = most_steps
        self.dice = random.Random(seed)
        self._work = work
        self._allowed = 0
        self._go = threading.Semaphore(0)
        self._back = threading.Semaphore(0)
        threading.Thread(target=self._run, daemon=True).start()

    def run(self, steps: int) -> None:
        """Let it take so many steps, or fewer where it ends. Called by the model."""
        if self.has_ended or not (steps or self.is_killed):
            return
        self._allowed = steps
        self._go.release()
        assert self._back.acquire(timeout=HANDOVER_SECONDS), "the process hangs"
        assert self.steps <= self.most_steps, "the process does not end"

    def kill(self) -> None:
        """Kill it where it stands."""
        self.is_killed = True
        self.run(0)
        assert self.has_ended

    def step(self) -> None:
        """Stop here until the model lets it go on. Called by the process."""
        if self.is_killed:
            raise Crash
        self.steps += 1
        if self._allowed <= 0 or self.steps > self.most_steps:
            self._back.release()
            self._go.acquire()
            if self.is_killed:
                raise Crash
        self._allowed -= 1

    def sleep(self, seconds: float) -> None:
        """Stop until the time has come, at the earliest. Called by the process."""
        due = self.clock.now + seconds
        self.step()
        self.clock.now = max(self.clock.now, due)

    def _run(self) -> None:
        self._go.acquire()
        loop = _Loop(self)
        main = loop.create_task(self._work(self))
        try:
            self.outcome = loop.run_until_complete(main)
        except BaseException as error:
            self.outcome = error
        finally:
            self._clean_up(loop)
            self.has_ended = True
            self._back.release()

    def _clean_up(self, loop: _Loop) -> None:
        """Unwind what is left of the process; each step that it tries to take is its end."""
        was_killed, self.is_killed = self.is_killed, True
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True)) if left else None
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
        self.is_killed = was_killed


class _Loop(asyncio.BaseEventLoop):
    """An event loop on the model's clock, whose threads are functions that it calls itself."""

    def __init__(self, process: Process) -> None:
        super().__init__()
        self._process = process
        self._selector = self  # asyncio asks it what to wait for
        self._clock_resolution = 1e-4  # Unix time as a float has no finer one

    def time(self) -> float:
        return self._process.clock.now

    def select(self, timeout: float | None) -> list[object]:
        """Wait for the next timer; nothing else can come from outside."""
        if not self._process.is_killed and timeout != 0:
            assert timeout is not None, "the process waits for nothing"
            self._process.sleep(timeout)
        return []

    def run_in_executor(self, executor: object, func: Callable[..., Any], *args: Any) -> Any:
        future = self.create_future()

        def call(turns: int) -> None:
            if turns:
                self.call_soon(call, turns - 1)
                return
            try:
                result = func(*args)
            except BaseException as error:
                if not future.done():
                    future.set_exception(error)
            else:
                if not future.done():
                    future.set_result(result)

        self.call_soon(call, self._process.dice.randrange(4))
        return future

    def _process_events(self, events: list[object]) -> None:
        """Nothing comes from a selector."""

    def _write_to_self(self) -> None:
        """No other thread calls."""
