"""Both clients on the wire: what leaves this machine, how often, and what becomes of every kind of answer.

Most tests run once with the sync and once with the async client, so that neither can drift.
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
import socket
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_provider_bitdance import __version__, exceptions
from airflow_provider_bitdance.exceptions import BitDanceError, Paid
from airflow_provider_bitdance.local import LocalService, Options, running_service
from airflow_provider_bitdance.wavespeed import protocol
from airflow_provider_bitdance.wavespeed.client import AsyncClient, Client, ClientSettings
from airflow_provider_bitdance.wavespeed.image_request import BITDANCE_14B, ImageRequest
from airflow_provider_bitdance.wavespeed.urls import OutputRule
from tests.wire import httpx

KEY = "wsk_Secret-0123456789"
PROMPT = "a very private lighthouse"
REQUEST = ImageRequest.of(prompt=PROMPT, size="256*256", seed=7)
PUBLIC, PRIVATE = "93.184.215.14", "10.1.2.3"
SINCE = datetime(2026, 1, 1, tzinfo=UTC)
KINDS = ("sync", "async")
CALLS: list[tuple[str, tuple[Any, ...]]] = [
    ("submit", (REQUEST,)),
    ("get_prediction", ("p-1",)),
    ("list_predictions", ()),
    ("search_billings", ()),
    ("get_balance", ()),
    ("get_price", (REQUEST,)),
]
PERIODS = {
    "list_predictions": {"model": BITDANCE_14B, "created_after": SINCE},
    "search_billings": {"start_time": SINCE},
}
"""What a call needs besides, if a test does not say it itself."""
Handler = Callable[[httpx.Request], httpx.Response]

both = pytest.mark.parametrize("kind", KINDS)


def call(
    kind: str,
    settings: ClientSettings,
    method: str,
    *args: Any,
    handler: Handler | None = None,
    **options: Any,
) -> Any:
    """Make one call with a client of its own, over the network or to a handler."""
    transport = httpx.MockTransport(handler) if handler else None
    options = PERIODS.get(method, {}) | options
    if kind == "sync":
        with Client(settings, transport=transport) as client:
            return client.send(getattr(protocol, method)(*args, **options))

    async def run() -> Any:
        async with AsyncClient(settings, transport=transport) as client:
            if method == "download":
                return await client.download(*args, **options)
            return await client.send(getattr(protocol, method)(*args, **options))

    return asyncio.run(run())


def failed(kind: str, settings: ClientSettings, method: str, *args: Any, **options: Any) -> BitDanceError:
    with pytest.raises(BitDanceError) as caught:
        call(kind, settings, method, *args, **options)
    return caught.value


def settings(**options: Any) -> ClientSettings:
    return ClientSettings(KEY, **options)


class Recorder:
    """Answers every request alike and remembers it."""

    def __init__(self, answer: Callable[[], httpx.Response]) -> None:
        self.answer = answer
        self.seen: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request)
        return self.answer()


def enveloped(data: object, *, code: int = 200, message: str = "success") -> httpx.Response:
    return httpx.Response(code, json={"code": code, "message": message, "data": data})


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(scope="module")
def shared() -> Iterator[LocalService]:
    """One service for all tests, each of which starts from its reset: a start and a stop cost 0.3 s."""
    with running_service(Options(api_key=KEY)) as service:
        yield service


@pytest.fixture
def service(shared: LocalService) -> LocalService:
    shared.reset()
    shared.service.clock = lambda: 1_780_000_000.0
    return shared


def at(service: LocalService, **options: Any) -> ClientSettings:
    return settings(base_url=service.url, **options)


# Every endpoint, over a real socket.


@both
def test_a_submission_becomes_a_picture_under_its_id(kind: str, service: LocalService) -> None:
    made = call(kind, at(service), "submit", REQUEST)
    found = call(kind, at(service), "get_prediction", made.id)
    assert (found.id, found.status, found.model) == (made.id, "completed", BITDANCE_14B)
    assert len(found.outputs) == 1
    (task,) = service.predictions()
    assert (task["id"], task["prompt"], task["size"], task["seed"]) == (made.id, PROMPT, "256*256", 7)
    assert service.bill().billed == 1


@both
def test_the_history_is_asked_for_in_pages_by_time_and_by_model(
    kind: str, service: LocalService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "PAGE_SIZE", 2)
    ids = [call(kind, at(service), "submit", REQUEST).id for _ in range(3)]
    newest = call(kind, at(service), "list_predictions", page=1)
    oldest = call(kind, at(service), "list_predictions", page=2)
    assert [item.id for item in (*newest.items, *oldest.items)] == ids[::-1]
    later = datetime.fromtimestamp(service.service.clock(), UTC) + timedelta(hours=1)
    assert call(kind, at(service), "list_predictions", created_after=later).items == ()
    assert call(kind, at(service), "list_predictions", model="another/model").items == ()


@both
def test_the_rest_of_the_endpoints_is_free(kind: str, service: LocalService) -> None:
    made = call(kind, at(service), "submit", REQUEST)
    assert call(kind, at(service), "get_balance").balance == 99.99
    assert call(kind, at(service), "get_price", REQUEST).charged == 0.01
    assert [line.prediction_id for line in call(kind, at(service), "search_billings").items] == [made.id]
    assert service.bill().submitted == 1


@both
def test_a_gateways_path_comes_before_the_apis(kind: str) -> None:
    seen = Recorder(lambda: enveloped({"balance": 1}))
    call(kind, settings(base_url="https://gateway.corp/ws/api/v3"), "get_balance", handler=seen)
    assert str(seen.seen[0].url) == "https://gateway.corp/ws/api/v3/balance"


# What is sent.


@both
@pytest.mark.parametrize(("method", "args"), CALLS, ids=[method for method, _ in CALLS])
def test_a_request_names_this_package_and_carries_the_key_in_one_header(
    kind: str, method: str, args: tuple[Any, ...]
) -> None:
    seen = Recorder(lambda: enveloped({"id": "p-1", "balance": 1, "price": 1}))
    call(kind, settings(), method, *args, handler=seen)
    (request,) = seen.seen
    assert request.headers["User-Agent"].startswith(f"airflow-provider-bitdance/{__version__} ")
    assert request.url.host == "api.wavespeed.ai"
    assert [name for name, value in request.headers.items() if KEY in value] == ["authorization"]
    assert request.headers["Authorization"] == f"Bearer {KEY}"
    assert KEY not in str(request.url)
    assert KEY not in request.content.decode()


@both
def test_a_submission_is_json_with_the_three_documented_keys(kind: str) -> None:
    seen = Recorder(lambda: enveloped({"id": "p-1"}))
    call(kind, settings(), "submit", ImageRequest.of(prompt="灯塔 🗼"), handler=seen)
    assert seen.seen[0].headers["Content-Type"] == "application/json"
    assert json.loads(seen.seen[0].content) == {"prompt": "灯塔 🗼", "size": "1024*1024", "seed": -1}


# What comes back: the two clients see it alike.

ANSWERS: dict[str, Callable[[], httpx.Response]] = {
    "good": lambda: enveloped({"id": "p-1", "status": "created", "balance": 2, "price": 1}),
    "created": lambda: httpx.Response(201, json={"data": {"id": "p-1", "balance": 2, "price": 1}}),
    "gzip": lambda: httpx.Response(200, headers={"Content-Encoding": "gzip"}, content=b"this is not gzip"),
    "bad input": lambda: enveloped(None, code=400, message="Invalid size"),
    "no money": lambda: enveloped(None, code=400, message="Insufficient credits."),
    "bad key": lambda: enveloped(None, code=401, message=f"Invalid API key {KEY}"),
    "suspended": lambda: enveloped(None, code=403),
    "unknown": lambda: enveloped(None, code=404),
    "gateway gave up": lambda: httpx.Response(408),
    "too many": lambda: httpx.Response(429, headers={"Retry-After": "3"}),
    "broken": lambda: enveloped(None, code=500),
    "HTML": lambda: httpx.Response(502, html="<h1>Bad gateway</h1>"),
    "nothing": lambda: httpx.Response(503),
    "moved": lambda: httpx.Response(307, headers={"Location": "https://evil.example/"}),
    "moved nowhere": lambda: httpx.Response(302, headers={"Location": "http://["}),
    "code in 200": lambda: httpx.Response(200, json={"code": 429, "data": None}),
    "no data": lambda: httpx.Response(200, json={"code": 200, "data": None}),
    "a list": lambda: httpx.Response(200, json=[]),
    "truncated": lambda: httpx.Response(200, content=b'{"code": 200, "da'),
    "not JSON": lambda: httpx.Response(200, text="OK"),
}


def outcome(kind: str, method: str, args: tuple[Any, ...], handler: Handler) -> tuple[object, ...]:
    try:
        return ("good", call(kind, settings(), method, *args, handler=handler))
    except BitDanceError as error:
        return (type(error), str(error), error.paid, getattr(error, "retry_after", None))


@pytest.mark.parametrize(("method", "args"), CALLS, ids=[method for method, _ in CALLS])
@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_sync_and_async_read_every_answer_alike(
    answer: Callable[[], httpx.Response], method: str, args: tuple[Any, ...]
) -> None:
    sync, async_ = Recorder(answer), Recorder(answer)
    seen = outcome("sync", method, args, sync)
    assert seen == outcome("async", method, args, async_)
    assert KEY not in str(seen)
    assert len(sync.seen) == len(async_.seen) == 1


NOT_SENT = [
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
]
LOST = [
    httpx.ReadError,
    httpx.ReadTimeout,
    httpx.WriteError,
    httpx.WriteTimeout,
    httpx.CloseError,
    httpx.RemoteProtocolError,
    httpx.LocalProtocolError,
    httpx.DecodingError,
]


def raising(kind_of_error: type[httpx.HTTPError]) -> Handler:
    def handler(_: httpx.Request) -> httpx.Response:
        raise kind_of_error("https://secret.example/ in the text")

    return handler


@both
@pytest.mark.parametrize("broken", NOT_SENT)
@pytest.mark.parametrize(("method", "args"), CALLS[:2], ids=["submit", "get"])
def test_without_a_connection_nothing_was_sent(
    broken: type[httpx.HTTPError], method: str, args: tuple[Any, ...], kind: str
) -> None:
    error = failed(kind, settings(), method, *args, handler=raising(broken))
    assert (type(error), error.retry_helps, error.paid) == (exceptions.NotSentError, True, Paid.NO)
    assert broken.__name__ in str(error)
    assert "secret" not in str(error)


@both
@pytest.mark.parametrize("broken", LOST)
@pytest.mark.parametrize(
    ("method", "args", "paid"), [("submit", (REQUEST,), Paid.POSSIBLY), ("get_prediction", ("p-1",), Paid.NO)]
)
def test_a_lost_response_may_be_paid_for_where_it_was_a_submission(
    broken: type[httpx.HTTPError], method: str, args: tuple[Any, ...], paid: Paid, kind: str
) -> None:
    error = failed(kind, settings(), method, *args, handler=raising(broken))
    assert (type(error), error.retry_helps, error.paid) == (exceptions.LostResponseError, True, paid)
    assert "secret" not in str(error)


@both
def test_a_refused_connection_was_not_sent(kind: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    error = failed(kind, settings(base_url=f"http://127.0.0.1:{port}"), "submit", REQUEST)
    assert (type(error), error.paid) == (exceptions.NotSentError, Paid.NO)


@both
@pytest.mark.parametrize("after_create", [False, True])
def test_a_reset_after_the_request_loses_the_answer(
    kind: str, after_create: bool, service: LocalService
) -> None:
    service.add_fault(on="submit", kind="reset", after_create=after_create)
    error = failed(kind, at(service), "submit", REQUEST)
    assert (type(error), error.paid) == (exceptions.LostResponseError, Paid.POSSIBLY)
    assert service.bill().submitted == int(after_create)


@both
def test_after_a_time_out_the_next_poll_has_a_new_connection(kind: str, service: LocalService) -> None:
    """One that is pooled may hang for as long as an outage lasts."""
    made = call(kind, at(service), "submit", REQUEST)
    settings = ClientSettings(service.api_key, base_url=service.url, timeout=1.5)

    def polls(poll: Callable[[str], Any]) -> None:
        poll(made.id)
        service.add_fault(on="result", kind="slow", seconds=4.0, times=1)
        with pytest.raises(exceptions.LostResponseError):
            poll(made.id)
        poll(made.id)

    if kind == "sync":
        with Client(settings) as client:
            polls(client.get_prediction)
    else:
        with asyncio.Runner() as runner:
            client = AsyncClient(settings)
            polls(lambda name: runner.run(client.get_prediction(name)))
            runner.run(client.aclose())
    first, late, next_one = [event.port for event in service.requests() if event.method == "GET"]
    assert first == late != next_one


@both
def test_an_answer_that_comes_too_late_is_lost(kind: str, service: LocalService) -> None:
    service.add_fault(on="submit", kind="slow", seconds=30)
    service.add_fault(on="balance", kind="slow", seconds=30)
    bought = failed(kind, at(service, timeout=1.0), "submit", REQUEST)
    looked = failed(kind, at(service, timeout=1.0), "get_balance")
    assert [(type(error), error.paid) for error in (bought, looked)] == [
        (exceptions.LostResponseError, Paid.POSSIBLY),
        (exceptions.LostResponseError, Paid.NO),
    ]
    assert "was lost: it was not complete within 1 s" in str(bought)


SPOILED = [
    {"kind": "status", "status": 400},
    {"kind": "status", "status": 401},
    {"kind": "status", "status": 429, "retry_after": 0},
    {"kind": "status", "status": 500},
    {"kind": "status", "status": 502, "body": "html"},
    {"kind": "status", "status": 503, "body": "empty", "after_create": True},
    {"kind": "reset"},
    {"kind": "reset", "after_create": True},
    {"kind": "envelope", "code": 500},
    {"kind": "no_id"},
    *({"kind": "redirect", "status": status, "url": "/elsewhere"} for status in (301, 302, 303, 307, 308)),
]


@both
@pytest.mark.parametrize("fault", SPOILED, ids=lambda fault: "-".join(map(str, fault.values())))
def test_a_submission_is_sent_once_whatever_comes_back(
    fault: dict[str, Any], kind: str, service: LocalService
) -> None:
    service.add_fault(on="submit", **fault)
    failed(kind, at(service), "submit", REQUEST)
    assert [event.method for event in service.requests()] == ["POST"]


@both
def test_a_purchase_is_known_by_its_id_though_the_rest_is_cut_off(kind: str, service: LocalService) -> None:
    service.add_fault(on="submit", kind="truncated_json")
    bought = call(kind, at(service), "submit", REQUEST)
    assert [bought.id] == [prediction["id"] for prediction in service.predictions()]
    assert [event.method for event in service.requests()] == ["POST"]


@both
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_of_the_api_is_followed(kind: str, status: int) -> None:
    seen = Recorder(lambda: httpx.Response(status, headers={"Location": "https://evil.example/"}))
    for method, args in CALLS:
        error = failed(kind, settings(), method, *args, handler=seen)
        assert type(error) is exceptions.ServerError
    assert {request.url.host for request in seen.seen} == {"api.wavespeed.ai"}
    assert len(seen.seen) == len(CALLS)


# The key stays secret.


@pytest.mark.parametrize("key", ["", "   ", None, "two words", "schlüssel", "line\nbreak", "tab\tkey"])
def test_what_is_no_key_is_refused_without_being_shown(key: Any) -> None:
    with pytest.raises(exceptions.InputError, match="API key is missing or malformed") as caught:
        ClientSettings(key)
    with pytest.raises(exceptions.InputError) as of_another_one:
        ClientSettings("another\tone")
    assert str(caught.value) == str(of_another_one.value), "it says nothing of the key itself"


def test_white_space_around_a_key_is_dropped() -> None:
    assert ClientSettings(f" {KEY}\n").api_key == KEY


def test_the_key_is_in_no_repr() -> None:
    async def shown() -> str:
        async with AsyncClient(settings()) as client:
            return repr([client, client.settings])

    with Client(settings()) as client:
        assert KEY not in repr([client, client.settings, vars(client)])
    assert KEY not in asyncio.run(shown())


@both
def test_an_answer_that_echoes_the_key_is_masked(kind: str) -> None:
    error = failed(
        kind,
        settings(),
        "submit",
        REQUEST,
        handler=lambda _: enveloped(None, code=401, message=f"Invalid API key {KEY}"),
    )
    assert "Invalid API key ***" in str(error)
    assert KEY not in "".join(traceback.format_exception(error))


@both
@pytest.mark.parametrize("broken", [*NOT_SENT, *LOST])
def test_no_traceback_shows_the_key_or_the_prompt(kind: str, broken: type[httpx.HTTPError]) -> None:
    error = failed(kind, settings(), "submit", REQUEST, handler=raising(broken))
    shown = "".join(traceback.format_exception(error))
    assert KEY not in shown
    assert PROMPT not in shown


@both
def test_the_log_holds_no_key_no_prompt_and_no_outputs_url(
    kind: str, service: LocalService, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("httpx", "httpcore", "httpcore.connection", "httpcore.http11"):
        caplog.set_level(logging.DEBUG, logger=name)
    service.add_fault(on="output", kind="redirect", url="/outputs/secret-hop", times=1)
    made = call(kind, at(service), "submit", REQUEST)
    (url,) = call(kind, at(service), "get_prediction", made.id).outputs
    with pytest.raises(exceptions.OutputError):
        download(url, at(service))
    download(url, at(service))
    for secret in (KEY, PROMPT, url, "/outputs/", "secret-hop"):
        assert secret not in caplog.text
        assert secret not in str([vars(record) for record in caplog.records])


def test_other_users_of_httpx_keep_their_log(service: LocalService, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger=httpx.__name__)
    call("sync", at(service), "get_balance")
    httpx.get(f"{service.url}/mine", verify=False)
    assert [record.name for record in caplog.records if "HTTP Request" in record.message] == [httpx.__name__]
    assert "/mine" in caplog.text


# Downloads.


def download(
    url: str,
    given: ClientSettings | None = None,
    *,
    max_bytes: int = 1_000_000,
    handler: Handler | None = None,
    names: dict[str, list[str]] | None = None,
    into: io.BytesIO | None = None,
) -> bytes:
    """Download with a client of its own; names that are not given are public."""

    async def resolve(host: str) -> list[str]:
        return (names or {}).get(host, [PUBLIC])

    async def run() -> bytes:
        file = into if into is not None else io.BytesIO()
        used = given or settings()
        transport = httpx.MockTransport(handler) if handler else None
        rule = OutputRule(used.base_url, resolve=resolve)
        async with AsyncClient(used, transport=transport, output_rule=rule) as client:
            await client.download(url, file, max_bytes=max_bytes)
        return file.getvalue()

    return asyncio.run(run())


def streamed(*chunks: bytes, then: Exception | None = None) -> httpx.Response:
    """Return a response without a Content-Length."""

    async def body() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk
        if then:
            raise then

    return httpx.Response(200, content=body())


CDN = "https://cdn.example/signed/1.png"


def output_of(service: LocalService) -> str:
    made = call("sync", at(service), "submit", REQUEST)
    (url,) = call("sync", at(service), "get_prediction", made.id).outputs
    return str(url)


def test_an_output_is_downloaded_whole(service: LocalService) -> None:
    picture = download(output_of(service), at(service))
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    assert picture.endswith(b"IEND\xaeB`\x82")


def test_a_download_carries_no_key_and_asks_for_no_encoding() -> None:
    seen = Recorder(lambda: streamed(b"picture"))
    assert download(CDN, handler=seen) == b"picture"
    (request,) = seen.seen
    assert request.headers["Accept-Encoding"] == "identity"
    assert request.headers["User-Agent"].startswith("airflow-provider-bitdance/")
    assert "Authorization" not in request.headers
    assert KEY not in str(request.headers.raw)


def test_a_download_starts_the_file_anew() -> None:
    into = io.BytesIO(b"left over from an attempt that broke off")
    into.seek(7)
    assert download(CDN, handler=lambda _: streamed(b"picture"), into=into) == b"picture"


def test_an_encoded_body_is_not_unpacked() -> None:
    packed = httpx.Response(200, headers={"Content-Encoding": "gzip"}, content=streamed(b"raw").stream)
    assert download(CDN, handler=lambda _: packed) == b"raw"


def test_what_the_file_is_is_not_the_clients_business(service: LocalService) -> None:
    url = output_of(service)
    service.add_fault(on="output", kind="wrong_type")
    assert download(url, at(service)).startswith(b"<!doctype html>")


def test_a_declared_size_over_the_limit_is_refused_before_a_byte_is_read() -> None:
    unread = streamed(then=AssertionError("read"))
    unread.headers["Content-Length"] = "11"
    with pytest.raises(exceptions.OutputRefusedError, match="at most 10 bytes"):
        download(CDN, handler=lambda _: unread, max_bytes=10)


def test_a_streamed_body_over_the_limit_is_refused() -> None:
    into = io.BytesIO()
    with pytest.raises(exceptions.OutputRefusedError, match="too large"):
        download(CDN, handler=lambda _: streamed(b"12345", b"67890", b"1"), max_bytes=10, into=into)
    assert len(into.getvalue()) <= 10


def test_a_body_of_exactly_the_limit_is_taken() -> None:
    assert download(CDN, handler=lambda _: streamed(b"12345", b"67890"), max_bytes=10) == b"1234567890"


@pytest.mark.parametrize("declared", [True, False])
def test_an_endless_body_is_cut_off(declared: bool, service: LocalService) -> None:
    url = output_of(service)
    service.add_fault(on="output", kind="oversized", declared=declared)
    with pytest.raises(exceptions.OutputRefusedError, match="too large") as caught:
        download(url, at(service), max_bytes=100_000)
    assert not caught.value.retry_helps


def broken_download(**options: Any) -> exceptions.OutputError:
    """Return the error of a download that may be tried again; it does not show the URL."""
    with pytest.raises(exceptions.OutputError) as caught:
        download(options.pop("url", CDN), **options)
    error = caught.value
    assert (type(error), error.retry_helps, error.paid) == (exceptions.OutputError, True, Paid.YES)
    shown = "".join(traceback.format_exception(error, chain=True))
    assert not re.search(r"cdn\.example|signed", str(error) + shown.rpartition("\n")[2])
    assert error.__suppress_context__ or error.__context__ is None
    return error


def test_a_truncated_download_may_be_tried_again(service: LocalService) -> None:
    url = output_of(service)
    service.add_fault(on="output", kind="truncated")
    assert "RemoteProtocolError" in str(broken_download(url=url, given=at(service)))


@pytest.mark.parametrize("status", [204, 304, 403, 404, 410, 429, 500, 503])
def test_a_download_that_is_answered_with_an_error_names_the_status(status: int) -> None:
    error = broken_download(
        handler=lambda _: httpx.Response(status, content=b"" if status in {204, 304} else b"no")
    )
    assert f"responded with status {status}" in str(error)


@pytest.mark.parametrize("broken", [*NOT_SENT, *LOST])
def test_a_download_that_breaks_may_be_tried_again(broken: type[httpx.HTTPError]) -> None:
    assert broken.__name__ in str(broken_download(handler=raising(broken)))


def test_a_download_that_breaks_off_half_way_may_be_tried_again() -> None:
    broken_download(handler=lambda _: streamed(b"half", then=httpx.ReadError("gone")))


def test_a_content_length_that_is_no_number_is_a_broken_download() -> None:
    answer = streamed(b"x")
    answer.headers["Content-Length"] = "many"
    broken_download(handler=lambda _: answer)


class Hops:
    """Redirects along a list of locations and gives the picture at its end."""

    def __init__(self, *locations: str) -> None:
        self.left = list(locations)
        self.hosts: list[str] = []
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if not self.left:
            return streamed(b"picture")
        return httpx.Response(302, headers={"Location": self.left.pop(0)}, content=b"moved")


def test_three_redirects_are_followed_without_the_key() -> None:
    hops = Hops("https://a.example/1", "/2", "//b.example/3")
    assert download(CDN, handler=hops) == b"picture"
    assert [str(request.url) for request in hops.requests] == [
        CDN,
        "https://a.example/1",
        "https://a.example/2",
        "https://b.example/3",
    ]
    assert not [request for request in hops.requests if KEY in str(request.headers.raw)]


def test_a_redirect_to_the_apis_own_host_gets_no_key_either() -> None:
    hops = Hops("https://api.wavespeed.ai/api/v3/balance")
    download(CDN, handler=hops)
    assert "Authorization" not in hops.requests[-1].headers


def test_a_fourth_redirect_is_refused() -> None:
    hops = Hops("/1", "/2", "/3", "/4")
    with pytest.raises(exceptions.OutputRefusedError, match="more than 3 times"):
        download(CDN, handler=hops)
    assert len(hops.requests) == 4


@pytest.mark.parametrize(
    ("location", "wrong"),
    [
        ("https://inside.example/x", "private IP address"),
        (f"https://{PRIVATE}/x", "private IP address"),
        ("https://169.254.169.254/latest/meta-data", "private IP address"),
        ("https://[::ffff:127.0.0.1]/x", "private IP address"),
        ("http://cdn.example/x", "not https"),
    ],
)
def test_every_hop_is_checked_before_it_is_asked(location: str, wrong: str) -> None:
    hops = Hops("/1", location)
    with pytest.raises(exceptions.OutputRefusedError, match=wrong):
        download(CDN, handler=hops, names={"inside.example": [PRIVATE]})
    assert [request.url.host for request in hops.requests] == ["cdn.example", "cdn.example"]


@pytest.mark.parametrize("location", ["http://[", "https://[x]/", "https://cdn.example:port/"])
def test_a_redirect_to_no_url_is_an_output_error(location: str) -> None:
    hops = Hops(location)
    with pytest.raises(exceptions.OutputError):
        download(CDN, handler=hops)
    assert len(hops.requests) == 1


def test_a_first_url_that_is_not_allowed_is_never_asked() -> None:
    hops = Hops()
    with pytest.raises(exceptions.OutputRefusedError):
        download(f"https://{PRIVATE}/x", handler=hops)
    assert hops.requests == []


class Stream:
    """A connection that says whom it reached."""

    def __init__(self, address: str) -> None:
        self.address = address

    def get_extra_info(self, info: str) -> object:
        return (self.address, 443) if info == "server_addr" else None


def reached(address: str) -> Handler:
    def handler(_: httpx.Request) -> httpx.Response:
        answer = streamed(b"x")
        answer.extensions["network_stream"] = Stream(address)
        return answer

    return handler


@pytest.mark.parametrize("address", ["127.0.0.1", PRIVATE, "::1"])
def test_a_name_that_leads_elsewhere_once_it_was_checked_is_refused(address: str) -> None:
    with pytest.raises(exceptions.OutputRefusedError, match="private IP address"):
        download(CDN, handler=reached(address))
    assert download(CDN, handler=reached(PUBLIC)) == b"x"


def test_behind_a_proxy_the_peer_is_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.corp:3128")
    assert download(CDN, handler=reached(PRIVATE)) == b"x"


@pytest.mark.parametrize("environment", [{}, {"HTTPS_PROXY": "http://proxy.corp:3128"}])
def test_a_list_of_proxy_exceptions_does_not_switch_the_check_off(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**environment, "NO_PROXY": "cdn.example"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(exceptions.OutputRefusedError, match="private IP address"):
        download(CDN, handler=reached(PRIVATE))


def test_a_private_output_is_allowed_where_the_api_is_private() -> None:
    given = settings(base_url="https://gateway.corp")
    names = {"gateway.corp": [PRIVATE], "files.corp": [PRIVATE]}
    handler = reached(PRIVATE)
    assert download("https://files.corp/1.png", given, handler=handler, names=names) == b"x"
