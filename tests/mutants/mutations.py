"""What a mutation is, and all there are. The lists are in the files beside this one, by what is changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = "airflow_provider_bitdance"

Change = tuple[str, str, str] | tuple[str, str, str, str]
"""A text, what stands there instead, what would come of it; and its test files, if not the list's."""


class MutationError(Exception):
    """The text to be changed is not in its module, or is there more than once."""


@dataclass(frozen=True, slots=True)
class Mutation:
    """One change of one line, or of a few.

    :param module: File below the package.
    :param text: What is changed; it is there exactly once.
    :param instead: What stands there instead.
    :param harm: What would come of it.
    :param tests: Test files, or ids of tests, relative to the root, that are meant to hold the behaviour.
    """

    module: str
    text: str
    instead: str
    harm: str
    tests: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.module}: {self.harm}"

    @property
    def change(self) -> str:
        """The change in one line."""
        text, instead = (" ".join(part.split()) for part in (self.text, self.instead))
        return f"{text}  →  {instead or 'nothing'}"

    def apply(self, source: str) -> str:
        """Return the module's source with the change.

        :raises MutationError: The text is not there exactly once.
        """
        found = source.count(self.text)
        if found != 1:
            raise MutationError(f"{self.module} has this text {found} times, and not once: {self.text!r}")
        return source.replace(self.text, self.instead)


def mutations_of(module: str, tests: str, *changes: Change) -> Iterator[Mutation]:
    """Yield the mutations of one module.

    :param tests: Test files below ``tests/``, separated by spaces.
    """
    for text, instead, harm, *others in changes:
        names = (others[0] if others else tests).split()
        yield Mutation(module, text, instead, harm, tuple(f"tests/{name}" for name in names))


def all_mutations() -> list[Mutation]:
    """Return every mutation, in the order of the lists."""
    from tests.mutants import (
        of_check,
        of_decisions,
        of_engine,
        of_enhancer,
        of_maintenance,
        of_models,
        of_operators,
        of_pages,
        of_purchases,
        of_records,
    )

    lists = (
        *(of_decisions, of_records, of_models, of_purchases, of_engine, of_enhancer),
        *(of_operators, of_pages, of_maintenance, of_check),
    )
    return [mutation for module in lists for mutation in module.MUTATIONS]
