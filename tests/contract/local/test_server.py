"""The server and its admin paths: start, stop, the event log, reset."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from airflow_provider_bitdance.local import LocalService, Options, running_service, server
from tests.contract.local.caller import ROOT, SUBMIT, Caller, Clock, calling, get
from tests.wire import httpx


def test_the_event_log_holds_paths_but_no_keys_and_no_admin_calls(caller: Caller) -> None:
    caller.ask()
    caller.http.get("/api/v3/balance?key=local-key")
    get(caller.local.url + "/api/v3/balance")
    answer = caller.http.get("/admin/requests")
    assert [(event["method"], event["path"], event["status"]) for event in answer.json()] == [
        ("POST", SUBMIT, 200),
        ("GET", "/api/v3/balance", 200),
        ("GET", "/api/v3/balance", 401),
    ]
    assert answer.json()[0]["time"] == caller.clock.now
    assert "local-key" not in answer.text


def test_the_event_log_shows_how_many_connections_there_were(caller: Caller) -> None:
    caller.ask()
    caller.ask()
    get(caller.local.url + "/api/v3/balance")
    first, second, other = (event.port for event in caller.local.requests())
    assert first == second != other


def test_a_reset_forgets_everything(caller: Caller) -> None:
    caller.local.add_fault(on="balance", kind="reset")
    prediction_id = caller.submit()
    assert caller.http.post("/admin/reset").status_code == 204
    assert caller.local.requests() == []
    assert caller.read(prediction_id).status_code == 404
    assert caller.http.get("/api/v3/balance").json()["data"] == {"balance": 100}
    assert caller.local.bill().submitted == 0


@pytest.mark.parametrize("after_create", [False, True])
def test_a_slow_submit_that_timed_out_may_be_charged_and_holds_up_no_stop(
    monkeypatch: pytest.MonkeyPatch, clock: Clock, after_create: bool
) -> None:
    monkeypatch.setattr(server, "GRACE_SECONDS", 60)
    local = LocalService(clock=clock)
    local.add_fault(on="submit", kind="slow", seconds=60, after_create=after_create)
    local.start()
    with Caller(local, clock).http as http, pytest.raises(httpx.ReadTimeout):
        http.post(SUBMIT, json={"prompt": "x"}, timeout=1.0)
    began = time.monotonic()
    local.stop()
    assert time.monotonic() - began < 30
    assert local.bill().billed == int(after_create)
    local.stop()
    with pytest.raises(httpx.ConnectError):
        get(local.url)


def test_an_api_that_is_far_away_is_so_for_every_request_but_ours(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    slept: list[float] = []
    sleep = asyncio.sleep

    async def sleeping(seconds: float) -> None:
        slept.append(seconds)
        await sleep(0)

    with calling(Options(api_latency=0.3), clock) as caller:
        monkeypatch.setattr("airflow_provider_bitdance.local.app.sleep", sleeping)
        url = caller.finish(caller.submit())
        assert slept == [0.15] * 4, "there and back, for the submission and its result"
        caller.http.get(url)
        assert slept == [0.15] * 6
        caller.http.get("/admin/bill")
        assert slept == [0.15] * 6


def test_a_client_that_stalls_holds_up_no_stop(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    monkeypatch.setattr(server, "GRACE_SECONDS", 60)
    local = LocalService(clock=clock)
    local.add_fault(on="output", kind="oversized")
    local.start()
    caller = Caller(local, clock)
    with caller.http, caller.http.stream("GET", caller.finish(caller.submit())) as answer:
        next(answer.iter_raw())
        began = time.monotonic()
        local.stop()
    assert time.monotonic() - began < 30


def test_a_stopped_service_starts_again_on_the_same_address(clock: Clock) -> None:
    local = LocalService(clock=clock)
    local.start()
    first = local.url
    local.stop()
    local.start()
    assert local.url == first
    assert get(first + "/admin/bill").status_code == 200
    local.stop()


def test_an_answer_does_not_wait_for_delayed_acknowledgements(caller: Caller) -> None:
    """With them every answer takes 40 ms, the quickest of many, too."""
    caller.http.get("/admin/bill")
    quickest = 1.0
    for _ in range(20):
        began = time.monotonic()
        caller.http.get("/admin/bill")
        quickest = min(quickest, time.monotonic() - began)
    assert quickest < 0.02


def test_importing_the_package_loads_no_server() -> None:
    script = (
        "import sys, airflow_provider_bitdance.local;"
        "print(sorted({'fastapi', 'uvicorn', 'PIL', 'pydantic', 'airflow'} & sys.modules.keys()))"
    )
    run = [sys.executable, "-c", script]
    done = subprocess.run(run, check=True, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_every_answer_is_dated_by_the_services_clock(caller: Caller) -> None:
    for path in ("/api/v3/balance", "/admin/bill", "/outputs/none/1.png", "/nowhere"):
        assert caller.http.get(path).headers.get_list("date") == ["Thu, 28 May 2026 20:26:40 GMT"]


def test_a_method_that_a_path_does_not_have_is_refused_by_name(caller: Caller) -> None:
    answer = caller.http.put("/admin/bill")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET")
    assert answer.json() == {"code": 405, "message": "Method Not Allowed", "data": None}


def test_of_services_that_start_at_once_one_app_is_built_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """FastAPI mutes a warning meanwhile, for the whole process: two threads would unmute each other's."""
    building, most = [0], [0]

    def build(*given: object, **options: object) -> object:
        building[0] += 1
        most[0] = max(most[0], building[0])
        time.sleep(0.01)
        app = create_app(*given, **options)
        building[0] -= 1
        return app

    create_app = server.create_app
    monkeypatch.setattr(server, "create_app", build)

    def start(_: int) -> None:
        with running_service():
            pass

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(start, range(4)))
    assert most == [1]


def test_a_service_that_cannot_be_built_leaves_its_port_free(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no app")

    monkeypatch.setattr(server, "create_app", fail)
    service = LocalService()
    with pytest.raises(RuntimeError, match="no app"):
        service.start()
    socket.create_server(("127.0.0.1", service.port)).close()
