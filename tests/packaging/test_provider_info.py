"""What Airflow reads of the installed package: the entry point, and what its description promises."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.metadata import distribution, entry_points
from inspect import isabstract
from pathlib import Path

import pytest
from airflow.providers.common.compat.sdk import BaseHook, BaseOperator
from airflow.triggers.base import BaseTrigger

import airflow_provider_bitdance
from airflow_provider_bitdance.get_provider_info import get_provider_info
from airflow_provider_bitdance.hooks.bitdance import BitDanceHook
from airflow_provider_bitdance.links.bitdance import LINKS
from airflow_provider_bitdance.operators.bitdance import BitDanceTextToImageOperator

ROOT = Path(__file__).parents[2]
PACKAGE = Path(airflow_provider_bitdance.__file__).parent
INFO = get_provider_info()


def modules_of(kind: str) -> list[str]:
    return [module for entry in INFO[kind] for module in entry["python-modules"]]


def test_airflow_finds_the_provider_by_its_entry_point() -> None:
    (found,) = (
        point
        for point in entry_points(group="apache_airflow_provider")
        if point.dist and point.dist.name == "airflow-provider-bitdance"
    )

    assert found.load() is get_provider_info


def test_the_description_names_the_distribution() -> None:
    assert INFO["package-name"] == distribution("airflow-provider-bitdance").metadata["Name"]


def test_airflow_takes_the_description() -> None:
    from airflow.providers_manager import ProvidersManager

    taken = ProvidersManager().providers["airflow-provider-bitdance"].data

    assert {key: taken[key] for key in INFO} == INFO


@pytest.mark.parametrize(
    ("kind", "base"), [("operators", BaseOperator), ("hooks", BaseHook), ("triggers", BaseTrigger)]
)
def test_the_modules_named_are_all_that_hold_such_classes(kind: str, base: type) -> None:
    paths = (path for path in (PACKAGE / kind).glob("*.py") if path.stem != "__init__")
    names = [f"airflow_provider_bitdance.{kind}.{path.stem}" for path in paths]
    holding = [
        name
        for name in names
        for thing in vars(import_module(name)).values()
        if isinstance(thing, type) and issubclass(thing, base) and thing.__module__ == name
        if not isabstract(thing)
    ]

    assert sorted(set(holding)) == sorted(modules_of(kind))


def test_the_links_declared_are_the_operators() -> None:
    paths = {f"{type(link).__module__}.{type(link).__qualname__}" for link in LINKS}

    assert paths == set(INFO["extra-links"])
    assert BitDanceTextToImageOperator.operator_extra_links is LINKS


def test_the_connection_type_is_the_hook_s() -> None:
    (declared,) = INFO["connection-types"]
    module, _, name = declared["hook-class-name"].rpartition(".")

    assert getattr(import_module(module), name) is BitDanceHook
    assert declared["connection-type"] == BitDanceHook.conn_type
    assert declared["hook-name"] == BitDanceHook.hook_name


def test_the_integration_is_one_and_named_alike_everywhere() -> None:
    (integration,) = INFO["integrations"]
    named = {entry["integration-name"] for kind in ("operators", "hooks", "triggers") for entry in INFO[kind]}

    assert named == {integration["integration-name"]} == {INFO["name"]}


def test_the_settings_declared_are_the_settings_read() -> None:
    read = {
        option
        for path in PACKAGE.rglob("*.py")
        for option in re.findall(r'conf\.get\w*\(\s*"bitdance",\s*"(\w+)"', path.read_text())
    }

    assert read == set(INFO["config"]["bitdance"]["options"])


def test_the_description_is_plain_json() -> None:
    assert json.loads(json.dumps(INFO)) == INFO


def test_to_read_the_description_imports_nothing_but_itself() -> None:
    code = """
import sys
before = set(sys.modules)
from airflow_provider_bitdance.get_provider_info import get_provider_info
get_provider_info()
print(*sorted(set(sys.modules) - before))
"""
    # -S: what a site's .pth files import is not ours.
    result = subprocess.run(
        [sys.executable, "-S", "-c", code],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        check=True,
    )

    not_python_s_own = {
        name for name in result.stdout.split() if name.partition(".")[0] not in sys.stdlib_module_names
    }
    assert not_python_s_own == {"airflow_provider_bitdance", "airflow_provider_bitdance.get_provider_info"}


def test_the_version_is_in_one_place() -> None:
    version = airflow_provider_bitdance.__version__
    assert distribution("airflow-provider-bitdance").version == version
    assert "version" in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dynamic"]
    holding = [
        path.relative_to(PACKAGE.parent).as_posix()
        for path in PACKAGE.rglob("*.py")
        if re.search(rf"version\w* *=.*{re.escape(version)}", path.read_text())
    ]
    assert holding == ["airflow_provider_bitdance/__init__.py"]


def test_the_documented_import_paths_are_there() -> None:
    assert BitDanceTextToImageOperator.__module__ == "airflow_provider_bitdance.operators.bitdance"
    assert BitDanceHook.__module__ == "airflow_provider_bitdance.hooks.bitdance"
