"""What the pytest plugin costs the runs that do not use it, and what it says where the service cannot run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SERVICE_NEEDS = {"fastapi", "uvicorn", "starlette", "PIL", "pydantic"}


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run pytest in a fresh process with this plugin, found by its entry point, and no other."""
    return subprocess.run(
        [sys.executable, *arguments, "-p", "bitdance", "-p", "no:cacheprovider"],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )


def test_it_loads_nothing_before_a_test_asks_for_the_service(tmp_path: Path) -> None:
    (tmp_path / "test_something.py").write_text("def test_something(): ...")
    script = "import sys, pytest; pytest.main(sys.argv[1:]); print('loaded:', *sys.modules)"

    told = run(tmp_path, "-c", script, "--collect-only").stdout

    assert "1 test collected" in told
    loaded = told.partition("loaded: ")[2].split()
    assert "airflow_provider_bitdance.local.pytest_plugin" in loaded
    assert not {"airflow", *SERVICE_NEEDS} & set(loaded)


@pytest.mark.parametrize("missing", ["fastapi", "uvicorn"])
def test_it_says_what_to_install_where_the_service_cannot_run(tmp_path: Path, missing: str) -> None:
    (tmp_path / "conftest.py").write_text(f"import sys; sys.modules[{missing!r}] = None")
    (tmp_path / "test_dag.py").write_text("def test_dag(bitdance_service): ...")

    done = run(tmp_path, "-m", "pytest")

    assert done.returncode == 1
    assert f"needs {missing}: pip install 'airflow-provider-bitdance[local]'" in done.stdout
    assert "Traceback" not in done.stdout
