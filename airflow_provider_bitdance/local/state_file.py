"""The state on disk: a file to which each change is appended as one JSON line before it is answered.

A service that is killed and started again on the same file goes on where it was: replay applies the same
events to an empty state. The lines hold facts (this prediction, due then), not causes, so options may change
between starts. One write per line: a kill leaves at most a last line without its end, which is cut. There
is no lock: one service a file. A power cut may lose the last lines, for nothing is flushed to the disk.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from airflow_provider_bitdance.local import catalogue, faults
from airflow_provider_bitdance.local.prediction import Prediction

HEADER: Final = b'{"event": "format", "version": 1}\n'

StateEvent = Mapping[str, Any]


class DamagedStateError(Exception):
    """A file that cannot be replayed; the text names it, and the line."""


class StateFile:
    """The file of one service.

    :param path: made when it is not there.
    :raises OSError: when it can be neither read nor made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            self.clear()

    def events(self) -> Iterator[tuple[int, StateEvent]]:
        """Read all events with their line numbers, and cut a last line that was not written to its end.

        :raises DamagedStateError: for a line that is no event, or a file of another format.
        """
        content = self.path.read_bytes()
        if HEADER.startswith(content):  # New, or killed while the first line was written.
            self.clear()
            return
        if not content.startswith(HEADER):
            raise DamagedStateError(f"{self.path} is no state file of this version; choose another file")
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(self.path, whole)
        for number, line in enumerate(content[:whole].split(b"\n")[1:-1], start=2):
            yield number, self._event(number, line)

    def append(self, event: StateEvent) -> None:
        """Write one event.

        :param event: JSON values.
        """
        line = json.dumps(event, allow_nan=False).encode() + b"\n"
        # Opened each time: there is nothing to close, and a kill loses nothing.
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        try:
            if os.write(file, line) < len(line):
                raise OSError(f"{self.path} took only a part of a line; is the disk full?")
        finally:
            os.close(file)

    def clear(self) -> None:
        """Forget all events."""
        self.path.write_bytes(HEADER)

    def damaged(self, number: int, why: str) -> DamagedStateError:
        """Make the error that names a line.

        :param number: of the line, from 1.
        :param why: what is wrong with it.
        """
        return DamagedStateError(f"{self.path}, line {number}: {why}; repair the line or delete the file")

    def _event(self, number: int, line: bytes) -> StateEvent:
        try:
            event = json.loads(line)
        except ValueError:
            raise self.damaged(number, "no JSON") from None
        if not isinstance(event, dict) or not isinstance(event.get("event"), str):
            raise self.damaged(number, "no event")
        return event


def from_prediction(task: Prediction) -> StateEvent:
    """Write a new prediction as an event."""
    return {
        "event": "submit",
        "id": task.id,
        "model": task.model,
        "inputs": task.inputs.model_dump(),
        "seed": task.seed,
        "price": str(task.price),
        "picture_format": task.picture_format,
        "created_at": task.created_at,
        "admitted_at": _moment(task.admitted_at),
        "due_at": _moment(task.due_at),
        "shape": None if task.shape is None else from_rule(task.shape),
        "webhook": task.webhook,
    }


def to_prediction(event: StateEvent) -> Prediction:
    """Read a new prediction from its event.

    :raises ValueError: for values that no service wrote.
    """
    shape = None if event["shape"] is None else faults.parse(event["shape"])
    if not isinstance(shape, faults.Shape | None):
        raise ValueError(f"a rule of kind {shape.kind} shapes no prediction")
    return Prediction(
        id=event["id"],
        model=event["model"],
        inputs=catalogue.MODELS[event["model"]].inputs.model_validate(event["inputs"]),
        seed=event["seed"],
        price=Decimal(event["price"]),
        picture_format=event["picture_format"],
        created_at=event["created_at"],
        admitted_at=_or_never(event["admitted_at"]),
        due_at=_or_never(event["due_at"]),
        shape=shape,
        webhook=event["webhook"],
    )


def from_rule(rule: faults.Rule) -> dict[str, Any]:
    """Write a fault rule so that :func:`faults.parse` reads it: some defaults may not be spelled out."""
    return rule.model_dump(exclude_unset=True)


def _moment(at: float) -> float | None:
    return None if at == math.inf else at


def _or_never(at: float | None) -> float:
    return math.inf if at is None else at
