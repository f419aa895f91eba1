"""A table's rows become images, and the images' addresses go back into the table.

Each run takes the products that have no image yet, makes all their images in one task, and writes the
addresses into the table. So a second run buys images of new products only, about $0.01 each; where there are
none, it is skipped. The table is in SQLite here, with three products to begin with; any database will do.

The batch is one task however many rows there are. Its result is small: the address of a manifest, a file
with one row a product, which ``read_manifest`` reads. A product whose image failed is tolerated here: it
stays without an address, and the next run tries again.

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

from airflow.sdk import dag, task

from airflow_provider_bitdance.operators.bitdance import BitDanceBatchOperator

OUTPUT = os.environ.get("BITDANCE_OUTPUT_PATH", "/tmp/bitdance-images/")
DATABASE = os.environ.get("BITDANCE_DATABASE", "/tmp/bitdance-images/shop.db")


@dag(schedule=None, tags=["bitdance", "example"], doc_md=__doc__, default_args={"retries": 2})
def example_bitdance_batch() -> None:
    """Make an image of each product that has none."""

    @task.short_circuit
    def products_without_image() -> list[dict[str, Any]]:
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

    @task
    def write_back(result: Any) -> None:
        from airflow_provider_bitdance.manifest import read_manifest

        rows = [row for row in read_manifest(result["manifest"]) if row.status == "stored"]
        with closing(sqlite3.connect(DATABASE)) as database, database:
            database.executemany(
                "UPDATE products SET image = ? WHERE id = ?", [(row.uri, row.columns["id"]) for row in rows]
            )

    images = BitDanceBatchOperator(
        task_id="images",
        items=products_without_image(),
        prompt="A photo of a {name} on a plain background, soft light",
        output_path=f"{OUTPUT.rstrip('/')}/products/",
        max_cost_usd=5.00,
        on_item_failure="tolerate",
        deferrable=True,
    )
    write_back(images.output)


example_bitdance_batch()
