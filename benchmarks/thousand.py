"""Row 8: a thousand triggers in one real triggerer, ours and then those of the stock HttpSensor.

The rows are put into Airflow's database, each with a deferred task instance, so that nothing but the
triggerer is measured: no worker, and no scheduler, which is ended first. Each trigger waits for an image of
its own. Ours asks for the prediction; HttpSensor's trigger fires at the first answer that is no 404, so it
asks for the picture, which is a 404 until it is there. A third kind only sleeps: what its loop stalls is
Airflow's own, whose start of each trigger writes a line and waits until the line is taken.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median
from typing import Any

import psutil  # type: ignore[import-untyped]
from sqlalchemy import DateTime, Engine, create_engine, text

from benchmarks.account import Account, Books, Prediction, Request
from benchmarks.asyncio_script import MODEL
from benchmarks.checks import Check, Result
from benchmarks.lab import Lab
from demo.http_json import send
from demo.real_airflow import RealAirflow

CONNECTION = "triggers"
LATENCY = "27-33"
SLEEP = 30.0
PATIENCE = 240.0
LATE = 6.0
"""Seconds: a fifth of the latency. Airflow starts fifty triggers at a time; before that none can look."""
STALL = re.compile(r"async thread was blocked for ([0-9.]+) seconds")
PROBE_PAUSE = 0.1
"""The triggerer's probe of its loop sleeps so long, and tells how long that took."""


@dataclass(frozen=True, slots=True)
class Triggers:
    """One kind: its class, what its connection is, and its arguments for one prediction."""

    classpath: str
    connection_type: str
    arguments: Callable[[str, float], dict[str, Any]]


def _ours(prediction_id: str, submitted: float) -> dict[str, Any]:
    pending = {prediction_id: round(submitted, 1)}
    return {"bitdance_conn_id": CONNECTION, "pending": pending, "deadline": submitted + 600}


def _stock(prediction_id: str, _: float) -> dict[str, Any]:
    # Its poke_interval is left at its default, 5 seconds.
    return {"endpoint": f"/outputs/{prediction_id}/1.png", "http_conn_id": CONNECTION, "method": "GET"}


def _sleeping(_: str, submitted: float) -> dict[str, Any]:
    return {"target_time": datetime.fromtimestamp(submitted + SLEEP, UTC).isoformat()}


KINDS = {
    "ours": Triggers("airflow_provider_bitdance.triggers.bitdance.BitDanceTrigger", "bitdance", _ours),
    "stock": Triggers("airflow.providers.http.triggers.http.HttpSensorTrigger", "http", _stock),
    "sleep": Triggers("airflow.providers.standard.triggers.temporal.DateTimeTrigger", "http", _sleeping),
}


BOTH = ("ours", "stock")


@dataclass(frozen=True, slots=True)
class Watched:
    """What the triggerer's processes came to while the triggers ran.

    :ivar seen: Seconds until each trigger looked, once its image was completed and itself had started.
    :ivar woken: Seconds until Airflow had written down that its task goes on.
    """

    cpu_seconds: float
    peak_mb: float
    longest_stall: float
    seen: list[float]
    woken: list[float]
    connections: int
    requests: int


def play(lab: Lab) -> Result:
    """Play each kind in a triggerer that has just started."""
    airflow = lab.airflow
    count = lab.size(1000, 50)
    airflow.wait_for_dag(f"waiting_{count}")
    airflow.end("scheduler")
    database = create_engine(lab.database_uri)
    found: dict[str, Watched] = {}
    try:
        for name, triggers in KINDS.items():
            with lab.account(LATENCY) as account:
                lab.connect(CONNECTION, account, triggers.connection_type)
                found[name] = _subscription(airflow, database, triggers, account, count)
    finally:
        database.dispose()
        airflow.restart("scheduler")
    ours, stock = found["ours"], found["stock"]
    return Result(
        [
            Check("fired", len(ours.woken), count, exactly=True),
            Check("latest look that finds its image, s", max(ours.seen, default=PATIENCE), LATE),
            Check("TCP connections", ours.connections, 32),
            Check("CPU seconds / HttpSensor", ours.cpu_seconds / stock.cpu_seconds, 1.0),
            Check("peak memory / HttpSensor", ours.peak_mb / stock.peak_mb, 1.0),
            Check("longest stall of the loop, s (HttpSensor's)", ours.longest_stall, stock.longest_stall),
        ],
        notes={
            **{f"{name}, {what}": figure for name in BOTH for what, figure in _figures(found[name]).items()},
            "sleep, longest stall, s": found["sleep"].longest_stall,
        },
    )


def _figures(watched: Watched) -> dict[str, float]:
    return {
        "CPU seconds": watched.cpu_seconds,
        "peak MB": watched.peak_mb,
        "longest stall, s": watched.longest_stall,
        "fired": len(watched.woken),
        "seen late p50, s": median(watched.seen or [PATIENCE]),
        "seen late max, s": max(watched.seen, default=PATIENCE),
        "woken late p50, s": median(watched.woken or [PATIENCE]),
        "woken late max, s": max(watched.woken, default=PATIENCE),
        "TCP connections": watched.connections,
        "requests": watched.requests,
    }


def _subscription(
    airflow: RealAirflow, database: Engine, triggers: Triggers, account: Account, count: int
) -> Watched:
    airflow.restart("triggerer")
    log = airflow.log_folder / "triggerer.log"
    dag_id = f"waiting_{count}"
    run_id = airflow.trigger(dag_id)
    _wait_until_idle(airflow)
    logged = log.stat().st_size
    submitted = _submit(account, count)
    before, peak = _usage(airflow)
    _put(database, run_id, triggers, submitted)
    deadline = time.monotonic() + PATIENCE
    while _left(database, run_id) and time.monotonic() < deadline:
        time.sleep(1)
        cpu, megabytes = _usage(airflow)
        peak = max(peak, megabytes)
    books = account.books()
    stalls = [float(seconds) for seconds in STALL.findall(log.read_bytes()[logged:].decode())]
    looks = [request for request in books.requests if request.method == "GET"]
    ready = _ready(books, _started(airflow, dag_id, run_id))
    found = {number: _first_look(looks, image.id, ready[number]) for number, image in _numbered(books)}
    woken = _woken(database, run_id)
    return Watched(
        cpu_seconds=cpu - before,
        peak_mb=peak,
        longest_stall=max(stalls, default=PROBE_PAUSE) - PROBE_PAUSE,
        seen=[when - ready[number] for number, when in found.items() if when is not None],
        woken=[when - ready[number] for number, when in woken.items()],
        connections=len({request.port for request in looks}),
        requests=len(looks),
    )


def _wait_until_idle(airflow: RealAirflow) -> None:
    """Wait until the triggerer's two processes have started and come to rest.

    At rest they use 0.4 s of 3 on a slow machine.
    """
    while True:
        before, _ = _usage(airflow)
        time.sleep(3)
        airflow.check()
        after, _ = _usage(airflow)
        if len(airflow.processes_of("triggerer")) > 1 and after - before < 0.6:
            return


def _submit(account: Account, count: int) -> dict[str, float]:
    """Make so many predictions; return their ids with the time of each."""
    headers = {"Authorization": f"Bearer {account.api_key}"}
    submitted = {}
    for number in range(count):
        body = {"prompt": f"image-{number:04}", "size": "1024*1024"}
        answer = send("POST", f"{account.url}{MODEL}", body, headers)
        submitted[answer["data"]["id"]] = time.time()
    return submitted


def _put(database: Engine, run_id: str, triggers: Triggers, submitted: dict[str, float]) -> None:
    """Defer a task instance for each prediction, as a worker's report does."""
    insert = text(
        "insert into trigger (classpath, kwargs, created_date) values (:path, :arguments, :now) returning id"
    )
    defer = text(
        "update task_instance set state = 'deferred', trigger_id = :trigger,"
        " next_method = 'execute_complete', next_kwargs = '{}' where run_id = :run_id and map_index = :number"
    )
    with database.begin() as connection:
        for number, (prediction_id, when) in enumerate(submitted.items()):
            arguments = json.dumps(triggers.arguments(prediction_id, when))
            values = {"path": triggers.classpath, "arguments": arguments, "now": datetime.now(UTC)}
            trigger = connection.execute(insert, values).scalar_one()
            connection.execute(defer, {"trigger": trigger, "run_id": run_id, "number": number})


def _left(database: Engine, run_id: str) -> int:
    query = text("select count(*) from task_instance where run_id = :run_id and state = 'deferred'")
    with database.connect() as connection:
        return int(connection.execute(query, {"run_id": run_id}).scalar_one())


def _numbered(books: Books) -> list[tuple[int, Prediction]]:
    """Return the predictions with the map index of the task that waits for each."""
    return list(enumerate(sorted(books.predictions, key=lambda image: image.prompt)))


def _started(airflow: RealAirflow, dag_id: str, run_id: str) -> dict[int, float]:
    """Return when each trigger started: the first line of its log."""
    logs = (airflow.task_logs / f"dag_id={dag_id}" / f"run_id={run_id}").glob("*/map_index=*/*.trigger.*")
    return {
        int(log.parent.name.removeprefix("map_index=")): datetime.fromisoformat(
            json.loads(log.read_text().splitlines()[0])["timestamp"]
        ).timestamp()
        for log in logs
    }


def _ready(books: Books, started: dict[int, float]) -> dict[int, float]:
    """Return from when on each trigger could have found its image."""
    return {number: max(image.completed, started.get(number, 0)) for number, image in _numbered(books)}


def _first_look(looks: list[Request], prediction_id: str, ready: float) -> float | None:
    asked = (look.time for look in looks if f"/{prediction_id}/" in look.path and look.time >= ready)
    return next(asked, None)


def _woken(database: Engine, run_id: str) -> dict[int, float]:
    """Return when Airflow wrote down that each task goes on."""
    query = text(
        "select map_index, scheduled_dttm from task_instance where run_id = :run_id and state = 'scheduled'"
    ).columns(scheduled_dttm=DateTime(timezone=True))
    with database.connect() as connection:
        rows = connection.execute(query, {"run_id": run_id}).tuples().all()
    return {number: when.timestamp() for number, when in rows}


def _usage(airflow: RealAirflow) -> tuple[float, float]:
    """Return what the triggerer's processes have used so far: CPU seconds, and megabytes now."""
    seconds = megabytes = 0.0
    for pid in airflow.processes_of("triggerer"):
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            seconds += sum(process.cpu_times()[:2])
            megabytes += process.memory_info().rss / 1e6
    return seconds, megabytes
