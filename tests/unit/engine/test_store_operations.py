"""What an image costs in operations of the store: each is a request to an object store, which has a price."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_bitdance.engine import Finished, Wanted, run_job
from tests.unit.support import MemoryFolder, World, a_wanted, run

OPERATIONS = ("create", "replace", "read", "size", "remove", "names")


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts what is done in memory folders, by operation and kind of file."""
    counts: Counter[str] = Counter()

    def counting(operation: str) -> Callable[..., Any]:
        then = getattr(MemoryFolder, operation)

        def count(self: MemoryFolder, name: str, *rest: Any) -> Any:
            kind = name.partition("/")[0] if self.uri.endswith(".bitdance") else "images"
            counts[f"{operation} {kind}"] += 1
            return then(self, name, *rest)

        return count

    for operation in OPERATIONS:
        monkeypatch.setattr(MemoryFolder, operation, counting(operation))
    return counts


def bought(wanted: list[Wanted]) -> None:
    outcome = run(run_job(World().context(), wanted))
    assert isinstance(outcome, Finished)
    assert len(outcome.stored) == len(wanted)


def test_a_batch_of_new_images_with_names(counted: Counter[str]) -> None:
    """The journal is written in groups, and hardly read; file, receipt and reservation are created."""
    images = 200
    bought([a_wanted(f"prompt {n}", key=f"k{n}", name=f"k{n}", named=True) for n in range(images)])
    assert counted.pop("create jobs") <= images
    assert counted.pop("read jobs") <= 5
    assert counted == {
        "names receipts": 1,
        "create addresses": images,
        "create images": images,
        "create receipts": images,
    }


def test_one_new_image_with_a_name(counted: Counter[str]) -> None:
    bought([a_wanted(named=True)])
    assert counted == ONE_IMAGE + Counter({"create jobs": 1, "create addresses": 1})


def test_one_new_image_without_a_name(counted: Counter[str]) -> None:
    bought([a_wanted()])
    assert counted == ONE_IMAGE


ONE_IMAGE = Counter(
    {"read jobs": 1, "create jobs": 3, "read receipts": 1, "create images": 1, "create receipts": 1}
)
"""It looks once for a journal and once for a receipt of earlier runs; all else is written."""
