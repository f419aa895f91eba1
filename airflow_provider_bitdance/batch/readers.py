"""Files of items: CSV, JSON lines and Parquet. A broken line is a row with a fault, and reading goes on."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO, StringIO
from typing import Any, NoReturn

from airflow_provider_bitdance.batch.columns import has_surrogate
from airflow_provider_bitdance.exceptions import InputError
from airflow_provider_bitdance.redaction import shorten
from airflow_provider_bitdance.text_checks import BYTE_ORDER_MARK, invisible_in

_OTHER_SEPARATORS = ";\t|"
_NOT_UTF8 = "is not UTF-8"


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a file.

    :param number: Where a person finds it: the line on which it begins, or a Parquet file's record; from 1.
    :param value: What it holds.
    :param fault: Why it cannot be read, where it cannot.
    """

    number: int
    value: object
    fault: str = ""


def read_items(data: bytes, *, name: str) -> list[Row]:
    """Read a file of items. Blank lines are passed over.

    :param data: The whole file; text is UTF-8; byte order marks are removed.
    :param name: Its name or URI: ``.csv`` with a header row, ``.jsonl`` or ``.ndjson``, ``.parquet``.
    :raises InputError: It is none of these, or cannot be read at all.
    """
    reader = _READERS.get(name[name.rfind(".") :].lower())
    if reader is None:
        raise _unreadable(name, "has no extension that shows its format")
    return list(reader(data, name))


def _csv_rows(data: bytes, name: str) -> Iterator[Row]:
    reader = csv.reader(StringIO(_text(data, name), newline=""), strict=True)
    try:
        header = [column.strip() for column in next(reader, [])]
    except csv.Error as error:
        raise _unreadable(name, f"has an unreadable header row: {error}") from None
    _check_header(header, name)
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Row(number, None, f"is not CSV: {error}")
            continue
        if any(cell.strip() for cell in cells):
            yield _csv_row(number, header, cells)


def _csv_row(number: int, header: list[str], cells: list[str]) -> Row:
    if len(cells) != len(header):
        return Row(number, None, f"has {len(cells)} cells, and the header has {len(header)}")
    if [cell.strip() for cell in cells] == header:
        return Row(number, None, "repeats the header row")  # of a file that was appended to this one
    if any(map(has_surrogate, cells)):
        return Row(number, None, _NOT_UTF8)
    # CSV has no null: an empty cell is a value that was not given.
    return Row(number, {name: cell or None for name, cell in zip(header, cells, strict=True)})


def _check_header(header: list[str], name: str) -> None:
    if not any(header):
        raise _unreadable(name, "has no header row")
    if len(header) == 1 and any(char in header[0] for char in _OTHER_SEPARATORS):
        raise _unreadable(name, f"has a header without commas: {shorten(repr(header[0]))}")
    if "" in header:
        raise _unreadable(name, f"has no name for column {header.index('') + 1}")
    if code_point := invisible_in("".join(header)):
        column = shorten(repr(next(column for column in header if invisible_in(column))))
        raise _unreadable(
            name, f"has {code_point}, a character that cannot be seen, in the column name {column}"
        )
    if twice := [column for column, times in Counter(header).items() if times > 1]:
        raise _unreadable(name, f"has two columns named {shorten(repr(twice[0]))}")


def _jsonl_rows(data: bytes, name: str) -> Iterator[Row]:
    # Not splitlines: JSON text may hold other line separators as they are.
    for number, line in enumerate(_text(data, name).split("\n"), start=1):
        if line.strip():
            yield _jsonl_row(number, line)


def _jsonl_row(number: int, line: str) -> Row:
    if has_surrogate(line):
        return Row(number, None, _NOT_UTF8)
    try:
        value = json.loads(line, object_pairs_hook=_unique, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        return Row(number, None, f"is not JSON: {error.msg} at character {error.pos + 1}")
    except (ValueError, RecursionError) as error:
        return Row(number, None, f"is not JSON: {shorten(str(error))}")
    return Row(number, value)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def _parquet_rows(data: bytes, name: str) -> Iterator[Row]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise _unreadable(
            name, "needs pyarrow; run pip install 'airflow-provider-bitdance[parquet]' on every worker"
        ) from None
    try:
        table: Any = parquet.read_table(BytesIO(data))
        _check_header(table.column_names, name)
        records = table.to_pylist()
    except InputError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise _unreadable(name, f"is not a readable Parquet file: {shorten(str(error))}") from None
    for number, record in enumerate(records, start=1):
        yield Row(number, record)


_READERS: dict[str, Callable[[bytes, str], Iterator[Row]]] = {
    ".csv": _csv_rows,
    ".jsonl": _jsonl_rows,
    ".ndjson": _jsonl_rows,
    ".parquet": _parquet_rows,
}


def _text(data: bytes, name: str) -> str:
    """Decode a file so that a wrong byte is the fault of its own row, where it is half a character."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise _unreadable(name, "is UTF-16, not UTF-8")
    return data.decode("utf-8", "surrogateescape").replace(BYTE_ORDER_MARK, "")


def _unreadable(name: str, wrong: str) -> InputError:
    return InputError(
        f"The file of items {shorten(name, 200)} {wrong}",
        allowed=".csv (UTF-8, with a header row and commas), .jsonl or .ndjson (UTF-8), .parquet",
    )
