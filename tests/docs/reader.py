"""What a page leaves to its reader: a Dag around loose tasks, arguments, files, addresses of their own.

:func:`as_dag_file` makes one Dag file of a page's Python blocks. Each keeps its line number, so a traceback
names the line of the page.
"""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from inspect import signature
from pathlib import Path
from typing import Any

from airflow.sdk import DAG
from airflow.sdk.bases.decorator import _TaskDecorator
from airflow.sdk.definitions._internal.contextmanager import DagContext

from airflow_provider_bitdance.operators.bitdance import BitDanceBatchOperator
from tests.docs.pages import Block

IMPORTS = """\
from airflow.sdk import task
from airflow_provider_bitdance.hooks.bitdance import BitDanceHook
from airflow_provider_bitdance.local import Options, running_service
from airflow_provider_bitdance.manifest import read_manifest
from airflow_provider_bitdance.operators.bitdance import BitDanceBatchOperator, BitDanceTextToImageOperator
"""
"""What a reader of a docstring has imported."""


def furnish(folder: Path) -> None:
    """Put into the reader's folder what pages expect to be there: a file of items, a shop's table."""
    for name in ("data", "s3"):
        (folder / name).mkdir()
    (folder / "s3" / "products.csv").write_text("key,product\np-17,teapot\np-18,kettle\n")
    (folder / "s3" / "shop").mkdir()
    (folder / "s3" / "shop" / "products.csv").write_text("key,name\np-1,teapot\np-2,kettle\n")
    with closing(sqlite3.connect(folder / "data" / "shop.db")) as shop, shop:
        shop.execute(
            "CREATE TABLE products (id INTEGER PRIMARY KEY, name TEXT, image TEXT, "
            "failures INTEGER DEFAULT 0, error TEXT)"
        )
        shop.execute("INSERT INTO products (name) VALUES ('teapot'), ('kettle')")


def _a_batch() -> Any:
    return BitDanceBatchOperator(
        task_id="a_batch",
        items=[{"key": "p-19", "product": "lamp"}],
        prompt="A poster of a {product}",
        output_path="{{ var.value.images }}/a_batch/",
    ).output


ARGUMENTS = {"headline": lambda: "Lighthouses are back", "result": _a_batch}
"""By its name, what a task is called with that a page defines and does not call."""


def at_home(text: str, folder: Path) -> str:
    """Replace what the reader has and this machine has not: buckets and shared disks."""
    text = re.sub(r"s3://[\w@.-]+/", f"{folder}/s3/", text)
    return re.sub(r"(?<=[\"'])/(data|tmp/bitdance)/", f"{folder}/data/", text)


def as_dag_file(blocks: list[Block], folder: Path) -> str:
    """Return the Python blocks of a page as one Dag file; tasks without a Dag get one."""
    lines = ["from tests.docs import reader"]
    if any(block.page.endswith(".py") for block in blocks):
        lines += IMPORTS.splitlines()
    for block in blocks:
        if block.language == "python":
            name = re.sub(r"\W", "_", str(block))
            lines += [""] * (block.line - len(lines) - 1)
            lines += [f"loose = reader.DAG({name!r}, schedule=None).__enter__()"]
            lines += at_home(block.text, folder).splitlines()
            lines += ["loose.__exit__(None, None, None)"]
    return "\n".join([*lines, "reader.call_the_rest(globals())", ""])


def leave_all_dags() -> None:
    """Leave the Dag that a block was in when it failed: it would take the tasks of others."""
    while DagContext.active:
        DagContext.pop()


def call_the_rest(names: dict[str, Any]) -> None:
    """Call each task that a page defines and does not call, in a Dag of its own."""
    of_page = [dag for dag, module in DagContext.autoregistered_dags if vars(module) is names]
    called = {task_id.rpartition(".")[2] for dag in of_page for task_id in dag.task_ids}
    for name, thing in list(names.items()):
        if isinstance(thing, _TaskDecorator) and name not in called:
            asked = ARGUMENTS.keys() & signature(thing.function).parameters
            with DAG(f"{names['__name__'].rpartition('_')[2]}_{name}", schedule=None):
                thing(**{argument: ARGUMENTS[argument]() for argument in asked})
