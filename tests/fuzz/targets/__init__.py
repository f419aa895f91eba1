"""The targets: every way in from outside. A module is loaded when one of its targets is meant."""

from __future__ import annotations

from importlib import import_module

from tests.fuzz.target import Target

ROOMS = {
    "answers": "answers",
    "commands": "records",
    "item-files": "items",
    "item-rows": "items",
    "manifests": "items",
    "models": "models",
    "output-paths": "urls",
    "output-urls": "urls",
    "pictures": "pictures",
    "records": "records",
    "tasks": "records",
}
"""In which module a target is."""


def load(name: str) -> Target:
    """Return a target."""
    targets: tuple[Target, ...] = import_module(f"{__name__}.{ROOMS[name]}").TARGETS
    return next(target for target in targets if target.name == name)
