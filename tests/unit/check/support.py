"""An account on a ``MockTransport`` that has everything a check asks for, and what a check of it has seen."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import format_datetime
from io import BytesIO
from typing import Any
from unittest.mock import patch

from PIL import Image

from airflow_provider_bitdance.check.observations import Observations
from airflow_provider_bitdance.check.run import Check, Report
from airflow_provider_bitdance.wavespeed.client import AsyncClient, ClientSettings, OnResponse
from airflow_provider_bitdance.wavespeed.models import BITDANCE_14B
from airflow_provider_bitdance.wavespeed.urls import OutputRule
from tests.unit.support import (
    API_KEY,
    API_URL,
    Body,
    Busy,
    FakeAPI,
    FakeClock,
    FakePrediction,
    MemoryFolder,
    envelope,
    no_lookup,
    refusal,
)
from tests.wire import httpx

SUBMIT = f"/api/v3/{BITDANCE_14B}"
OUTPUT = "mem://disk/images"
SCHEMA: dict[str, Any] = {
    "properties": {
        "prompt": {"type": "string"},
        "size": {"type": "string", "default": "1024*1024", "minimum": 256, "maximum": 1536},
        "seed": {"type": "integer", "minimum": -1, "maximum": 2147483647},
    },
    "required": ["prompt"],
    "additionalProperties": False,
}
Answer = httpx.Response | Exception | Callable[[httpx.Request], httpx.Response]


class DiskFolder(MemoryFolder):
    """A folder in memory that knows whether it keeps two writers apart."""

    def is_exclusive(self) -> bool:
        return True


class Account(FakeAPI):
    """An account. By default everything is as the package assumes.

    :ivar lag: Seconds until the history shows a purchase.
    :ivar charge: What an image is charged with; ``price`` is what is quoted.
    :ivar schema: Of the model's inputs.
    :ivar instead: Responses by method and path, used as long as they are there.
    :ivar requests: Method and path of every request, in order.
    :ivar deleted: Ids.
    """

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.lag = 0.0
        self.charge = 0.01
        self.schema = SCHEMA
        self.instead: dict[str, Answer] = {}
        self.requests: list[str] = []
        self.deleted: list[str] = []
        self.echo_field = "input"
        self.filters = True
        self.real_sizes: dict[str, str] = {}

    def connect(self, settings: ClientSettings, on_response: OnResponse) -> AsyncClient:
        """Return a client of this account that reports its responses."""

        def handle(request: httpx.Request) -> httpx.Response:
            response = self._respond(request)
            if request.url.path.startswith("/outputs/"):
                shown = {"content-type": "image/png", **response.headers}
                shown.pop("content-length", None)
                return httpx.Response(response.status_code, headers=shown, stream=Body(response.content))
            return response

        return AsyncClient(
            settings,
            transport=httpx.MockTransport(handle),
            output_rule=OutputRule(API_URL, resolve=no_lookup),
            on_response=on_response,
        )

    def _respond(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        self.requests.append(f"{request.method} {path}")
        if path.startswith("/api/") and request.headers.get("authorization") != f"Bearer {API_KEY}":
            return refusal(401, "Invalid API key")
        for where, answer in self.instead.items():
            if f"{request.method} {path}".startswith(where):
                if isinstance(answer, Exception):
                    raise answer
                return answer if isinstance(answer, httpx.Response) else answer(request)
        free = {
            "GET /api/v3/models": lambda: envelope([self._catalogued()]),
            "POST /api/v3/billings/search": lambda: envelope({"page": 1, "items": self._bill()}),
            "POST /api/v3/predictions/delete": lambda: self._delete(json.loads(request.content)),
        }
        found = free.get(f"{request.method} {path}")
        if found is not None:
            return self._dated(found())
        if request.method == "POST" and self._kind(request) == "POST" and path != SUBMIT:
            return refusal(400, "product not found")
        return self._dated(self._answer(self._kind(request), request))

    def create(self, body: dict[str, Any]) -> FakePrediction:
        made = super().create(body)
        width, height = map(int, self.real_sizes.get(body["size"], body["size"]).split("*"))
        made.picture = a_picture_of(width, height)
        made.outputs = [f"{API_URL}/outputs/{made.id}.png"]
        self.balance = round(self.balance - self.charge, 6)
        return made

    def _answer(self, kind: str, request: httpx.Request) -> httpx.Response:
        if kind == "download":
            name = request.url.path.rpartition("/")[2].removesuffix(".png")
            if self.on_download:
                return super()._answer(kind, request)
            return httpx.Response(200, content=self.made[name].picture)
        if kind == "poll" and request.url.path.split("/")[-2] in self.deleted:
            return refusal(404, "task not found")
        return super()._answer(kind, request)

    def _history(self, asked: dict[str, Any]) -> httpx.Response:
        oldest = datetime.fromisoformat(asked.get("created_after", "2000-01-01T00:00:00Z")).timestamp()
        model = asked.get("model", BITDANCE_14B)
        shown = [
            made
            for made in reversed(self.made.values())
            if made.created + self.lag <= self.clock.now + self.skew
            and made.id not in self.deleted
            and (not self.filters or (made.created >= oldest and model == BITDANCE_14B))
        ]
        echoes = self.echo == "history"
        return envelope({"page": 1, "items": [self._explained(made, echo=echoes) for made in shown]})

    def _explained(self, made: FakePrediction, *, echo: bool = False) -> dict[str, Any]:
        shown = super()._explained(made, echo=echo)
        return {self.echo_field if name == "input" else name: value for name, value in shown.items()}

    def _dated(self, response: httpx.Response) -> httpx.Response:
        now = datetime.fromtimestamp(self.clock.now + self.skew, UTC)
        response.headers["date"] = format_datetime(now, usegmt=True)
        return response

    def _catalogued(self) -> dict[str, Any]:
        schemas = [{"request_schema": self.schema}]
        return {"model_id": BITDANCE_14B, "api_schema": {"api_schemas": schemas}}

    def _bill(self) -> list[dict[str, Any]]:
        return [
            {"uuid": f"bill-{made.id}", "billing_type": "deduct", "price": self.charge}
            | {"prediction": {"uuid": made.id}}
            for made in reversed(self.made.values())
        ]

    def _delete(self, asked: dict[str, Any]) -> httpx.Response:
        known = [name for name in asked["ids"] if name in self.made]
        self.deleted += known
        return envelope({"deleted_count": len(known)})


def a_picture_of(width: int, height: int) -> bytes:
    """Return a picture of one colour."""
    file = BytesIO()
    Image.new("RGB", (width, height)).save(file, format="PNG")
    return file.getvalue()


class Place:
    """A machine with a disk, and an account that it checks."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.account = Account(self.clock)
        self.disk: dict[str, bytes] = {}
        self.lines: list[str] = []

    def check(self, amount: float = 0.0, **settings: Any) -> Report:
        """Run a check of the account."""
        folder = DiskFolder(self.disk, OUTPUT)
        check = Check(
            settings=ClientSettings(API_KEY, base_url=API_URL, **settings),
            records=DiskFolder(self.disk, f"{OUTPUT}/.bitdance"),
            images=folder,
            output=OUTPUT,
            amount=amount,
            say=self.lines.append,
            new_client=self.account.connect,
            clock=self.clock,
        )
        # The clock of the test stands still while these are at work.
        with patch("airflow_provider_bitdance.check.run.ThreadPoolExecutor", Busy):
            return check.run()

    def seen(self, amount: float = 0.0) -> Observations:
        return self.check(amount).seen
