"""A clock that is moved by hand, and a client that knows the service's paths and nothing of the provider."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from airflow_provider_bitdance.local import LocalService, Options, running_service
from tests.wire import httpx

MODEL = "wavespeed-ai/bitdance-14b/text-to-image"
SUBMIT = f"/api/v3/{MODEL}"
ROOT = Path(__file__).parents[3]


class Clock:
    """Stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 1_780_000_000.25

    def __call__(self) -> float:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += seconds


class Caller:
    """Calls one service."""

    def __init__(self, local: LocalService, clock: Clock) -> None:
        self.local = local
        self.clock = clock
        self.http = httpx.Client(
            base_url=local.url,
            headers={"Authorization": f"Bearer {local.api_key}"},
            verify=False,  # No TLS here, and to read the CA bundle takes longer than most tests.
        )

    def ask(self, prompt: str = "a lighthouse", **inputs: object) -> httpx.Response:
        return self.http.post(SUBMIT, json={"prompt": prompt, **inputs})

    def submit(self, prompt: str = "a lighthouse", **inputs: object) -> str:
        answer = self.ask(prompt, **inputs)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["data"]["id"])

    def read(self, prediction_id: str) -> httpx.Response:
        return self.http.get(f"/api/v3/predictions/{prediction_id}/result")

    def data(self, prediction_id: str) -> dict[str, object]:
        answer = self.read(prediction_id)
        assert answer.status_code == 200, answer.text
        return dict(answer.json()["data"])

    def finish(self, prediction_id: str) -> str:
        """Let the time pass and return the output's URL."""
        self.clock.move(self.local.service.find(prediction_id).due_at - self.clock.now)
        (url,) = self.read(prediction_id).json()["data"]["outputs"]
        return str(url)

    def listed(self, **query: object) -> list[str]:
        return [item["id"] for item in self.history(**query).json()["data"]["items"]]

    def history(self, **query: object) -> httpx.Response:
        return self.http.post("/api/v3/predictions", json={"page": 1, "page_size": 100, **query})


def until(happened: Callable[[], object]) -> None:
    """Wait for what another thread does."""
    deadline = time.monotonic() + 10
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.002)


def get(url: str) -> httpx.Response:
    """Ask without a key."""
    return httpx.get(url, verify=False)


@contextmanager
def calling(options: Options, clock: Clock) -> Iterator[Caller]:
    """Run a service of its own for a test that needs other options."""
    with running_service(options, clock=clock) as local:
        caller = Caller(local, clock)
        with caller.http:
            yield caller
