"""What the tests of the wire share: the HTTP library that the client uses, and servers that behave badly."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from airflow_provider_bitdance.wavespeed import http

__all__ = ["SlowServer", "httpx", "slow_server"]

httpx = http.httpx
"""httpx or httpx2: a transport and a response of a test have to be of the client's own."""


@dataclass
class SlowServer:
    """Answers each request with a start at once, and then with a byte at a time, for ever.

    :ivar heads: The requests, as far as they came.
    """

    port: int
    heads: list[bytes] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def serve(self, listener: socket.socket, start: Callable[[bytes], bytes], every: float) -> None:
        with suppress(OSError):
            while True:
                caller, _ = listener.accept()
                threading.Thread(target=self._answer, args=(caller, start, every), daemon=True).start()

    def _answer(self, caller: socket.socket, start: Callable[[bytes], bytes], every: float) -> None:
        with caller, suppress(OSError):
            head = caller.recv(65536)
            if not head:
                return
            self.heads.append(head)
            caller.sendall(start(head))
            while not self.stopped.wait(every):
                caller.sendall(b"a")


@contextmanager
def slow_server(
    start: bytes | Callable[[bytes], bytes] = b"", *, every: float = 0.02
) -> Iterator[SlowServer]:
    """Run one.

    :param start: What comes at once, or what returns it for a request.
    :param every: Seconds from byte to byte.
    """
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        server = SlowServer(listener.getsockname()[1])
        first = start if callable(start) else lambda _: start
        threading.Thread(target=server.serve, args=(listener, first, every), daemon=True).start()
        yield server
        server.stopped.set()
