"""The page on Celery, followed to the letter: from two Debian packages to an image that a worker has stored.

Each command is run as it stands there, but for the folder and the ports, which are free ones here. `sudo` is
what the page's reader has: here each command runs as who runs the test, and Postgres is a server of its own.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from demo.http_json import AWAY, send
from demo.postgres import PostgresServer
from demo.processes import Component, end, free_port, uninterrupted
from tests.chaos.stage import until
from tests.docs.pages import BLOCKS, ROOT, Block

PAGE, SECTION = "docs/operations/celery.md", "Set up Celery from scratch"
FOLDER, IMAGE = "/tmp/bitdance", "covers/2026-11-23.png"
PORTS = ("5432", "6390", "8080", "8700")
"""Those that the page names: of Postgres, Redis, the API server and the local service."""
INSTALLED = 1500.0
"""Seconds until the image is there at the latest: pip installs 150 packages first."""
READER = """set -e
# The packages are there, or make cluster had said so; psql asks the server of this test.
sudo() { if [ "$1" = -u ]; then shift 2; fi; if [ "$1" = apt-get ]; then return; fi; "$@"; }
"""


def blocks() -> tuple[Block, Block]:
    """Return the page's settings and its commands."""
    settings, commands = (block for block in BLOCKS if (block.page, block.section) == (PAGE, SECTION))
    return settings, commands


def dag_file() -> Block:
    """Return the README's Dag file, on which the page builds."""
    [found] = [
        block for block in BLOCKS if block.page == "README.md" and block.name.endswith("dags/cover.py")
    ]
    return found


def script(folder: Path, ports: dict[str, str], wheel: Path) -> str:
    """Return what the page's reader types, in a folder of their own."""
    settings, commands = blocks()
    lines = [READER]
    for file in (settings, dag_file()):
        lines += [f"mkdir -p {Path(file.name).parent}", f"cat > {file.name} << 'END OF FILE'"]
        lines += [f"{file.text}END OF FILE"]
    lines += [f"{sys.executable} -m venv {FOLDER}/venv", f". {FOLDER}/venv/bin/activate"]
    lines += [*commands.text.splitlines(), "wait"]
    text = "\n".join(lines).replace(FOLDER, str(folder)).replace("dist/*.whl", str(wheel))
    return re.sub(r"\b(?:" + "|".join(ports) + r")\b", lambda port: ports[port[0]], text)


def follow(folder: Path, postgres: PostgresServer) -> int:
    """Follow the page, wait for its image, and return how many images the service billed.

    :param postgres: A running server, which is empty.
    """
    home = folder / "reader"
    home.mkdir()
    ports = {port: str(free_port()) for port in PORTS} | {"5432": str(postgres.port)}
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "PGHOST": "127.0.0.1",
        "PGPORT": str(postgres.port),
        "PGUSER": "postgres",
        "PIP_QUIET": "1",
        **{name: value for name, value in os.environ.items() if name.startswith("PIP_")},
        # Those that a worker and a triggerer serve logs on may be taken on this machine.
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
    }
    typed = script(home, ports, _wheel(folder))
    reader = Component("reader", ["bash", "-c", typed], env=env, cwd=ROOT, log=folder / "reader.log")
    reader.start()
    try:
        what = f"the image of the page, see {reader.log}"
        until((home / IMAGE).exists, reader.check, what, pause=1.0, patience=INSTALLED)
        return int(send("GET", f"http://127.0.0.1:{ports['8700']}/admin/bill")["billed"])
    except (*AWAY, TimeoutError) as error:
        raise AssertionError(f"{error}\n{reader.report()}") from error
    finally:
        with uninterrupted():
            end([reader], grace=5)


def _wheel(folder: Path) -> Path:
    """Build the wheel that the README's first block makes."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder / "dist")]
    Component("wheel", build, env=os.environ, cwd=ROOT, log=folder / "wheel.log").run(120)
    [wheel] = (folder / "dist").glob("*.whl")
    return wheel
