"""Which hosts this package talks to: the API's base URL, and the hosts that an output may come from.

An output URL is server data, so it is not trusted: https only, a public address at every redirect. Private
addresses are allowed only where the API itself is on one (the local service, a company's gateway). Behind a
proxy, which resolves the names, those of private hosts are refused instead.
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

_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
_PRIVATE_NAMES = re.compile(
    r"(.+\.)?(localhost|localdomain|local|internal|intranet|private|corp|home|lan|home\.arpa|test|invalid)|[^.]*"
)
"""Names that public DNS does not have (RFC 6761, 6762, 8375, ICANN's .internal), and those without a dot."""
_NUMBER = re.compile(r"(.*\.)?([0-9]+|0x[0-9a-f]*)")
"""A host whose last part is a number is an IPv4 address to some readers: 2130706433, 0x7f.1."""
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_6TO4 = ipaddress.ip_network("2002::/16")
LONGEST_URL: Final = 8 * 2**10
"""Characters. A signed URL has some 2,000; reading one of a megabyte stops the event loop for seconds."""
_LONGEST_HOST = 254
"""Characters, as DNS has it, with the dot at the end. Unicode is no shorter in ASCII."""
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


def input_url_fault(url: str) -> str:
    """Say what is wrong with a URL that is an input of a model, which WaveSpeed fetches; empty if nothing.

    Nobody looks the host up here: it is WaveSpeed that reaches it, or does not.
    """
    try:
        parts = urlsplit(url)
        host = _plain_host(parts.hostname or "") if len(url) <= LONGEST_URL else ""
        has_user = "@" in parts.netloc
    except ValueError:
        host, has_user = "", False
    if not host or parts.scheme != "https" or not url.isprintable() or " " in url or not parts.path.isascii():
        return "is not an https URL"
    if has_user or parts.query or parts.fragment or "?" in url or "#" in url:
        return "is a URL with a user, a query or a fragment"
    is_public = _is_public(host) if _is_address(host) else not _is_private_name(host)
    return "" if is_public else "is a URL of a private network"


def loopback_hosts(url: str) -> set[str]:
    """Return the hosts of this machine for which no proxy is used: its names, and that of a local API."""
    host = urlsplit(url).hostname or ""
    own = f"[{host}]" if ":" in host else host
    return {*_LOOPBACK_NAMES, *([own] if _is_loopback(host) else ())}


def uses_proxy(url: str) -> bool:
    """Say whether a request for ``url`` goes through a proxy of the environment, as httpx reads it."""
    parts, proxies = urlsplit(url), getproxies()
    host, netloc = (parts.hostname or "").lower(), parts.netloc.rpartition("@")[2].lower()
    if _is_loopback(host) or not (proxies.get(parts.scheme) or proxies.get("all")):
        return False
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
        self._api_url = api_url
        self._api = urlsplit(api_url)
        self._resolve = resolve
        self._private_allowed: bool | None = None

    async def check(self, url: str) -> None:
        """Check one hop before it is fetched.

        :raises OutputRefusedError: The scheme or the address is not allowed.
        :raises OutputError: The host's name does not resolve just now.
        """
        scheme, host = _scheme_and_host(url)
        schemes = {"https", self._api.scheme} if _is_loopback(self._api.hostname or "") else {"https"}
        if scheme not in schemes or not host:
            raise OutputRefusedError(
                "The output's URL is not https",
                allowed=("https; http only if the API itself is on http at loopback"),
            )
        # Behind a proxy it is the proxy that resolves names, and this machine often cannot.
        if uses_proxy(url) and not _is_address(host):
            if _is_private_name(host) and not await self._allows_private():
                raise OutputRefusedError(
                    "The name of the output's host belongs to a private network",
                    allowed="a public host, such as WaveSpeed's CDN",
                )
            return
        for address in await self._addresses(host):
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
        host = self._api.hostname or ""
        if self._private_allowed is None and uses_proxy(self._api_url) and not _is_address(host):
            self._private_allowed = _is_private_name(host)
        elif self._private_allowed is None:
            addresses = await self._addresses(host)
            self._private_allowed = not all(_is_public(address) for address in addresses)
        return self._private_allowed

    async def _addresses(self, host: str) -> list[str]:
        if _is_address(host):
            return [host]
        try:
            return await self._resolve(host)
        except (OSError, UnicodeError):
            raise OutputError("The host name of an output does not resolve at the moment") from None


def _scheme_and_host(url: str) -> tuple[str, str]:
    if len(url) > LONGEST_URL:
        raise OutputRefusedError(
            "The output's URL is too long", allowed=f"at most {LONGEST_URL:,} characters"
        )
    try:
        parts = urlsplit(url)
        return parts.scheme, _plain_host(parts.hostname or "")
    except UnicodeError:
        raise OutputError("The host name of an output does not resolve at the moment") from None
    except ValueError:
        raise OutputRefusedError("The output's URL is malformed", allowed="https to a public host") from None


def _plain_host(host: str) -> str:
    """Return a host as it is looked up: in ASCII and lower case, with plain dots.

    :raises ValueError: It is none.
    """
    if len(host) > _LONGEST_HOST:  # before idna: 680,000 characters take it 17 s
        raise ValueError
    plain = host if _is_address(host) else host.encode("idna").decode().lower()
    if plain and (len(plain) > _LONGEST_HOST or not (_is_address(plain) or _HOST.fullmatch(plain))):
        raise ValueError
    return plain


def _is_private_name(host: str) -> bool:
    name = host.rstrip(".")
    return bool(_PRIVATE_NAMES.fullmatch(name) or _NUMBER.fullmatch(name))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def _is_public(address: str) -> bool:
    """Say whether an address is one of the Internet, and no tunnel or translation to another one.

    What is left of IPv6 outside of 2000::/3 is not: IPv4 within, site-local, to come.
    """
    ip = ipaddress.ip_address(address.split("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if (ip4 := ip.ipv4_mapped) is not None:
            ip = ip4
        elif ip in _NAT64:  # how a network without IPv4 reaches a public host
            ip = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        elif ip not in _GLOBAL_UNICAST or ip in _6TO4:
            return False
    return ip.is_global and not ip.is_multicast
