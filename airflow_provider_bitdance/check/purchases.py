"""Buys images through the engine, as operators do, and describes what came in meanwhile.

The one thing to know: nothing is submitted here. Each purchase is an image of a job with a journal, under the
Dag id "check", so what a killed check has paid for is collected by ``reconcile``. A lost response is not
bought again.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urljoin, urlsplit
from uuid import uuid4

from pydantic import ValidationError

from airflow_provider_bitdance.check.observations import Output, Purchase
from airflow_provider_bitdance.check.requests import (
    answer_of,
    echo_of,
    known_status,
    prediction_in,
    predictions_in,
    values_of,
)
from airflow_provider_bitdance.check.shapes import OTHER, host_of, media_type, names_of
from airflow_provider_bitdance.clock import Clock
from airflow_provider_bitdance.engine import Finished, JobContext, Policy, Wanted, run_job
from airflow_provider_bitdance.exceptions import BitDanceError
from airflow_provider_bitdance.polling.policy import PollPolicy
from airflow_provider_bitdance.records import ImageState, Job, Journal, Owner, Status
from airflow_provider_bitdance.storage import Folder
from airflow_provider_bitdance.storage.naming import EXTENSIONS, Destination, safe_name
from airflow_provider_bitdance.wavespeed import protocol
from airflow_provider_bitdance.wavespeed.client import AsyncClient
from airflow_provider_bitdance.wavespeed.image_request import ImageRequest
from airflow_provider_bitdance.wavespeed.models import BITDANCE_14B
from airflow_provider_bitdance.wavespeed.protocol import Exchange
from airflow_provider_bitdance.wavespeed.responses import Prediction
from airflow_provider_bitdance.wavespeed.urls import DEFAULT_BASE_URL

DAG_ID = "check"
TIMEOUT = 300.0
"""Seconds to wait for an image: what is not done by then, ``reconcile`` collects."""
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class SaidLog:
    """The engine's log, for somebody who waits at a terminal."""

    say: Callable[[str], object]

    def debug(self, message: str, /, *args: Any) -> None:
        """Say nothing."""

    def info(self, message: str, /, *args: Any) -> None:
        """Say what changed."""
        self.say(message % args if args else message)

    def warning(self, message: str, /, *args: Any) -> None:
        """Say what needs attention."""
        self.info(message, *args)


class PurchaseRecorder:
    """Keeps what a client that buys has received: submissions, results, and each hop of a download.

    :ivar submitted: Set by the first response to a submission that has an id.
    """

    def __init__(self, secrets: set[str]) -> None:
        self.secrets = secrets
        self.submissions: dict[str, Exchange] = {}
        self.results: dict[str, Exchange] = {}
        self.hops: dict[str, Exchange] = {}
        self.refusal: Exchange | None = None
        self.submitted = asyncio.Event()

    def __call__(self, exchange: Exchange) -> None:
        """Take a response."""
        path = urlsplit(exchange.url).path
        items = predictions_in(exchange)
        self.secrets.update(value for item in items for value in values_of(item))
        found = [name for item in items if (name := _usable_id(item))]
        if exchange.method == "POST" and path.endswith(f"{protocol.PREFIX}/{BITDANCE_14B}"):
            self.submissions.update(dict.fromkeys(found, exchange))
            if found:
                self.submitted.set()
            else:
                self.refusal = exchange
        elif f"{protocol.PREFIX}/" not in path:
            self.secrets.add(exchange.url)
            self.hops[exchange.url] = exchange
        elif exchange.method == "GET":
            self.results.update(dict.fromkeys(found, exchange))


@dataclass(frozen=True, slots=True)
class Bought:
    """What became of one image of a job.

    :param image: As the journal has it; ``None`` where the job was not planned.
    :param summary: Of the stored image.
    """

    size: str
    image: ImageState | None = None
    summary: dict[str, Any] | None = None
    error: BitDanceError | None = None

    @property
    def prediction_id(self) -> str:
        """The id under which it was bought, as the journal has it; empty without one."""
        return self.image.prediction_id if self.image else ""

    @property
    def is_stored(self) -> bool:
        """Whether the image is stored, with its receipt."""
        return self.summary is not None and self.image is not None and self.image.status is Status.STORED


@dataclass(frozen=True, slots=True)
class Shop:
    """Buys for one check.

    :param run_id: The run id of its jobs.
    :param output: URI of the output folder, which ``images`` is.
    """

    client: AsyncClient
    recorder: PurchaseRecorder
    records: Folder
    images: Folder
    output: str
    run_id: str
    clock: Clock
    say: Callable[[str], object]

    def open_job(self, task_id: str, *, price_usd: float, limit_usd: float) -> JobContext:
        """Return the handles of a new job. Blocks.

        :param price_usd: The most that one image costs.
        :param limit_usd: The most that the job may spend.
        """
        # As if there were a next try: reconcile is one, and there are no retries that the log could advise.
        job = Job(dag_id=DAG_ID, run_id=self.run_id, task_id=task_id, map_index=-1, generation=1)
        owner = Owner(job=job, try_number=1, host=socket.gethostname(), pid=os.getpid(), token=uuid4().hex)
        journal = Journal(self.records, owner)
        journal.load()
        return JobContext(
            client=self.client,
            journal=journal,
            records=self.records,
            images=self.images,
            policy=Policy(
                timeout=TIMEOUT,
                if_exists="regenerate",
                nsfw="allow",
                prices={BITDANCE_14B: price_usd},
                max_cost_usd=limit_usd,
                check_balance=True,
                on_lost_response="fail",
                retry_failed=False,
                is_batch=True,
                poll=PollPolicy(),
            ),
            log=SaidLog(self.say),
            started_at=self.clock.time(),
            clock=self.clock,
        )

    async def buy(self, context: JobContext, requests: Sequence[ImageRequest]) -> list[Bought]:
        """Buy, wait for and store images as one job. What goes wrong is in the result."""
        wanted = [Wanted(request.size or "", request, self._destination(request)) for request in requests]
        stored: dict[str, dict[str, Any]] = {}
        failures: dict[str, BitDanceError] = {}
        stopped: BitDanceError | None = None
        try:
            outcome = await run_job(context, wanted)
            if isinstance(outcome, Finished):
                stored, failures, stopped = outcome.stored, outcome.failures, outcome.stopped
        except BitDanceError as error:
            stopped = error
        images = context.journal.state.images
        self.recorder.secrets.update(image.prediction_id for image in images.values())
        return [
            Bought(
                key,
                images.get(key),
                stored.get(key),
                None if key in stored else failures.get(key) or stopped,
            )
            for key in (item.key for item in wanted)
        ]

    def _destination(self, request: ImageRequest) -> Destination:
        name = safe_name(f"{self.run_id}.{(request.size or '').replace('*', 'x')}")
        return Destination(self.output.rstrip("/"), name)

    def purchase_of(self, bought: Bought) -> Purchase:
        """Describe what became of an image."""
        recorder, summary = self.recorder, bought.summary or {}
        sent = recorder.submissions.get(bought.prediction_id)
        exchange, item = sent or recorder.refusal, prediction_in(sent, bought.prediction_id)
        response = answer_of(exchange, None if sent else bought.error, recorder.secrets)
        return Purchase(
            requested=bought.size,
            response=response if exchange or bought.error else None,
            status=known_status(str(item.get("status", ""))) if item else "",
            echo=echo_of(item, bought.image.plan.request, recorder.secrets) if bought.image else None,
            error=type(bought.error).__name__ if bought.error else "",
            is_paid="yes" if bought.prediction_id else _is_paid(bought),
            width=summary.get("width"),
            height=summary.get("height"),
            media_type=summary.get("media_type", ""),
            bytes=summary.get("bytes", 0),
            output=self._output(bought, summary.get("media_type", "")),
        )

    def _last_hop(self, url: str) -> tuple[str, int]:
        """Follow the redirects of a download; return the last URL, and how many there were."""
        redirects = 0
        while (hop := self.recorder.hops.get(url)) is not None and 300 <= hop.status < 400:
            location = hop.headers.get("location", "")
            if not location or redirects > len(self.recorder.hops):
                break
            url, redirects = urljoin(url, location), redirects + 1
        return url, redirects

    def _output(self, bought: Bought, real_type: str) -> Output | None:
        """Follow the hops of a download, and describe the last one."""
        item = prediction_in(self.recorder.results.get(bought.prediction_id), bought.prediction_id)
        try:
            url = Prediction.model_validate(item).outputs[0]
        except (ValidationError, IndexError):
            return None
        first = url
        self.recorder.secrets.add(url)
        url, redirects = self._last_hop(url)
        hop = self.recorder.hops.get(url)
        # Every output's URL is one of them, and has this host in it.
        secrets = [secret for secret in self.recorder.secrets if "://" not in secret]
        extension = PurePosixPath(urlsplit(first).path).suffix.lower().replace(".jpeg", ".jpg")
        host = host_of(url, secrets)
        # Another API may be a company's gateway, whose hosts are nobody's business.
        is_public = host == LOOPBACK or self.client.settings.base_url == DEFAULT_BASE_URL
        return Output(
            status=hop.status if hop else 0,
            host=host if is_public else OTHER,
            is_https=urlsplit(first).scheme == "https",
            redirects=redirects,
            media_type=media_type(hop) if hop else "",
            headers=names_of(hop.headers, self.recorder.secrets) if hop else (),
            is_extension_right=extension == EXTENSIONS[real_type] if real_type and extension else None,
        )


def _usable_id(item: dict[str, Any]) -> str:
    """Return the id of a prediction as the client reads it; empty where it takes none."""
    try:
        return Prediction.model_validate(item).id
    except ValidationError:
        return ""


def _is_paid(bought: Bought) -> str:
    """Say whether an image without a prediction may be paid for, as the journal counts."""
    return "possibly" if bought.image and bought.image.possibly_paid else "no"


def new_run_id(now: float) -> str:
    """Return the run id of a check's jobs."""
    return f"check__{datetime.fromtimestamp(now, UTC):%Y-%m-%dT%H-%M-%S}__{uuid4().hex[:6]}"
