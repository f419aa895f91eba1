"""Addresses: the URLs of outputs, with redirects and proxies, and the paths where users want images."""

from __future__ import annotations

import asyncio
import ipaddress
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from urllib.parse import urlsplit

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from airflow_provider_bitdance.exceptions import InputError, OutputError
from airflow_provider_bitdance.hooks.object_storage import open_folder
from airflow_provider_bitdance.storage.naming import parse_destination
from airflow_provider_bitdance.wavespeed.client import AsyncClient, ClientSettings
from airflow_provider_bitdance.wavespeed.urls import OutputRule
from tests.fuzz.cases import Case
from tests.fuzz.mutation import TEXTS, mutated_text
from tests.fuzz.sandbox import Sandbox
from tests.fuzz.target import SECRET, Target, expect, expect_fit_for_people
from tests.unit.support import Body
from tests.wire import httpx

PUBLIC, LOOPBACK = "https://api.wavespeed.ai", "http://127.0.0.1:9"
_PROXY = "http://proxy.example:3128"
# Not from the package, and not from ipaddress's own words, which differ between versions of Python.
_FORBIDDEN = [
    ipaddress.ip_network(network)
    for network in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/29", "192.0.2.0/24", "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/3"),
        *("::/127", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8", "2001:db8::/32"),
    )
]
_CARRIES_V4 = {"64:ff9b::/96": 0, "64:ff9b:1::/48": 0, "2002::/16": 80, "::ffff:0:0/96": 0, "::/96": 0}
"""IPv6 networks whose addresses hold an IPv4 address, and how many bits come after it."""
NAMES = {
    "cdn.example": ["93.184.215.14"],
    "internal.example": ["10.0.0.7"],
    "both.example": ["93.184.215.14", "127.0.0.1"],
    "six.example": ["2606:2800:21f::1"],
    "nat.example": ["64:ff9b::a00:1"],
}
URLS = (
    *(
        "https://cdn.example/outputs/1.png",
        "https://93.184.215.14/outputs/1.png",
        "http://cdn.example/outputs/1",
    ),
    *(
        "https://internal.example/outputs/1",
        "https://both.example/outputs/1",
        "https://nat.example/outputs/1",
    ),
    *("https://127.0.0.1/outputs/1", "https://localhost/outputs/1", "http://127.0.0.1:9/outputs/1"),
    *("https://2130706433/outputs/1", "https://0x7f000001/outputs/1", "https://0177.0.0.1/outputs/1"),
    *("https://[::1]/outputs/1", "https://[::ffff:10.0.0.1]/outputs/1", "https://[64:ff9b::a00:1]/outputs/1"),
    *("https://[2002:a00:1::]/outputs/1", "https://[::10.0.0.1]/outputs/1", "https://[fec0::1]/outputs/1"),
    *(
        "https://user:pw@cdn.example/outputs/1",
        "https://cdn.example@127.0.0.1/outputs/1",
        "//cdn.example/outputs",
    ),
    *(
        "file:///etc/passwd",
        "ftp://cdn.example/outputs",
        "https://cdn.example:99999/outputs",
        "https:///outputs",
    ),
    *(
        "https://metadata.internal/outputs",
        "https://localhost./outputs",
        "https://127.1/outputs/1",
        "https://1/",
    ),
    *("https://[fe80::1%25eth0]/outputs", "https://cdn.example\\@127.0.0.1/outputs", "https://six.example/o"),
    *(
        "https://169.254.169.254/latest/outputs",
        "https://printer.local/outputs",
        "https://\uff11\uff12\uff17.0.0.1/outputs",
    ),
)


async def resolve(host: str) -> list[str]:
    try:
        return NAMES[host.rstrip(".").lower()]
    except KeyError:
        raise OSError("no such name") from None


def is_forbidden(address: str) -> bool:
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        for network, after in _CARRIES_V4.items():
            if ip in ipaddress.ip_network(network) and is_forbidden(
                str(ipaddress.IPv4Address((int(ip) >> after) & 0xFFFFFFFF))
            ):
                return True
    return any(ip in network for network in _FORBIDDEN if network.version == ip.version)


def _leads_inside(host: str, *, is_resolved: bool) -> bool:
    """Whether a name or an address that is fetched belongs to no public host.

    :param is_resolved: By this machine; else a proxy finds out what a name means, and the name alone counts.
    """
    plain = host.rstrip(".").lower()
    try:
        return is_forbidden(plain.strip("[]"))
    except ValueError:
        pass
    if is_resolved and plain in NAMES:
        return any(map(is_forbidden, NAMES[plain]))
    # As the C library and browsers read it: 0x7f.1 is one, 93.1file is a name.
    last = plain.rpartition(".")[2]
    as_number = last.isdecimal() or (last.startswith("0x") and set(last[2:]) <= set("0123456789abcdef"))
    return as_number or "." not in plain or plain.endswith((".internal", ".local", ".localhost"))


@contextmanager
def _environment(*, proxy: bool) -> Iterator[None]:
    names = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY")
    before = {
        name: os.environ.pop(each) for name in names for each in (name, name.lower()) if each in os.environ
    }
    if proxy:
        os.environ.update(HTTPS_PROXY=_PROXY, HTTP_PROXY=_PROXY)
    try:
        yield
    finally:
        for name in names:
            os.environ.pop(name, None)
        os.environ.update(before)


def check_download(case: Case, folder: Path, sandbox: Sandbox) -> None:
    """Follow a chain of redirects; what is fetched is never inside, and the key never goes along."""
    chain, fetched = list(case["urls"]), []

    def respond(request: httpx.Request) -> httpx.Response:
        if request.url.scheme not in ("http", "https"):
            raise httpx.UnsupportedProtocol("as the real transport says")
        fetched.append(str(request.url))
        number = len(fetched)
        expect(SECRET not in str(request.headers.raw), "the API key goes to the host of an output")
        allowed = ("https",) if case["api"] == PUBLIC else ("https", "http")
        expect(request.url.scheme in allowed, "an output is fetched without TLS", request.url)
        if case["api"] == PUBLIC:
            inside = _leads_inside(request.url.host, is_resolved=not case["proxy"])
            expect(not inside, "an output is fetched from inside", request.url)
        if number < len(chain):
            return httpx.Response(302, headers={"Location": chain[number].encode("utf-8", "replace")})
        return httpx.Response(200, stream=Body(b"picture"))

    async def download() -> bytes:
        rule = OutputRule(case["api"], resolve=resolve)
        settings = ClientSettings(SECRET, base_url=case["api"])
        async with AsyncClient(settings, transport=httpx.MockTransport(respond), output_rule=rule) as client:
            into = BytesIO()
            await client.download(chain[0], into, max_bytes=1000)
            return into.getvalue()

    with _environment(proxy=case["proxy"]):
        try:
            got = asyncio.run(download())
        except OutputError as error:
            expect_fit_for_people(str(error), "an error about an output's URL")
            return
    expect(got == b"picture", "an output is not what was served", got)


def download_cases() -> SearchStrategy[Case]:
    url = mutated_text(URLS)
    return st.fixed_dictionaries(
        {
            "urls": st.lists(url, min_size=1, max_size=5),
            "api": st.sampled_from((PUBLIC, PUBLIC, LOOPBACK)),
            "proxy": st.booleans(),
        }
    )


def a_normal_download() -> Case:
    return {"urls": [URLS[0]] * 4, "api": PUBLIC, "proxy": False}


PATHS = (
    *(
        "/data/Images/",
        "/data/images/cover.png",
        "file:///data/images/",
        "s3://bucket/images/",
        "s3://id@b/x.jpg",
    ),
    *("/data/C#/", "/data/C?/x", "/data/./x", "/data//x", "FILE:///data/x/", "/data/%2e%2e/x", "/data/a b/"),
    *(
        "/data/café/",
        "/data/cafe\u0301/",
        "/data/../etc/",
        "relative/x",
        "file://host/x",
        "/",
        "/x",
        "gs://b/",
    ),
)


def check_path(case: Case, folder: Path, sandbox: Sandbox) -> None:
    """Open the folder that a path names: it is the one that is compared, and nothing leads out of it."""
    try:
        found = parse_destination(case["path"], default_stem="stem")
        opened = open_folder(found.folder) if found.folder.startswith("file:") else None
    except InputError as error:
        expect_fit_for_people(str(error), "an error about a path")
        return
    name = found.file_name("image/png")
    expect("/" not in found.stem and found.stem not in ("", ".", ".."), "a stem is more than a name", found)
    expect(len(os.fsencode(name)) <= 255, "a name is longer than disks take", name)
    if opened is not None:
        path = opened.uri.removeprefix("file://")
        expect(path == os.path.normpath(path), "a folder has more than one spelling", path)
        expect(found.folder == opened.uri, "the folder that is compared is not the one that is opened", found)
        expect(case["path"].strip().startswith(("/", "file:", "FILE:")), "a path is of the disk", found)
    else:
        expect(urlsplit(found.folder).scheme == found.folder.partition(":")[0], "a scheme has two spellings")


def path_cases() -> SearchStrategy[Case]:
    return st.one_of(mutated_text(PATHS), st.sampled_from(TEXTS)).map(lambda path: {"path": path})


TARGETS = (
    Target("output-urls", download_cases(), check_download, a_normal_download),
    Target("output-paths", path_cases(), check_path, lambda: {"path": PATHS[0]}),
)
