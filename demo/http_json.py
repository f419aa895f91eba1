"""JSON over HTTP to servers on this machine, with the standard library and never through a proxy."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

# What the server is away looks like: refused, reset, timed out, cut off in the middle.
AWAY = (OSError, http.client.HTTPException)

_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class RestError(RuntimeError):
    """A server refused a request."""

    def __init__(self, method: str, url: str, status: int, body: str) -> None:
        super().__init__(f"{method} {url} returned status {status}: {body[:1000]}")
        self.status = status
        self.body = body


def send(method: str, url: str, body: object = None, headers: Mapping[str, str] | None = None) -> Any:
    """Send one request and return the JSON of the answer, None where it has none.

    Raises `RestError`, or one of `AWAY`.
    """
    data = None if body is None else json.dumps(body).encode()
    all_headers = {"Accept": "application/json", "Content-Type": "application/json"} | dict(headers or {})
    request = urllib.request.Request(url, data=data, headers=all_headers, method=method)
    try:
        with _opener.open(request, timeout=60) as response:
            answer = response.read()
            return json.loads(answer) if answer else None
    except urllib.error.HTTPError as error:
        raise RestError(method, url, error.code, error.read().decode(errors="replace")) from error
