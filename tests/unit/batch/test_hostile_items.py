"""Files that are made to take all memory, or are none: our error, in little time and memory."""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from airflow_provider_bitdance.batch import checked_items, read_items, validation
from airflow_provider_bitdance.batch import parquet as reader
from airflow_provider_bitdance.batch.limits import MAX_BATCH, MAX_COLUMNS, MAX_ITEMS, MAX_LINES, MAX_ROW
from airflow_provider_bitdance.exceptions import InputError
from airflow_provider_bitdance.hooks.object_storage import read_file
from airflow_provider_bitdance.storage import LARGEST_FILE
from airflow_provider_bitdance.wavespeed.image_request import ImageRequest
from airflow_provider_bitdance.wavespeed.models import MAX_PROMPT

pytestmark = pytest.mark.usefixtures("no_garbage_collection")

CPU_SECONDS = 3.0
MEMORY = 400 * 2**20


def peak() -> int:
    """Return the most bytes that this process has had, pyarrow's included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def written(table: pyarrow.Table, **options: Any) -> bytes:
    file = BytesIO()
    parquet.write_table(table, file, **options)
    return file.getvalue()


def repeated(text: object, times: int) -> pyarrow.DictionaryArray:
    indices = pyarrow.array([0] * times, pyarrow.int32())
    return pyarrow.DictionaryArray.from_arrays(indices, pyarrow.array([text]))


PLAIN = {"use_dictionary": False, "write_statistics": False, "compression": "zstd"}


def with_another_size(data: bytes) -> bytes:
    """Return a file whose footer says of its only column that it has 100 bytes when decompressed."""
    chunk = parquet.ParquetFile(BytesIO(data)).metadata.row_group(0).column(0)
    said = varint(2 * chunk.total_uncompressed_size)
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    changed = data[:footer] + data[footer:].replace(said, b"\xc8\x81" + b"\x80" * (len(said) - 3) + b"\0")
    found = parquet.ParquetFile(BytesIO(changed)).metadata.row_group(0).column(0)
    assert found.total_uncompressed_size == 100
    return changed


def with_footer(old: bytes, new: bytes) -> bytes:
    """Return a file of too many rows, which pyarrow opens, with another text in its footer."""
    data = written(pyarrow.table({"prompt": ["x"] * (MAX_ITEMS + 1)}), store_schema=False)
    start = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    assert old in data[start:-8]
    footer = data[start:-8].replace(old, new, 1)
    changed = data[:start] + footer + len(footer).to_bytes(4, "little") + b"PAR1"
    assert parquet.ParquetFile(BytesIO(changed)).metadata
    return changed


def varint(number: int) -> bytes:
    return bytes([number & 0x7F | 0x80]) + varint(number >> 7) if number > 0x7F else bytes([number])


def one_column(array: Any) -> bytes:
    return written(pyarrow.table({"prompt": array}), compression="zstd")


def text(line: str, times: int = 1, header: str = "prompt\n") -> bytes:
    return (header + line * times).encode()


ROW_COUNT = b"\x16" + varint(2 * (MAX_ITEMS + 1))
ENCODINGS = b"\x19\x35\0\6\x10"
COLUMN_ORDERS = b"\x19\x1c\x1c\0\0"
"""Parts of a footer: the number of rows, a column's encodings, and what is last."""

LONG = "x" * (MAX_ROW + 1)
WIDE = [f"c{number}" for number in range(MAX_COLUMNS + 1)]

PARQUET: dict[str, tuple[Callable[[], bytes], str]] = {
    "many rows of one value": (
        lambda: one_column(repeated("x", MAX_ITEMS + 1)),
        f"has {MAX_ITEMS + 1} rows; the limit is {MAX_ITEMS}",
    ),
    "many rows of nothing": (lambda: one_column(pyarrow.nulls(MAX_ITEMS + 1)), "10001 rows"),
    "one long text, repeated": (lambda: one_column(repeated("x" * 2**20, 5_000)), "bytes of text when"),
    "the same without pyarrow's own schema": (
        lambda: written(pyarrow.table({"prompt": repeated("x" * 2**20, 5_000)}), store_schema=False),
        "bytes of text when",
    ),
    "the same as large text": (
        lambda: one_column(repeated(pyarrow.scalar("x" * 2**20, pyarrow.large_string()), 5_000)),
        "bytes of text when",
    ),
    "texts that begin alike": (
        lambda: written(
            pyarrow.table({"prompt": ["x" * 2**20 + str(number) for number in range(80)]}),
            use_dictionary=False,
            column_encoding={"prompt": "DELTA_BYTE_ARRAY"},
        ),
        "bytes of text when",
    ),
    "zeros, packed": (
        lambda: one_column(pyarrow.array([bytes(LARGEST_FILE + 1)])),
        f"the limit is {LARGEST_FILE}",
    ),
    "zeros, packed, and a footer that says otherwise": (
        lambda: with_another_size(written(pyarrow.table({"a": [bytes(LARGEST_FILE + 1)]}), **PLAIN)),
        f"the limit is {LARGEST_FILE}",
    ),
    "one long value of as many bytes as each, repeated": (
        lambda: one_column(repeated(pyarrow.scalar(bytes(2**16), pyarrow.binary(2**16)), 5_000)),
        "bytes of text when",
    ),
    **{
        f"a footer {how}": (partial(with_footer, old, new), "its footer or a page's header is damaged")
        for how, old, new in [
            ("that says its rows again as another type", COLUMN_ORDERS, COLUMN_ORDERS + b"\x05\x06\2"),
            ("that says its row groups again as a set", COLUMN_ORDERS, COLUMN_ORDERS + b"\x0a\x08\x0c"),
            ("that says its rows again", COLUMN_ORDERS, COLUMN_ORDERS + b"\x06\x06\2"),
            (
                "with a number of a field that pyarrow cuts",
                COLUMN_ORDERS,
                COLUMN_ORDERS + b"\6\x86\x80\x08\2",
            ),
            ("with a number that pyarrow cuts", ROW_COUNT, ROW_COUNT[:-1] + b"\x81" + b"\x80" * 6 + b"\2"),
            ("with a list of another type", ENCODINGS, b"\x19\x33" + ENCODINGS[2:]),
        ]
    },
    "columns": (
        lambda: written(pyarrow.table({name: ["x"] for name in WIDE})),
        f"has {MAX_COLUMNS + 1} columns; the limit is {MAX_COLUMNS}",
    ),
    "nested": (
        lambda: one_column(pyarrow.array([[["x"]]])),
        "has a column 'prompt' of type list<element: list<element: string>>",
    ),
    "cut": (lambda: one_column(["x"])[:-1], "not a readable Parquet file"),
    "a damaged page": (
        lambda: one_column(["x" * 99])[:20] + bytes(400) + one_column(["x" * 99])[20:],
        "not a",
    ),
}
FILES: dict[str, tuple[str, Callable[[], bytes], str]] = {
    **{f"Parquet: {name}": ("parquet", make, said) for name, (make, said) in PARQUET.items()},
    "CSV of too many rows": ("csv", lambda: text("a\n", MAX_ITEMS + 1), "has more than 10000 rows"),
    "CSV of broken rows": ("csv", lambda: text("a,b\n", MAX_ITEMS + 1), "has more than 10000 rows"),
    "JSON lines of too many rows": (
        "jsonl",
        lambda: text('"a"\n', MAX_ITEMS + 1, ""),
        "more than 10000 rows",
    ),
    "blank lines": ("jsonl", lambda: bytes(0) + b"\n" * (MAX_LINES + 1), f"has more than {MAX_LINES} lines"),
    "CSV of one line": ("csv", lambda: text(LONG), "characters in line 2"),
    "CSV with a header of one line": ("csv", lambda: LONG.encode(), "characters in line 1"),
    "CSV in quotes without end": ("csv", lambda: text('"' + LONG), "characters in line 2"),
    "JSON of one line": ("jsonl", lambda: text('["' + LONG, 1, ""), "characters in line 1"),
    "CSV of too many columns": (
        "csv",
        lambda: text("", 1, ",".join(WIDE)),
        "has 129 columns; the limit is 128",
    ),
    "NUL bytes": ("csv", lambda: b"prompt\na\0cat\n", "has NUL bytes"),
    "UTF-16 with a mark": ("csv", lambda: "prompt\na cat\n".encode("utf-16"), "is UTF-16"),
    "UTF-16 without a mark": (
        "csv",
        lambda: "prompt\na cat\n".encode("utf-16-be"),
        "has NUL bytes, as UTF-16",
    ),
    "UTF-32": ("jsonl", lambda: '"a cat"'.encode("utf-32"), "is UTF-16"),
    "packed": (
        "csv",
        lambda: b"\x1f\x8b\x08" + bytes(20),
        "has NUL bytes, as UTF-16 and compressed files do",
    ),
    "packed, by name": ("csv.gz", lambda: b"", "has no extension of a supported format"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_hostile_file_is_refused_in_little_time_and_memory(name: str) -> None:
    extension, make, said = FILES[name]
    data = make()
    before, start = peak(), time.thread_time()
    with pytest.raises(InputError) as caught:
        read_items(data, name=f"/data/items.{extension}")
    assert said in str(caught.value)
    assert time.thread_time() - start < CPU_SECONDS
    assert peak() - before < MEMORY


def test_pages_of_a_file_that_is_too_large_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    data = one_column(repeated("x", MAX_ITEMS + 1))
    monkeypatch.setattr(parquet.ParquetFile, "iter_batches", None)
    monkeypatch.setattr(parquet.ParquetFile, "read", None)
    with pytest.raises(ValueError, match="rows"):
        reader.read_parquet(data)


def test_the_most_rows_and_columns_are_read() -> None:
    long = pyarrow.table({"prompt": ["x"] * MAX_ITEMS})
    wide = pyarrow.table({name: ["x"] for name in WIDE[1:]})
    assert len(read_items(written(long), name="x.parquet")) == MAX_ITEMS
    assert len(read_items(written(wide), name="x.parquet")) == 1
    assert len(read_items(text("a\n", MAX_ITEMS), name="x.csv")) == MAX_ITEMS


def test_texts_that_are_written_as_differences_are_read() -> None:
    values = [f"a cat, number {number}" for number in range(50)]
    options = {"use_dictionary": False, "column_encoding": {"prompt": "DELTA_BYTE_ARRAY"}}
    rows = read_items(written(pyarrow.table({"prompt": values}), **options), name="x.parquet")
    assert [row.value for row in rows] == [{"prompt": value} for value in values]


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "zstd"])
@pytest.mark.parametrize("use_dictionary", [True, False])
def test_pages_of_every_kind_are_read(version: str, compression: str, use_dictionary: bool) -> None:
    table = pyarrow.table({"prompt": [f"number {n}" for n in range(500)], "n": range(500), "b": [True] * 500})
    options = {"compression": compression, "use_dictionary": use_dictionary, "data_page_version": version}
    data = written(table, data_page_size=200, write_batch_size=50, row_group_size=300, **options)
    assert [row.value for row in read_items(data, name="x.parquet")] == table.to_pylist()


@pytest.mark.parametrize("kind", ["string", "large_string", "dictionary"])
def test_every_kind_of_text_column_is_read(kind: str) -> None:
    values = ["a cat", None, "a cat", ""]
    array = pyarrow.array(values)
    array = array.dictionary_encode() if kind == "dictionary" else array.cast(kind)
    found = read_items(written(pyarrow.table({"a.b": array, "n": [1, 2, None, 4]})), name="x.parquet")
    assert [row.value for row in found] == [
        {"a.b": value, "n": number} for value, number in zip(values, [1, 2, None, 4], strict=True)
    ]


def test_what_is_nested_in_json_is_refused_and_does_not_stay_in_memory() -> None:
    (row,) = read_items(b'{"prompt": "p", "tags": [[], {}], "more": {"a": []}}', name="x.jsonl")
    assert row.value == {"prompt": "p", "tags": [], "more": {}}
    with pytest.raises(InputError, match="row 1: column 'tags' is of type list"):
        checked_items([row])


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_json_of_any_depth_is_a_bad_row(opening: str) -> None:
    (row,) = read_items((opening * 30_000).encode(), name="x.jsonl")
    assert "is not JSON" in row.fault


ROWS: list[tuple[object, str]] = [
    ({"prompt": "x" * (MAX_PROMPT + 1)}, f"row 1: prompt has {MAX_PROMPT + 1} characters"),
    ({"prompt": "a\0cat"}, "row 1: prompt contains a NUL character"),
    ({"prompt": "p", **dict.fromkeys(WIDE)}, "row 1: has 130 columns; the limit is 128"),
    ({"prompt": "p", "text": LONG}, "bytes as JSON; the limit is 262144"),
    ({"prompt": "p", "id": 10**5000}, "row 1: has a whole number of more than 300 digits"),
    ({"prompt": "p", "key": 10**5000}, "row 1: has a whole number of more than 300 digits"),
]


@pytest.mark.parametrize(("row", "said"), ROWS, ids=[said for _, said in ROWS])
def test_a_row_that_is_too_large_is_refused_before_it_is_bought(row: object, said: str) -> None:
    with pytest.raises(InputError) as caught:
        checked_items([row])
    assert said in str(caught.value)
    assert len(str(caught.value)) < 2_000


def test_a_template_that_repeats_a_long_value_is_refused_before_it_is_filled() -> None:
    before = peak()
    with pytest.raises(InputError, match=r"row 1: has a prompt of \d+ characters; the limit is 32768"):
        checked_items([{"a": "x" * 200_000}], prompt="{a}" * 10_000)
    assert peak() - before < MEMORY


@pytest.mark.parametrize("opening", ["{{", "{{ ", "{%", "{", "}", "{{ }", "{% %"])
@pytest.mark.parametrize("is_template", [True, False])
def test_a_prompt_of_braces_alone_is_read_in_no_time(opening: str, is_template: bool) -> None:
    text = opening * (MAX_PROMPT // len(opening))
    start = time.thread_time()
    with contextlib.suppress(InputError):
        checked_items([{"a": "x"}] if is_template else [text], prompt=text if is_template else None)
    assert time.thread_time() - start < 1.0


def test_a_plan_that_no_journal_could_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_BATCH < LARGEST_FILE
    monkeypatch.setattr(validation, "MAX_BATCH", 1_000)
    rows = [{"prompt": f"number {number}", "text": "x" * 100} for number in range(7)]
    assert len(checked_items(rows)) == 7
    with pytest.raises(InputError, match="At row 4, prompts, inputs and columns exceed 1000 bytes"):
        checked_items(rows, variants=2)


def test_one_image_has_the_same_limit_of_its_prompt() -> None:
    assert ImageRequest.of(prompt="x" * MAX_PROMPT)
    with pytest.raises(InputError, match=f"Allowed: prompt: text of at most {MAX_PROMPT} characters"):
        ImageRequest.of(prompt="x" * (MAX_PROMPT + 1))


def test_a_record_of_a_longer_prompt_stays_readable() -> None:
    assert ImageRequest.model_validate({"prompt": "x" * (MAX_PROMPT + 1)})


NO_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a folder": (lambda path: path.mkdir(), "is a folder"),
    "a named pipe": (os.mkfifo, "is a named pipe"),
    "a link to nowhere": (lambda path: path.symlink_to("/nowhere/at/all"), "There is no file"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "is a device"),
    "too large": (lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_RDWR), 2**40), "is too large"),
}


@pytest.mark.parametrize("name", NO_FILES)
def test_what_is_no_file_of_items_is_refused_at_once(tmp_path: Path, name: str) -> None:
    make, said = NO_FILES[name]
    make(tmp_path / "items.csv")
    with pytest.raises(InputError, match=said):
        read_file(f"{tmp_path}/items.csv")


def test_a_file_of_items_may_be_a_link_as_kubernetes_mounts_them(tmp_path: Path) -> None:
    (tmp_path / "..data").mkdir()
    (tmp_path / "..data" / "items.csv").write_bytes(b"prompt\na cat\n")
    (tmp_path / "items.csv").symlink_to("..data/items.csv")
    assert read_file(f"{tmp_path}/items.csv") == b"prompt\na cat\n"
