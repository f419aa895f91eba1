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
ENDINGS = (".py", "/__init__.py")
EXAMPLES = Path(__file__).parents[2] / "example_dags"

LAYERS: tuple[set[str], ...] = (
    {"__main__", "decorators"},
    {"check", "operators"},
    {"links", "maintenance", "plugin", "triggers"},
    {"manifest"},
    {"hooks"},
    {"enhancer"},
    {"engine"},
    {"batch", "imaging", "polling", "preview", "records"},
    {"storage", "wavespeed"},
    {"clock", "exceptions", "get_provider_info", "text_checks", "version_compat"},
    {"redaction"},
)
"""The rooms, from the top down. A room imports from lower layers only: none above, and none beside it."""
APART = {"", "local"}
"""What stands beside the layers and imports none: the package itself, with the version; the local service."""
KNOW_NO_AIRFLOW = {
    *(
        "",
        "batch",
        "clock",
        "engine",
        "enhancer",
        "exceptions",
        "get_provider_info",
        "imaging",
        "local",
        "polling",
        "preview",
    ),
    *("records", "redaction", "storage", "text_checks", "wavespeed"),
}
"""Rooms that import neither Airflow nor a room that does."""


def module_of(name: str) -> str:
    """Return the module of this package that a full name is, or that holds it; empty: the package itself."""
    inner = name.split(".")[1:]
    while inner and not any(PACKAGE.joinpath(*inner[:-1], inner[-1] + end).is_file() for end in ENDINGS):
        inner.pop()
    return ".".join(inner)


def room_of(module: str) -> str:
    return module.partition(".")[0]


def own_module(file: Path) -> str:
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


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


def imported_rooms(file: Path) -> set[str]:
    """Return the rooms that a file imports from, but for its own. The version is everybody's."""
    ours = {module_of(name) for name in imported(file) if name.partition(".")[0] == NAME}
    return {room_of(module) for module in ours} - {room_of(own_module(file)), ""}


def test_every_room_has_its_layer() -> None:
    assert {room_of(own_module(file)) for file in FILES} == set().union(APART, *LAYERS)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(PACKAGE).as_posix())
def test_imports_point_down_only(file: Path) -> None:
    room = room_of(own_module(file))
    depth = next((depth for depth, rooms in enumerate(LAYERS) if room in rooms), len(LAYERS))
    below = set().union(*LAYERS[depth + 1 :])

    assert imported_rooms(file) - below == set()


@pytest.mark.parametrize("room", sorted(KNOW_NO_AIRFLOW))
def test_the_rooms_below_know_no_airflow(room: str) -> None:
    files = [file for file in FILES if room_of(own_module(file)) == room]

    assert files
    assert {name for file in files for name in imported(file) if name.partition(".")[0] == "airflow"} == set()
    assert set().union(*map(imported_rooms, files)) <= KNOW_NO_AIRFLOW


def test_one_module_imports_httpx() -> None:
    importing = {
        file.relative_to(PACKAGE).as_posix()
        for file in FILES
        for name in imported(file)
        if name.split(".")[0] in ("httpx", "httpx2", "httpcore", "requests", "aiohttp")
    }

    assert importing == {"wavespeed/http.py"}


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
        # -B: what Python keeps of a module that it has compiled is none of the module's doing.
        [sys.executable, "-B", "-c", OBSERVED_IMPORT, before, *modules],
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


def test_the_plugin_costs_the_processes_that_load_it_nothing_but_itself() -> None:
    found = observed(f"{NAME}.plugin", before="import airflow.plugins_manager")

    # Only from Airflow 3.2 on has the plugins' manager loaded the package itself.
    assert {name for name in found["loaded"] if not name.startswith("airflow.")} - {NAME} == {
        f"{NAME}.plugin"
    }
    assert found["touched"] == []


def test_the_plugins_app_needs_no_pillow_no_store_and_no_client() -> None:
    before = "import airflow.api_fastapi.core_api.security, airflow.models.xcom"
    found = observed(f"{NAME}.plugin.app", before=before)

    rooms = {name.removeprefix(f"{NAME}.").partition(".")[0] for name in found["loaded"] if NAME in name}
    assert rooms <= {NAME, "plugin", "preview", "redaction"}
    assert {name.split(".")[0] for name in found["asked"]} & {"PIL", "httpx", "httpx2", "fsspec"} == set()


@pytest.mark.parametrize("module", [f"{NAME}.batch", f"{NAME}.manifest"])
def test_batch_and_manifest_are_cheap_to_import(module: str) -> None:
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
        name.split(".")[0] for name in observed(f"{NAME}.wavespeed.client")["asked"]
    }
