"""One subject a day in three shapes, and a web page that is built as soon as the images are there.

The first Dag runs every day. Its prompt is the text of a file beside it, ``example_bitdance_daily.prompt``,
which may be edited without touching the Dag. Airflow fills in what is in double braces: ``{{ ds }}`` is
the day of the run, ``{{ params.subject }}`` may be changed when the Dag is triggered by hand. What is in
single braces comes from the item: the three images of a day differ in size and framing, and are made in one
task. WaveSpeed's Prompt Enhancer makes each prompt that of a photograph first. A day costs about $0.033.

That task updates an asset. The second Dag is scheduled on the asset and not on the clock, so it runs when
there are new images, however long they took. The asset's event says where their manifest is, and the page
is made from that. No Dag knows more of the other than the asset's name. A task that fails sends no event, so
yesterday's page stays if today's images are not all there.

The page is for people: each image has its size and, for those who cannot see it, a text that says what it
shows. It says that the images are AI-made, and so do the files (``label="iptc"``).

Images and page go to ``BITDANCE_OUTPUT_PATH``, an environment variable, or to /tmp/bitdance-images. A day's
images are named by the day. Clear a day or backfill a month twice: what is there already, with the same
prompt, is not bought again.

``retries=2`` because Airflow's default is none, and then a killed worker leaves paid images uncollected until
somebody clears the task. A retry buys only what is missing. A new Dag is paused, for this one spends money
every day.
"""

from __future__ import annotations

import os
from typing import Any

from airflow.sdk import Asset, ObjectStoragePath, Param, dag, task

from airflow_provider_bitdance.operators.bitdance import BitDanceBatchOperator

OUTPUT = os.environ.get("BITDANCE_OUTPUT_PATH", "/tmp/bitdance-images").rstrip("/")
PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Today</title>
<style>img {{ max-width: 100%; height: auto }}</style>
<h1>Today</h1>
<p>The images on this page were made by AI.</p>
{images}
</html>
"""
PICTURES = Asset("example_bitdance_daily_pictures")
SUBJECT = "{{ params.subject }}"


@dag(
    schedule="@daily",
    catchup=False,
    is_paused_upon_creation=True,
    params={"subject": Param("A harbour town", type="string", title="Subject", minLength=1)},
    tags=["bitdance", "example"],
    doc_md=__doc__,
    default_args={"retries": 2},
)
def example_bitdance_daily() -> None:
    """Make today's images."""
    BitDanceBatchOperator(
        task_id="pictures",
        prompt="example_bitdance_daily.prompt",
        items=[
            {"key": "{{ ds }}-wide", "size": "16:9", "subject": SUBJECT, "framing": "Seen from far away"},
            {"key": "{{ ds }}-square", "size": "1:1", "subject": SUBJECT, "framing": "One street"},
            {"key": "{{ ds }}-tall", "size": "9:16", "subject": SUBJECT, "framing": "One house"},
        ],
        enhance_prompt="photographic",
        output_path=f"{OUTPUT}/daily/",
        label="iptc",
        deferrable=True,
        outlets=[PICTURES],
    )


@dag(
    schedule=[PICTURES],
    tags=["bitdance", "example"],
    doc_md=__doc__,
    default_args={"retries": 2},
)
def example_bitdance_daily_page() -> None:
    """Show the newest images on a page."""

    @task(inlets=[PICTURES])
    def page(inlet_events: Any = None) -> str:
        from html import escape
        from urllib.parse import quote

        from airflow.providers.common.compat.sdk import AirflowSkipException

        from airflow_provider_bitdance.manifest import read_manifest

        newest = inlet_events[PICTURES][-1]
        images = []
        for row in read_manifest(newest.extra["manifest"]):
            if row.status == "stored":
                file = quote(str(row.uri).rpartition("/")[2])
                shows = escape("{subject}. {framing}.".format_map(row.columns))
                images.append(f'<img src="{file}" alt="{shows}" width="{row.width}" height="{row.height}">')
        if not images:
            raise AirflowSkipException("No image is stored, so the page stays as it is")
        page = ObjectStoragePath(f"{OUTPUT}/daily/index.html")
        page.write_text(PAGE.format(images="\n".join(images)))
        return str(page)

    page()


example_bitdance_daily()
example_bitdance_daily_page()
