"""Batches in whole Dags in ``dag.test()``: chunks by ``.expand``, a prompt file, and a file of bad rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from airflow.sdk import DAG

from airflow_provider_bitdance.local import LocalService
from airflow_provider_bitdance.local.pictures import labels
from airflow_provider_bitdance.manifest import read_manifest
from airflow_provider_bitdance.operators.bitdance import BitDanceBatchOperator
from airflow_provider_bitdance.operators.progress_row import PROGRESS_KEY
from airflow_provider_bitdance.version_compat import AIRFLOW_VERSION
from tests.integration.test_dag_test import results, run_of

pytestmark = pytest.mark.usefixtures("airflow_db")

BAD_ROWS = [
    "key,prompt,size,seed,note",
    "ok-1,A teapot,256*256,7,the only good ones are",
    "ok-2,A kettle,256*256,7,the first two",
    ",,256*256,7,no prompt",
    "blank,   ,256*256,7,a blank prompt",
    "size-1,A mug,huge,7,no size",
    "size-2,A mug,5:4,7,an unknown preset",
    "size-3,A mug,1024*2048,7,a side too long",
    "size-4,A mug,100*256,7,a side too short",
    "size-5,A mug,256x256x256,7,three sides",
    "size-6,A mug,-256*256,7,a negative side",
    "seed-1,A mug,256*256,lucky,no number",
    "seed-2,A mug,256*256,-2,below -1",
    "seed-3,A mug,256*256,2147483648,too large",
    "seed-4,A mug,256*256,1.5,no whole number",
    "../up,A mug,256*256,7,a path",
    "a/b,A mug,256*256,7,a folder",
    ".hidden,A mug,256*256,7,a dot first",
    "with space,A mug,256*256,7,a space",
    "schön,A mug,256*256,7,not ASCII",
    "dir\\file,A mug,256*256,7,a backslash",
    "cover.png,A mug,256*256,7,an extension",
    "cover.JPG,A mug,256*256,7,an extension in upper case",
    "a-contact-sheet,A mug,256*256,7,the name of a contact sheet",
    f"{'k' * 101},A mug,256*256,7,a key too long",
    "ok-1,A pot,256*256,7,a key twice",
    "OK-2,A pot,256*256,7,a key that differs in case only",
    "cells-1,A mug,256*256",
    "cells-2,A mug,256*256,7,one,too many",
    'quote,"A "mug,256*256,7,a quote in the middle',
    "both,,huge,lucky,three faults in one row",
    "../both,A mug,huge,lucky,and here",
    "bell\x07,A mug,256*256,7,a control character",
]
"""A file as CSV lines: a header, two good rows, and bad rows of every kind."""
FIRST_BAD = 4


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "images"


def shown(folder: Path) -> dict[str, str]:
    return {path.stem: labels(path.read_bytes()).prompt for path in folder.glob("*.png")}


def test_chunks_are_batches_of_their_own_and_share_a_folder(local: LocalService, output: Path) -> None:
    chunks = [
        [{"key": f"k-{chunk}-{number}", "subject": f"thing {chunk} {number}"} for number in range(25)]
        for chunk in range(3)
    ]
    with DAG("chunks", schedule=None) as dag:
        BitDanceBatchOperator.partial(
            task_id="images", prompt="A {subject}", size="256*256", output_path=f"{output}/", retries=2
        ).expand(items=chunks)

    made = results(run_of(dag))

    assert [result["stored"] for result in made] == [25, 25, 25]
    manifests = [read_manifest(result["manifest"]) for result in made]
    assert [[row.key for row in rows] for rows in manifests] == [
        [item["key"] for item in chunk] for chunk in chunks
    ]
    assert shown(output) == {item["key"]: f"A {item['subject']}" for chunk in chunks for item in chunk}
    assert local.bill().billed == 75


def test_a_prompt_file_is_a_template_over_the_columns_and_a_txt_is_no_file(
    local: LocalService, output: Path, tmp_path: Path
) -> None:
    (tmp_path / "poster.prompt").write_text("A poster of {subject} for {{ dag.dag_id }}\n")
    prompts = {
        "poster.prompt": [{"key": "fox", "subject": "a fox"}, {"key": "txt", "subject": "notes.txt"}],
        None: ["A page of notes.txt"],
    }
    with DAG("prompt_file_of_a_batch", schedule=None, template_searchpath=[str(tmp_path)]) as dag:
        for number, (prompt, items) in enumerate(prompts.items()):
            BitDanceBatchOperator(
                task_id=f"images_{number}", items=items, prompt=prompt, output_path=f"{output}/", retries=2
            )

    results(run_of(dag))

    assert sorted(str(made["prompt"]) for made in local.predictions()) == [
        "A page of notes.txt",
        "A poster of a fox for prompt_file_of_a_batch",
        "A poster of notes.txt for prompt_file_of_a_batch",
    ]


def test_a_file_of_bad_rows_is_refused_at_once_with_every_row_and_no_request(
    local: LocalService, output: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "items.csv"
    file.write_text("\n".join(BAD_ROWS) + "\n")
    with DAG("bad_rows", schedule=None) as dag:
        BitDanceBatchOperator(task_id="images", items=str(file), output_path=f"{output}/", retries=2)

    run = run_of(dag)

    (task,) = run.get_task_instances()
    assert (run.state, task.state, task.try_number) == ("failed", "failed", 1)
    assert local.requests() == []
    assert not output.exists()
    said = "".join(capfd.readouterr())
    bad = range(FIRST_BAD, len(BAD_ROWS) + 1)
    assert len(bad) == 30
    assert f"{len(bad)} of {len(bad) + 2} rows cannot be used" in said
    assert [number for number in bad if f"row {number}: " not in said] == []
    assert "row 2: " not in said


@pytest.mark.skipif(AIRFLOW_VERSION < (3, 3), reason="Airflow has a task state store from 3.3 on")
def test_airflow_keeps_how_far_a_batch_is(local: LocalService, output: Path) -> None:
    from airflow.models.task_state_store import TaskStateStoreModel
    from airflow.utils.session import create_session

    with DAG("progress", schedule=None) as dag:
        BitDanceBatchOperator(
            task_id="batch", items=["A fox", "An owl"], output_path=f"{output}/", size="256*256"
        )
    assert run_of(dag).state == "success"
    with create_session() as session:
        (row,) = session.query(TaskStateStoreModel).filter_by(dag_id="progress", task_id="batch")
        value = json.loads(row.value)
    assert row.key == PROGRESS_KEY
    assert (value["stored"], value["of"], value["estimated_cost_usd"]) == (2, 2, 0.02)
