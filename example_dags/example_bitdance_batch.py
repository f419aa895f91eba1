"""A table's rows become images every day, and the images' addresses go back into the table.

Each run takes the products that have no image yet, and writes into their rows where the image is stored and,
if the folder is published, its URL. So a second run buys images of new products only, about $0.01 each; if
there are none, it is skipped. The table is in SQLite here, with three products to begin with; any database
will do. The files say that they are AI-made (``label="iptc"``), as shops and search engines require.

What fails holds up nothing else. A product without a name is not requested, since one row that cannot be used
refuses its whole batch. A product whose image failed, or was refused, keeps the reason in its row, and the
next runs try again: three times, then it is left to a person, for a refused image may be charged each time.
``write_back`` runs also when the batch failed (``trigger_rule="all_done"``), since a batch that fails leaves
its result, too. Airflow judges a run by its last tasks, so ``all_made`` is there to turn red with the batch.

Three environment variables say where images and table are, and under which URL the images are published:
``BITDANCE_OUTPUT_PATH``, ``BITDANCE_DATABASE`` and ``BITDANCE_WEB_ADDRESS``. Without them all is in
/tmp/bitdance-images, and no image has a URL.

There are two Dags, for two sizes of tables. In the first, all products are one batch, one task however many
they are, up to 10,000. Its result is small: the URI of a manifest, a file with one row a product, which
``read_manifest`` reads. The second cuts the products into chunks. Each chunk is a batch of its own and is
written back as soon as it is done: several workers share the work, and a chunk that fails holds up no other.
It has no schedule, for one table needs one of them. A new Dag is paused, for this one spends money every day.

``retries=2`` because Airflow's default is none, and then a killed worker leaves paid images uncollected until
somebody clears the task. A retry buys only what is missing. The key, made from the product's id, names the
image: should writing back fail for good, the next run finds the images under their keys and pays nothing.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import dag, task, task_group

from airflow_provider_bitdance.operators.bitdance import BitDanceBatchOperator

OUTPUT = os.environ.get("BITDANCE_OUTPUT_PATH", "/tmp/bitdance-images").rstrip("/")
WEB_ADDRESS = os.environ.get("BITDANCE_WEB_ADDRESS", "").rstrip("/")
DATABASE = os.environ.get("BITDANCE_DATABASE", "/tmp/bitdance-images/shop.db")
CHUNK = 2
"""Products a chunk: two, for there are three. A few hundred serve well."""
TRIES = 3
"""Runs that request an image of a product; each may charge for an image that is refused."""
TABLE = """
    CREATE TABLE IF NOT EXISTS products (
        id INTEGER PRIMARY KEY, name TEXT,
        image TEXT, url TEXT, failures INTEGER NOT NULL DEFAULT 0, error TEXT
    )
"""
WITHOUT_IMAGE = """
    SELECT id, name FROM products
    WHERE image IS NULL AND trim(name) <> '' AND failures < ?
    ORDER BY id
"""


@task.short_circuit
def products_without_image() -> list[dict[str, Any]]:
    """Return the products to make an image of; where there are none, the rest of the run is skipped."""
    Path(DATABASE).parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(DATABASE)) as database, database:
        database.execute(TABLE)
        if database.execute("SELECT count(*) FROM products").fetchone() == (0,):
            names = [("teapot",), ("paper lantern",), ("wooden chair",)]
            database.executemany("INSERT INTO products (name) VALUES (?)", names)
        rows = database.execute(WITHOUT_IMAGE, (TRIES,))
        return [{"key": f"product-{id_}", "id": id_, "name": name} for id_, name in rows]


def make_images(products: Any) -> None:
    """Make an image of each product, and write back what became of it."""
    images = BitDanceBatchOperator(
        task_id="images",
        items=products,
        prompt="A photo of a {name} on a plain background, soft light",
        output_path=f"{OUTPUT}/products/",
        url_base=f"{WEB_ADDRESS}/products/" if WEB_ADDRESS else None,
        label="iptc",
        max_cost_usd=5.00,
        on_item_failure="tolerate",
        deferrable=True,
    )
    write_back(images.output)
    images >> EmptyOperator(task_id="all_made")


@task(trigger_rule="all_done")
def write_back(result: Any) -> None:
    """Write into the table where each stored image is, and why the others failed."""
    from airflow_provider_bitdance.manifest import read_manifest

    if result is None:  # the batch did not begin: a row, the budget or the connection was refused
        return
    rows = read_manifest(result["manifest"])
    stored = [(row.uri, row.url, row.columns["id"]) for row in rows if row.status == "stored"]
    failed = [(row.error, row.columns["id"]) for row in rows if row.status == "failed"]
    with closing(sqlite3.connect(DATABASE)) as database, database:
        database.executemany("UPDATE products SET image = ?, url = ?, error = NULL WHERE id = ?", stored)
        database.executemany("UPDATE products SET failures = failures + 1, error = ? WHERE id = ?", failed)


@dag(
    schedule="@daily",
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=True,
    tags=["bitdance", "example"],
    doc_md=__doc__,
    default_args={"retries": 2},
)
def example_bitdance_batch() -> None:
    """Make an image of each product that has none, in one task."""
    make_images(products_without_image())


@dag(schedule=None, tags=["bitdance", "example"], doc_md=__doc__, default_args={"retries": 2})
def example_bitdance_batch_chunks() -> None:
    """The same, chunk by chunk."""

    @task
    def chunks(products: Any) -> list[list[dict[str, Any]]]:
        return [products[start : start + CHUNK] for start in range(0, len(products), CHUNK)]

    @task_group
    def chunk(products: Any) -> None:
        make_images(products)

    chunk.expand(products=chunks(products_without_image()))


example_bitdance_batch()
example_bitdance_batch_chunks()
