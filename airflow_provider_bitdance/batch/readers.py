"""Files of items: CSV, JSON lines and Parquet. A broken line is a row with a fault, and reading goes on."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO, TextIOWrapper
from itertools import count, islice
from typing import NoReturn

from airflow_provider_bitdance.batch.columns import has_surrogate
from airflow_provider_bitdance.batch.limits import MAX_COLUMNS, MAX_ITEMS, MAX_LINES, MAX_ROW
from airflow_provider_bitdance.batch.parquet import read_parquet
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
        raise _unreadable(name, "has no extension of a supported format")
    rows = list(islice(reader(data, name), MAX_ITEMS + 1))
    if len(rows) > MAX_ITEMS:
        raise _too_large(name, f"has more than {MAX_ITEMS} rows")
    return rows


def _csv_rows(data: bytes, name: str) -> Iterator[Row]:
    # The module's limit is below ours, and the whole process has it: it is raised and never lowered.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_ROW))
    reader = csv.reader(_lines(data, name, newline=""), strict=True)
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
        return Row(number, None, f"has {len(cells)} cells, but the header has {len(header)}")
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
    if len(header) > MAX_COLUMNS:
        raise _too_large(name, f"has {len(header)} columns; the limit is {MAX_COLUMNS}")
    if "" in header:
        raise _unreadable(
            name,
            f"has no name for column {header.index('') + 1}",
            fix="Give it one. If it is pandas' index, write the file with to_csv(index=False)",
        )
    if code_point := invisible_in("".join(header)):
        column = shorten(repr(next(column for column in header if invisible_in(column))))
        raise _unreadable(name, f"has {code_point}, an invisible character, in the column name {column}")
    if twice := [column for column, times in Counter(header).items() if times > 1]:
        raise _unreadable(name, f"has two columns named {shorten(repr(twice[0]))}")


def _jsonl_rows(data: bytes, name: str) -> Iterator[Row]:
    # Not splitlines: JSON text may hold other line separators as they are.
    for number, line in enumerate(_lines(data, name, newline="\n"), start=1):
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
    if isinstance(value, dict) and len(value) > MAX_COLUMNS:
        return Row(number, None, f"has {len(value)} columns; the limit is {MAX_COLUMNS}")
    return Row(number, _flat(value))


def _flat(value: object) -> object:
    """Empty what is nested: it is refused by its type, and a row of lists takes 20 times its text.

    The inputs of a model, which may be nested, stay as their text.
    """
    if not isinstance(value, dict):
        return [] if isinstance(value, list) else value
    flat = {name: type(cell)() if isinstance(cell, dict | list) else cell for name, cell in value.items()}
    if isinstance(inputs := value.get("inputs"), dict | list):
        flat["inputs"] = json.dumps(inputs)
    return flat


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def _parquet_rows(data: bytes, name: str) -> Iterator[Row]:
    try:
        columns, records = read_parquet(data)
    except ImportError:
        raise _unreadable(
            name, "needs pyarrow; run pip install 'airflow-provider-bitdance[parquet]' on every worker"
        ) from None
    except ValueError as error:
        raise _unreadable(name, str(error)) from None
    _check_header(columns, name)
    for number, record in enumerate(records, start=1):
        yield Row(number, record)


_READERS: dict[str, Callable[[bytes, str], Iterator[Row]]] = {
    ".csv": _csv_rows,
    ".jsonl": _jsonl_rows,
    ".ndjson": _jsonl_rows,
    ".parquet": _parquet_rows,
}


def _lines(data: bytes, name: str, *, newline: str) -> Iterator[str]:
    """Decode a file line by line, so that a wrong byte is the fault of its own row, where it is half a
    character.

    :param newline: As for ``open``.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise _unreadable(name, "is UTF-16, not UTF-8")
    if b"\0" in data:
        raise _unreadable(name, "has NUL bytes, as UTF-16 and compressed files do, so it is not UTF-8 text")
    file = TextIOWrapper(BytesIO(data), "utf-8", "surrogateescape", newline=newline)
    for number in count(1):
        line = file.readline(MAX_ROW + 1)
        if not line:
            return
        if len(line) > MAX_ROW:
            raise _too_large(name, f"has more than {MAX_ROW} characters in line {number}")
        if number > MAX_LINES:
            raise _too_large(name, f"has more than {MAX_LINES} lines")
        yield line.replace(BYTE_ORDER_MARK, "")


def _too_large(name: str, wrong: str) -> InputError:
    return InputError(
        f"The items file {shorten(name, 200)} {wrong}",
        allowed=f"{MAX_ITEMS} rows of at most {MAX_COLUMNS} columns and {MAX_ROW} characters",
        fix="Write several files or fewer columns; .expand(items=[file, file]) runs one task per file",
    )


def _unreadable(name: str, wrong: str, *, fix: str | None = None) -> InputError:
    return InputError(
        f"The items file {shorten(name, 200)} {wrong}",
        allowed=".csv (UTF-8, with a header row and commas), .jsonl or .ndjson (UTF-8), .parquet",
        fix=fix,
    )
