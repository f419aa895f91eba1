"""A Postgres server for one run of chaos or benchmarks, where its programs and drivers are installed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from .processes import Component, end, free_port, uninterrupted

DRIVERS = ("psycopg2", "asyncpg")
"""Airflow needs both: one for its processes, one for the API server."""
USER = "postgres"


def programs() -> Path | None:
    """Return the folder of initdb and postgres; Debian keeps them off the path."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    on_path = shutil.which("initdb")
    found += [Path(on_path).resolve().parent] if on_path else []
    return max(found, key=lambda path: [int(part) for part in path.parts if part.isdigit()], default=None)


def version() -> str:
    """Return the version of the server that would be started."""
    said = subprocess.run([f"{programs()}/postgres", "--version"], capture_output=True, text=True, check=True)
    return said.stdout.split()[2]


def why_not() -> str:
    """Say why there is no Postgres; empty where there is one."""
    if programs() is None:
        return "Postgres is not installed"
    missing = [name for name in DRIVERS if find_spec(name) is None]
    return f"not installed: {', '.join(missing)}" if missing else ""


class PostgresServer:
    """A server with an empty database, in a folder of its own.

    :ivar uri: The database's address for Airflow.
    """

    def __init__(self, log: Path) -> None:
        found = programs()
        assert found is not None
        self._programs = found
        # Postgres refuses to run as root, and its user cannot look into root's folders.
        to_user = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
        self._as_user = to_user if os.getuid() == 0 else []
        self.data = Path(tempfile.mkdtemp(prefix="bitdance-postgres-"))
        if self._as_user:
            shutil.chown(self.data, USER, USER)
        self.port = free_port()
        self.uri = f"postgresql+psycopg2://{USER}@127.0.0.1:{self.port}/postgres"
        argv = [str(found / "postgres"), "-D", str(self.data), "-p", str(self.port), "-k", str(self.data)]
        argv += ["-c", "listen_addresses=127.0.0.1", "-c", "max_connections=300", "-c", "fsync=off"]
        self.process = Component("postgres", [*self._as_user, *argv], env=os.environ, cwd=self.data, log=log)

    def make(self) -> None:
        """Create the database's files."""
        initdb = [str(self._programs / "initdb"), "-D", str(self.data), "--auth=trust"]
        initdb += [f"--username={USER}", "--no-sync"]
        subprocess.run([*self._as_user, *initdb], cwd=self.data, check=True, capture_output=True)

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        self.process.start()
        ready = [str(self._programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        while subprocess.run(ready, check=False).returncode != 0:
            self.process.check()
            time.sleep(0.1)

    def stop(self) -> None:
        """Stop it as an administrator does who waits for nobody: connections are cut, nothing is lost."""
        self.process.kill(signal.SIGINT)
        self.process.reap()


@contextmanager
def running_postgres(log: Path) -> Iterator[PostgresServer]:
    """Start a server with an empty database, and yield it."""
    server = PostgresServer(log)
    try:
        server.make()
        server.start()
        yield server
    finally:
        with uninterrupted():
            end([server.process], grace=10)
        shutil.rmtree(server.data, ignore_errors=True)
