"""Responses that clients of the WaveSpeed API have met, or may meet, each with the right conclusion.

``wire_cases.jsonl`` holds one case a line: ``seen`` says how sure it is that the API does so, ``expect`` what
is right. A status of 0 is a connection that broke, with the error of httpx that ``body`` names.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_bitdance import exceptions
from airflow_provider_bitdance.engine.proof import Proof, proof_of
from airflow_provider_bitdance.polling.poller import Poller, wait_for
from airflow_provider_bitdance.wavespeed import protocol
from airflow_provider_bitdance.wavespeed.client import AsyncClient, ClientSettings
from airflow_provider_bitdance.wavespeed.image_request import ImageRequest
from airflow_provider_bitdance.wavespeed.response_errors import failure_of
from airflow_provider_bitdance.wavespeed.responses import HistoryPage, Prediction
from airflow_provider_bitdance.wavespeed.submission_outcome import submission_outcome
from airflow_provider_bitdance.wavespeed.urls import OutputRule
from tests.unit.support import API_URL, START, FakeClock, a_picture, run
from tests.wire import httpx

ID = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"
REQUEST = ImageRequest(prompt="a red kite over dunes", size="1024*1024", seed=42)
CASES: dict[str, dict[str, Any]] = {
    case["case"]: case
    for case in map(json.loads, (Path(__file__).parent / "wire_cases.jsonl").read_text().splitlines())
}


def call_of(endpoint: str, body: Any) -> protocol.Call[Any]:
    if endpoint == "submit":
        quoted = 'a sign that says "insufficient credits" in neon'
        prompt = quoted if "insufficient credits" in json.dumps(body).lower() and "neon" in str(body) else ""
        return protocol.submit(REQUEST.model_copy(update={"prompt": prompt}) if prompt else REQUEST)
    calls: dict[str, Callable[[], protocol.Call[Any]]] = {
        "result": lambda: protocol.get_prediction(ID),
        "history": lambda: protocol.list_predictions(model=REQUEST.model, created_after=datetime.now(UTC)),
        "balance": protocol.get_balance,
        "price": lambda: protocol.get_price(REQUEST),
        "billing": lambda: protocol.search_billings(start_time=datetime.now(UTC)),
        "delete": lambda: protocol.delete_predictions([ID]),
    }
    return calls[endpoint]()


class Answering:
    """A client whose API always answers as one case says, and counts."""

    def __init__(self, case: dict[str, Any]) -> None:
        self.case = case
        self.requests = 0
        rule = OutputRule(API_URL, resolve=_public)
        settings = ClientSettings("wsk-of-a-test", base_url=API_URL)
        self.client = AsyncClient(settings, transport=httpx.MockTransport(self._answer), output_rule=rule)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        status, body = self.case["status"], self.case["body"]
        if status == 0:
            raise getattr(httpx, body)("broken", request=request)
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        if body == "PNG":
            data = a_picture()
        return httpx.Response(status, headers=self.case["headers"], stream=httpx.ByteStream(data))

    def conclude(self) -> Any:
        """Return what the client reads, or the error that it raises."""

        async def ask() -> Any:
            async with self.client:
                if self.case["endpoint"] == "output":
                    file = io.BytesIO()
                    await self.client.download(self.case["url"], file, max_bytes=10_000)
                    return file.getvalue()
                return await self.client.send(call_of(self.case["endpoint"], self.case["body"]))

        try:
            return run(ask())
        except exceptions.BitDanceError as error:
            return error


async def _public(_host: str) -> list[str]:
    return ["93.184.216.34"]


@pytest.mark.parametrize("name", CASES)
def test_the_right_conclusion_is_drawn(name: str) -> None:
    case = CASES[name]
    api, expect = Answering(case), case["expect"]
    found = api.conclude()
    error = found if isinstance(found, exceptions.BitDanceError) else None
    if isinstance(found, Prediction) and "failure" in expect:
        error = failure_of(found)
    wrong = {
        what: seen
        for what, right in expect.items()
        if not what.startswith("polling")
        and (seen := _seen(what, found, error, api.requests)) != right
        and not (what in ("error", "failure") and isinstance(error, getattr(exceptions, str(right))))
    }
    assert wrong == {}, f"{case['why']}: {found!r}"


def _seen(what: str, found: Any, error: exceptions.BitDanceError | None, requests: int) -> object:
    if what in ("error", "failure"):
        return type(error).__name__ if error else None
    if what == "outcome":
        return str(submission_outcome(error))
    if what == "retry":
        return error.retry_helps if error else None
    if what == "retry_after":
        return getattr(error, "retry_after", "no 429")
    if what == "hint":
        return next((word for word in ("model",) if word in str(error)), str(error))
    if what == "requests":
        return requests
    if what in ("status", "terminal", "outputs", "nsfw", "input_prompt", "items", "not_another"):
        return _seen_in_prediction(what, found)
    if what == "bytes":
        return isinstance(found, bytes) and bool(found)
    return {"balance": "balance", "price": "charged", "deleted": "deleted_count"}[what] and getattr(
        found, {"balance": "balance", "price": "charged", "deleted": "deleted_count"}[what], found
    )


def _seen_in_prediction(what: str, found: Any) -> object:
    items = found.items if isinstance(found, HistoryPage) else ()
    first = items[0] if items else found
    return {
        "items": lambda: len(items),
        "status": lambda: first.status,
        "terminal": lambda: first.is_terminal,
        "outputs": lambda: len(first.outputs),
        "nsfw": lambda: first.is_nsfw,
        "input_prompt": lambda: bool((first.input or {}).get("prompt")),
        "not_another": lambda: proof_of(first, REQUEST) is not Proof.ANOTHER,
    }[what]()


POLLS = [
    (name, age)
    for name, case in CASES.items()
    for age in ("polling", "polling_when_old")
    if age in case["expect"]
]


@pytest.mark.parametrize(("name", "age"), POLLS)
def test_a_poll_that_is_answered_so_polls_on_or_ends_the_wait(name: str, age: str) -> None:
    case = CASES[name]
    clock, api = FakeClock(), Answering(case)
    submitted_at = START - (3600 if age == "polling_when_old" else 0)
    wait = 200 if case["expect"][age] == "ends the wait" else 50

    async def poll() -> dict[str, Prediction]:
        return await wait_for(Poller(api.client, clock=clock), {ID: submitted_at}, until=START + wait)

    try:
        said = "ends the wait" if run(poll()) else "polls on"
    except exceptions.BitDanceError:
        said = "ends the wait"
    assert (said, api.requests > 2) == (case["expect"][age], True)
