"""``python -m airflow_provider_bitdance.local``."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys

import pytest

from tests.contract.local.caller import ROOT, SUBMIT
from tests.wire import httpx

COMMAND = (sys.executable, "-m", "airflow_provider_bitdance.local")


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, cwd=ROOT, timeout=60)


def test_help_names_every_option_path_and_fault() -> None:
    done = _run("--help")
    assert done.returncode == 0
    for word in (
        "--history-echo",
        "expanded",
        "--latency",
        "--balance",
        "/admin/bill",
        "/predictions/ID",
        "null_outputs",
        "after_create",
    ):
        assert word in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("--port", "70000"),
        ("--latency", "12-1"),
        ("--latency", "nan"),
        ("--format", "gif"),
    ],
)
def test_a_bad_argument_is_refused_by_name(arguments: tuple[str, str]) -> None:
    done = _run(*arguments)
    assert done.returncode == 2
    assert f"argument {arguments[0]}" in done.stderr


def test_a_taken_port_is_told_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = _run("--port", str(taken.getsockname()[1]))
    assert done.returncode == 1
    assert re.fullmatch(r"Cannot listen on 127\.0\.0\.1:\d+: Address already in use\n", done.stderr)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_serves_until_it_is_told_to_stop(number: signal.Signals) -> None:
    arguments = ("--latency", "0", "--api-key", "k", "--format", "jpeg")
    with subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            (url,) = re.findall(r"http://127\.0\.0\.1:\d+", line)
            with httpx.Client(base_url=url, headers={"Authorization": "Bearer k"}) as http:
                http.post("/admin/faults", json={"on": "submit", "kind": "failed", "match": "bad"})
                for prompt in ("good", "bad"):
                    assert http.post(SUBMIT, json={"prompt": prompt}).status_code == 200
                bill = http.get("/admin/bill").json()
                assert (bill["billed"], bill["refunded"]) == (1, 1)
                good = http.get("/admin/predictions").json()[0]["id"]
                picture = http.get(f"/outputs/{good}/1.jpeg")
                assert picture.headers["content-type"] == "image/jpeg"
        finally:
            process.send_signal(number)
        assert process.wait(timeout=10) == 0
        assert process.stdout.read() == ""
