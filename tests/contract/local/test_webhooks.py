"""Webhooks: what arrives, how it is signed, and how often it is sent."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from airflow_provider_bitdance.local import LocalService, Options
from airflow_provider_bitdance.local.prediction import Prediction
from airflow_provider_bitdance.local.webhooks import Delivery, checked_url, signed
from tests.contract.local.caller import SUBMIT, Caller, Clock, calling, until

Received = tuple[dict[str, str], bytes]


@dataclass
class Receiver:
    """Somebody's endpoint, which answers with one status after the other and then with 200."""

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    received: list[Received] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            receiver.paths.append(self.path)
            receiver.received.append(({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(receiver.statuses.pop(0) if receiver.statuses else 200)
            self.send_header("Location", "/elsewhere")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        receiver.url = f"http://127.0.0.1:{server.server_port}/hook?token=a%2Fb"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield receiver
        server.shutdown()
        thread.join()


def _submit(caller: Caller, webhook: str, prompt: str = "a lighthouse") -> str:
    answer = caller.http.post(SUBMIT, params={"webhook": webhook}, json={"prompt": prompt})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["data"]["id"])


def _settled(caller: Caller, status: str) -> Delivery:
    """Wait until the only delivery has this status."""
    until(lambda: [delivery.status for delivery in caller.local.webhooks()] == [status])
    return caller.local.webhooks()[0]


def _attempted(local: LocalService, times: int) -> None:
    """Wait until the response to an attempt is in."""
    until(lambda: local.webhooks() and local.webhooks()[0].attempts == times)
    until(lambda: local.webhooks()[0].due_at < float("inf"))


def _looked(local: LocalService, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait until the service has looked twice for what is due."""
    looks: list[float] = []
    ask = local.service.webhooks_due

    def counted(now: float) -> list[Prediction]:
        looks.append(now)
        return ask(now)

    with monkeypatch.context() as patch:
        patch.setattr(local.service, "webhooks_due", counted)
        until(lambda: len(looks) >= 2)


def test_a_completed_prediction_is_told_once_as_a_bare_object(caller: Caller, receiver: Receiver) -> None:
    prediction_id = _submit(caller, receiver.url)
    caller.clock.move(5)
    _settled(caller, "delivered")
    ((headers, body),) = receiver.received
    told = json.loads(body)
    assert headers["content-type"] == "application/json"
    assert receiver.paths == ["/hook?token=a%2Fb"]
    shown = caller.data(prediction_id)
    assert told == {**shown, "input": {"prompt": "a lighthouse", "size": "1024*1024", "seed": -1}}
    assert (told["status"], told["outputs"]) == ("completed", shown["outputs"])


def test_a_failed_prediction_is_told_without_outputs(caller: Caller, receiver: Receiver) -> None:
    caller.local.add_fault(on="submit", kind="failed", error="no luck")
    _submit(caller, receiver.url)
    caller.clock.move(5)
    _settled(caller, "delivered")
    told = json.loads(receiver.received[0][1])
    assert (told["status"], told["error"], "outputs" in told) == ("failed", "no luck", False)


def test_a_receiver_that_does_as_the_docs_say_finds_the_signature_right(
    caller: Caller, receiver: Receiver
) -> None:
    prediction_id = _submit(caller, receiver.url)
    caller.clock.move(5)
    _settled(caller, "delivered")
    ((headers, body),) = receiver.received
    secret = caller.http.get("/api/v3/webhook/secret").json()["data"]["secret"]
    version, signature = headers["webhook-signature"].split(",")
    signed_content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.{body.decode()}"
    key = secret.removeprefix("whsec_").encode()
    assert version == "v3"
    assert hmac.compare_digest(signature, hmac.new(key, signed_content.encode(), hashlib.sha256).hexdigest())
    assert headers["webhook-id"] == prediction_id
    assert abs(int(headers["webhook-timestamp"]) - caller.clock.now) < 300


@pytest.mark.parametrize(
    ("secret", "body", "signature"),
    [
        # printf '%s' '<id>.<timestamp>.<body>' | openssl dgst -sha256 -hmac '<secret without whsec_>'
        ("whsec_abc123", b"{}", "533bc267c1f48c5ccbf59a43eb9fffad59a9287374633a6050e4ca8f98a91c9d"),
        ("abc123", b"{}", "533bc267c1f48c5ccbf59a43eb9fffad59a9287374633a6050e4ca8f98a91c9d"),
        (
            "whsec_d2l0aCBiYXNlNjQ=",
            '{"prompt": "灯台"}'.encode(),
            "2bb23bf55a045ade3cfdc8d788463355616cf2eb8fcef2aed520a72e19c639bf",
        ),
    ],
)
def test_signatures_are_those_that_openssl_makes(secret: str, body: bytes, signature: str) -> None:
    assert signed("0f0f", 1_780_000_000, body, secret=secret) == {
        "webhook-id": "0f0f",
        "webhook-timestamp": "1780000000",
        "webhook-signature": f"v3,{signature}",
    }


def test_errors_and_redirects_are_tried_again_after_ever_longer_pauses(
    caller: Caller, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver.statuses = [500, 302, 404]
    _submit(caller, receiver.url)
    caller.clock.move(5)
    began = int(caller.clock.now)
    for attempts, pause in ((1, 1), (2, 2), (3, 4)):
        _attempted(caller.local, attempts)
        caller.clock.move(pause - 0.1)
        _looked(caller.local, monkeypatch)
        delivery = caller.local.webhooks()[0]
        assert (delivery.status, delivery.attempts) == ("pending", attempts)
        caller.clock.move(0.1)
    assert _settled(caller, "delivered").attempts == 4
    assert set(receiver.paths) == {"/hook?token=a%2Fb"}
    assert len({body for _, body in receiver.received}) == 1
    stamps = [int(headers["webhook-timestamp"]) - began for headers, _ in receiver.received]
    assert stamps == [0, 1, 3, 7]


def test_after_three_retries_it_is_given_up(caller: Caller, receiver: Receiver) -> None:
    receiver.statuses = [500] * 10
    _submit(caller, receiver.url)
    for attempts, pause in ((1, 5), (2, 1), (3, 2)):
        caller.clock.move(pause)
        _attempted(caller.local, attempts)
    caller.clock.move(4)
    delivery = _settled(caller, "failed")
    assert (delivery.attempts, delivery.answer, len(receiver.received)) == (4, 500, 4)


def test_an_endpoint_that_is_away_is_told_of_in_the_admin_paths(caller: Caller) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
    prediction_id = _submit(caller, url)
    caller.clock.move(5)
    _attempted(caller.local, 1)
    (shown,) = caller.http.get("/admin/webhooks").json()
    assert (shown["id"], shown["url"], shown["status"], shown["attempts"]) == (
        prediction_id,
        url,
        "pending",
        1,
    )
    assert shown["answer"].startswith("ConnectionRefusedError")


def test_what_was_dropped_never_comes_and_what_is_sent_twice_comes_twice(
    caller: Caller, receiver: Receiver
) -> None:
    caller.local.add_fault(on="webhook", kind="drop", match="lost")
    caller.local.add_fault(on="webhook", kind="twice", match="doubled")
    lost, doubled = (_submit(caller, receiver.url, prompt) for prompt in ("lost", "doubled"))
    caller.clock.move(5)
    until(lambda: [one.status for one in caller.local.webhooks()] == ["dropped", "delivered", "delivered"])
    assert [headers["webhook-id"] for headers, _ in receiver.received] == [doubled, doubled]
    assert caller.local.webhooks()[0].id == lost


def test_unfinished_and_deleted_predictions_are_not_told_of(caller: Caller, receiver: Receiver) -> None:
    caller.local.add_fault(on="submit", kind="never_finish", match="endless")
    _submit(caller, receiver.url, "endless")
    caller.http.delete(f"/api/v3/predictions/{_submit(caller, receiver.url, 'deleted')}")
    told = _submit(caller, receiver.url, "told")
    caller.clock.move(5)
    assert _settled(caller, "delivered").id == told


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/hook",
        "https://192.168.0.1/hook",
        "http://127.0.0.1.example.com",
        "http://127.0.0.1@example.com/",
        "ftp://127.0.0.1/",
        "127.0.0.1:9000",
        "http://127.0.0.1:99999",
        "http://127.0.0.1:0",
        "http://0.0.0.0:9000",
        "http://127.0.0.1/a b",
        "http://127.0.0.1/\r\nHost: x",
        "http://127.0.0.1/é",
        "http://[::1",
    ],
)
def test_a_webhook_beyond_this_computer_is_refused_and_free(caller: Caller, url: str) -> None:
    answer = caller.http.post(SUBMIT, params={"webhook": url}, json={"prompt": "x"})
    assert answer.status_code == 400
    assert "sends nothing beyond this computer" in answer.json()["message"]
    assert caller.local.bill().submitted == 0


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1", "https://localhost:8443/a?b=c", "http://[::1]:9000/", "http://127.9.9.9:1/x"]
)
def test_any_address_of_this_computer_will_do(url: str) -> None:
    assert checked_url(url) == url


def test_a_receiver_that_stalls_holds_up_no_stop(clock: Clock) -> None:
    stalled = threading.Event()

    class Stalling(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            stalled.wait(30)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Stalling) as server, calling(Options(), clock) as caller:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        _submit(caller, f"http://127.0.0.1:{server.server_port}")
        until(lambda: caller.local.webhooks() and caller.local.webhooks()[0].attempts)
        stopping = threading.Thread(target=caller.local.stop)
        stopping.start()
        stopping.join(timeout=5)
        assert not stopping.is_alive()
        stalled.set()
        server.shutdown()
        thread.join()


def test_a_reset_forgets_webhooks_too(caller: Caller, receiver: Receiver) -> None:
    _submit(caller, receiver.url)
    caller.clock.move(5)
    _settled(caller, "delivered")
    caller.http.post("/admin/reset")
    assert caller.http.get("/admin/webhooks").json() == []
