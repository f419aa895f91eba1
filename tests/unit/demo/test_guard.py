"""A test run that is ended from outside leaves no process behind, however it was ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from textwrap import dedent

import psutil  # type: ignore[import-untyped]
import pytest

from demo.guard import alive

ROOT = Path(__file__).parents[3]
SUITE = """
    import sys, time
    from pathlib import Path
    from demo.processes import Component

    SLEEP = "import time; time.sleep(60)"
    SERVER = f'''
    import subprocess, sys, time
    child = subprocess.Popen([sys.executable, "-c", {SLEEP!r}], start_new_session=True)
    print(child.pid, flush=True)
    time.sleep(60)
    '''

    def test_that_is_interrupted():
        here = Path(__file__).parent
        argv = [sys.executable, "-c", SERVER]
        server = Component("server", argv, env={}, cwd=here, log=here / "child")
        server.start()
        while not (here / "child").read_text().strip():
            time.sleep(0.01)
        (here / "server").write_text(f"{server.pid} ")
        time.sleep(60)
"""


def started(folder: Path, run: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Wait for the server and its child, and return both."""
    until = time.monotonic() + 60
    while not (folder / "server").is_file() or not (folder / "server").read_text():
        assert run.poll() is None
        assert time.monotonic() < until
        time.sleep(0.02)
    return [psutil.Process(int((folder / name).read_text())) for name in ("server", "child")]


@pytest.mark.parametrize(
    ("arguments", "sent"),
    [(["-n", "0"], signal.SIGTERM), (["-n", "1"], signal.SIGKILL)],
    ids=["terminated", "killed with a worker"],
)
def test_a_test_run_that_is_ended_leaves_no_process_behind(
    tmp_path: Path, arguments: list[str], sent: signal.Signals
) -> None:
    (tmp_path / "test_suite.py").write_text(dedent(SUITE).replace("\n    ", "\n    "))
    command = [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", str(tmp_path), *arguments]
    command += ["-p", "no:cacheprovider", str(tmp_path / "test_suite.py")]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    for name in [name for name in env if name.startswith("PYTEST_XDIST")]:
        del env[name]
    with subprocess.Popen(
        [*command, "-p", "xdist"], cwd=tmp_path, env=env, stdout=subprocess.DEVNULL, start_new_session=True
    ) as run:
        processes = started(tmp_path, run)
        assert all(map(alive, processes))
        run.send_signal(sent)
    until = time.monotonic() + 20
    while any(map(alive, processes)):
        assert time.monotonic() < until, processes
        time.sleep(0.05)
