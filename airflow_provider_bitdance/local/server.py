"""The local service on a socket: uvicorn on a thread of this process, started and stopped at will."""

from __future__ import annotations

import asyncio
import importlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, cast

import uvicorn

from airflow_provider_bitdance.local import faults, responses, schemas
from airflow_provider_bitdance.local.app import create_app
from airflow_provider_bitdance.local.ledger import Bill
from airflow_provider_bitdance.local.options import Options
from airflow_provider_bitdance.local.service import Event, Service

HOST: Final = "127.0.0.1"
"""Only this computer reaches it, for the admin paths ask for no key."""
START_SECONDS: Final = 30.0
GRACE_SECONDS = 2
"""What a request that is under way gets when the service stops."""


_ONE_APP = threading.Lock()
"""Held while an app is built: FastAPI mutes a warning meanwhile, and two threads would unmute each other."""


class LocalService:
    """A local WaveSpeed-compatible service. Not for anything but tests and demos: its bill is play money.

    :param options: how it behaves.
    :param port: 0 takes a free one.
    :param clock: seconds since the epoch. Give one that you move by hand, and latency needs no waiting.
    """

    def __init__(
        self,
        options: Options | None = None,
        *,
        port: int = 0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.port = port
        self.service = Service(options or Options(), clock=clock)
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Where it listens, without a slash at the end. The API is under ``/api/v3``."""
        return f"http://{HOST}:{self.port}"

    @property
    def api_key(self) -> str:
        """The key it accepts."""
        return self.service.options.api_key

    @property
    def connection(self) -> str:
        """An Airflow connection to it, as the environment variable ``AIRFLOW_CONN_<CONN_ID>`` holds one."""
        return json.dumps({"conn_type": "bitdance", "host": self.url, "password": self.api_key})

    def start(self) -> None:
        """Listen. Returns when it accepts requests.

        :raises OSError: when the port is taken.
        """
        listener = socket.create_server((HOST, self.port))
        # asyncio sets it only where a socket names its protocol; without it every response takes 40 ms.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port = listener.getsockname()[1]
        stopping = asyncio.Event()
        try:
            with _ONE_APP:
                server = self._server = _Server(self._config(stopping), stopping)
        except BaseException:
            listener.close()
            raise
        self._thread = threading.Thread(
            target=server.run, kwargs={"sockets": [listener]}, name=f"bitdance-local-{self.port}", daemon=True
        )
        self._thread.start()
        deadline = time.monotonic() + START_SECONDS
        while not server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise RuntimeError("The local service did not start; see the traceback of its thread")
            time.sleep(0.002)

    def stop(self) -> None:
        """Close all connections and end the thread. The state stays readable."""
        if self._server is None or self._thread is None:
            return
        self._server.should_exit = True
        self._thread.join()
        self._server = self._thread = None

    def bill(self) -> Bill:
        """Count what was asked for and what it cost."""
        return self.service.bill()

    def predictions(self) -> list[schemas.AdminPrediction]:
        """List all predictions with prompt and real seed, oldest first, as ``GET /admin/predictions``."""
        now = self.service.clock()
        return [responses.admin_prediction(task, now) for task in self.service.predictions()]

    def requests(self) -> list[Event]:
        """List the requests that came in, oldest first, without those to ``/admin``."""
        return list(self.service.log)

    def add_fault(self, **rule: object) -> None:
        """Add a fault rule, such as ``add_fault(on="result", kind="status", status=503, times=2)``.

        :param rule: see ``python -m airflow_provider_bitdance.local --help``.
        :raises ValueError: names what is wrong.
        """
        self.service.faults.add(faults.parse(rule))

    def reset(self) -> None:
        """Forget everything: predictions, bill, faults, log."""
        self.service.reset()

    def _config(self, stopping: asyncio.Event) -> uvicorn.Config:
        return uvicorn.Config(
            create_app(self.service, base_url=self.url),
            http=_protocol(stopping),
            ws="none",
            loop="asyncio",
            lifespan="off",
            # No log_config: this runs in other people's processes, whose logging is theirs.
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            date_header=False,  # app.py writes it.
            # Longer than clients keep idle connections, so that a slow poll does not meet a closed one.
            timeout_keep_alive=75,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )


@contextmanager
def running_service(
    options: Options | None = None,
    *,
    port: int = 0,
    clock: Callable[[], float] = time.time,
) -> Iterator[LocalService]:
    """Run a local service for the length of a ``with`` block.

    .. code-block:: python

        import httpx

        with running_service(Options(latency=2)) as local:
            httpx.post(
                f"{local.url}/api/v3/wavespeed-ai/bitdance-14b/text-to-image",
                headers={"Authorization": f"Bearer {local.api_key}"},
                json={"prompt": "A fox"},
            )
            assert local.bill().billed == 1

    :param options: how it behaves.
    :param port: 0 takes a free one.
    :param clock: seconds since the epoch.
    """
    local = LocalService(options, port=port, clock=clock)
    local.start()
    try:
        yield local
    finally:
        local.stop()


class _Server(uvicorn.Server):
    """Stops at once: whoever reads or sends slowly is cut off."""

    def __init__(self, config: uvicorn.Config, stopping: asyncio.Event) -> None:
        super().__init__(config)
        self.stopping = stopping

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop."""
        self.stopping.set()
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await super().shutdown(sockets)


def _protocol(stopping: asyncio.Event) -> type[asyncio.Protocol]:
    """Give uvicorn's protocol class a way for faulty responses to reach the connection."""
    # httptools is quicker and comes with uvicorn[standard]; h11 comes with every uvicorn.
    try:
        base = importlib.import_module("uvicorn.protocols.http.httptools_impl").HttpToolsProtocol
    except ImportError:
        base = importlib.import_module("uvicorn.protocols.http.h11_impl").H11Protocol

    def connection_made(self: Any, transport: asyncio.BaseTransport) -> None:
        self.app_state = {**self.app_state, "transport": transport, "stopping": stopping}
        base.connection_made(self, transport)

    return cast("type[asyncio.Protocol]", type("Protocol", (base,), {"connection_made": connection_made}))
