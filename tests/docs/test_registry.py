"""What .airflow-registry.yaml tells of the package is what the package tells of itself."""

from __future__ import annotations

import tomllib
from importlib import import_module
from inspect import isabstract
from typing import Any

import yaml
from airflow.providers.common.compat.sdk import BaseOperator
from airflow.triggers.base import BaseTrigger

from airflow_provider_bitdance.get_provider_info import INTEGRATION, get_provider_info
from tests.docs.pages import ROOT

LISTED = yaml.safe_load((ROOT / ".airflow-registry.yaml").read_text())
INFO = get_provider_info()


def named(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def listed(kind: str) -> set[Any]:
    return {named(entry["module"]) for entry in LISTED[kind]}


def declared(kind: str, base: type) -> set[type]:
    """Return the classes of a kind in the modules that the provider's description names."""
    modules = [import_module(path) for entry in INFO[kind] for path in entry["python-modules"]]
    things = {thing for module in modules for thing in vars(module).values() if isinstance(thing, type)}
    ours = {thing for thing in things if thing.__module__.startswith("airflow_provider_bitdance.")}
    return {thing for thing in ours if issubclass(thing, base) and not isabstract(thing)}


def test_name_and_description_are_the_project_s() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert LISTED["package-name"] == INFO["package-name"] == project["name"]
    assert LISTED["description"] == project["description"]
    assert LISTED["display-name"] == INTEGRATION


def test_the_operators_listed_are_those_that_there_are() -> None:
    assert listed("operators") == declared("operators", BaseOperator)


def test_hook_trigger_and_decorator_are_listed() -> None:
    hooks = {named(kind["hook-class-name"]) for kind in INFO["connection-types"]}
    decorators = {named(entry["class-name"]) for entry in INFO["task-decorators"]}

    assert listed("other") == hooks | decorators | declared("triggers", BaseTrigger)


def test_every_entry_says_what_it_is_for() -> None:
    assert all(entry["description"] for kind in ("operators", "other") for entry in LISTED[kind])
