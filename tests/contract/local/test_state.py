"""The command of the local service, killed for real and started again on its state."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

SUBMIT = "/api/v3/wavespeed-ai/bitdance-14b/text-to-image"
ROOT = Path(__file__).parents[3]


@contextmanager
def _running(*arguments: str) -> Iterator[httpx.Client]:
    """Run the command, and kill it in the end."""
    command = (sys.executable, "-m", "airflow_provider_bitdance.local", *arguments)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            (url,) = re.findall(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
            with httpx.Client(base_url=url, headers={"Authorization": "Bearer local-key"}) as http:
                yield http
        finally:
            process.kill()


def test_a_killed_service_goes_on_where_it_was(tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps([{"on": "submit", "kind": "failed", "times": 1, "match": "bad"}]))
    arguments = ("--latency", "0", "--state", str(tmp_path / "state"), "--faults", str(plan))
    with _running(*arguments) as http:
        for prompt in ("good", "bad"):
            assert http.post(SUBMIT, json={"prompt": prompt}).status_code == 200
        bill, tasks, faults = (
            http.get(f"/admin/{what}").json() for what in ("bill", "predictions", "faults")
        )
        picture = http.get(f"/outputs/{tasks[0]['id']}/1.png").content
    assert (bill["submitted"], bill["refunded"]) == (2, 1)
    with _running(*arguments) as http:
        assert http.get("/admin/bill").json() == bill
        # The rules of the plan are not added once more: this one is spent.
        assert http.get("/admin/faults").json() == faults
        assert http.get(f"/outputs/{tasks[0]['id']}/1.png").content == picture
        again = http.get("/admin/predictions").json()
        assert [task["downloads"] for task in again] == [2, 0]
        http.post(SUBMIT, json={"prompt": "bad"})
        assert http.get("/admin/bill").json()["refunded"] == 1
