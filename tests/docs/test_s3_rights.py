"""operations/storage.md names the rights on S3 that are needed: those, and no others, are used."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from aiobotocore.client import AioBaseClient

from airflow_provider_bitdance import __main__ as command_line
from airflow_provider_bitdance.hooks.object_storage import open_folder, open_records
from airflow_provider_bitdance.local import LocalService
from airflow_provider_bitdance.maintenance import reconcile
from airflow_provider_bitdance.maintenance.prune import Pruning
from airflow_provider_bitdance.operators.bitdance import BitDanceBatchOperator
from tests.builders import connection_to, context
from tests.docs.pages import ROOT
from tests.s3 import S3Server
from tests.unit.support import FakeClock

RIGHT_OF = {
    "GetObject": "s3:GetObject",
    "HeadObject": "s3:GetObject",
    "PutObject": "s3:PutObject",
    "DeleteObject": "s3:DeleteObject",
    "DeleteObjects": "s3:DeleteObject",
    "ListObjectsV2": "s3:ListBucket",
}
"""Of each operation:
https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html."""


@pytest.fixture
def operations(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Return the names of the operations that are sent to S3 from now on."""
    sent = set()
    call = AioBaseClient._make_api_call

    async def noted(client: AioBaseClient, name: str, arguments: Any) -> Any:
        sent.add(name)
        return await call(client, name, arguments)

    monkeypatch.setattr(AioBaseClient, "_make_api_call", noted)
    return sent


def test_the_rights_that_are_named_are_those_that_tasks_and_maintenance_use(
    local: LocalService,
    clock: FakeClock,
    s3: S3Server,
    operations: set[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = f"s3://my_s3@{s3.new_path()}"
    records, output = f"{root}/records", f"{root}/images"
    monkeypatch.setenv("AIRFLOW_CONN_MY_S3", s3.connection())
    monkeypatch.setenv("AIRFLOW_CONN_BITDANCE_DEFAULT", connection_to(local, records_path=records))

    def make(run_id: str, **options: Any) -> None:
        batch = BitDanceBatchOperator(
            task_id="batch", items=["a hill", "a lake"], variants=2, output_path=f"{output}/", **options
        )
        batch.execute(context(run_id=run_id))

    make("first")
    make("again")
    make("replaced", if_exists="regenerate")
    reconcile(outputs=[output])
    assert command_line.main(["records", "verify", "--output", output]) == command_line.FINE
    clock.now += timedelta(days=40).total_seconds()
    pruned = Pruning(
        open_records(records, of_connection=""), open_folder, (output,), dry_run=False, clock=clock
    ).run()

    assert len(pruned.journals) == 3
    page = (ROOT / "docs" / "operations" / "storage.md").read_text()
    named = re.findall(r"`(s3:\w+)`", page.partition("\n## Rights\n")[2].partition("\n## ")[0])
    assert {RIGHT_OF[operation] for operation in operations} == set(named)
