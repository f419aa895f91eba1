"""What the service remembers, in SQLite: predictions, fault rules with their counts, refusals.

The service answers from its own objects and reads the database only when it starts. It writes every change
here before it makes the change and sends the response, so a service that is killed and started again on the
same file goes on where it was. The rows hold facts (this prediction, due then), not causes, so options may
change between two starts. Without a file nothing is written.

A commit reaches the operating system, not the disk: a killed process loses nothing, a power cut may. That is
enough for play money, and a commit takes microseconds.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import weakref
from dataclasses import dataclass, fields
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from airflow_provider_bitdance.local import catalogue, faults
from airflow_provider_bitdance.local.prediction import Prediction

APPLICATION_ID: Final = 0x42644C73
"""Tells our files from other programs' databases: "BdLs"."""
VERSION: Final = 3
"""Of the tables; version 1 was a file of JSON lines, version 2 had neither lags nor outages."""

_TABLES: Final = f"""
BEGIN;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
CREATE TABLE predictions (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    model TEXT NOT NULL,
    inputs TEXT NOT NULL,
    seed INTEGER NOT NULL,
    price TEXT NOT NULL,
    picture_format TEXT NOT NULL,
    created_at REAL NOT NULL,
    admitted_at REAL NOT NULL,
    due_at REAL NOT NULL,
    listed_at REAL NOT NULL,
    fault TEXT,
    reads INTEGER NOT NULL DEFAULT 0,
    deleted INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE fault_rules (
    number INTEGER PRIMARY KEY,
    rule TEXT NOT NULL,
    thrown INTEGER NOT NULL DEFAULT 0,
    applied INTEGER NOT NULL DEFAULT 0,
    began REAL
);
CREATE TABLE refusals (number INTEGER PRIMARY KEY);
COMMIT;
"""

_COLUMNS: Final = tuple(each.name for each in fields(Prediction))
_NAMES: Final = ", ".join(_COLUMNS)


class StateError(Exception):
    """The state file cannot be used; the text names it and says why."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What the database holds.

    :param predictions: in the order of their submission, deleted ones too.
    :param rules: the fault rules in order, with how often each was thrown for, how often it applied, and when
        it began, where that counts.
    :param refused: submissions that the limits refused.
    """

    predictions: list[Prediction]
    rules: list[tuple[faults.AnyRule, int, int, float | None]]
    refused: int


class Database:
    """The tables of one service. Its methods may be called from any thread.

    :param path: the state file, which is made when it is not there; None writes nothing and holds nothing.
    :raises StateError: when the file can be neither opened nor made, or is not a state file.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        if path is None:
            return
        try:
            self._connection = sqlite3.connect(path, check_same_thread=False)
            # Python 3.13 warns of a connection that is collected open, and services are not closed.
            weakref.finalize(self, self._connection.close)
            self._open(self._connection)
        except sqlite3.Error as bad:
            raise StateError(f"{path} cannot be used as the state file: {bad}") from bad

    def add_prediction(self, task: Prediction) -> None:
        """Write a new prediction."""
        if self._connection is None:
            return
        row = {name: getattr(task, name) for name in _COLUMNS}
        # Only what was sent, which the API may repeat; the defaults are the model's.
        row["inputs"] = task.inputs.model_dump_json(exclude_unset=True)
        row["price"] = str(task.price)
        row["fault"] = None if task.fault is None else _rule_text(task.fault)
        marks = ", ".join("?" * len(_COLUMNS))
        self._write(f"INSERT INTO predictions ({_NAMES}) VALUES ({marks})", tuple(row.values()))

    def count_read(self, prediction_id: str) -> None:
        """Count that a result was requested."""
        self._write("UPDATE predictions SET reads = reads + 1 WHERE id = ?", (prediction_id,))

    def delete_predictions(self, ids: list[str]) -> None:
        """Mark predictions as deleted, all of them or none."""
        self._write("UPDATE predictions SET deleted = 1 WHERE id = ?", *((each,) for each in ids))

    def add_refusal(self) -> None:
        """Count a submission that the limits refused."""
        self._write("INSERT INTO refusals DEFAULT VALUES", ())

    def add_rule(self, number: int, rule: faults.Rule) -> None:
        """Write a new fault rule under its place in the plan, from 0."""
        self._write("INSERT INTO fault_rules (number, rule) VALUES (?, ?)", (number, _rule_text(rule)))

    def count_throw(self, number: int, *, applied: bool, began: float | None) -> None:
        """Count that a rule met a request, and whether the dice let it apply; write when it began."""
        self._write(
            "UPDATE fault_rules SET thrown = thrown + 1, applied = applied + ?, began = ? WHERE number = ?",
            (applied, began, number),
        )

    def clear_rules(self) -> None:
        """Forget the fault rules."""
        self._write("DELETE FROM fault_rules", ())

    def clear(self) -> None:
        """Forget everything."""
        if self._connection is None:
            return
        with self._lock, self._connection:
            for table in ("predictions", "fault_rules", "refusals"):
                self._connection.execute(f"DELETE FROM {table}")

    def load(self) -> Stored:
        """Read everything.

        :raises StateError: when the file is damaged.
        """
        if self._connection is None:
            return Stored([], [], 0)
        queries = (
            f"SELECT {_NAMES} FROM predictions ORDER BY number",
            "SELECT rule, thrown, applied, began FROM fault_rules ORDER BY number",
            "SELECT count(*) FROM refusals",
        )
        try:
            with self._lock:
                predictions, rules, ((refused,),) = (self._connection.execute(each) for each in queries)
            return Stored(
                [_prediction(row) for row in predictions],
                [(faults.parse(json.loads(rule)), *counts) for rule, *counts in rules],
                refused,
            )
        except (sqlite3.Error, ValueError, LookupError, ArithmeticError) as bad:
            (why, *_) = str(bad).splitlines()
            raise StateError(f"{self._path} is damaged: {why}; delete it or choose another file") from bad

    def _open(self, connection: sqlite3.Connection) -> None:
        execute = connection.execute
        names = ("PRAGMA application_id", "PRAGMA user_version", "SELECT count(*) FROM sqlite_master")
        application_id, version, tables = (execute(name).fetchone()[0] for name in names)
        is_new = (application_id, version, tables) == (0, 0, 0)
        if not is_new and (application_id, version) != (APPLICATION_ID, VERSION):
            raise StateError(f"{self._path} is not a state file of this version; choose another file")
        execute("PRAGMA synchronous = OFF")
        if is_new:
            connection.executescript(_TABLES)
        # One append to one file per change; the rollback journal would make and delete a file each time.
        execute("PRAGMA journal_mode = WAL")

    def _write(self, statement: str, *rows: tuple[object, ...]) -> None:
        if self._connection is None:
            return
        # The connection as a context manager commits, or rolls back when the statement fails.
        with self._lock, self._connection:
            self._connection.executemany(statement, rows)


def _rule_text(rule: faults.Rule) -> str:
    # Only what was set: some defaults may not be spelled out where a rule is parsed.
    return rule.model_dump_json(exclude_unset=True)


def _prediction(row: tuple[Any, ...]) -> Prediction:
    values = dict(zip(_COLUMNS, row, strict=True))
    values["inputs"] = catalogue.MODELS[values["model"]].inputs.model_validate_json(values["inputs"])
    values["price"] = Decimal(values["price"])
    values["deleted"] = bool(values["deleted"])
    if values["fault"] is not None:
        values["fault"] = rule = faults.parse(json.loads(values["fault"]))
        if not isinstance(rule, faults.PredictionFault):
            raise ValueError(f"a rule of kind {rule.kind} does not decide about predictions")
    return Prediction(**values)
