"""What becomes of a submission, over a real socket: each row of the table on which money depends.

:class:`SubmissionOutcome` is the column that decides: a POST is sent again only after "not created".
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from airflow_provider_bitdance import exceptions
from airflow_provider_bitdance.engine import JobContext, Policy
from airflow_provider_bitdance.engine.destination_lock import DestinationLock
from airflow_provider_bitdance.engine.purchase import buy
from airflow_provider_bitdance.engine.rate_limiter import RateLimiter
from airflow_provider_bitdance.exceptions import BitDanceError
from airflow_provider_bitdance.local import LocalService, Options, faults, running_service
from airflow_provider_bitdance.records import Intended, Journal, Planned
from airflow_provider_bitdance.storage import LocalFolder
from airflow_provider_bitdance.wavespeed.client import AsyncClient, ClientSettings
from airflow_provider_bitdance.wavespeed.submission_outcome import (
    SUBMISSION_OUTCOMES,
    SubmissionOutcome,
    submission_outcome,
)
from tests.builders import API_KEY, posts
from tests.unit.support import FakeClock, a_plan, a_request, a_writer

CLIENT_TIMEOUT = 1.5
"""Of the row that is about it only: a machine that stands still would end the others too, by "not sent"."""
SLOW = 3.0
REFUSED, AGAIN, UNKNOWN = SubmissionOutcome.REFUSED, SubmissionOutcome.NOT_CREATED, SubmissionOutcome.UNKNOWN

ROWS: list[tuple[str, dict[str, Any], SubmissionOutcome, bool]] = [
    # what happens on the wire, the fault, the outcome, whether a task was created
    ("400", {"kind": "status", "status": 400}, REFUSED, False),
    ("400 no credit", {"kind": "status", "status": 400, "message": "Insufficient credits."}, REFUSED, False),
    ("401", {"kind": "status", "status": 401}, REFUSED, False),
    ("402", {"kind": "status", "status": 402}, REFUSED, False),
    ("403", {"kind": "status", "status": 403}, REFUSED, False),
    ("404", {"kind": "status", "status": 404}, REFUSED, False),
    ("413 HTML", {"kind": "status", "status": 413, "body": "html"}, REFUSED, False),
    ("422", {"kind": "status", "status": 422}, REFUSED, False),
    ("429", {"kind": "status", "status": 429}, AGAIN, False),
    ("429 Retry-After", {"kind": "status", "status": 429, "retry_after": 7}, AGAIN, False),
    ("408", {"kind": "status", "status": 408}, UNKNOWN, False),
    ("500", {"kind": "status", "status": 500}, UNKNOWN, False),
    ("500, created", {"kind": "status", "status": 500, "after_create": True}, UNKNOWN, True),
    ("502 HTML", {"kind": "status", "status": 502, "body": "html"}, UNKNOWN, False),
    ("503 empty", {"kind": "status", "status": 503, "body": "empty"}, UNKNOWN, False),
    ("503 Retry-After", {"kind": "status", "status": 503, "retry_after": 7}, UNKNOWN, False),
    ("504, created", {"kind": "status", "status": 504, "body": "html", "after_create": True}, UNKNOWN, True),
    ("reset", {"kind": "reset"}, UNKNOWN, False),
    ("reset, created", {"kind": "reset", "after_create": True}, UNKNOWN, True),
    ("read time-out", {"kind": "slow", "seconds": SLOW}, UNKNOWN, True),
    ("redirect", {"kind": "redirect", "url": "http://127.0.0.1:9/elsewhere"}, UNKNOWN, False),
    ("200 cut after its id", {"kind": "truncated_json"}, SubmissionOutcome.CREATED, True),
    ("200, code 400", {"kind": "envelope", "code": 400}, REFUSED, False),
    ("200, code 401", {"kind": "envelope", "code": 401}, REFUSED, False),
    ("200, code 429", {"kind": "envelope", "code": 429}, AGAIN, False),
    ("200, code 500", {"kind": "envelope", "code": 500, "after_create": True}, UNKNOWN, True),
    ("200 without id", {"kind": "no_id"}, UNKNOWN, True),
    ("503 in an outage", {"kind": "outage", "seconds": 5}, UNKNOWN, False),
    ("200 without envelope", {"kind": "bare"}, SubmissionOutcome.CREATED, True),
    ("200, drop by drop", {"kind": "drip", "seconds": 0.2}, SubmissionOutcome.CREATED, True),
]
WELL_ANSWERED = {"failed", "never_finish", "nsfw", "latency"}
"""Faults of the prediction, not of the response to its submission."""


@pytest.fixture(scope="module")
def shared() -> Iterator[LocalService]:
    with running_service(Options(api_key=API_KEY, history_echo="intact")) as service:
        yield service


@pytest.fixture
def service(shared: LocalService, clock: FakeClock) -> LocalService:
    shared.reset()
    shared.service.clock = clock.time
    return shared


def settings(service: LocalService, rule: dict[str, Any]) -> ClientSettings:
    return ClientSettings(
        API_KEY, base_url=service.url, timeout=CLIENT_TIMEOUT if rule["kind"] == "slow" else 60.0
    )


def submit(given: ClientSettings) -> SubmissionOutcome:
    async def once() -> None:
        async with AsyncClient(given) as client:
            await client.submit(a_request())

    try:
        asyncio.run(once())
    except BitDanceError as error:
        return submission_outcome(error)
    return submission_outcome(None)


def buying(given: ClientSettings, folder: Path, clock: FakeClock) -> BitDanceError | None:
    """Buy one image as the engine does; return what it raised."""

    async def once() -> None:
        journal = Journal(LocalFolder(folder), a_writer())
        plan = Planned(output=f"file://{folder}", images=(a_plan(),))
        journal.claim(clock.time() + 600, clock.time(), plan, Intended(keys=("image",)))
        async with AsyncClient(given) as client:
            log = logging.getLogger("bitdance.outcomes")
            records = LocalFolder(folder)
            context = JobContext(client, journal, records, records, Policy(), log, clock.time(), clock)
            await buy(context, "image", limiter=RateLimiter(), lock=DestinationLock(context))

    try:
        asyncio.run(once())
    except BitDanceError as error:
        return error
    return None


each_row = pytest.mark.parametrize(
    ("rule", "outcome", "created"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS]
)


@each_row
def test_each_answer_has_its_outcome(
    service: LocalService, rule: dict[str, Any], outcome: SubmissionOutcome, created: bool
) -> None:
    service.add_fault(on="submit", **rule)
    assert submit(settings(service, rule)) is outcome
    assert service.bill().submitted == created, "the row's own claim about the service"


@each_row
def test_a_post_is_sent_again_by_itself_only_where_nothing_was_created(
    service: LocalService,
    clock: FakeClock,
    tmp_path: Path,
    rule: dict[str, Any],
    outcome: SubmissionOutcome,
    created: bool,
) -> None:
    service.add_fault(on="submit", times=1, **rule)
    error = buying(settings(service, rule), tmp_path, clock)
    asked = [event.path.rpartition("/")[2] for event in service.requests()]
    if outcome is SubmissionOutcome.REFUSED:
        assert error is not None
        assert asked == ["text-to-image"]
    elif outcome is SubmissionOutcome.UNKNOWN:
        assert error is None
        assert asked[:2] == ["text-to-image", "predictions"], "the history is asked before anything is sent"
        assert posts(service) == (1 if created else 2)
    else:
        assert error is None
        assert set(asked) == {"text-to-image"}
        assert posts(service) == (2 if outcome is SubmissionOutcome.NOT_CREATED else 1)
    assert service.bill().submitted <= 1


def test_a_connection_that_is_refused_creates_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    nobody = ClientSettings(API_KEY, base_url=f"http://127.0.0.1:{port}")
    assert submit(nobody) is SubmissionOutcome.NOT_CREATED


def test_the_table_names_each_error_that_a_submission_can_end_with() -> None:
    below = [exceptions.APIError, exceptions.TransportError]
    leaves = {
        error
        for error in vars(exceptions).values()
        if isinstance(error, type) and issubclass(error, tuple(below)) and error not in below
    }
    assert set(SUBMISSION_OUTCOMES) == leaves


def test_what_is_not_in_the_table_is_unknown() -> None:
    assert submission_outcome(BitDanceError("something new")) is SubmissionOutcome.UNKNOWN


def test_each_kind_of_fault_on_a_submission_has_a_row() -> None:
    kinds = {
        get_args(rule.model_fields["kind"].annotation)[0]
        for rule in get_args(faults.AnyRule)
        if "submit" in get_args(rule.model_fields["on"].annotation)
    }
    assert kinds - WELL_ANSWERED == {rule["kind"] for _, rule, _, _ in ROWS}
