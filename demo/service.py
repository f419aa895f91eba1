"""Where the demo's images come from: the local service, or the real API when WAVESPEED_API_KEY is set."""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from airflow_provider_bitdance.wavespeed.models import PROMPT_OPTIMIZER

from .http_json import AWAY, RestError, send
from .processes import Component, ProcessDied, end, free_port, uninterrupted

REAL_API = "https://api.wavespeed.ai"
_READY_TIMEOUT = 60


@dataclass(frozen=True, slots=True)
class Bill:
    """What the service has charged.

    :param prompts: What the Prompt Enhancer has made.
    """

    images: int
    dollars: float
    in_flight: int
    prompts: int = 0

    def __str__(self) -> str:
        bought = f"{self.images} image{'' if self.images == 1 else 's'} bought"
        if not self.prompts:
            return f"{bought}, ${self.dollars:.2f}"
        return (
            f"{bought}, {self.prompts} prompt{'' if self.prompts == 1 else 's'} enhanced, ${self.dollars:.3f}"
        )


class RealService:
    """The WaveSpeed API with the user's key; it has no bill that can be asked for at once."""

    def __init__(self, api_key: str) -> None:
        self.url = REAL_API
        self.api_key = api_key

    def bill(self) -> Bill | None:
        """Always None: what was spent is known from the results only."""
        return None


class LocalService:
    """`python -m airflow_provider_bitdance.local` on a free port, in play money; `options` are its own."""

    def __init__(self, home: Path, *options: str) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.api_key = f"demo-{secrets.token_hex(12)}"
        argv = [sys.executable, "-m", "airflow_provider_bitdance.local", "--port", str(port)]
        # Quiet, because it prints its key, and the demo's key is to be found in no log.
        self.process = Component(
            "local service",
            [*argv, "--api-key", self.api_key, *options],
            env=dict(os.environ),
            cwd=Path(__file__).resolve().parent.parent,
            log=home / "logs-processes" / "local-service.log",
            quiet=True,
        )

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.process.start()
        deadline = time.monotonic() + _READY_TIMEOUT
        while True:
            self.process.check()
            try:
                self.bill()
                return
            except (*AWAY, RestError):
                if time.monotonic() > deadline:
                    message = (
                        f"The local service did not respond within {_READY_TIMEOUT} s. "
                        f"{self.process.report()}"
                    )
                    raise ProcessDied(message) from None
                time.sleep(0.1)

    def stop(self) -> None:
        """End it."""
        with uninterrupted():
            end([self.process], grace=5)

    def slow_down(self, prompt_part: str, seconds: float) -> None:
        """Let images whose prompt contains `prompt_part` take `seconds` longer than the others."""
        rule = {"on": "submit", "kind": "latency", "match": prompt_part, "seconds": seconds}
        send("POST", f"{self.url}/admin/faults", rule)

    def fail(self, prompt_part: str) -> None:
        """Let images whose prompt contains `prompt_part` fail."""
        rule = {"on": "submit", "kind": "failed", "match": prompt_part, "times": None}
        send("POST", f"{self.url}/admin/faults", rule)

    def bill(self) -> Bill:
        """What it has charged so far."""
        bill = send("GET", f"{self.url}/admin/bill")
        made = send("GET", f"{self.url}/admin/predictions")
        prompts = sum(each["model"] == PROMPT_OPTIMIZER and each["status"] != "failed" for each in made)
        images = int(bill["billed"]) - prompts
        return Bill(images, float(bill["cost_usd"]), int(bill["in_flight"]), prompts)


def connection(service: RealService | LocalService) -> str:
    """The Airflow connection to a service, as the JSON that AIRFLOW_CONN_… takes."""
    return json.dumps({"conn_type": "bitdance", "host": service.url, "password": service.api_key})
