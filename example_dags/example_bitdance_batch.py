"""A table's rows become images, and the images' URIs go back into the table.

Each run takes the products that have no image yet, and writes the images' URIs into their rows. So a
second run buys images of new products only, about $0.01 each; where there are none, it is skipped. The table
is in SQLite here, with three products to begin with; any database will do. A product whose image failed is
tolerated: it stays without a URI, and the next run tries again. Two environment variables,
``BITDANCE_OUTPUT_PATH`` and ``BITDANCE_DATABASE``, say where images and table are; without them it is
/tmp/bitdance-images.

There are two Dags, for two sizes of tables. In the first, all products are one batch, one task however many
they are, up to 10,000. Its result is small: the URI of a manifest, a file with one row a product, which
``read_manifest`` reads. The second cuts the products into chunks. Each chunk is a batch of its own and is
written back as soon as it is done: several workers share the work, and a chunk that fails holds up no other.

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

from airflow.sdk import dag, task, task_group

from airflow_provider_bitdance.operators.bitdance import BitDanceBatchOperator

OUTPUT = os.environ.get("BITDANCE_OUTPUT_PATH", "/tmp/bitdance-images").rstrip("/")
DATABASE = os.environ.get("BITDANCE_DATABASE", "/tmp/bitdance-images/shop.db")
CHUNK = 2
"""Products a chunk: two, for there are three. A few hundred serve well."""


@task.short_circuit
def products_without_image() -> list[dict[str, Any]]:
    """Return the products to make an image of; where there are none, the rest of the run is skipped."""
    Path(DATABASE).parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(DATABASE)) as database, database:
        database.execute(
            "CREATE TABLE IF NOT EXISTS products (id INTEGER PRIMARY KEY, name TEXT, image TEXT)"
        )
        if database.execute("SELECT count(*) FROM products").fetchone() == (0,):
            names = [("teapot",), ("paper lantern",), ("wooden chair",)]
            database.executemany("INSERT INTO products (name) VALUES (?)", names)
        rows = database.execute("SELECT id, name FROM products WHERE image IS NULL ORDER BY id")
        return [{"key": f"product-{id_}", "id": id_, "name": name} for id_, name in rows]


def images_of(products: Any) -> Any:
    """Return the result of a task that makes an image of each product."""
    return BitDanceBatchOperator(
        task_id="images",
        items=products,
        prompt="A photo of a {name} on a plain background, soft light",
        output_path=f"{OUTPUT}/products/",
        max_cost_usd=5.00,
        on_item_failure="tolerate",
        deferrable=True,
    ).output


@task
def write_back(result: Any) -> None:
    """Write the URIs of the images that are stored into the table."""
    from airflow_provider_bitdance.manifest import read_manifest

    rows = [row for row in read_manifest(result["manifest"]) if row.status == "stored"]
    with closing(sqlite3.connect(DATABASE)) as database, database:
        database.executemany(
            "UPDATE products SET image = ? WHERE id = ?", [(row.uri, row.columns["id"]) for row in rows]
        )


@dag(schedule=None, tags=["bitdance", "example"], doc_md=__doc__, default_args={"retries": 2})
def example_bitdance_batch() -> None:
    """Make an image of each product that has none, in one task."""
    write_back(images_of(products_without_image()))


@dag(schedule=None, tags=["bitdance", "example"], doc_md=__doc__, default_args={"retries": 2})
def example_bitdance_batch_chunks() -> None:
    """The same, chunk by chunk."""

    @task
    def chunks(products: Any) -> list[list[dict[str, Any]]]:
        return [products[start : start + CHUNK] for start in range(0, len(products), CHUNK)]

    @task_group
    def chunk(products: Any) -> None:
        write_back(images_of(products))

    chunk.expand(products=chunks(products_without_image()))


example_bitdance_batch()
example_bitdance_batch_chunks()
