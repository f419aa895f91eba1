"""An account at the local service, as a process of its own, and what its books say of a run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from demo.http_json import send
from demo.service import LocalService

PROFILES = {
    "2 s": "1.8-2.2",
    "5 s": "4.5-5.5",
    "12.4 s": "11.16-13.64",
    "40 s": "36-44",
    "bimodal": "80%:4.5-5.5,20%:36-44",
}
"""Seconds an image takes, as the service's command line has it. 12.4 is a published figure for BitDance."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """One image as the service knows it; times are Unix times."""

    id: str
    prompt: str
    submitted: float
    completed: float

    @property
    def latency(self) -> float:
        """Seconds from submission to completion."""
        return self.completed - self.submitted


@dataclass(frozen=True, slots=True)
class Request:
    """A request that reached the service; `port` is the client's, another one for each TCP connection."""

    method: str
    path: str
    time: float
    port: int


@dataclass(frozen=True, slots=True)
class Books:
    """All that the service has seen since its last reset."""

    predictions: list[Prediction]
    requests: list[Request]
    billed: int
    refused: int

    def of(self, prompt: str) -> Books:
        """Return what is about one image alone."""
        predictions = [image for image in self.predictions if image.prompt == prompt]
        ids = {image.id for image in predictions}
        requests = [request for request in self.requests if ids & set(request.path.split("/"))]
        return Books(predictions, requests, billed=len(predictions), refused=0)


class Account(LocalService):
    """A context manager; `options` are the local service's command line."""

    def __init__(self, home: Path, *options: str) -> None:
        super().__init__(home, "--balance", "1000000", *options)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def reset(self) -> None:
        """Forget all that was. The same latencies are drawn again, so the next way meets them, too."""
        send("POST", f"{self.url}/admin/reset")

    def let_take(self, prompt: str, seconds: float) -> None:
        """Decide how long one image takes."""
        rule = {"on": "submit", "kind": "latency", "match": prompt, "seconds": seconds}
        send("POST", f"{self.url}/admin/faults", rule)

    def books(self) -> Books:
        """Read what the service has seen, of predictions those that have completed."""
        bill = send("GET", f"{self.url}/admin/bill")
        predictions = [
            Prediction(row["id"], row["prompt"], _unix(row["created_at"]), _unix(row["completed_at"]))
            for row in send("GET", f"{self.url}/admin/predictions")
            if row["completed_at"]
        ]
        requests = [
            Request(row["method"], row["path"], row["time"], row["port"])
            for row in send("GET", f"{self.url}/admin/requests")
        ]
        return Books(predictions, requests, int(bill["billed"]), int(bill["refused"]))


def _unix(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
