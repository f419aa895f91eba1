"""What `make release` says of a wheel and a source distribution; the rest of it needs empty environments."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.release.contents import Release

WHOLE = Release(
    version="0.2.0",
    changelog="# Changelog\n\n## 0.2.0 - 2026-12-01\n\n## 0.1.0 - 2026-11-20\n",
    names=("airflow_provider_bitdance-0.2.0-py3-none-any.whl", "airflow_provider_bitdance-0.2.0.tar.gz"),
    sources=frozenset({"PKG-INFO", "README.md", "airflow_provider_bitdance/__init__.py"}),
    tracked=frozenset({".github/x.md", "README.md", "airflow_provider_bitdance/__init__.py"}),
    in_wheel=frozenset(
        {"airflow_provider_bitdance/__init__.py", "airflow_provider_bitdance-0.2.0.dist-info/METADATA"}
    ),
    description="See [WaveSpeed](https://wavespeed.ai) and [below](#below).",
)


def test_a_whole_release_has_no_fault() -> None:
    assert WHOLE.faults() == []


@pytest.mark.parametrize(
    ("other", "fault"),
    [
        ({"changelog": "## Unreleased\n\n## 0.1.0 - 2026-11-20\n"}, "Unreleased"),
        ({"changelog": "# Changelog\n"}, "changelog"),
        ({"names": ("airflow_provider_bitdance-0.1.0-py3-none-any.whl",)}, "0.1.0"),
        ({"sources": WHOLE.sources - {"README.md"}}, "README.md"),
        ({"sources": WHOLE.sources | {"airflow_provider_bitdance/notes.txt"}}, "notes.txt"),
        ({"in_wheel": WHOLE.in_wheel - {"airflow_provider_bitdance/__init__.py"}}, "__init__.py"),
        ({"in_wheel": WHOLE.in_wheel | {"tests/__init__.py"}}, "tests/__init__.py"),
        ({"description": "See [the costs](docs/costs.md)."}, "docs/costs.md"),
        ({"description": "![A run](docs/images/dag-run.png)"}, "docs/images/dag-run.png"),
    ],
)
def test_each_fault_is_named(other: dict[str, object], fault: str) -> None:
    (said,) = replace(WHOLE, **other).faults()  # type: ignore[arg-type]

    assert fault in said
