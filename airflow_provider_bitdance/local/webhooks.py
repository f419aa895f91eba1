"""Webhooks: a prediction that ended is told to the address that its submit named, signed as WaveSpeed does.

They go to this computer and nowhere else. The server calls :meth:`Webhooks.send_due` several times a second;
what is due follows from the service's clock, so a test that moves it by hand waits for no retry. What a
stopped service still owed stays unsent.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import json
import math
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import urlsplit

from airflow_provider_bitdance.local import faults
from airflow_provider_bitdance.local.inputs import Refused
from airflow_provider_bitdance.local.service import Prediction, Service
from airflow_provider_bitdance.local.shapes import WebhookBody

RETRY_AFTER: Final = (1.0, 2.0, 4.0)
"""Seconds, by the service's clock, from each failed attempt to the next."""
ATTEMPT_SECONDS: Final = 10.0
"""Real seconds in which an attempt must have its answer."""
PORTS: Final = {"http": 80, "https": 443}


@dataclass(slots=True)
class Delivery:
    """A webhook on its way. ``answer`` is the last HTTP status, or why there was none."""

    id: str
    url: str
    status: Literal["pending", "delivered", "failed", "dropped"] = "pending"
    attempts: int = 0
    answer: int | str | None = None
    body: bytes = field(default=b"", repr=False)
    due_at: float = 0.0


class Webhooks:
    """The deliveries of one service, oldest first.

    :param service: the state.
    :param show: makes the body for a prediction that ended.
    """

    def __init__(self, service: Service, show: Callable[[Prediction], WebhookBody]) -> None:
        self.service = service
        self.show = show
        self.deliveries: list[Delivery] = []
        self._pending: list[Delivery] = []
        # Without a reference a task may be collected before it ends; the loop's end cancels it.
        self._attempts: set[asyncio.Task[None]] = set()

    def send_due(self) -> None:
        """Begin every attempt whose time has come. For the server's loop only."""
        now = self.service.clock()
        self._pending = [delivery for delivery in self._pending if delivery.status == "pending"]
        for prediction in self.service.webhooks_due(now):
            self._add(prediction)
        for delivery in self._pending:
            if now >= delivery.due_at:
                delivery.due_at = math.inf  # Until this attempt is over.
                attempt = asyncio.create_task(self._attempt(delivery))
                self._attempts.add(attempt)
                attempt.add_done_callback(self._attempts.discard)

    def forget(self) -> None:
        """Forget all deliveries, also those still to be made."""
        self.deliveries, self._pending = [], []

    def _add(self, prediction: Prediction) -> None:
        assert prediction.webhook is not None
        rule = self.service.faults.spoiler("webhook", prompt=prediction.inputs.prompt)
        body = json.dumps(self.show(prediction)).encode()
        for _ in range(2 if isinstance(rule, faults.Twice) else 1):
            delivery = Delivery(prediction.id, prediction.webhook, body=body)
            self.deliveries.append(delivery)
            if isinstance(rule, faults.Drop):
                delivery.status = "dropped"
            else:
                self._pending.append(delivery)

    async def _attempt(self, delivery: Delivery) -> None:
        stamp = int(self.service.clock())
        headers = signed(delivery.id, stamp, delivery.body, secret=self.service.webhook_secret)
        delivery.attempts += 1
        try:
            async with asyncio.timeout(ATTEMPT_SECONDS):
                delivery.answer = await _post(delivery.url, headers, delivery.body)
        except (OSError, ValueError) as away:
            delivery.answer = f"{type(away).__name__}: {away}"
        if isinstance(delivery.answer, int) and 200 <= delivery.answer < 300:
            delivery.status = "delivered"
        elif delivery.attempts > len(RETRY_AFTER):
            delivery.status = "failed"
        else:
            delivery.due_at = self.service.clock() + RETRY_AFTER[delivery.attempts - 1]


def signed(webhook_id: str, timestamp: int, body: bytes, *, secret: str) -> Mapping[str, str]:
    """Make the headers that prove where a webhook comes from.

    :param webhook_id: the same for all attempts, so that a receiver can tell duplicates.
    :param timestamp: seconds since the epoch.
    :param body: the bytes to be sent.
    :param secret: as ``GET /webhook/secret`` shows it. The key is what follows ``whsec_``, as plain bytes.
    """
    message = f"{webhook_id}.{timestamp}.".encode() + body
    signature = hmac.new(secret.removeprefix("whsec_").encode(), message, hashlib.sha256).hexdigest()
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v3,{signature}",
    }


def checked_url(url: str) -> str:
    """Check a webhook's address.

    :param url: of the query parameter.
    :raises Refused: HTTP 400 unless it is http or https on a loopback address.
    """
    try:
        parts = urlsplit(url)
        allowed = parts.scheme in PORTS and is_loopback(parts.hostname or "") and parts.port != 0
    except ValueError:
        allowed = False
    # Other characters would not survive on the request line.
    if not allowed or not re.fullmatch(r"[\x21-\x7e]+", url):
        raise Refused(
            400,
            "Invalid parameter webhook: this local service sends nothing beyond this computer; "
            "allowed are http and https on a loopback address, such as http://127.0.0.1:9000/hook",
        )
    return url


def is_loopback(host: str) -> bool:
    """Tell whether a host is this computer, as a loopback address or as ``localhost``."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def _post(url: str, headers: Mapping[str, str], body: bytes) -> int:
    """Send a body and return the HTTP status. Redirects are answers like others.

    The connection is asyncio's own, for an attempt in a thread could not be broken off.
    """
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    sent = {
        "Host": parts.netloc.rpartition("@")[2],
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Connection": "close",
        **headers,
    }
    head = f"POST {target} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in sent.items())
    tls = ssl.create_default_context() if parts.scheme == "https" else None
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port or PORTS[parts.scheme], ssl=tls)
    try:
        writer.write(head.encode() + b"\r\n" + body)
        await writer.drain()
        version, _, rest = (await reader.readline()).partition(b" ")
        if not version.startswith(b"HTTP/1."):
            raise ConnectionError("no HTTP answer")
        return int(rest[:3])
    finally:
        writer.close()
