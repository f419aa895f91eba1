"""Once a day: store what was paid for and left behind, and compare the records with the bill.

A task takes care of its own images: when its worker dies, the retry goes on where it stopped. Where no retry
comes, because none was left or because the Dag run was deleted, an image is paid for and not stored, and
WaveSpeed deletes it after 7 days. This Dag collects such images in time. It buys nothing.

Its result is the report as JSON: what was collected, what may have been paid for without an image, and the
estimated and the real cost by Dag and day. Where an image could not be stored, or a record is damaged, the
task fails and its log says what.

``retries=2`` because Airflow's default is none, and a store that fails for a moment should not cost a day.

Images are stored only in the folders that ``reconcile`` is given and below, here ``BITDANCE_OUTPUT_PATH``, an
environment variable, or /tmp/bitdance-images: what the records say does not lead elsewhere. Name the output
folders of all your tasks, each with the connection as the task writes it.

Set the connection's records path, or ``records_path`` in ``[bitdance]`` of the settings: then all tasks keep
their records in one place, and this Dag finds them.
"""

from __future__ import annotations

import logging
import os
from typing import Any

from airflow.sdk import dag, task

OUTPUT = os.environ.get("BITDANCE_OUTPUT_PATH", "/tmp/bitdance-images")

log = logging.getLogger(__name__)


@dag(
    schedule="@daily",
    catchup=False,
    max_active_runs=1,
    tags=["bitdance", "example"],
    doc_md=__doc__,
    default_args={"retries": 2},
)
def example_bitdance_maintenance() -> None:
    """Reconcile the records with the account."""

    @task
    def reconcile_records() -> dict[str, Any]:
        from airflow_provider_bitdance.maintenance import reconcile
        from airflow_provider_bitdance.maintenance.render import shown_report

        report = reconcile(conn_id="bitdance_default", outputs=[OUTPUT])
        log.info("%s", shown_report(report))
        if report.needs_attention:
            raise RuntimeError(
                "An image is paid for and could not be stored, or a record is damaged: see above"
            )
        return report.as_json()

    reconcile_records()


example_bitdance_maintenance()
