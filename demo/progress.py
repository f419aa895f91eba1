"""What the demo shows while the Dag runs: one moving line on a terminal, a line per change elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Mapping

from .service import Bill


class Progress:
    """Shows states of tasks, seconds and bill; a context manager that ends the moving line."""

    def __init__(self) -> None:
        self._terminal = sys.stdout.isatty()
        self._started = time.monotonic()
        self._shown = ""

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._terminal and self._shown:
            print(flush=True)

    def say(self, text: str) -> None:
        """Print a line of its own."""
        print(f"\r\x1b[K{text}" if self._terminal else text, flush=True)

    def show(self, states: Mapping[str, str], bill: Bill | None) -> None:
        """Show the state of each task; without a terminal only if something changed."""
        tasks = "  ".join(f"{task} {state}" for task, state in sorted(states.items()))
        line = f"${bill.dollars:.2f}  {tasks}" if bill else tasks
        seconds = f"{time.monotonic() - self._started:4.0f} s  "
        if self._terminal:
            width = shutil.get_terminal_size().columns - 1
            # Back to the first column, then clear what the longer line before may have left.
            print(f"\r{(seconds + line)[:width]}\x1b[K", end="", flush=True)
        elif line != self._shown:
            print(seconds + line, flush=True)
        self._shown = line
