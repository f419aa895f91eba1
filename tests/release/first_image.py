"""The README's "Your first image", in an environment with the wheel and what it needs only."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.docs.test_first_image import as_a_script
from tests.matrix.cells import constraints, interpreter
from tests.matrix.play import install_commands


@dataclass(frozen=True, slots=True)
class Clean:
    """An empty environment.

    :ivar http: The HTTP client that the provider uses.
    """

    airflow: str
    python: str
    http: str

    def __str__(self) -> str:
        return f"Airflow {self.airflow}, Python {self.python}, {self.http}"


CLEAN = (
    Clean("3.3.2", "3.11", "httpx"),
    Clean("3.3.2", "3.13", "httpx"),
    # The first Airflow whose own task SDK needs httpx2. Its core needs httpx, too.
    Clean("3.4.0b2", "3.11", "httpx2"),
    Clean("3.4.0b2", "3.13", "httpx2"),
)


WITHOUT_HTTPX = """
import builtins

_import = builtins.__import__


def _without_httpx(name, globals=None, *rest, **named):
    if name == "httpx" and (globals or {}).get("__name__") == "airflow_provider_bitdance.wavespeed.http":
        raise ImportError("hidden by tests/release")
    return _import(name, globals, *rest, **named)


builtins.__import__ = _without_httpx
"""
"""A ``sitecustomize.py``: the provider's process finds no httpx, and Airflow's command line does."""
USED = "from airflow_provider_bitdance.wavespeed.http import httpx; print(httpx.__name__)"


def first_image(clean: Clean, dist: Path, folder: Path) -> None:
    """Install the wheel, follow the README, and see that two runs store one image and pay once.

    :raises AssertionError: It came otherwise; the message ends with the output.
    """
    home = folder / f"first-{clean.airflow}-{clean.python}-{clean.http}"
    home.mkdir(parents=True)
    programs = _install(clean, dist, home)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    script = as_a_script().replace("/tmp/bitdance", str(home / "walk")).replace("8700", port)
    env = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "HOME": str(home)}
    done = subprocess.run(["bash", "-c", script], cwd=home, env=env, capture_output=True, text=True)
    said = done.stdout + done.stderr
    (home / "walk.log").write_text(said)
    assert done.returncode == 0, said[-3000:]
    assert list((home / "walk" / "covers").glob("2026-11-22.*")), said[-3000:]
    assert re.search(r'"billed": ?1\b', done.stdout), said[-3000:]


def _install(clean: Clean, dist: Path, home: Path) -> Path:
    python = interpreter(clean.python)
    assert python, f"no Python {clean.python} here"
    (wheel,) = dist.glob("*.whl")
    inside = str(home / "env" / "bin" / "python")
    pip = [inside, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    for argv in (
        *install_commands(home, python, constraints(clean.airflow), str(wheel)).values(),
        # uv leaves pip out.
        [python, "-m", "venv", "--upgrade", str(home / "env")],
        [*pip, "install", "-c", str(home / "constraints.txt"), clean.http],
    ):
        subprocess.run(argv, check=True)
    if clean.http == "httpx2":
        (packages,) = (home / "env").glob("lib/python*/site-packages")
        (packages / "sitecustomize.py").write_text(WITHOUT_HTTPX)
    used = subprocess.run([inside, "-c", USED], check=True, capture_output=True, text=True).stdout
    assert used.split()[-1:] == [clean.http], f"the provider uses {used}"
    return home / "env" / "bin"
