"""The command of the local service, killed for real and started again on its state."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from tests.wire import httpx

SUBMIT = "/api/v3/wavespeed-ai/bitdance-14b/text-to-image"
ROOT = Path(__file__).parents[3]


@contextmanager
def _process(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    """Run the command, and kill it in the end."""
    command = (sys.executable, "-m", "airflow_provider_bitdance.local", *arguments)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            (url,) = re.findall(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
            with httpx.Client(base_url=url, headers={"Authorization": "Bearer local-key"}) as http:
                yield process, http
        finally:
            process.kill()


@contextmanager
def _running(*arguments: str) -> Iterator[httpx.Client]:
    with _process(*arguments) as (_, http):
        yield http


def _submit_until_it_is_gone(http: httpx.Client, client: int, submitted: list[str]) -> None:
    """Submit, read and delete one after the other; every third stays.

    :param submitted: gets the ids of those that stay, after the response to each change.
    """
    for number in count():
        try:
            made = http.post(SUBMIT, json={"prompt": f"client {client}, number {number}"})
            prediction_id = made.json()["data"]["id"]
            if number % 3:
                http.delete(f"/api/v3/predictions/{prediction_id}").raise_for_status()
            else:
                submitted.append(prediction_id)
        except httpx.TransportError:
            return


def test_a_killed_service_goes_on_where_it_was(tmp_path: Path) -> None:
    arguments = ("--latency", "0", "--state", str(tmp_path / "state"))
    with _running(*arguments) as http:
        http.post("/admin/faults", json={"on": "submit", "kind": "failed", "times": 1, "match": "bad"})
        for prompt in ("good", "bad"):
            assert http.post(SUBMIT, json={"prompt": prompt}).status_code == 200
        bill, tasks = (http.get(f"/admin/{what}").json() for what in ("bill", "predictions"))
        picture = http.get(f"/outputs/{tasks[0]['id']}/1.png").content
    assert (bill["submitted"], bill["refunded"]) == (2, 1)
    with _running(*arguments) as http:
        assert http.get("/admin/bill").json() == bill
        assert http.get(f"/outputs/{tasks[0]['id']}/1.png").content == picture
        assert http.get("/admin/predictions").json() == tasks
        # The rule applied once and is spent.
        http.post(SUBMIT, json={"prompt": "bad"})
        assert http.get("/admin/bill").json()["refunded"] == 1


def test_a_kill_loses_nothing_that_was_answered(tmp_path: Path) -> None:
    arguments = ("--latency", "0", "--state", str(tmp_path / "state"), "--balance", "1000")
    kept: list[list[str]] = [[] for _ in range(4)]
    for _ in range(2):
        with _process(*arguments) as (process, http), ThreadPoolExecutor(len(kept)) as clients:
            known = http.get("/admin/bill").json()["submitted"]
            for client, submitted in enumerate(kept):
                clients.submit(_submit_until_it_is_gone, http, client, submitted)
            while http.get("/admin/bill").json()["submitted"] < known + 60:
                pass
            process.send_signal(signal.SIGKILL)
    with _running(*arguments) as http:
        bill, tasks = (http.get(f"/admin/{what}").json() for what in ("bill", "predictions"))
        stayed, answered = {task["id"] for task in tasks}, {each for ids in kept for each in ids}
        assert answered <= stayed
        # At each of the two kills each client had at most one request without a response.
        assert len(stayed - answered) <= 2 * len(kept)
        assert bill["submitted"] == bill["billed"] == bill["completed"] >= 120
