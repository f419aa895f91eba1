"""Parquet: reads small tables of plain values, and finds out before it reads whether a file is one.

A few bytes of Parquet can stand for gigabytes: 957 bytes of one repeated value took 1.7 GiB. So rows are
counted in the footer, sizes are those in the headers of pages, and texts are measured a few rows at a time.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any

from airflow_provider_bitdance.batch.limits import MAX_COLUMNS, MAX_ITEMS
from airflow_provider_bitdance.batch.thrift import BINARY, I32, I64, Thrift
from airflow_provider_bitdance.redaction import shorten
from airflow_provider_bitdance.storage import LARGEST_FILE

_FOOTER = {"thrift_container_size_limit": 2 * MAX_ITEMS, "thrift_string_size_limit": LARGEST_FILE // 4}
"""How long the lists and texts of a footer may be. A row group of each row is the most that makes sense."""
_ROWS, _ROW_GROUPS, _COLUMNS, _METADATA = 3, 4, 1, 3
_PACKED_COLUMN, _FIRST_PAGE, _DICTIONARY_PAGE = 7, 9, 11
_UNPACKED, _PACKED = 2, 3
"""Parquet's numbers of what is read of its footer, its columns and the headers of pages."""
_COLUMN_TYPES = {
    **dict.fromkeys((_PACKED_COLUMN, _FIRST_PAGE, _DICTIONARY_PAGE), I64),
    **{2: [I32], 3: [BINARY], 8: [{}], 13: [{}]},  # encodings, path, pairs, statistics of encodings
    **{16: {2: [I64], 3: [I64]}, 17: {2: [I32]}},  # statistics of sizes and of places
}
_GROUP_TYPES = {
    _ROWS: I64,
    _COLUMNS: [{_METADATA: _COLUMN_TYPES, 8: {2: {1: [BINARY]}}}],  # 8: how it is encrypted
    4: [{}],  # the order of rows
}
_FOOTER_TYPES = {_ROWS: I64, _ROW_GROUPS: [_GROUP_TYPES], 2: [{}], 5: [{}], 7: [{}]}  # schema, pairs, orders
_PAGE_TYPES = {_UNPACKED: I32, _PACKED: I32}
"""The types of these, and of every list that Parquet has there."""
_MOST_PAGES = 2**16
"""Pages of all columns. Each costs some 10 microseconds to look at. Writers make one or two of a column."""
_UNPACKED_AT_ONCE = LARGEST_FILE
"""Bytes that are unpacked to measure texts: of as many rows as fit if each repeats all that the file has."""


def read_parquet(data: bytes, *, columns: int = MAX_COLUMNS) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the names of a file's columns, and its rows.

    :param columns: How many columns it may have.
    :raises ImportError: pyarrow is not installed.
    :raises ValueError: Says why it cannot be read, or what of it is too large.
    """
    import pyarrow
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(BytesIO(data), **_FOOTER)
        _check_most(file.metadata.num_columns, columns, "columns")
        size = _checked_size(data, file.metadata)
        _check_texts(pyarrow, file, rows_at_once=max(1, _UNPACKED_AT_ONCE // max(1, size)))
        table: Any = file.read(use_threads=False)
        return table.column_names, table.to_pylist()
    except _TooLargeError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"is not a readable Parquet file: {shorten(str(error))}") from None


class _TooLargeError(ValueError):
    """The file is whole, and too large."""


def _checked_size(data: bytes, metadata: Any) -> int:
    """Return how many bytes all pages have when they are unpacked, or refuse what is too large."""
    footer = Thrift(data, len(data) - 8 - int.from_bytes(data[-8:-4], "little")).struct(_FOOTER_TYPES)
    groups = footer[_ROW_GROUPS]
    counts = (metadata.num_rows, metadata.num_row_groups, {metadata.num_columns} if groups else set())
    if (footer[_ROWS], len(groups), {len(group[_COLUMNS]) for group in groups}) != counts:
        raise ValueError("its footer is damaged")
    for rows in (footer[_ROWS], sum(abs(group[_ROWS]) for group in groups)):
        _check_most(rows, MAX_ITEMS, "rows")
    pages = size = 0
    for column in (chunk[_METADATA] for group in groups for chunk in group[_COLUMNS]):
        # A column without values may have no first page.
        start = min(filter(None, (column[_FIRST_PAGE], column.get(_DICTIONARY_PAGE))), default=0)
        header = Thrift(data, start)
        while header.at < start + column[_PACKED_COLUMN]:
            page = header.struct(_PAGE_TYPES)
            header.at += max(page[_PACKED], 0)
            pages += 1
            size += max(page[_UNPACKED], 0)
            _check_most(pages, _MOST_PAGES, "pages")
            _check_most(size, LARGEST_FILE, "bytes when decompressed")
    return size


def _check_most(found: int, most: int, what: str) -> None:
    if found > most:
        raise _TooLargeError(f"has {found} {what}; the limit is {most}")


def _check_texts(pyarrow: Any, file: Any, *, rows_at_once: int) -> None:
    """Find out how long all texts and bytes are: a page may have one once, and as many rows repeat it."""
    from pyarrow import compute

    schema, types = file.schema_arrow, pyarrow.types
    if nested := [field for field in schema if types.is_nested(field.type)]:
        found = f"{shorten(repr(nested[0].name))} of type {shorten(str(nested[0].type))}"
        raise _TooLargeError(f"has a column {found}; a column can hold text, numbers, true, false or null")
    names = [field.name for field in schema if not _has_fixed_width(types, field.type)]
    length = file.metadata.num_rows * sum(_width(types, field.type) for field in schema)
    _check_length(length)
    for batch in file.iter_batches(rows_at_once, columns=names, use_threads=False) if names else ():
        for column in batch.columns:
            if types.is_dictionary(column.type):
                lengths = compute.binary_length(column.dictionary).take(column.indices)
            else:
                lengths = compute.binary_length(column)
            length += compute.sum(lengths).as_py() or 0
        _check_length(length)


def _check_length(length: int) -> None:
    if length > LARGEST_FILE:
        raise _TooLargeError(f"has more than {LARGEST_FILE} bytes of text when decompressed")


def _width(types: Any, kind: Any) -> int:
    """Return how many bytes each row has of a column whose values all have as many: of others, none."""
    kind = _of_values(types, kind)
    return int(kind.byte_width) if types.is_fixed_size_binary(kind) else 0


def _of_values(types: Any, kind: Any) -> Any:
    return kind.value_type if types.is_dictionary(kind) else kind


def _has_fixed_width(types: Any, kind: Any) -> bool:
    kind = _of_values(types, kind)
    fixed = (types.is_null, types.is_primitive, types.is_fixed_size_binary, types.is_decimal)
    return any(is_one(kind) for is_one in fixed)
