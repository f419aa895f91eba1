"""What imports what: the layers of DESIGN.md, and what a Dag file's import costs."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import airflow_provider_bitdance

NAME = "airflow_provider_bitdance"
PACKAGE = Path(airflow_provider_bitdance.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
EXAMPLES = Path(__file__).parents[2] / "example_dags"

RECORDS = {"journal", "receipts", "reservations", "storage", "names", "records"}
MAY_IMPORT = {
    "": set(),  # the package itself, which holds the version
    "api": set(),
    **{part: {"api", *RECORDS} for part in RECORDS},
    "items": {"api", "names"},
    "folders": {"api", "storage"},
    "manifest": {"api", "folders", "items"},
    "clock": set(),
    "polling": {"api", "clock"},
    "engine": {"api", "clock", "polling", *RECORDS},
    "get_provider_info": set(),
    "version_compat": set(),
    "hooks": {"api", "polling", "get_provider_info", "version_compat"},
    "triggers": {"api", "clock", "hooks", "polling"},
    "links": {"api", "storage"},
    "operators": {
        *("api", "get_provider_info", "items", "manifest", "polling", *RECORDS),
        *("clock", "engine", "folders", "hooks", "links", "triggers", "version_compat"),
    },
    "decorators": {"api", *RECORDS, "engine", "operators"},
    "maintenance": {
        *("api", "clock", "engine", "folders", "hooks", "operators", "polling", "version_compat", *RECORDS)
    },
    "__main__": {"api", "folders", "maintenance"},
    "local": set(),
}
"""Which parts of the package a part may import, beside itself and the version."""

KNOW_NO_AIRFLOW = {
    "",
    "api",
    "clock",
    "engine",
    "items",
    "local",
    "polling",
    "get_provider_info",
    *RECORDS,
}


def part_of(file: Path) -> str:
    first = file.relative_to(PACKAGE).parts[0]
    return "" if first == "__init__.py" else first.removesuffix(".py")


def imported(file: Path) -> Iterator[str]:
    """Yield every module that a file imports anywhere, as a full name."""
    package = [NAME, *file.relative_to(PACKAGE).parent.parts]
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) + 1 - node.level]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            yield from (f"{module}.{alias.name}" for alias in node.names)


def test_every_part_of_the_package_has_its_layer() -> None:
    assert {part_of(file) for file in FILES} == set(MAY_IMPORT)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(PACKAGE).as_posix())
def test_imports_point_down_only(file: Path) -> None:
    ours = {name.split(".")[1] for name in imported(file) if name.startswith(f"{NAME}.")}

    assert ours <= MAY_IMPORT[part_of(file)] | {part_of(file), "__version__"}


@pytest.mark.parametrize("part", sorted(KNOW_NO_AIRFLOW))
def test_the_parts_below_know_no_airflow(part: str) -> None:
    found = {
        name
        for file in FILES
        if part_of(file) == part
        for name in imported(file)
        if name.split(".")[0] == "airflow"
    }

    assert found == set()


def test_one_module_imports_httpx() -> None:
    importing = {
        file.relative_to(PACKAGE).as_posix()
        for file in FILES
        for name in imported(file)
        if name.split(".")[0] in ("httpx", "httpx2", "httpcore", "requests", "aiohttp")
    }

    assert importing == {"wavespeed/client.py"}


OBSERVED_IMPORT = """
import builtins, importlib, json, sys
from airflow.sdk import DAG, BaseOperator, dag
from airflow.providers.common.compat.sdk import BaseOperator, conf
conf.getboolean("operators", "default_deferrable", fallback=False)
# What a Dag costs by itself: croniter, for one, runs a program when it is imported.
with DAG("before", schedule="@daily"):
    BaseOperator(task_id="before")
exec(sys.argv[1])

watching, asked, touched = True, [], []
real_import = builtins.__import__

def watched_import(name, globals=None, locals=None, fromlist=(), level=0):
    if not level:
        asked.append(name)
    return real_import(name, globals, locals, fromlist, level)

def hook(event, arguments):
    if not watching:
        return
    if event == "open" and not str(arguments[0]).endswith((".py", ".pyc")):
        touched.append(f"open {arguments[0]}")
    elif event.startswith(("socket.", "subprocess.", "os.system", "urllib.")):
        touched.append(event)

before = set(sys.modules)
builtins.__import__ = watched_import
sys.addaudithook(hook)
for module in sys.argv[2:]:
    importlib.import_module(module)
watching = False
builtins.__import__ = real_import
print(json.dumps({"asked": asked, "loaded": sorted(set(sys.modules) - before), "touched": touched}))
"""

HEAVY = {"PIL", "httpx", "httpx2", "fastapi", "uvicorn", "fsspec", "s3fs", "upath", "sqlalchemy"}
HEAVY |= {"pyarrow", "pandas", "numpy"}


@cache
def observed(*modules: str, before: str = "") -> dict[str, list[str]]:
    """Import modules in a process that has made a Dag already, and tell what they did.

    :param before: What it has done, too, as Python.
    """
    result = subprocess.run(
        [sys.executable, "-c", OBSERVED_IMPORT, before, *modules],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(PACKAGE.parent), str(EXAMPLES)])},
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, list[str]] = json.loads(result.stdout.splitlines()[-1])
    return found


FOR_DAG_FILES = [f"{NAME}.{part}.bitdance" for part in ("operators", "triggers", "links", "decorators")]


@pytest.mark.parametrize("module", FOR_DAG_FILES)
def test_what_a_dag_file_imports_is_cheap(module: str) -> None:
    found = observed(module)

    # Asked for, and not only loaded: Airflow itself has loaded some of these before.
    assert {name.split(".")[0] for name in found["asked"]} & HEAVY == set()
    assert {name.split(".")[0] for name in found["loaded"]} & HEAVY == set()
    assert [name for name in found["loaded"] if name.startswith((f"{NAME}.engine", f"{NAME}.local"))] == []
    assert module in found["loaded"]


@pytest.mark.parametrize("module", [f"{NAME}.items", f"{NAME}.manifest"])
def test_items_and_manifest_are_cheap_to_import(module: str) -> None:
    found = observed(module)

    assert {name.split(".")[0] for name in found["asked"]} & HEAVY == set()
    assert [
        name for name in found["loaded"] if name.startswith((f"{NAME}.engine", f"{NAME}.operators"))
    ] == []


@pytest.mark.parametrize("module", FOR_DAG_FILES)
def test_what_a_dag_file_imports_opens_no_socket_and_no_file(module: str) -> None:
    assert observed(module)["touched"] == []


def test_to_parse_the_examples_opens_no_socket_and_no_file() -> None:
    examples = sorted(file.stem for file in EXAMPLES.glob("*.py"))
    # Airflow 3.1 reads what all providers declare when the first function becomes a task, and describes each
    # cron schedule in words from a file.
    found = observed(*examples, before="from airflow.sdk import task; task(lambda: None)")

    assert [name for name in found["touched"] if "/cron_descriptor/" not in name] == []
    assert set(examples) <= set(found["loaded"])


def test_the_watch_on_imports_sees_the_heavy_ones() -> None:
    assert {"httpx", "airflow_provider_bitdance"} <= {
        name.split(".")[0] for name in observed(f"{NAME}.api.client")["asked"]
    }
