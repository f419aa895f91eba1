"""A server that takes a file as Slack does, in three requests, so that a page's recipe runs without Slack."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Slack(ThreadingHTTPServer):
    """The server, and the files that it has received."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: list[bytes] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/"

    @property
    def connection(self) -> str:
        return json.dumps({"conn_type": "slack", "password": "xoxb-1", "extra": {"base_url": self.url}})


class _Handler(BaseHTTPRequestHandler):
    server: Slack

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/upload":
            self.server.files.append(body)
        upload = {
            "ok": True,
            "file_id": "F1",
            "upload_url": f"{self.server.url}upload",
            "files": [{"id": "F1"}],
        }
        answer = json.dumps(upload).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def running_slack() -> Iterator[Slack]:
    server = Slack()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
