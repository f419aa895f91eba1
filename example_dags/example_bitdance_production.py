"""Every day, a table of products on S3: new and changed rows become images, after a person has seen the cost.

``products.csv`` has one row per product, with the columns ``key`` and ``name``. The Dag

1. estimates what is to buy; if it costs more than ``LIMIT_USD``, the run fails here,
2. asks a person, with the cost in the question; without an approval within 20 hours nothing is bought; if
   there is nothing to buy, nobody is asked,
3. buys the images in one batch on the workers of the Celery queue ``images``, for the approved sum at most,
4. writes ``products-with-images.csv``: the table with the image's address, its URL and the reason of a
   failure.

All rows go to the batch every day. A row whose text is unchanged finds its image under its key and costs
nothing: there is no ``{{ ds }}`` in prompt or path, which would buy every image again each day.

The shop is a folder on S3, reached through the AWS connection ``shop_s3``: every worker sees it. Records
are private, in a bucket of their own (``[bitdance] records_path``, or the connection's field). Three
environment variables change this: ``BITDANCE_SHOP_PATH``, ``BITDANCE_SHOP_URL``, under which the images are
published, and ``BITDANCE_QUEUE``. Other executors than Celery ignore the queue.

What fails holds up nothing else: ``write_back`` runs also when the batch failed, for then its result is
there all the same, and ``all_made`` turns the run red. ``retries=2`` because Airflow's default is none, and
then a killed worker leaves paid images uncollected until somebody clears the task. A retry needs no new
approval and buys only what is missing.
"""

from __future__ import annotations

import csv
import os
from datetime import timedelta
from io import StringIO
from typing import Any

from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import ObjectStoragePath, chain, dag, get_current_context, task

from airflow_provider_bitdance.operators.bitdance import BitDanceBatchOperator

SHOP = os.environ.get("BITDANCE_SHOP_PATH", "s3://shop_s3@my-shop/shop").rstrip("/")
URL = os.environ.get("BITDANCE_SHOP_URL", "https://cdn.example.com/shop").rstrip("/")
QUEUE = os.environ.get("BITDANCE_QUEUE", "images")
LIMIT_USD = 5.00


@dag(
    schedule="@daily",
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=True,
    tags=["bitdance", "example"],
    doc_md=__doc__,
    default_args={"retries": 2},
)
def example_bitdance_production() -> None:
    """Estimate, ask, buy, write back."""

    @task(multiple_outputs=True)
    def estimate() -> dict[str, Any]:
        found = images.estimate(get_current_context())
        if found.cost_usd > LIMIT_USD:
            raise AirflowFailException(f"{found}: more than the limit of ${LIMIT_USD:.2f}")
        return {"text": str(found), "buy": found.buy, "usd": found.cost_usd}

    @task.branch
    def ask(buy: int) -> str:
        return "approve" if buy else "images"  # all is reused, free, and the table is written again

    cost: Any = estimate()
    asked: Any = ask(cost["buy"])
    images = BitDanceBatchOperator(
        task_id="images",
        items=f"{SHOP}/products.csv",
        prompt="A photo of a {name} on a plain background, soft light",
        size="1:1",
        output_path=f"{SHOP}/images/",
        url_base=f"{URL}/images/",
        label="iptc",
        max_cost_usd=cost["usd"],
        on_item_failure="tolerate",
        deferrable=True,
        queue=QUEUE,
        trigger_rule="none_failed_min_one_success",
    )

    approve = ApprovalOperator(
        task_id="approve",
        subject="Buy images of products?",
        body=f"{cost['text']}",
        response_timeout=timedelta(hours=20),  # the next day's run waits for this one
        defaults=ApprovalOperator.REJECT,
    )

    @task(trigger_rule="all_done")
    def write_back(result: Any) -> int:
        from airflow_provider_bitdance.manifest import read_manifest

        if result is None:  # rejected, refused before buying, or killed in its last try
            return 0
        rows = read_manifest(result["manifest"])
        file = StringIO(newline="")
        table = csv.writer(file)
        table.writerow(["key", "name", "image", "url", "error"])
        table.writerows([row.key, row.columns["name"], row.uri, row.url, row.error] for row in rows)
        ObjectStoragePath(f"{SHOP}/products-with-images.csv").write_text(file.getvalue())
        return sum(row.status == "stored" for row in rows)

    chain(asked, approve, images, EmptyOperator(task_id="all_made"))
    asked >> images
    write_back(images.output)


example_bitdance_production()
