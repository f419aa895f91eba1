"""A Postgres server for one run of chaos or benchmarks, where its programs and drivers are installed."""

from __future__ import annotations

import os
import shutil
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


def why_not() -> str:
    """Say why there is no Postgres; empty where there is one."""
    if programs() is None:
        return "Postgres is not installed"
    missing = [name for name in DRIVERS if find_spec(name) is None]
    return f"not installed: {', '.join(missing)}" if missing else ""


@contextmanager
def running_postgres(log: Path) -> Iterator[str]:
    """Start a server with an empty database, and yield its address for Airflow."""
    bin_ = programs()
    assert bin_ is not None
    # Postgres refuses to run as root, and its user cannot look into root's folders.
    as_user = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"] if os.getuid() == 0 else []
    data = Path(tempfile.mkdtemp(prefix="bitdance-postgres-"))
    if as_user:
        shutil.chown(data, USER, USER)
    port = free_port()
    argv = [str(bin_ / "postgres"), "-D", str(data), "-p", str(port), "-k", str(data)]
    argv += ["-c", "listen_addresses=127.0.0.1", "-c", "max_connections=300", "-c", "fsync=off"]
    server = Component("postgres", [*as_user, *argv], env=os.environ, cwd=data, log=log)
    try:
        initdb = [str(bin_ / "initdb"), "-D", str(data), "--auth=trust", f"--username={USER}", "--no-sync"]
        subprocess.run([*as_user, *initdb], cwd=data, check=True, capture_output=True)
        server.start()
        ready = [str(bin_ / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
        while subprocess.run(ready, check=False).returncode != 0:
            server.check()
            time.sleep(0.1)
        yield f"postgresql+psycopg2://{USER}@127.0.0.1:{port}/postgres"
    finally:
        with uninterrupted():
            end([server], grace=10)
        shutil.rmtree(data, ignore_errors=True)
