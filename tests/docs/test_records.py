"""The drawings of internals/records.md, the tree of files and an image's entries, held against a run's."""

from __future__ import annotations

import json
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, task

from airflow_provider_bitdance.hooks.bitdance import BitDanceHook
from airflow_provider_bitdance.local import LocalService
from airflow_provider_bitdance.operators.bitdance import BitDanceTextToImageOperator
from airflow_provider_bitdance.records.state import NEXT
from tests.builders import connection_to
from tests.docs.pages import BLOCKS, ROOT
from tests.integration.test_dag_test import run_of

PAGE = (ROOT / "docs/internals/records.md").read_text()
TREE, STEPS = (
    block.text for block in BLOCKS if block.page == "docs/internals/records.md" and block.language == "text"
)


@task
def plain(output_path: str) -> dict[str, Any]:
    return BitDanceHook().generate(prompt="An owl", output_path=output_path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("page") / "images"


@pytest.fixture
def records(local: LocalService, airflow_db: None, monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    """Return the records of a run: of a task that names its file, one that does not, and a plain one.

    All runs have one folder: another one makes another version of the Dag, where the last was written more
    than 30 seconds ago, and with several versions SQLAlchemy warns.
    """
    shutil.rmtree(folder, ignore_errors=True)
    records = folder / "records"
    monkeypatch.setenv("AIRFLOW_CONN_BITDANCE_DEFAULT", connection_to(local, records_path=str(records)))
    with DAG("records_page", schedule=None) as dag:
        BitDanceTextToImageOperator(
            task_id="made", prompt="A fox", output_path=f"{folder}/", enhance_prompt="anime"
        )
        BitDanceTextToImageOperator(task_id="named", prompt="A fox", output_path=f"{folder}/fox")
        plain(f"{folder}/owl")
    assert run_of(dag, logical_date=datetime(2026, 11, 22, tzinfo=UTC)).state == "success"
    return records


def files_of(tree: str) -> list[str]:
    """Return the drawn files as patterns; a number that stands alone is another one beside the file above."""
    drawn = (line.split("  ")[0] for line in map(str.strip, tree.splitlines()[1:]))
    return [re.sub(r"<[^<>]*>|000001", r"[^/]+", re.escape(file)) for file in drawn if "/" in file]


def test_the_table_of_states_is_that_of_the_code() -> None:
    rows = re.findall(r"^\| (\w+) \| (`\w+`[^|]* → [^|]*) \|$", PAGE, re.MULTILINE)
    drawn = {
        (state, event, after)
        for state, cell in rows
        for event, after in re.findall(r"`(\w+)`[^→]*→ (\w+)", cell)
    }

    assert drawn == {(str(before), event, str(after)) for (before, event), after in NEXT.items()}


def test_the_tree_shows_each_kind_of_file_and_no_other(records: Path) -> None:
    files = [file.relative_to(records).as_posix() for file in records.rglob("*.json")]
    drawn = files_of(TREE)

    assert [file for file in files if not any(re.fullmatch(kind, file) for kind in drawn)] == []
    assert [kind for kind in drawn if not any(re.fullmatch(kind, file) for file in files)] == []


def test_the_steps_are_the_entries_of_one_image(records: Path) -> None:
    drawn = [
        (number, re.findall(r"(?:^|· )(\w+)", steps))
        for number, steps in re.findall(r"^(\d{6})   (.*)$", STEPS, re.MULTILINE)
    ]

    assert drawn == [
        (file.stem, [event["event"] for event in json.loads(file.read_bytes())["events"]])
        for file in sorted(records.glob("jobs/*/*/made/*/*/*"))
    ]


def test_an_image_whose_file_the_user_named_takes_one_entry_more(records: Path) -> None:
    made, named = (list(records.glob(f"jobs/*/*/{task}/*/*/*")) for task in ("made", "named"))

    assert len(named) == len(made) + 1
