"""Airflow's API server and its command line in one process, run as a script: each takes seconds to import.

Reads steps as JSON, by name: ``["api", method, path, body]``, ``["cli", command]`` or ``["read", conn_id]``.
Writes what each gave, as JSON on the last line.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import warnings
from typing import Any

warnings.simplefilter("ignore")
# As the API server and the command line are: connections come from the database, too.
os.environ["_AIRFLOW_PROCESS_CONTEXT"] = "server"

from airflow.api_fastapi.app import create_app  # noqa: E402
from airflow.cli.cli_parser import get_parser  # noqa: E402
from fastapi.testclient import TestClient  # noqa: E402

from airflow_provider_bitdance.hooks.bitdance import BitDanceHook  # noqa: E402

client = TestClient(create_app(apps="core"))
client.headers["Authorization"] = f"Bearer {client.get('/auth/token').json()['access_token']}"


def api(method: str, path: str, body: Any) -> list[Any]:
    answer = client.request(method, path, json=body)
    return [answer.status_code, answer.json() if answer.content else None]


def cli(command: str) -> None:
    program, *arguments = shlex.split(command.replace("\\\n", ""))
    assert program == "airflow"
    parsed = get_parser().parse_args(arguments)
    parsed.func(parsed)


def read(conn_id: str) -> str:
    hook = BitDanceHook(conn_id)
    return f"{hook.settings.api_key} {hook.settings!r} {hook.extra!r}"


does = {"api": api, "cli": cli, "read": read}
done = {name: does[what](*rest) for name, (what, *rest) in json.load(sys.stdin).items()}
print()
print(json.dumps(done))
