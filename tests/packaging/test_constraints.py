"""The pinned packages install on the oldest Python that is promised, its first release among them."""

from __future__ import annotations

import tomllib
from importlib.metadata import distributions
from pathlib import Path

from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]


def test_no_pinned_package_needs_a_newer_python_than_the_project() -> None:
    """Debian 12 has Python 3.11.2, and pip says of such a package only that there is a conflict."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    oldest = f"{needed.removeprefix('>=')}.0"
    installed = {
        each.name: dict(each.metadata.items()).get("Requires-Python", "")
        for each in distributions()
        if pinned.get(str(canonicalize_name(each.name))) == each.version
    }
    assert len(installed) > 100
    assert {name: needs for name, needs in installed.items() if oldest not in SpecifierSet(needs)} == {}
