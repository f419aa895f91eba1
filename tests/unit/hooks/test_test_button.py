"""What Airflow's test button says, over real sockets."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_provider_bitdance.hooks.bitdance import BitDanceHook
from airflow_provider_bitdance.local import LocalService, Options, running_service
from tests.unit.hooks.support import KEY, Connect

Answering = Callable[[bytes], str]


@pytest.fixture
def answering() -> Iterator[Answering]:
    """Return what starts a server that gives one answer, whatever it is asked; it returns host and port."""
    servers: list[socket.socket] = []

    def start(answer: bytes) -> str:
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)

        def serve() -> None:
            with server.accept()[0] as caller:
                caller.recv(65536)
                caller.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        return f"127.0.0.1:{server.getsockname()[1]}"

    yield start
    for server in servers:
        server.close()


def http(status: str, body: str = "<html></html>", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", body]).encode()


def test_a_right_key_is_told_with_the_balance(hook: BitDanceHook, service: LocalService) -> None:
    assert hook.test_connection() == (True, "The key works. The balance is $100.00.")
    assert [event.path for event in service.requests()] == ["/api/v3/balance"]


def test_a_key_without_credit_is_told_to_be_topped_up(connect: Connect) -> None:
    with running_service(Options(api_key=KEY, balance_usd=0)) as empty:
        ok, message = connect(host=empty.url).test_connection()
    assert not ok
    assert message == "The key works, but there is no credit: the balance is $0.00. Top up the account."


def test_a_field_that_has_no_effect_is_named(service: LocalService, connect: Connect) -> None:
    ok, message = connect(host=service.url, extra={"max_inflight": 9}).test_connection()
    assert ok
    assert message.startswith("The key works. The balance is $100.00. Unknown extra fields have no effect:")
    assert "'max_inflight' (did you mean max_in_flight?)" in message


def test_a_wrong_key_is_told_in_words(service: LocalService, connect: Connect) -> None:
    ok, message = connect(host=service.url, password="wrong-key").test_connection()
    assert (ok, message) == (
        False,
        "The API key was refused. Check it; a key works only after the first top-up.",
    )


def test_a_suspended_account_is_told_in_the_apis_words(hook: BitDanceHook, service: LocalService) -> None:
    service.add_fault(on="balance", kind="status", status=403)
    ok, message = hook.test_connection()
    assert not ok
    assert "Your account is suspended" in message


def test_a_missing_key_is_told_before_anything_is_sent(service: LocalService, connect: Connect) -> None:
    ok, message = connect(host=service.url, password="").test_connection()
    assert (ok, message) == (
        False,
        "Connection 'bitdance_test': The API key is missing or malformed. Allowed: the key from the "
        "WaveSpeed dashboard, one word of printable ASCII characters. Enter it in the password field of the "
        "connection.",
    )
    assert service.requests() == []


def test_a_field_that_cannot_be_used_is_named(service: LocalService, connect: Connect) -> None:
    ok, message = connect(host=service.url, extra={"max_in_flight": 0}).test_connection()
    assert not ok
    assert "'bitdance_test'" in message
    assert "max_in_flight is 0: Input should be greater than or equal to 1" in message
    assert service.requests() == []


def test_an_address_where_nobody_listens_is_told(connect: Connect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    ok, message = connect(host=url).test_connection()
    assert not ok
    assert message.startswith(f"{url} could not be reached. Check the host, and the network and proxy of")
    assert "Connection refused" in message


def test_a_proxy_where_nobody_listens_is_told(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    hook = connect()
    monkeypatch.setenv("https_proxy", f"http://someone:proxy-password@127.0.0.1:{port}")
    ok, message = hook.test_connection()
    assert not ok
    assert message.startswith("https://api.wavespeed.ai could not be reached.")
    assert "proxy-password" not in message


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-OpenSSH_9.2\r\n"], ids=["hangs up", "ssh"])
def test_a_server_that_speaks_no_http_is_not_reached(
    answer: bytes, answering: Answering, connect: Connect
) -> None:
    ok, message = connect(host=f"http://{answering(answer)}").test_connection()
    assert not ok
    assert "could not be reached" in message


def test_https_to_a_server_that_speaks_http_is_told(answering: Answering, connect: Connect) -> None:
    ok, message = connect(host=f"https://{answering(http('200 OK'))}").test_connection()
    assert not ok
    assert "could not be reached" in message
    assert "SSL" in message


@pytest.mark.parametrize(
    "answer",
    [
        http("200 OK"),
        http("200 OK", '{"status": "ok"}'),
        http("200 OK", '{"code": 200, "data": {}}'),
        http("301 Moved Permanently", Location="https://elsewhere.invalid/"),
        http("404 Not Found"),
        http("405 Method Not Allowed"),
    ],
    ids=["a web page", "other JSON", "no balance", "a redirect", "404", "405"],
)
def test_another_service_at_the_address_is_told(
    answer: bytes, answering: Answering, connect: Connect
) -> None:
    url = f"http://{answering(answer)}"
    ok, message = connect(host=url).test_connection()
    assert not ok
    assert message.startswith(
        f"{url} is not the URL of a WaveSpeed API. Check the host; if it is empty, https:"
    )


def test_a_path_that_is_wrong_is_told(service: LocalService, connect: Connect) -> None:
    ok, message = connect(host=f"{service.url}/elsewhere").test_connection()
    assert not ok
    assert "not the URL of a WaveSpeed API" in message


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"status": 400, "message": "Insufficient credits"}, "Insufficient credits"),
        ({"status": 500, "message": "Internal server error"}, "Internal server error"),
        ({"status": 429, "message": "Slow down"}, "Slow down"),
    ],
)
def test_other_answers_are_told_in_the_apis_words(
    fault: dict[str, Any], said: str, hook: BitDanceHook, service: LocalService
) -> None:
    service.add_fault(on="balance", kind="status", **fault)
    ok, message = hook.test_connection()
    assert not ok
    assert said in message
