"""What a client is built from: the key, the URL, the time-out. Checked before anything is sent."""

from __future__ import annotations

import hashlib
from urllib.parse import urlsplit

from pydantic import SecretStr

from airflow_provider_bitdance.exceptions import InputError
from airflow_provider_bitdance.redaction import hide
from airflow_provider_bitdance.wavespeed import urls

MAX_TIMEOUT = 600.0
"""Seconds; longer than any gateway holds a request."""


class ClientSettings:
    """What a client is built from. ``repr`` and ``vars`` hide the key.

    :param api_key: The WaveSpeed API key.
    :param base_url: ``https://host``; http only to this machine unless ``allow_http``.
    :param allow_http: Accept http to other hosts; the key then travels in clear text.
    :param timeout: Seconds for one HTTP request with its whole response, 600 at most; WaveSpeed advises 30 to
        60 (docs/errors-retries-timeouts).
    :raises InputError: The key, the URL or the time-out cannot be used.
    """

    def __init__(
        self,
        api_key: str,
        *,
        base_url: str = urls.DEFAULT_BASE_URL,
        allow_http: bool = False,
        timeout: float = 60.0,
    ) -> None:
        key = (api_key or "").strip()
        if not key or not key.isascii() or not key.isprintable() or " " in key:
            raise InputError(
                "The API key is missing or malformed",
                allowed="the key from the WaveSpeed dashboard, one word of printable ASCII characters",
                fix="Enter it in the password field of the connection",
            )
        if not 0 < timeout <= MAX_TIMEOUT:
            raise InputError(f"timeout is {timeout!r}", allowed=f"seconds, above 0 and up to {MAX_TIMEOUT:g}")
        hide(key)
        self._api_key = SecretStr(key)
        self.base_url = urls.base_url(base_url, allow_http=allow_http)
        self.timeout = timeout

    def __repr__(self) -> str:
        return f"{type(self).__name__}(base_url={self.base_url!r}, api_key='***')"

    @property
    def api_key(self) -> str:
        """The key itself."""
        return self._api_key.get_secret_value()

    @property
    def identity(self) -> tuple[str, str, float]:
        """What makes two clients the same: URL, hash of the key, time-out."""
        return self.base_url, hashlib.sha256(self.api_key.encode()).hexdigest(), self.timeout

    @property
    def host(self) -> str:
        """``host`` or ``host:port`` of the API: the part of its URL that is a request's identity."""
        return urlsplit(self.base_url).netloc
