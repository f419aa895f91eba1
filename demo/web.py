"""A web server for the stored images, on this machine only: each has a URL as long as the demo runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import quote


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the terminal is the demo's."""


class Web:
    """A folder, which need not be there yet, and the URL under which it is served.

    :param folder: Only what lies in it has a URL.
    """

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url

    def url_of(self, file: Path) -> str:
        """Return where a browser finds a file of the folder."""
        return f"{self.url}/{quote(file.relative_to(self.folder).as_posix())}"


@contextlib.contextmanager
def web_server(folder: Path) -> Iterator[Web]:
    """Serve a folder."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield Web(folder, f"http://127.0.0.1:{server.server_port}")
        finally:
            server.shutdown()
