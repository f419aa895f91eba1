"""The official Python SDK against the local service: what works, and what each fault does to it.

The SDK downloads nothing, so a test downloads what it names as its README does. It is given no time between
its attempts; it prints what it repeats.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, get_args

import pytest
import requests
from wavespeed import Client

from airflow_provider_bitdance.imaging.validation import validate_image
from airflow_provider_bitdance.local import LocalService, faults, pictures, running_service
from airflow_provider_bitdance.local.catalogue import MODELS

MODEL: Final = "wavespeed-ai/bitdance-14b/text-to-image"
OPTIMIZER: Final = "wavespeed-ai/prompt-optimizer"
ASKED: Final = {"prompt": "A lighthouse", "size": "256*256", "seed": 7}
NOWHERE: Final = "http://127.0.0.1:1/"
"""A private address where nobody listens."""


@pytest.fixture(scope="module")
def shared() -> Iterator[LocalService]:
    with running_service() as service:
        yield service


@pytest.fixture
def service(shared: LocalService, monkeypatch: pytest.MonkeyPatch) -> LocalService:
    """Return an empty service, beyond which nothing can be reached."""
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, *rest: Any, **options: Any) -> Any:
        assert host == "127.0.0.1", f"the SDK wants to reach {host}"
        return real(host, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setenv("NO_PROXY", "*")
    shared.reset()
    return shared


@pytest.fixture
def client(service: LocalService) -> Client:
    return Client(service.api_key, service.url, retry_interval=0)


def run(client: Client, *, timeout: float | None = None) -> Any:
    """Buy one image and return its outputs."""
    return client.run(MODEL, ASKED, timeout=timeout, poll_interval=0.01)["outputs"]


def download(url: str) -> bytes:
    answer = requests.get(url, timeout=5)
    answer.raise_for_status()
    return answer.content


def test_images_are_made_and_read(client: Client, service: LocalService) -> None:
    for seed in (1, 2):
        (url,) = client.run(MODEL, {**ASKED, "seed": seed}, poll_interval=0.01)["outputs"]

        said = pictures.labels(download(url))
        assert (said.model, said.prompt, said.size, said.seed) == (MODEL, "A lighthouse", "256*256", seed)
    assert service.bill().billed == 2


@pytest.mark.parametrize("model", [model.id for model in MODELS.values() if model.kind == "text-to-image"])
def test_every_image_model_makes_a_picture_of_a_prompt_alone(client: Client, model: str) -> None:
    (url,) = client.run(model, {"prompt": "A lighthouse"}, poll_interval=0.01)["outputs"]

    said = pictures.labels(download(url))
    assert (said.model, said.prompt) == (model, "A lighthouse")


@pytest.mark.parametrize("enable_sync_mode", [False, True], ids=["polled", "in sync mode"])
def test_the_prompt_optimizer_gives_text(client: Client, enable_sync_mode: bool) -> None:
    (text,) = client.run(OPTIMIZER, {"text": "A fox"}, poll_interval=0.01, enable_sync_mode=enable_sync_mode)[
        "outputs"
    ]

    assert text.startswith("A fox, ")


def test_a_result_can_be_read_again_by_its_id(client: Client, service: LocalService) -> None:
    outputs = run(client)
    (made,) = service.predictions()

    answer = client.get_result(str(made["id"]))

    assert (answer["code"], answer["data"]["status"]) == (200, "completed")
    assert answer["data"]["outputs"] == outputs


def test_a_wrong_key_is_refused(service: LocalService) -> None:
    with pytest.raises(RuntimeError, match=r"HTTP 401.*Invalid API key"):
        run(Client("wrong", service.url))

    assert service.bill().submitted == 0


def test_a_failure_that_names_an_http_error_is_bought_again_if_retries_are_allowed(
    client: Client, service: LocalService
) -> None:
    service.add_fault(on="submit", kind="failed", error="HTTP 503 from upstream", times=1)

    client.run(MODEL, ASKED, poll_interval=0.01, max_retries=1)

    assert service.bill().submitted == 2


@dataclass(frozen=True, slots=True)
class Meeting:
    """A fault, what the SDK's user ends up with, and how many images were bought for it."""

    rule: dict[str, object]
    outcome: str
    bought: int = 1
    timeout: float | None = None

    def __str__(self) -> str:
        return "-".join(str(value) for value in self.rule.values())


def on(point: str, kind: str, **more: object) -> dict[str, object]:
    return {"on": point, "kind": kind, **more}


PICTURE: Final = "a picture"
NO_ANSWER: Final = "_SubmissionError: .*did not return a response"
MEETINGS: Final = (
    Meeting(on("submit", "failed"), r"_TaskFailedError: Prediction failed \(task_id: \w+\): Task execution"),
    Meeting(on("submit", "failed", code=1200, error="sensitive"), r"_TaskFailedError: .*: sensitive"),
    Meeting(on("submit", "never_finish"), "TimeoutError: Prediction timed out after", timeout=1.0),
    Meeting(on("submit", "nsfw"), PICTURE),
    Meeting(on("submit", "latency", seconds=0.1), PICTURE),
    Meeting(on("submit", "latency", seconds=60), "TimeoutError: Prediction timed out after", timeout=1.0),
    # A submission is never repeated, not even where that would cost nothing.
    Meeting(on("submit", "status", status=429, retry_after=1), "_SubmissionError: .*HTTP 429", bought=0),
    Meeting(on("submit", "status", status=503, body="html"), "_SubmissionError: .*HTTP 503.*nginx", bought=0),
    Meeting(
        on("submit", "status", status=502, after_create=True, body="empty"), "_SubmissionError: .*HTTP 502"
    ),
    Meeting(on("submit", "status", status=403), "_SubmissionError: .*HTTP 403.*suspended", bought=0),
    Meeting(on("result", "status", status=503, times=5), PICTURE),
    Meeting(on("result", "status", status=503), "RuntimeError: Failed to get result.*HTTP 503"),
    Meeting(on("result", "status", status=429, retry_after=1, times=2), PICTURE),
    Meeting(on("result", "status", status=401), "RuntimeError: Failed to get result.*HTTP 401"),
    Meeting(on("output", "status", status=403), "HTTPError: 403"),
    Meeting(on("output", "status", status=410), "HTTPError: 410"),
    Meeting(on("submit", "reset"), NO_ANSWER, bought=0),
    Meeting(on("submit", "reset", after_create=True), NO_ANSWER),
    Meeting(on("result", "reset", times=2), PICTURE),
    Meeting(on("output", "reset"), "ConnectionError"),
    Meeting(on("submit", "slow", seconds=4), NO_ANSWER, timeout=1.0),
    Meeting(on("result", "slow", seconds=0.1, times=1), PICTURE),
    Meeting(on("submit", "drip", seconds=0.1), PICTURE),
    Meeting(on("result", "drip", seconds=0.1, times=1), PICTURE),
    Meeting(on("output", "drip", seconds=0.1), PICTURE),
    # It follows redirects, to private addresses too.
    Meeting(on("submit", "redirect", url=NOWHERE), NO_ANSWER, bought=0),
    Meeting(on("result", "redirect", url=NOWHERE, times=1), PICTURE),
    Meeting(on("output", "redirect", url=NOWHERE), "ConnectionError"),
    Meeting(on("submit", "truncated_json"), "JSONDecodeError"),
    Meeting(on("result", "truncated_json"), "JSONDecodeError"),
    # It does not look at the code of an envelope, and trips over the missing data.
    Meeting(on("submit", "envelope"), "AttributeError: 'NoneType' object has no attribute 'get'", bought=0),
    Meeting(on("result", "envelope", code=5000), "AttributeError: 'NoneType' object has no attribute 'get'"),
    Meeting(on("submit", "bare"), "_SubmissionError: No request ID in response"),
    # Without an envelope it sees no status and polls on.
    Meeting(on("result", "bare"), "TimeoutError: Prediction timed out after", timeout=1.0),
    Meeting(on("result", "failure_code"), PICTURE),
    Meeting(on("submit", "outage", seconds=60), "_SubmissionError: .*HTTP 503", bought=0),
    Meeting(on("result", "outage", seconds=60), "RuntimeError: Failed to get result.*HTTP 503"),
    Meeting(on("submit", "no_id"), "_SubmissionError: No request ID in response"),
    Meeting(on("result", "unknown_status", times=2), PICTURE),
    Meeting(on("result", "null_outputs"), "nothing"),
    Meeting(on("result", "not_found"), "RuntimeError: Failed to get result.*HTTP 404"),
    Meeting(on("output", "truncated"), "ChunkedEncodingError: .*IncompleteRead"),
    Meeting(on("output", "not_whole"), "OutputError: .*not a whole PNG"),
    Meeting(on("output", "wrong_type"), "OutputError: .*not a whole PNG"),
    Meeting(on("output", "oversized", bytes=100_000), "OutputError: .*not a whole PNG"),
    Meeting(on("output", "bomb"), "OutputRefusedError: .*too many pixels"),
)


def outcome(client: Client, timeout: float | None) -> str:
    """Buy an image, download it, look into it, and tell how that ended."""
    try:
        outputs = run(client, timeout=timeout)
        if not outputs:
            return "nothing"
        validate_image(download(outputs[0]))
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return PICTURE


@pytest.mark.parametrize("meeting", MEETINGS, ids=str)
def test_a_fault_has_its_known_effect(client: Client, service: LocalService, meeting: Meeting) -> None:
    service.add_fault(**meeting.rule)

    ended = outcome(client, meeting.timeout)

    assert re.match(meeting.outcome, ended, re.S), ended
    assert service.bill().submitted == meeting.bought


def test_every_kind_of_fault_was_met() -> None:
    kinds = {get_args(rule.model_fields["kind"].annotation)[0] for rule in get_args(faults.AnyRule)}

    assert {meeting.rule["kind"] for meeting in MEETINGS} == kinds
