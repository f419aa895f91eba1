"""The state machine: what may happen to tasks, processes, service and store, in any order."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from airflow_provider_bitdance.engine import Finished, Policy
from airflow_provider_bitdance.exceptions import (
    BitDanceError,
    BudgetError,
    InputError,
    NsfwError,
    PredictionFailedError,
    PredictionGoneError,
    RecordUnreadableError,
    UnconfirmedPurchaseError,
)
from airflow_provider_bitdance.records import Status
from tests.model.service import HISTORIES
from tests.model.tasks import SCENARIOS, STREET, Task, a_large_batch, some_tasks
from tests.model.world import TaskProcess, World, errors_of

LAST_TRIES = 15
"""So many tries a task may need in the end, when all is calm; the first ones may still find old time-outs."""
LONGEST_JUMP = 3 * 3600.0
LARGE = (24, 50, 56, 60)
"""Images of a large batch."""
STRIDE = 12
"""A process of a large batch goes so many times as far as one of another task."""

SLOW: dict[str, Any] = {"kind": "slow", "seconds": 90.0}
"""Comes after the client's time-out; on a submission the prediction is made."""
RESET: dict[str, Any] = {"kind": "reset"}
ANYWHERE: list[dict[str, Any]] = [
    {"kind": "status", "status": 429, "retry_after": 5},
    {"kind": "status", "status": 502, "body": "html"},
    {"kind": "status", "status": 503, "body": "empty"},
    RESET,
    SLOW,
]
JSON: list[dict[str, Any]] = [{"kind": "truncated_json"}, {"kind": "envelope"}]
AFTER_CREATION = [{**fault, "after_create": True} for fault in (ANYWHERE[1], RESET, JSON[1])]
LATE = [{**fault, "after_create": True, "late": 55.0} for fault in (ANYWHERE[1], RESET)]
"""The prediction is made a minute after the connection broke, or the gateway gave up."""
LOST = [SLOW, AFTER_CREATION[1], *LATE]
"""The prediction is made, and no answer comes."""
WEATHER: dict[str, list[dict[str, Any]]] = {
    "submit": [
        *(*ANYWHERE, *JSON, *AFTER_CREATION, *LOST, *LOST),
        *({"kind": kind} for kind in ("no_id", "failed", "nsfw")),
    ],
    "result": [
        *ANYWHERE,
        *JSON,
        *({"kind": kind} for kind in ("not_found", "unknown_status", "null_outputs")),
    ],
    "output": [*ANYWHERE, *({"kind": kind} for kind in ("truncated", "not_whole", "wrong_type"))],
    "history": [*ANYWHERE, *JSON],
}


@st.composite
def faults(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a fault rule; each second one is for submissions, for that is where money goes."""
    on = draw(st.sampled_from(["submit", "submit", "submit", "result", "output", "history"]))
    return {"on": on, "times": draw(st.integers(1, 3)), **draw(st.sampled_from(WEATHER[on]))}


ANYTHING: dict[str, Any] = {
    "history": st.sampled_from(["echo", "nothing echoed", *HISTORIES]),
    "conflict": st.booleans(),
    "changes": st.booleans(),
    "defer_after": st.sampled_from([None, 5.0]),
    "if_exists": st.sampled_from(["reuse", "reuse", "regenerate"]),
    "on_lost_response": st.sampled_from(["buy_again", "buy_again", "buy_again", "fail"]),
    "max_cost_usd": st.sampled_from([None, None, None, 0.05]),
    "nsfw": st.sampled_from(["fail", "allow"]),
    "retry_failed": st.sampled_from([True, True, False]),
    "on_item_failure": st.sampled_from(["finish_then_fail", "fail_fast"]),
    "max_in_flight": st.sampled_from([None, 1, 2]),
    "skew": st.sampled_from([0.0, 0.0, 90.0, -7200.0]),
    "seed": st.integers(0, 2**16),
    "weather": st.lists(faults(), max_size=6),
}
"""What each run draws: the account, the policy of its tasks, and the first faults."""
ANYTHING_LARGE = ANYTHING | {
    "is_batch": st.just(True),
    "max_cost_usd": st.sampled_from([None, None, None, 0.3]),
    "max_in_flight": st.sampled_from([None, None, 3, 20]),
}


class EngineMachine(RuleBasedStateMachine):
    """Drives the engine. After each rule the books are checked, and in the end all is run to its end."""

    rules_run = 0
    """Of all runs: what the test counts."""

    world: World

    @initialize(
        scenarios=st.lists(st.sampled_from(SCENARIOS), min_size=1, max_size=2, unique=True),
        **ANYTHING,
    )
    def begin(
        self, scenarios: list[str], conflict: bool, changes: bool, weather: list[Any], **drawn: Any
    ) -> None:
        tasks = some_tasks(conflict=conflict, changes=changes)
        self._open([task for scenario in scenarios for task in tasks[scenario]], weather, **drawn)
        # Two tasks that may not share their address: one of them is refused.
        differ = {"one address": conflict, "batch": changes}
        alone = self.world.policy.if_exists != "reuse"
        self.conflict = any(differ[scenario] or alone for scenario in scenarios if scenario in differ)

    # What Airflow and its users do.

    @precondition(lambda self: any(task.state in ("none", "retry", "deferred") for task in self.world.tasks))
    @rule(which=st.integers(0, 9), steps=st.integers(1, 60), offset=st.sampled_from([0.0, 0.0, -2.0, 2.0]))
    def start(self, which: int, steps: int, offset: float) -> None:
        task = self._pick(which, "none", "retry", "deferred")
        self.world.version += 1  # fields that hold the time render to something else
        self._run(self.world.start(task, offset=offset), steps)

    @precondition(lambda self: any(task.state == "running" for task in self.world.tasks))
    @rule(which=st.integers(0, 9), steps=st.integers(0, 40), then=st.integers(0, 80))
    def lose_sight(self, which: int, steps: int, then: int) -> None:
        """A process sleeps somewhere on its way, and the next try begins."""
        task = self._pick(which, "running")
        assert task.process is not None
        self._run(task.process, steps)
        if task.state == "running":
            self.world.lose_sight(task)
            self._run(self.world.start(task), then)

    @precondition(lambda self: any(task.try_number for task in self.world.tasks))
    @rule(which=st.integers(0, 9), then=st.integers(0, 80))
    def clear(self, which: int, then: int) -> None:
        tried = [task for task in self.world.tasks if task.try_number]
        task = tried[which % len(tried)]
        self.world.clear(task)
        self._run(self.world.start(task), then)

    # What becomes of processes.

    @precondition(lambda self: self.world.living)
    @rule(which=st.integers(0, 9), steps=st.integers(1, 60))
    def go_on(self, which: int, steps: int) -> None:
        self._run(self._living(which), steps)

    @precondition(lambda self: self.world.living)
    @rule(which=st.integers(0, 9))
    def finish(self, which: int) -> None:
        self._run(self._living(which))

    @precondition(lambda self: len(self.world.living) > 1)
    @rule(which=st.integers(0, 9), turns=st.lists(st.integers(1, 4), min_size=2, max_size=12))
    def take_turns(self, which: int, turns: list[int]) -> None:
        for number, steps in enumerate(turns, start=which):
            if self.world.living:
                self._run(self._living(number), steps)

    @precondition(lambda self: self.world.living)
    @rule(which=st.integers(0, 9), steps=st.integers(0, 30))
    def crash(self, which: int, steps: int) -> None:
        process = self._living(which)
        self._run(process, steps) if steps else None
        if not process.has_ended:
            self.world.crash(process)

    # What the world does.

    @rule(seconds=st.sampled_from([0.5, 3.0, 11.0, 40.0, 700.0, LONGEST_JUMP]))
    def time_passes(self, seconds: float) -> None:
        self.world.clock.now += seconds

    @rule(fault=faults())
    def bad_weather(self, fault: dict[str, Any]) -> None:
        self.world.spoil(**fault)

    @rule(unreachable=st.integers(0, 3), store=st.lists(st.sampled_from(["before", "after"]), max_size=2))
    def an_outage(self, unreachable: int, store: list[str]) -> None:
        self.world.unreachable = unreachable
        self.world.store_failures[:] = store

    @rule(prompt=st.sampled_from([STREET, "somebody else's picture"]))
    def another_program_buys(self, prompt: str) -> None:
        self.world.buy_elsewhere(prompt)

    @invariant()
    def the_books_are_right(self) -> None:
        EngineMachine.rules_run += 1
        self._check()

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        try:
            if not self.is_broken:
                self._to_the_end()
        finally:
            self.world.close()

    def _to_the_end(self) -> None:
        """When all is calm, processes end, tasks come to an end, and what is stored is right."""
        self.world.calm()
        for process in self.world.living:
            self._run(process)
        for task in self.world.tasks:
            for _ in range(LAST_TRIES):
                if task.state in ("success", "failed"):
                    break
                self.world.wait_in_the_triggerer(task)
                self._run(self.world.start(task))
            assert task.state in ("success", "failed"), f"{task.task_id} never ends: {task.outcome!r}"
            self._check_outcome(task)
        self._check()
        self.world.settle()

    def _check_outcome(self, task: Task) -> None:
        """A task that failed for good has a reason that its policy, its weather or another task explains."""
        books, outcome = self.world.books, task.outcome
        state = books.ledger(task.job).state
        errors = [outcome]
        if isinstance(outcome, Finished):
            errors = errors_of(outcome)
            assert outcome.stopped or len(outcome.stored) + len(errors) == len(task.items)
            for key, result in outcome.stored.items():
                assert state.images[key].status is Status.STORED
                assert result["possibly_paid"] <= state.images[key].possibly_paid
        policy = self.world.policy
        explained: dict[type[object], bool] = {
            BudgetError: policy.max_cost_usd is not None,
            UnconfirmedPurchaseError: policy.on_lost_response == "fail",
            NsfwError: policy.nsfw == "fail",
            PredictionFailedError: not policy.retry_failed,
            PredictionGoneError: "not_found" in self.world.weather,  # one 404 to a first poll that comes late
            InputError: self.conflict,
            RecordUnreadableError: self.conflict or bool(books.overwritten),
        }
        for error in errors:
            reason = f"{task.task_id} failed for no good reason: {error!r}"
            assert isinstance(error, BitDanceError), reason
            assert error.retry_helps or explained.get(type(error)), reason

    def _open(self, tasks: list[Task], weather: list[Any], **drawn: Any) -> None:
        self.is_broken = False
        account = {name: drawn.pop(name) for name in ("history", "skew", "seed")}
        self.world = World(tasks, Policy(**drawn), **account)
        for fault in weather:
            self.world.spoil(**fault)

    def _so_far(self, steps: int) -> int:
        """Return how many steps a process goes where a rule has drawn so many."""
        return steps

    def _pick(self, which: int, *states: str) -> Task:
        tasks = [task for task in self.world.tasks if task.state in states]
        return tasks[which % len(tasks)]

    def _living(self, which: int) -> TaskProcess:
        return self.world.living[which % len(self.world.living)]

    def _run(self, process: TaskProcess, *steps: int) -> None:
        try:
            self.world.run(process, *(self._so_far(number) for number in steps))
        except BaseException:
            self.is_broken = True
            raise
        self._check()

    def _check(self) -> None:
        try:
            self.world.audit()
        except BaseException:
            self.is_broken = True
            raise


class BatchMachine(EngineMachine):
    """The same with a batch: its journal is long, and there are as many purchases at once as there may be."""

    @initialize(images=st.sampled_from(LARGE), **ANYTHING_LARGE)
    def begin(self, images: int, conflict: bool, changes: bool, weather: list[Any], **drawn: Any) -> None:
        self._open(a_large_batch(images, conflict=conflict, changes=changes), weather, **drawn)
        self.conflict = conflict or changes or self.world.policy.if_exists != "reuse"

    def _so_far(self, steps: int) -> int:
        return steps * STRIDE - self.world.dice.randrange(STRIDE) if steps else 0
