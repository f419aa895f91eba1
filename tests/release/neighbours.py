"""Neighbours: what often stands beside this provider, and has to fit into one environment with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

NEIGHBOURS = (
    "apache-airflow-providers-amazon",
    "apache-airflow-providers-common-ai",
    "apache-airflow-providers-http",
    "apache-airflow-providers-openai",
    "apache-airflow-providers-slack",
    "astronomer-cosmos",
)


def resolve(airflow: str, dist: Path) -> None:
    """Have pip find one version of everything that the wheel, an Airflow and all neighbours need.

    It installs nothing.

    :raises subprocess.CalledProcessError: There is none.
    """
    (wheel,) = dist.glob("*.whl")
    dry_run = ("install", "--dry-run", "--ignore-installed", "--quiet", "--disable-pip-version-check")
    wanted = (f"apache-airflow=={airflow}", str(wheel), *NEIGHBOURS)
    subprocess.run([sys.executable, "-m", "pip", *dry_run, *wanted], check=True, stdout=subprocess.DEVNULL)
