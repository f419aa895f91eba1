"""The example Dags, unchanged, in ``dag.test()`` against the local service.

The maintenance example runs in ``test_maintenance.py``. The approval example needs a person: it is parsed
here, and runs on a real Airflow in ``tests/system/test_examples.py``.
"""

from __future__ import annotations

import csv
import hashlib
import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG
from PIL import Image

from airflow_provider_bitdance.local import LocalService
from airflow_provider_bitdance.local.catalogue import STYLE_WORDS
from airflow_provider_bitdance.local.pictures import labels
from airflow_provider_bitdance.wavespeed.models import BITDANCE_14B
from tests.builders import load_dags
from tests.integration.test_dag_test import DAG_FILES, assert_right_picture, local_path, results, run_of
from tests.s3 import S3Server
from tests.unit.support import FakeClock

EXAMPLES = sorted(DAG_FILES.glob("example_*.py"))
PHOTOGRAPH = STYLE_WORDS["photographic"]
"""How the prompt of an image ends that is made from an enhanced one."""
PRODUCTS = ("teapot", "paper lantern", "wooden chair")

Example = Callable[[str], DAG]


@pytest.fixture(scope="module")
def bag() -> Any:
    return load_dags(str(DAG_FILES))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("examples") / "images"


@pytest.fixture
def output(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the empty output folder: one for all, since another one makes another version of a Dag, and with
    several of them SQLAlchemy warns on Airflow 3.1."""
    shutil.rmtree(folder, ignore_errors=True)
    monkeypatch.setenv("BITDANCE_OUTPUT_PATH", f"{folder}/")
    return folder


@pytest.fixture
def example(output: Path, airflow_db: None) -> Example:
    """Return what parses an example Dag with the test's settings."""
    return lambda dag_id: load_dags(str(DAG_FILES)).dags[dag_id]  # type: ignore[no-any-return]


@dataclass
class Shop:
    """The table of the batch example."""

    file: Path

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.file)) as connection, connection:
            return connection.execute(statement).fetchall()

    def shown(self) -> dict[str, str]:
        """Return the products that have an image, each with the prompt that it shows."""
        rows = self.execute("SELECT name, image FROM products WHERE image IS NOT NULL ORDER BY id")
        return {name: labels(local_path(image).read_bytes()).prompt for name, image in rows}


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    shop = Shop(tmp_path / "shop" / "shop.db")
    monkeypatch.setenv("BITDANCE_DATABASE", str(shop.file))
    return shop


def photos(*names: str) -> dict[str, str]:
    return {name: f"A photo of a {name} on a plain background, soft light" for name in names}


def states(run: Any) -> dict[str, str]:
    return {task.task_id: task.state for task in run.get_task_instances()}


# Basic


def test_the_basic_example_stores_three_images_and_pays_for_three(
    local: LocalService, output: Path, example: Example
) -> None:
    stored = results(run_of(example("example_bitdance_basic")))

    for result in stored:
        assert_right_picture(result)
    assert {local_path(result["uri"]) for result in stored} == set(output.glob("*.png"))
    assert sorted((made["prompt"], made["size"]) for made in local.predictions()) == [
        ("A lighthouse above the sea at dusk, long exposure", "1280*720"),
        ("A paper-cut fox in a birch forest", "864*1152"),
        ("A teapot on a wooden table, soft morning light", "1024*1024"),
    ]
    assert local.bill().billed == len(stored) == 3


# Daily


def a_day(dag: DAG, day: int, **options: Any) -> Any:
    return run_of(dag, logical_date=datetime(2026, 11, day, tzinfo=UTC), **options)


def test_a_day_is_bought_in_three_shapes_from_the_prompt_file_and_only_once(
    local: LocalService, output: Path, example: Example
) -> None:
    daily = example("example_bitdance_daily")

    (first,) = results(a_day(daily, 21))

    bottom = "Early morning, soft light, no text."
    top = "A harbour town on 2026-11-21, in the weather of the season."
    bought = [made for made in local.predictions() if made["model"] == BITDANCE_14B]
    assert {(made["prompt"], made["size"]) for made in bought} == {
        (f"{top}\n{bottom} Seen from far away., {PHOTOGRAPH}", "1280*720"),
        (f"{top}\n{bottom} One street., {PHOTOGRAPH}", "1024*1024"),
        (f"{top}\n{bottom} One house., {PHOTOGRAPH}", "720*1280"),
    }
    assert {path.name for path in output.glob("daily/*.png")} == {
        f"2026-11-21-{shape}.png" for shape in ("wide", "square", "tall")
    }
    assert (first["stored"], first["estimated_cost_usd"], local.bill().billed) == (3, 0.033, 6)

    (again,) = results(a_day(daily, 21))
    assert (again["reused"], local.bill().billed) == (3, 6)
    results(a_day(daily, 22, run_conf={"subject": "A mountain village"}))
    assert local.bill().billed == 12
    assert local.predictions()[-1]["prompt"].startswith("A mountain village on 2026-11-22")


def test_the_page_shows_the_pictures_of_the_newest_day(
    local: LocalService, output: Path, example: Example
) -> None:
    for day in (21, 22):
        results(a_day(example("example_bitdance_daily"), day))

    (page,) = results(run_of(example("example_bitdance_daily_page")))

    assert Path(page) == output / "daily" / "index.html"
    assert images_on(Path(page)) == [
        ("2026-11-22-wide.png", "A harbour town. Seen from far away.", 1280, 720),
        ("2026-11-22-square.png", "A harbour town. One street.", 1024, 1024),
        ("2026-11-22-tall.png", "A harbour town. One house.", 720, 1280),
    ]
    for name, _, *size in images_on(Path(page)):
        with Image.open(output / "daily" / name) as image:
            assert [*image.size] == size
        assert is_labelled(output / "daily" / name)
    assert "The images on this page were made by AI." in Path(page).read_text()


def test_yesterdays_page_stays_if_not_all_of_todays_images_are_there(
    local: LocalService, output: Path, example: Example
) -> None:
    results(a_day(example("example_bitdance_daily"), 21))
    results(run_of(example("example_bitdance_daily_page")))
    local.add_fault(on="submit", kind="failed", code=1200, match=f"One house., {PHOTOGRAPH}")

    assert a_day(example("example_bitdance_daily"), 22).state == "failed"
    (page,) = results(run_of(example("example_bitdance_daily_page")))

    assert [name[:10] for name, *_ in images_on(Path(page))] == ["2026-11-21"] * 3


def test_the_page_shows_what_was_asked_as_text_and_only_what_is_stored(
    local: LocalService, output: Path, example: Example
) -> None:
    local.add_fault(on="submit", kind="failed", code=1200, match=f"One street., {PHOTOGRAPH}")
    daily = example("example_bitdance_daily")
    daily.get_task("pictures").on_item_failure = "tolerate"
    subject = """<script>alert("1")</script> & 'a town'"""
    results(a_day(daily, 21, run_conf={"subject": subject}))

    (page,) = results(run_of(example("example_bitdance_daily_page")))

    assert [shows for _, shows, *_ in images_on(Path(page))] == [
        f"{subject}. Seen from far away.",
        f"{subject}. One house.",
    ]
    assert "<script" not in Path(page).read_text()


def test_the_page_stays_as_it_is_if_no_image_is_stored(
    local: LocalService, output: Path, example: Example
) -> None:
    local.add_fault(on="submit", kind="failed", code=1200, match=PHOTOGRAPH)
    daily = example("example_bitdance_daily")
    daily.get_task("pictures").on_item_failure = "tolerate"
    results(a_day(daily, 21))
    page = output / "daily" / "index.html"
    page.write_text("yesterday's")

    assert states(run_of(example("example_bitdance_daily_page"))) == {"page": "skipped"}
    assert page.read_text() == "yesterday's"


class ImagesOn(HTMLParser):
    """Collects the images of a page: file, what it shows, and its size."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str, int, int]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            given = {name: str(value) for name, value in attrs}
            self.found.append((given["src"], given["alt"], int(given["width"]), int(given["height"])))


def images_on(page: Path) -> list[tuple[str, str, int, int]]:
    parser = ImagesOn()
    parser.feed(page.read_text())
    return parser.found


def is_labelled(file: Path) -> bool:
    return b"trainedAlgorithmicMedia" in file.read_bytes()


# Batch


def test_a_tables_rows_become_images_and_a_second_run_buys_for_new_rows_that_have_a_name(
    local: LocalService, shop: Shop, example: Example
) -> None:
    batch = example("example_bitdance_batch")

    assert run_of(batch).state == "success"
    assert shop.shown() == photos(*PRODUCTS)
    assert local.bill().billed == 3

    shop.execute("INSERT INTO products (name) VALUES (NULL), (' '), ('brass bell')")
    assert run_of(batch).state == "success"
    assert shop.shown() == photos(*PRODUCTS, "brass bell")
    assert local.bill().billed == 4

    assert states(run_of(batch)) == {
        "products_without_image": "success",
        "images": "skipped",
        "write_back": "skipped",
        "all_made": "skipped",
    }

    shop.execute("UPDATE products SET image = NULL")  # as if it had not been written back
    assert run_of(batch).state == "success"
    assert shop.shown() == photos(*PRODUCTS, "brass bell")
    assert local.bill().billed == 4


def test_a_product_whose_image_fails_is_left_to_the_next_run(
    local: LocalService, clock: FakeClock, shop: Shop, example: Example
) -> None:
    local.add_fault(on="submit", kind="failed", code=1200, match="lantern", times=1)
    batch = example("example_bitdance_batch")

    assert run_of(batch).state == "success"
    assert shop.execute("SELECT name FROM products WHERE image IS NULL") == [("paper lantern",)]
    assert run_of(batch).state == "success"
    assert shop.shown() == photos(*PRODUCTS)
    bill = local.bill()
    assert (bill.submitted, bill.refunded, bill.billed) == (4, 1, 3)


def test_the_table_has_the_urls_of_the_published_images(
    local: LocalService, output: Path, shop: Shop, example: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BITDANCE_WEB_ADDRESS", "https://cdn.example.com/images/")

    assert run_of(example("example_bitdance_batch")).state == "success"

    for number, url in shop.execute("SELECT id, url FROM products"):
        file = output / "products" / f"product-{number}.png"
        version = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
        assert url == f"https://cdn.example.com/images/products/{file.name}?v={version}"
        assert is_labelled(file)


def test_a_batch_that_fails_is_written_back_and_its_run_fails(
    local: LocalService, shop: Shop, example: Example
) -> None:
    batch = example("example_bitdance_batch")
    local.add_fault(on="submit", kind="status", status=400, match="chair", times=1)
    run_of(batch)
    shop.execute("UPDATE products SET image = NULL")  # the others are reused, whichever would be bought first
    local.add_fault(on="submit", kind="status", status=401, match="chair")

    run = run_of(batch)

    assert states(run) == {
        "products_without_image": "success",
        "images": "failed",
        "write_back": "success",
        "all_made": "upstream_failed",
    }
    assert run.state == "failed"
    stored = shop.execute("SELECT count(*) FROM products WHERE image IS NOT NULL")
    assert stored == [(2,)] == [(local.bill().billed,)]


def test_a_batch_that_does_not_begin_leaves_the_table_as_it_is(
    local: LocalService, shop: Shop, example: Example
) -> None:
    batch = example("example_bitdance_batch")
    batch.get_task("images").max_cost_usd = 0.01

    run = run_of(batch)

    assert (run.state, states(run)["write_back"]) == ("failed", "success")
    assert shop.execute("SELECT DISTINCT image, failures, error FROM products") == [(None, 0, None)]


def test_a_refused_product_keeps_the_reason_and_is_left_to_a_person_after_three_runs(
    local: LocalService, shop: Shop, example: Example
) -> None:
    local.add_fault(on="submit", kind="failed", code=1200, match="lantern")
    batch = example("example_bitdance_batch")

    assert run_of(batch).state == "success"
    refused = shop.execute("SELECT name, failures FROM products WHERE error LIKE '%1200%'")
    assert refused == [("paper lantern", 1)]

    shop.execute("UPDATE products SET failures = failures + 1")  # as another run does
    assert run_of(batch).state == "success"
    assert local.bill().submitted == 4
    assert states(run_of(batch))["images"] == "skipped"


def test_chunks_are_written_back_one_by_one_and_a_chunk_that_fails_holds_up_no_other(
    local: LocalService, shop: Shop, example: Example
) -> None:
    chunks = example("example_bitdance_batch_chunks")
    local.add_fault(on="submit", kind="status", status=401, match="chair", times=1)

    run = run_of(chunks)

    assert run.state == "failed"
    assert shop.execute("SELECT name FROM products WHERE image IS NULL") == [("wooden chair",)]
    assert run_of(chunks).state == "success"
    assert shop.shown() == photos(*PRODUCTS)
    assert local.bill().billed == 3
    assert set(states(run_of(chunks)).values()) == {"success", "skipped"}


# Models


def test_one_product_is_drawn_by_two_models_side_by_side_and_only_once(
    local: LocalService, output: Path, example: Example
) -> None:
    (page,) = results(run_of(example("example_bitdance_models")))[-1:]

    folder = output / "sheets" / "teapot"
    assert local_path(page) == folder / "index.html"
    text = local_path(page).read_text()
    assert re.findall('<img src="([^"]+)"', text) == ["bitdance.png", "flux.png"]
    for name, model, cost in (
        ("bitdance", "wavespeed-ai/bitdance-14b/text-to-image", "$0.01"),
        ("flux", "wavespeed-ai/flux-dev", "$0.012"),
    ):
        drawn = labels((folder / f"{name}.png").read_bytes())
        assert (drawn.model, drawn.size, drawn.seed) == (model, "1152*864", 7)
        assert f"{model}: 1152 x 864 pixels, seed 7, {cost}<" in text
    assert local.bill().cost_usd == 0.022

    assert run_of(example("example_bitdance_models")).state == "success"
    assert local.bill().billed == 2


# A table on S3, with an approval


@pytest.fixture
def shop_on_s3(s3: S3Server, output: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return bucket and key of a shop with two products."""
    path = s3.new_path()
    monkeypatch.setenv("AIRFLOW_CONN_SHOP_S3", s3.connection())
    monkeypatch.setenv("BITDANCE_SHOP_PATH", f"s3://shop_s3@{path}")
    s3.filesystem().pipe_file(f"{path}/products.csv", b"key,name\np-1,teapot\np-2,lantern\n")
    return path


def test_a_table_on_s3_becomes_images_that_are_written_back_and_bought_once(
    local: LocalService, s3: S3Server, shop_on_s3: str, example: Example
) -> None:
    dag = example("example_bitdance_production")

    assert run_of(dag, mark_success_pattern="approve").state == "success"

    stored = s3.files(shop_on_s3)
    table = list(csv.DictReader(stored["products-with-images.csv"].decode().splitlines()))
    assert [row["name"] for row in table] == ["teapot", "lantern"]
    for row in table:
        assert row["image"] == f"s3://shop_s3@{shop_on_s3}/images/{row['key']}.png"
        assert row["url"].startswith(f"https://cdn.example.com/shop/images/{row['key']}.png?v=")
        assert row["name"] in labels(stored[f"images/{row['key']}.png"]).prompt
    assert local.bill().billed == 2

    s3.filesystem().pipe_file(f"{shop_on_s3}/products.csv", b"key,name\np-1,teapot\np-2,lamp\np-3,bell\n")
    assert run_of(dag, mark_success_pattern="approve").state == "success"
    assert local.bill().billed == 4  # one is changed, one is new

    s3.filesystem().rm(f"{shop_on_s3}/products-with-images.csv")  # as if it could not be written
    assert states(run_of(dag))["approve"] == "skipped"
    assert local.bill().billed == 4
    assert s3.files(shop_on_s3)["products-with-images.csv"].count(b".png,") == 3


# As Airflow parses them


def test_every_example_is_parsed_without_error(bag: Any) -> None:
    assert bag.import_errors == {}
    assert {Path(dag.fileloc) for dag in bag.dags.values()} == set(EXAMPLES)


def test_every_dag_is_named_after_its_file_and_has_tags_a_text_and_two_retries(bag: Any) -> None:
    for dag_id, dag in bag.dags.items():
        assert dag_id.startswith(Path(dag.fileloc).stem)
        assert {"bitdance", "example"} <= set(dag.tags)
        assert {task.retries for task in dag.tasks} == {2}, dag_id


def test_every_text_says_why_there_are_two_retries(bag: Any) -> None:
    for dag_id, dag in bag.dags.items():
        assert re.search("``retries=2``[^.]* because Airflow's default is none", dag.doc_md), dag_id
