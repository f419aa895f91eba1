"""Which hosts this package talks to: the API's base URL, and the hosts that an output may come from.

An output URL is server data, so it is not trusted: https only, a public address at every redirect. Private
addresses are allowed only where the API itself is on one (the local service, a company's gateway).
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import urlsplit
from urllib.request import getproxies

from airflow_provider_bitdance.exceptions import InputError, OutputError, OutputRefusedError

DEFAULT_BASE_URL: Final = "https://api.wavespeed.ai"

_LABEL = "[A-Za-z0-9_-]{1,63}"
_HOST = re.compile(rf"{_LABEL}(\.{_LABEL})*\.?|[0-9a-f:.]*:[0-9a-f:.]*")
Resolve = Callable[[str], Awaitable[list[str]]]


def base_url(url: str, *, allow_http: bool = False) -> str:
    """Check the API's base URL and return it without a trailing slash.

    :param url: ``https://host[:port]``; a trailing ``/api/v3`` is dropped.
    :param allow_http: Take plain http to any host. Default: only to this machine, for the key goes along.
    :raises InputError: It is no such URL.
    """
    try:
        parts = urlsplit(url.strip())
        host, port = parts.hostname or "", parts.port
    except ValueError:
        parts, host, port = urlsplit(""), "", None
    fix = "Correct the host field of the connection"
    plain = _HOST.fullmatch(host) and "@" not in parts.netloc and not parts.query and not parts.fragment
    if parts.scheme not in {"https", "http"} or not plain:
        raise InputError(
            "The API's URL is not a plain https URL",
            allowed=f"such as {DEFAULT_BASE_URL}, without user, query or fragment",
            fix=fix,
        )
    if parts.scheme == "http" and not (allow_http or _is_loopback(host)):
        raise InputError(
            f"The API's URL http://{host} would send the API key in clear text",
            allowed="https, or http to this machine (127.0.0.1, localhost)",
            fix=f'{fix}, or set "allow_http": true in its extra if the network is trusted',
        )
    path = parts.path.rstrip("/").removesuffix("/api/v3")
    shown = f"[{host}]" if ":" in host else host
    # The host is part of a request's identity, so one service has one spelling.
    port = None if port == {"https": 443, "http": 80}[parts.scheme] else port
    return f"{parts.scheme}://{shown}{f':{port}' if port else ''}{path}"


def uses_proxy(url: str) -> bool:
    """Say whether a request for ``url`` goes through a proxy of the environment, as httpx reads it."""
    parts, proxies = urlsplit(url), getproxies()
    if not (proxies.get(parts.scheme) or proxies.get("all")):
        return False
    host, netloc = (parts.hostname or "").lower(), parts.netloc.rpartition("@")[2].lower()
    for entry in proxies.get("no", "").lower().split(","):
        name = entry.strip().rpartition("://")[2].lstrip(".")
        if name == "*" or (name and any(f".{known}".endswith(f".{name}") for known in (host, netloc))):
            return False
    return True


async def look_up(host: str) -> list[str]:
    """Return the addresses of a host name, looked up in a thread."""
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


class OutputRule:
    """Says whether an output may be fetched from a URL.

    :param api_url: The API's base URL, which decides whether http and private addresses are allowed.
    :param resolve: Host name to addresses; injected by tests.
    """

    def __init__(self, api_url: str, *, resolve: Resolve = look_up) -> None:
        self._api = urlsplit(api_url)
        self._resolve = resolve
        self._private_allowed: bool | None = None

    async def check(self, url: str) -> None:
        """Check one hop before it is fetched.

        :raises OutputRefusedError: The scheme or the address is not allowed.
        :raises OutputError: The host's name does not resolve just now.
        """
        try:
            parts = urlsplit(url)
        except ValueError:
            raise OutputRefusedError(
                "The output's URL is malformed", allowed="https to a public host"
            ) from None
        schemes = {"https", self._api.scheme} if _is_loopback(self._api.hostname or "") else {"https"}
        if parts.scheme not in schemes or not parts.hostname:
            raise OutputRefusedError(
                "The output's URL is not https", allowed="https; http only where the API is http on loopback"
            )
        # Behind a proxy it is the proxy that resolves names, and this machine often cannot.
        if uses_proxy(url) and not _is_address(parts.hostname):
            return
        for address in await self._addresses(parts.hostname):
            await self.check_address(address)

    async def check_address(self, address: str) -> None:
        """Check one address, before a connection or of the peer that was reached.

        :raises OutputRefusedError: It is not public, and the API's own address is.
        """
        if not _is_public(address) and not await self._allows_private():
            raise OutputRefusedError(
                "The output's host has a private IP address", allowed="a public host, such as WaveSpeed's CDN"
            )

    async def _allows_private(self) -> bool:
        if self._private_allowed is None:
            addresses = await self._addresses(self._api.hostname or "")
            self._private_allowed = not all(_is_public(address) for address in addresses)
        return self._private_allowed

    async def _addresses(self, host: str) -> list[str]:
        if _is_address(host):
            return [host]
        try:
            return await self._resolve(host)
        except (OSError, UnicodeError):
            raise OutputError("The host name of an output does not resolve at the moment") from None


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def _is_public(address: str) -> bool:
    ip = ipaddress.ip_address(address.split("%")[0])
    mapped = getattr(ip, "ipv4_mapped", None)
    return (mapped or ip).is_global and not (mapped or ip).is_multicast
