"""reference/operators.md names every option of the operators, with default and whether it is templated."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_bitdance.decorators.bitdance import FOR_A_LIST, FOR_ONE
from airflow_provider_bitdance.local import LocalService
from airflow_provider_bitdance.operators.base import BitDanceBaseOperator
from airflow_provider_bitdance.operators.bitdance import BitDanceBatchOperator, BitDanceTextToImageOperator
from tests.builders import context

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "operators.md").read_text()
ROW = re.compile(r"^\| `(\w+)` \| ([^|]+) \| (yes|) ?\| ", re.MULTILINE)
SECTIONS = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
FROM_SETTINGS = "`[operators] default_deferrable`"
DEFAULTS_OF_A_BATCH = {"check_balance": "of a batch `True`"}


def options_of(operator: type) -> dict[str, Any]:
    """Return the options that a class takes itself, with their defaults."""
    given = inspect.signature(inspect.unwrap(operator.__init__)).parameters.values()
    return {each.name: each.default for each in given if each.kind is each.KEYWORD_ONLY}


OURS = options_of(BitDanceBaseOperator)
OPERATORS = {
    "Of one image": (BitDanceTextToImageOperator, options_of(BitDanceTextToImageOperator) | OURS),
    "Of a batch": (BitDanceBatchOperator, OURS | options_of(BitDanceBatchOperator)),
}


def rows(title: str) -> Iterator[tuple[str, str, bool]]:
    """Yield the options for an operator: each with its default, and whether it is templated."""
    for section in ("Of all three", title):
        for name, default, templated in ROW.findall(SECTIONS[section]):
            yield name, default, templated == "yes"


@pytest.mark.parametrize("title", OPERATORS)
def test_every_option_is_there_with_its_default(title: str) -> None:
    _, options = OPERATORS[title]
    said = {name: default for name, default, _ in rows(title)}
    assert sorted(said) == sorted(options)
    for name, default in options.items():
        if name == "deferrable":
            assert said[name] == FROM_SETTINGS
        elif default is inspect.Parameter.empty:
            assert said[name] == "needed"
        elif default != OURS.get(name, default):
            assert said[name].endswith(DEFAULTS_OF_A_BATCH[name])
        else:
            assert said[name].partition(";")[0] == f"`{default!r}`".replace("'", '"')


@pytest.mark.parametrize("title", OPERATORS)
def test_what_is_templated_is_marked(title: str) -> None:
    operator, _ = OPERATORS[title]
    assert {name for name, _, templated in rows(title) if templated} == set(operator.template_fields)


def test_the_decorator_takes_what_is_said_of_it() -> None:
    one, batch = ({name for name, *_ in ROW.findall(SECTIONS[title])} for title in OPERATORS)
    assert one - {"prompt"} == set(FOR_ONE)
    assert batch - {"items"} == set(FOR_A_LIST)


def test_the_results_have_the_fields_that_are_named(local: LocalService, tmp_path: Path) -> None:
    common = {"task_id": "it", "output_path": f"{tmp_path}/"}
    image = BitDanceTextToImageOperator(prompt="a hill", **common).execute(context())
    batch = BitDanceBatchOperator(items=["a hill"], **common).execute(context(run_id="another"))
    for what, result in ("one image", image), ("a batch", batch):
        (line,) = re.findall(rf"^\| {what} \| (.+) \|$", SECTIONS["What they return"], re.MULTILINE)
        assert re.findall(r"`(\w+)`", line) == list(result)
