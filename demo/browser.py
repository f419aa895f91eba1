"""A headless Chromium, driven through a pipe, for screenshots; nothing to install but Chromium itself.

It speaks Chromium's DevTools protocol: JSON messages with a zero byte behind each, on two file descriptors.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from fcntl import F_DUPFD, fcntl
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from PIL import Image

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "chrome")
_LOOK_SECONDS = 0.2
COLOURS = 256
"""Of a picture."""


class BrowserError(RuntimeError):
    """There is no Chromium, it ended, or a page never came to look as it should."""


class Browser:
    """One page of a headless Chromium; a context manager.

    Elements are named by JavaScript that finds them.

    :param width: of the page, in pixels.
    :param height: of the page, in pixels.
    """

    def __init__(self, width: int = 1280, height: int = 800) -> None:
        self._width, self._height = width, height
        self._number = 0
        self._rest = b""
        self._session: dict[str, str] = {}

    def __enter__(self) -> Self:
        program = next(filter(None, map(shutil.which, PROGRAMS)), None)
        if program is None:
            raise BrowserError(f"No Chromium found (tried: {', '.join(PROGRAMS)})")
        self._profile = tempfile.TemporaryDirectory(prefix="screenshots-", ignore_cleanup_errors=True)
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()

        def as_three_and_four() -> None:
            ends = [fcntl(end, F_DUPFD, 10) for end in (theirs_in, theirs_out)]
            for number, end in enumerate(ends, start=3):
                os.dup2(end, number)

        options = ["--headless=new", "--remote-debugging-pipe", "--hide-scrollbars", "--no-first-run"]
        options += ["--no-sandbox"] if os.getuid() == 0 else []
        self._process = subprocess.Popen(
            [program, *options, f"--user-data-dir={self._profile.name}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(3, 4),
            preexec_fn=as_three_and_four,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        self.resize(self._width, self._height)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.terminate()
        self._process.wait()
        os.close(self._in)
        os.close(self._out)
        self._profile.cleanup()

    def resize(self, width: int, height: int) -> None:
        """Give the page another size, in pixels."""
        size = {"width": width, "height": height}
        self._call("Emulation.setDeviceMetricsOverride", **size, deviceScaleFactor=1, mobile=False)

    def prefer(self, colours: str) -> None:
        """Let the person at the browser prefer "light" or "dark"."""
        features = [{"name": "prefers-color-scheme", "value": colours}]
        self._call("Emulation.setEmulatedMedia", features=features)

    def open(self, url: str) -> None:
        """Go to a page; `wait_for` says when it is there."""
        self._call("Page.navigate", url=url)

    def run(self, script: str) -> Any:
        """Evaluate JavaScript in the page and return its value."""
        answer = self._call("Runtime.evaluate", expression=script, returnByValue=True)
        if "exceptionDetails" in answer:
            raise BrowserError(f"{script}: {answer['exceptionDetails'].get('exception')}")
        return answer["result"].get("value")

    def wait_for(self, script: str, timeout: float = 60) -> None:
        """Wait until JavaScript is true in the page."""
        deadline = time.monotonic() + timeout
        # What is not there yet has no properties.
        while not self.run(f"(() => {{ try {{ return Boolean({script}) }} catch {{ return false }} }})()"):
            if time.monotonic() > deadline:
                raise BrowserError(
                    f"Waited {timeout:.0f} s for {script}; the page says: {self.text()[-1000:]}"
                )
            time.sleep(_LOOK_SECONDS)

    def click(self, element: str) -> None:
        """Click an element as soon as it is there."""
        self.wait_for(element)
        self.run(f"({element}).focus(); ({element}).click()")  # as a mouse does

    def type(self, element: str, text: str, *, enter: bool = False) -> None:
        """Type into an element as soon as it is there."""
        self.wait_for(element)
        self.run(f"({element}).focus()")
        self._call("Input.insertText", text=text)
        for kind in ("keyDown", "keyUp") if enter else ():
            self._call("Input.dispatchKeyEvent", type=kind, key="Enter", windowsVirtualKeyCode=13, text="\r")

    def settle(self, seconds: float = 1.0) -> None:
        """Let animations end; a page does not tell when."""
        time.sleep(seconds)

    def text(self) -> str:
        """The page's text."""
        return str(self.run("document.body.innerText"))

    def picture(self, path: Path, of: str = "document.documentElement") -> None:
        """Write a PNG of an element."""
        box = self.run(
            f"(() => {{ const b = ({of}).getBoundingClientRect();"
            " return {x: b.x, y: b.y, width: b.width, height: b.height, scale: 1}; })()"
        )
        data = self._call("Page.captureScreenshot", format="png", clip=box, captureBeyondViewport=True)[
            "data"
        ]
        path.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(BytesIO(base64.b64decode(data))) as image:
            # A page has few colours: as a palette it is a third as large, and looks the same.
            image.convert("RGB").quantize(COLOURS).save(path, optimize=True)

    def _call(self, method: str, **params: object) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params, **self._session}
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise BrowserError(f"{method}: {answer['error']['message']}")
                result: dict[str, Any] = answer["result"]
                return result

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            data = os.read(self._in, 1 << 16)
            if not data:
                raise BrowserError("Chromium has ended")
            self._rest += data
        message, _, self._rest = self._rest.partition(b"\0")
        answer: dict[str, Any] = json.loads(message)
        return answer
