"""What the operator says of a store on which two workers may collide, and where a plan may store."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from airflow_provider_bitdance.exceptions import InputError, RecordUnreadableError
from airflow_provider_bitdance.hooks.runtime import (
    default_stem,
    job_of,
    label_of,
    planned_output,
    warn_if_not_exclusive,
)
from airflow_provider_bitdance.records import Job, Journal, Planned
from airflow_provider_bitdance.storage import LocalFolder, ObjectFolder
from tests.builders import context
from tests.unit.support import RECORDS, START, MemoryFolder, a_plan, a_writer

LOG = logging.getLogger("bitdance.test")


def test_a_disk_needs_no_warning_and_no_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    warn_if_not_exclusive(LocalFolder(tmp_path), LOG)
    assert caplog.records == []
    assert list(tmp_path.iterdir()) == []


def test_a_store_on_which_two_workers_may_collide_is_told_of_with_a_way_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    warn_if_not_exclusive(ObjectFolder(MemoryFileSystem(), "/b/records", "memory://b/records"), LOG)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    for part in ("memory://b/records", "two workers", "Use S3, Google Cloud Storage", "records_path"):
        assert part in record.getMessage()


def test_iterations_of_a_loop_have_journals_and_file_names_of_their_own() -> None:
    def job(index: int | None = None, region: int = 1, map_index: int = -1) -> Job:
        of_task: Any = context(map_index=map_index)
        if index is not None:
            of_task["ti"].region_id = UUID(int=region)
            of_task["loop"] = SimpleNamespace(index=index)
        return job_of(of_task)

    jobs = [job(), job(0), job(1), job(1, map_index=0), job(1, map_index=1), job(map_index=1)]
    assert len({job.folder for job in jobs}) == len({default_stem(job) for job in jobs}) == len(jobs)
    assert not any(one.same_task(other) for one in jobs for other in jobs if one is not other)
    assert Job.model_validate_json(jobs[1].model_dump_json()) == jobs[1]
    assert "iteration" not in jobs[0].model_dump()


def test_an_iteration_that_a_clear_has_begun_anew_has_a_journal_of_its_own_and_the_same_file() -> None:
    before, after = (
        Job(dag_id="d", run_id="r", task_id="t", map_index=-1, generation=2, iteration=f"1.{region}")
        for region in ("01a2", "03b4")
    )
    assert before.folder != after.folder
    assert default_stem(before) == default_stem(after)


PLANNED: list[tuple[str, str, str, bool]] = [
    # output_path, what it renders to now, the plan's folder, whether the task may store there
    ("/data/covers/", "/data/covers", "file:///data/covers", True),
    ("/data/covers/", "/data/covers", "file:///data/./covers", True),
    ("/data/covers/", "/data/covers", "file:///data/covers/deeper", False),
    ("/data/covers/", "/data/covers", "file:///data", False),
    ("/data/{{ macros.datetime.now() }}/", "/data/12:01", "file:///data/12:00", True),
    ("/data/{{ ds }}/", "/data/x", "file:///data", True),
    ("/data/{{ ds }}/", "/data/x", "file:///database", False),
    ("/data/{{ ds }}/", "/data/x", "file:///data/../etc", False),
    ("/data/{{ ds }}/", "/data/x", "s3://bucket/data/x", False),
    ("/{{ ds }}/", "/x", "file:///x", True),
    ("/{{ ds }}/", "/x", "file:///etc", False),
    ("/da{# a comment #}ta/", "/data", "file:///etc", False),
    ("{{ var.value.base }}/covers/", "s3://c@bucket/covers", "s3://c@bucket/covers", True),
    ("{{ var.value.base }}/covers/", "s3://c@bucket/covers", "s3://c@bucket/else", False),
    ("s3://c@bucket/{{ ds }}/", "s3://c@bucket/2", "s3://c@bucket/1", True),
    ("s3://c@bucket/{{ ds }}/", "s3://c@bucket/2", "s3://theirs@bucket/1", False),
    ("s3://c@bucket/{{ ds }}/", "s3://c@bucket/2", "s3://bucket/1", False),
    ("s3://c@bucket/{{ ds }}/", "s3://c@bucket/2", "gs://c@bucket/1", False),
    ("s3://c@bucket/{{ ds }}/", "s3://c@bucket/2", "s3://c@bucket2/1", False),
    ("s3://c@bucket-{{ ds }}/x/", "s3://c@bucket-1/x", "s3://c@bucket-1/x", True),
    ("s3://c@bucket-{{ ds }}/x/", "s3://c@bucket-1/x", "s3://c@bucket-2/x", False),
    ("s3://{{ c }}@bucket/x/", "s3://c@bucket/x", "s3://theirs@bucket/x", False),
    ("s3://c@{{ b }}/x/", "s3://c@bucket/x", "s3://c@theirs/x", False),
]


@pytest.mark.parametrize(("template", "renders", "planned", "is_allowed"), PLANNED)
def test_a_plan_stores_where_its_task_may(
    template: str, renders: str, planned: str, is_allowed: bool
) -> None:
    journal = Journal(MemoryFolder({}, RECORDS), a_writer())
    journal.claim(START, START, Planned(output=planned, images=(a_plan(),)))
    if is_allowed:
        assert planned_output(journal, template=template, rendered=lambda: renders) == planned
        return
    with pytest.raises(RecordUnreadableError, match="output_path is now another folder") as caught:
        planned_output(journal, template=template, rendered=lambda: renders)
    assert "reconcile --output" in str(caught.value)
    assert "The image may have been charged" in str(caught.value)


def test_without_a_plan_there_is_no_folder_of_it_and_the_path_is_not_read() -> None:
    journal = Journal(MemoryFolder({}, RECORDS), a_writer())
    assert planned_output(journal, template="{{ x }}", rendered=lambda: pytest.fail("was read")) == ""


def test_the_mark_may_be_set_for_all_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert label_of(None) is None
    monkeypatch.setenv("AIRFLOW__BITDANCE__LABEL", "iptc")
    assert label_of(None) == "iptc"
    assert label_of("none") is None
    monkeypatch.setenv("AIRFLOW__BITDANCE__LABEL", "IPTC!")
    with pytest.raises(InputError, match=r"\[bitdance\] label"):
        label_of(None)
