"""reference/operators.md says what the decorator takes and what tasks return; its tables: test_tables.py."""

from __future__ import annotations

import re
from pathlib import Path

from airflow_provider_bitdance.decorators.bitdance import FOR_A_LIST, FOR_ONE
from airflow_provider_bitdance.local import LocalService
from airflow_provider_bitdance.manifest import ManifestRow
from airflow_provider_bitdance.operators.bitdance import BitDanceBatchOperator, BitDanceTextToImageOperator
from tests.builders import context

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "reference" / "operators.md").read_text()
SECTIONS = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))


def test_the_decorator_takes_what_is_said_of_it() -> None:
    one, batch = (
        set(re.findall(r"^\| \[?`(\w+)`", SECTIONS[title], re.MULTILINE))
        for title in ("Of one image", "Of a batch")
    )
    assert one - {"prompt"} == set(FOR_ONE)
    assert batch - {"items"} == set(FOR_A_LIST)


def test_the_results_have_the_fields_that_are_named(local: LocalService, tmp_path: Path) -> None:
    common = {"task_id": "it", "output_path": f"{tmp_path}/"}
    image = BitDanceTextToImageOperator(prompt="a hill", **common).execute(context())
    batch = BitDanceBatchOperator(items=["a hill"], **common).execute(context(run_id="another"))
    for what, operator, result in (
        ("one image", BitDanceTextToImageOperator, image),
        ("a batch", BitDanceBatchOperator, batch),
    ):
        (line,) = re.findall(rf"^\| {what} \| (.+) \|$", SECTIONS["What they return"], re.MULTILINE)
        assert re.findall(r"`(\w+)`", line) == list(result)
        (sentence,) = re.findall(r"The result is a (.+?)\.\s", str(operator.__doc__), re.DOTALL)
        assert re.findall(r"``(\w+)``", sentence) == list(result)


def test_the_manifest_has_the_columns_that_are_named() -> None:
    batches = (DOCS / "how-to" / "batches.md").read_text()
    table = batches.partition("\n## The manifest\n")[2].partition("\n| your own columns")[0]
    cells = re.findall(r"^\| (`.+?) \|", table, re.MULTILINE)
    assert re.findall(r"`(\w+)`", " ".join(cells)) == [*ManifestRow.model_fields, "url"]
