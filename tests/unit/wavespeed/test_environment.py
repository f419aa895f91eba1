"""What the environment says of proxies and certificates, and where the key goes."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_bitdance import redaction
from airflow_provider_bitdance.exceptions import BitDanceError, InputError, LostResponseError
from airflow_provider_bitdance.wavespeed.client import AsyncClient, Client, ClientSettings, tls_context
from airflow_provider_bitdance.wavespeed.image_request import ImageRequest
from airflow_provider_bitdance.wavespeed.response_errors import failure_of
from tests.wire import httpx, slow_server

KEY = "wsk_Secret/0123+456789"
VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")
REQUEST = ImageRequest.of(prompt="a lighthouse")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_secrets", {})
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def settings(**options: Any) -> ClientSettings:
    return ClientSettings(KEY, **options)


NO_SOCKS = [] if importlib.util.find_spec("socksio") else [("ALL_PROXY", "socks5://user:word@proxy:1080")]
NO_RANGES = [("NO_PROXY", "localhost,::1/128")] if httpx.__name__ == "httpx" else []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *NO_SOCKS,
        *NO_RANGES,
        ("HTTPS_PROXY", "ftp://user:word@proxy:21"),
        ("https_proxy", "http://user:word@proxy:port"),
        ("HTTP_PROXY", "http://[user:word"),
        ("all_proxy", "gopher://user:word@proxy"),
    ],
)
@pytest.mark.parametrize("new", [AsyncClient, Client], ids=["async", "sync"])
def test_a_proxy_variable_that_cannot_be_used_is_named_and_not_shown(
    new: Callable[[ClientSettings], object], name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://fine.example:3128")
    monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=f"{name} cannot be used by httpx") as caught:
        new(settings())
    assert "word" not in str(caught.value)


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_certificates_that_are_not_there_are_named(
    content: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "ca.pem"
    if content:
        file.write_text(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    tls_context.cache_clear()
    try:
        with pytest.raises(InputError, match="SSL_CERT_FILE names a file that cannot be used"):
            AsyncClient(settings())
    finally:
        tls_context.cache_clear()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.2"])
def test_the_key_of_an_api_on_this_machine_goes_to_no_proxy(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with slow_server(b"") as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        with pytest.raises(BitDanceError), Client(settings(base_url=f"http://{host}:9")) as client:
            client.get_balance()
        assert proxy.heads == []


def answered(*, data: object = None, message: str = "", status: int = 200, key: str = KEY) -> Any:
    async def run() -> Any:
        body = json.dumps({"code": status, "message": message, "data": data})
        transport = httpx.MockTransport(lambda _: httpx.Response(status, text=body))
        async with AsyncClient(ClientSettings(key), transport=transport) as client:
            return await client.submit(REQUEST)

    return asyncio.run(run())


ESCAPED = {
    "plain": KEY,
    "percent-encoded": "wsk_Secret%2F0123%2b456789",
    "percent-encoded throughout": "".join(f"%{ord(each):02X}" for each in KEY),
    "percent-encoded twice": "wsk_Secret%252F0123%252B456789",
    "as JSON": "wsk\\u005fSecret\\u002F0123\\u002b456789",
    "as JSON within JSON": "wsk_Secret\\\\u002f0123\\\\u002b456789",
}


@pytest.mark.parametrize("echo", ESCAPED.values(), ids=ESCAPED)
def test_a_key_that_is_echoed_is_masked_however_it_is_written(echo: str) -> None:
    with pytest.raises(BitDanceError) as caught:
        answered(message=f"Bad key <{echo}>", status=401)
    assert "Bad key <***>" in str(caught.value)
    failed = answered(data={"id": "p-1", "status": "failed", "error": f"Bad key <{echo}>"})
    assert "Bad key <***>" in str(failure_of(failed))


@pytest.mark.parametrize("key", ["e", "12", "p-1", "data", '"id"'])
def test_a_short_key_rewrites_nothing_that_is_parsed(key: str) -> None:
    made = answered(data={"id": "p-1", "status": "created", "model": "one/e12"}, key=key)
    assert (made.id, made.status, made.model) == ("p-1", "created", "one/e12")
    with pytest.raises(BitDanceError, match=r"Insufficient credits\. Top up"):
        answered(message="Insufficient credits", status=400, key=key)


def test_a_key_that_is_a_part_of_an_id_leaves_the_id_alone() -> None:
    assert answered(data={"id": "prediction-1"}, key="prediction").id == "prediction-1"


def test_the_key_is_in_no_repr_and_in_no_vars() -> None:
    given = settings()
    with Client(given) as client:
        shown = repr([given, vars(given), client, vars(client), vars(client._client)])
    assert KEY not in shown
    assert given.api_key == KEY


LOGS_A_URL = """
import asyncio, io, logging, sys
if len(sys.argv) > 2:
    sys.modules[sys.argv[2]] = None
logging.basicConfig(level=logging.DEBUG, stream=sys.stdout)
from airflow_provider_bitdance.wavespeed import http
from airflow_provider_bitdance.wavespeed.client import AsyncClient, ClientSettings

async def main(url):
    async with AsyncClient(ClientSettings("key-of-a-test", base_url=url)) as client:
        file = io.BytesIO()
        await client.download(url + "/ours", file, max_bytes=100)
        assert file.getvalue() == b"picture", file.getvalue()
    async with http.httpx.AsyncClient() as other:
        await other.get(url + "/theirs")

asyncio.run(main(sys.argv[1]))
"""
FAMILIES = [name for name in ("httpx", "httpx2") if importlib.util.find_spec(name)]


@pytest.mark.parametrize("family", FAMILIES)
def test_no_library_logs_an_outputs_url_and_others_keep_their_log(family: str) -> None:
    """A plain swap of httpx for httpx2 logs it, at INFO: its loggers have other names."""
    response = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\npicture"
    blocked = [name for name in ("httpx", "httpx2") if name != family]
    with slow_server(response, every=0.01) as server:
        done = subprocess.run(
            [sys.executable, "-c", LOGS_A_URL, server.url, *blocked],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
    assert done.returncode == 0, done.stderr
    assert f"INFO:{family}:HTTP Request: GET {server.url}/theirs" in done.stdout
    assert "/ours" not in done.stdout + done.stderr


def test_both_families_of_loggers_are_kept_quiet() -> None:
    """As if the other library were here, too."""
    record = logging.LogRecord("", logging.INFO, "", 0, "", (), None)

    async def run() -> list[bool | logging.LogRecord]:
        kept: list[bool | logging.LogRecord] = []

        def handle(_: object) -> Any:
            kept.extend(
                logging.getLogger(name).filter(record)
                for family in ("", "2")
                for name in (
                    f"httpx{family}",
                    *(f"httpcore{family}.{part}" for part in ("connection", "http11", "proxy", "socks")),
                )
            )
            raise httpx.ReadError("gone")

        transport = httpx.MockTransport(handle)
        async with AsyncClient(settings(), transport=transport) as client:
            with pytest.raises(LostResponseError):
                await client.get_balance()
        return kept

    kept = asyncio.run(run())
    assert len(kept) == 10
    assert not any(kept)
