"""The tasks of the model, as Airflow sees them, and what their fields ask for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from airflow_provider_bitdance.engine import Wanted
from airflow_provider_bitdance.records import Job
from airflow_provider_bitdance.storage.naming import parse_destination
from tests.unit.support import OUTPUT, a_job, a_request

if TYPE_CHECKING:
    from tests.model.world import TaskProcess

SIZE = "256*256"
STREET = "a street of small houses"
SCENARIOS = ("batch", "one address", "mapped")

State = Literal["none", "running", "deferred", "retry", "success", "failed"]


@dataclass(frozen=True, slots=True)
class Item:
    """One image of a task's fields.

    :param name: The file's name, where the user gives one.
    """

    key: str
    prompt: str
    seed: int = -1
    name: str = ""


@dataclass(eq=False, slots=True)
class Task:
    """One task instance as Airflow sees it.

    :param changes: Its prompts hold something that renders to another text later.
    """

    task_id: str
    items: tuple[Item, ...]
    map_index: int = -1
    changes: bool = False
    state: State = "none"
    try_number: int = 0
    generation: int = 0
    process: TaskProcess | None = None
    outcome: object = None

    @property
    def job(self) -> Job:
        return a_job(task_id=self.task_id, map_index=self.map_index, generation=self.generation)

    def wanted(self, version: int) -> list[Wanted]:
        """Render the fields."""
        rendered = []
        for item in self.items:
            path = f"{OUTPUT}/{item.name}"
            address = parse_destination(path, default_stem=f"{self.task_id}-{self.map_index}-{item.key}")
            prompt = f"{item.prompt}, edition {version}" if self.changes else item.prompt
            rendered.append(Wanted(item.key, a_request(prompt, seed=item.seed, size=SIZE), address))
        return rendered


def some_tasks(*, conflict: bool, changes: bool) -> dict[str, list[Task]]:
    """Return the tasks that a run of the model may have.

    :param conflict: Two tasks name one file and ask for different pictures.
    :param changes: Prompts render to another text later.
    """
    hero = Item("image", "a hero on a hill", name="hero.png", seed=7)
    too = Item("image", "a villain on a hill", name="hero.png", seed=7) if conflict else hero
    batch = [Item(key, STREET, name=f"{key}.png") for key in "abc"]
    square = Item("e", "a square at noon", seed=11, name="e.png")
    own_name = (Item("image", STREET),)
    return {
        "batch": [
            Task("batch", (*batch, square, replace(square, key="f", name="f.png")), changes=changes),
            Task("overlap", (square,)),
        ],
        "one address": [Task("hero", (hero,)), Task("hero_too", (too,))],
        "mapped": [Task("mapped", own_name, map_index=number, changes=changes) for number in range(2)],
    }


def a_large_batch(images: int, *, conflict: bool, changes: bool) -> list[Task]:
    """Return a batch whose images only their seeds tell apart, and a task that wants one of them, too.

    :param conflict: It names the same file, and asks for a different picture.
    :param changes: The batch's prompts render to another text later.
    """
    street = [Item(f"k{number}", STREET, name=f"k{number}.png") for number in range(images - 1)]
    square = Item("square", "a square at noon", seed=11, name="square.png")
    too = replace(square, prompt="a square at night") if conflict else square
    return [Task("batch", (*street, square), changes=changes), Task("overlap", (too,))]
