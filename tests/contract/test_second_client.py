"""A client that is neither ours nor WaveSpeed's: the command ``wavespeed-cli`` of ``wavespeedai-skills``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any, Final

import pytest

from airflow_provider_bitdance.local import LocalService

MODEL: Final = "wavespeed-ai/bitdance-14b/text-to-image"

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def wavespeed_cli(local: LocalService) -> Command:
    """Return the command, which has its address and its key from the environment."""

    def wavespeed_cli(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "wavespeedai_skills.cli", *arguments],
            capture_output=True,
            text=True,
            env={
                **os.environ,
                "WAVESPEED_API_BASE": f"{local.url}/api/v3",
                "WAVESPEED_API_KEY": local.api_key,
                "NO_PROXY": "*",
            },
        )

    return wavespeed_cli


def told(done: subprocess.CompletedProcess[str]) -> Any:
    """Return the JSON that a command printed after it went well."""
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_it_buys_an_image_waits_for_it_and_deletes_it(wavespeed_cli: Command, local: LocalService) -> None:
    made = told(wavespeed_cli("submit", MODEL, json.dumps({"prompt": "A lighthouse"})))["data"]["id"]

    result = told(wavespeed_cli("result", "--wait", "--poll-interval", "0", made))["data"]

    assert (result["id"], result["status"], len(result["outputs"])) == (made, "completed", 1)
    told(wavespeed_cli("cancel", made))
    gone = wavespeed_cli("result", made)
    assert (gone.returncode, gone.stdout) == (1, "")
    assert "result fetch failed [404]" in gone.stderr
    assert local.bill().billed == 1


def test_it_reads_the_balance_although_it_asks_elsewhere_first(
    wavespeed_cli: Command, local: LocalService
) -> None:
    balance = told(wavespeed_cli("balance"))["data"]["balance"]

    assert balance == local.bill().balance_usd
    assert [(event.path, event.status == 200) for event in local.requests()] == [
        ("/api/v3/account/balance", False),
        ("/api/v3/balance", True),
    ]


def test_it_lists_the_models(wavespeed_cli: Command) -> None:
    listed = told(wavespeed_cli("models", "--filter", "bitdance"))["data"]

    assert [model["model_id"] for model in listed] == [MODEL]


def test_it_tells_why_a_submission_was_refused(wavespeed_cli: Command) -> None:
    refused = wavespeed_cli("submit", MODEL, json.dumps({"prompt": "A lighthouse", "size": "9*9"}))

    assert refused.returncode == 1
    assert "submit failed [400]" in refused.stderr
    assert "size" in refused.stderr
