"""What the operator says of a store on which two workers may collide."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from airflow_provider_bitdance.operators.runtime import warn_if_not_exclusive
from airflow_provider_bitdance.storage import LocalFolder, ObjectFolder

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
