"""Items: files in CSV, JSON lines and Parquet, rows as a Dag gives them, and manifests that are read back."""

from __future__ import annotations

import datetime
import decimal
import json
import math
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy
from pyarrow import parquet

from airflow_provider_bitdance.batch import checked_items, read_items
from airflow_provider_bitdance.batch.validation import MAX_ITEMS
from airflow_provider_bitdance.exceptions import InputError
from airflow_provider_bitdance.manifest import manifest_bytes, manifest_row, parquet_bytes, read_manifest
from tests.fuzz.cases import Case
from tests.fuzz.mutation import NUMBERS, TEXTS, mutated_bytes, mutated_json, mutated_text
from tests.fuzz.sandbox import Sandbox
from tests.fuzz.target import LONG_PROMPT, Target, expect, expect_fit_for_people

_ROWS: list[dict[str, Any]] = [
    {"key": "p-1", "prompt": "A lighthouse", "size": "1:1", "seed": 7, "style": "oil", "note": None},
    {
        "key": "p-2",
        "prompt": "Ein Größe 灯塔",
        "size": "1280*720",
        "seed": -1,
        "style": "ink",
        "note": "x, y",
    },
    {"key": None, "prompt": LONG_PROMPT, "size": None, "seed": None, "style": 'a "b"', "note": "é\u200d"},
]


def csv_bytes(rows: list[dict[str, Any]]) -> bytes:
    def cell(value: object) -> str:
        return "" if value is None else '"' + str(value).replace('"', '""') + '"'

    lines = [",".join(rows[0]), *(",".join(map(cell, row.values())) for row in rows)]
    return "\r\n".join(lines).encode("utf-8", "surrogatepass")


def jsonl_bytes(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def table_bytes(columns: dict[str, list[Any]], **options: Any) -> bytes:
    file = BytesIO()
    parquet.write_table(pyarrow.table(columns), file, **options)
    return file.getvalue()


def _columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


@cache
def _odd_tables() -> tuple[bytes, ...]:
    """Return tables of other types and shapes, some of them small files that hold much."""
    moment = datetime.datetime(2026, 5, 28, 20, 26, 40)
    odd: tuple[list[Any], ...] = (
        [moment],
        [moment.date()],
        [datetime.timedelta(seconds=1)],
        [decimal.Decimal("1.50")],
        [float("nan")],
        [b"\xff\x00"],
        [[1, 2]],
        [{"a": 1}],
        ["\x00"],
        [2**63 - 1],
        [None],
    )
    tables = [table_bytes({"prompt": ["A fox"], "free": values}) for values in odd]
    many = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 500_000, pyarrow.int32()), ["A fox " * 30])
    return (
        *tables,
        table_bytes({"prompt": many}, compression="zstd"),
        table_bytes({"prompt": ["A fox"] * 1_000_000}),
        table_bytes({"prompt": ["f" * 50_000_000]}, compression="zstd"),
        table_bytes({f"column{number}": ["x"] for number in range(3000)}),
        table_bytes({"prompt": pyarrow.array([], pyarrow.string())}),
    )


CSV, JSONL, PARQUET = csv_bytes(_ROWS), jsonl_bytes(_ROWS), table_bytes(_columns(_ROWS))
_PROMPTS = (None, None, "{prompt}", "A {style} picture", "{prompt} {note}", "{{literal}}", "{key}", "{style")


@st.composite
def _csvs(draw: DrawFn) -> bytes:
    rows = [dict(row) for row in _ROWS]
    for _ in range(draw(st.integers(0, 3))):
        row = draw(st.sampled_from(rows))
        row[draw(st.sampled_from(sorted(row)))] = draw(st.one_of(st.sampled_from(TEXTS), st.integers()))
    data = csv_bytes(rows[:1] + rows)
    return draw(
        st.sampled_from(
            (
                *(data, b"\xef\xbb\xbf" + data, b"\xef\xbb\xbf\xef\xbb\xbf" + data, data.replace(b",", b";")),
                *(
                    data.replace(b"\r\n", b"\r"),
                    data.replace(b"key", b"\xe2\x80\x8bkey", 1),
                    data.replace(b'"', b""),
                ),
                *(data.replace(b"style", b"size", 1), data + data, data.replace(b"\r\n", b"\r\n\r\n")),
                *(
                    b"prompt\n" + b"fox\n" * 30_000,
                    b"prompt\n" + b'"' + b"x" * 3_000_000,
                    b"a," * 30_000 + b"\n",
                ),
                data.decode("utf-8", "replace").encode("utf-16"),
            )
        )
    )


@st.composite
def _files(draw: DrawFn) -> Case:
    kind = draw(st.sampled_from((".csv", ".jsonl", ".ndjson", ".parquet", ".CSV", "", ".json")))
    if kind == ".parquet":
        seeds = st.one_of(mutated_bytes((PARQUET, *_odd_tables()[:11])), st.sampled_from(_odd_tables()))
    elif kind.lower() == ".csv":
        seeds = st.one_of(_csvs(), mutated_bytes((CSV,)))
    else:
        lines = tuple(json.dumps(row).encode() for row in _ROWS)
        many = st.lists(mutated_json(lines), max_size=4).map(b"\n".join)
        seeds = st.one_of(
            many, mutated_bytes((JSONL,)), st.sampled_from((b'"A fox"\n' * 30_000, b"\n" * 500_000))
        )
    return {"name": f"/data/items{kind}", "data": draw(seeds)} | draw(_settings())


def _settings() -> SearchStrategy[Case]:
    usual = st.just({"prompt": None, "size": None, "seed": -1, "variants": 1})
    odd = st.fixed_dictionaries(
        {
            "prompt": st.one_of(st.sampled_from(_PROMPTS), mutated_text(("A {style} fox",))),
            "size": st.sampled_from((None, None, "1:1", "256*256", "x", "0*0", "1e9*1", "٣*٣")),
            "seed": st.sampled_from((-1, 7, 2**31 - 1, "7", "x", None)),
            "variants": st.sampled_from((1, 1, 2, 16)),
        }
    )
    return st.one_of(usual, odd)


def check_file(case: Case, folder: Path, sandbox: Sandbox) -> None:
    given = {name: case[name] for name in ("prompt", "size", "seed", "variants")}
    try:
        rows = read_items(case["data"], name=case["name"])
        items = checked_items(rows, **given)
    except InputError as error:
        expect_fit_for_people(str(error), "an error about items")
        return
    expect_right(items, prompt=case["prompt"])


def expect_right(items: Any, *, prompt: str | None) -> None:
    """Check what is to be bought: few enough, named apart, with prompts that people see, plain columns."""
    expect(0 < len(items) <= MAX_ITEMS, "there are more items than are allowed", len(items))
    keys = [item.key.casefold() for item in items]
    expect(len(set(keys)) == len(keys), "two items have one key")
    for item in items:
        expect(
            item.key.isascii() and "/" not in item.key and item.key[0] != ".", "a key is no name", item.key
        )
        words = item.request.prompt
        expect(
            words.strip().strip("\u200b\u200c\u200d\u2060\ufeff"), "a prompt has nothing to see", repr(words)
        )
        expect("\ufeff" not in words[:1], "a prompt begins with a byte order mark", repr(words[:9]))
        words.encode()
        for name, value in item.columns.items():
            expect(name.strip("\u200b\ufeff\u2060 "), "a column has no name to see", repr(name))
            expect(isinstance(value, str | int | float | None), "a column holds more than a value", value)
            expect(not isinstance(value, float) or math.isfinite(value), "a column holds no number", value)
    if prompt is None or "{" not in prompt:
        return
    expect("{{" not in prompt or "{" in items[0].request.prompt, "a literal brace is lost", prompt)


def rows_cases() -> SearchStrategy[Case]:
    """Return rows as a task or a Dag file gives them."""
    names = st.one_of(
        st.sampled_from(("key", "prompt", "size", "seed", "style", "uri")), st.sampled_from(TEXTS)
    )
    cell = st.one_of(
        st.sampled_from(TEXTS),
        st.sampled_from(NUMBERS),
        st.none(),
        st.booleans(),
        st.just([1]),
        st.just({"a": 1}),
    )
    changed = st.tuples(st.sampled_from(_ROWS), names, cell).map(
        lambda drawn: {**drawn[0], drawn[1]: drawn[2]}
    )
    row = st.one_of(changed, changed, st.dictionaries(names, cell, max_size=5), st.sampled_from(TEXTS), cell)
    rows = st.one_of(
        changed.map(lambda one: [one]), changed.map(lambda one: [one, one]), st.lists(row, max_size=4)
    )
    return st.tuples(rows, _settings()).map(lambda pair: {"rows": pair[0]} | pair[1])


def check_rows(case: Case, folder: Path, sandbox: Sandbox) -> None:
    given = {name: case[name] for name in ("prompt", "size", "seed", "variants")}
    try:
        items = checked_items(case["rows"], **given)
    except InputError as error:
        expect_fit_for_people(str(error), "an error about items")
        return
    expect_right(items, prompt=case["prompt"])
    rows = [manifest_row(item, status="missing") for item in items]
    for name, data in (("m.jsonl", manifest_bytes(rows)), ("m.parquet", parquet_bytes(rows))):
        (folder / name).write_bytes(data)
        back = read_manifest(str(folder / name))
        expect([row.key for row in back] == [row.key for row in rows], "a manifest loses rows")
        if name.endswith("jsonl"):
            expect(
                [row.columns for row in back] == [row.columns for row in rows], "a manifest changes columns"
            )


def manifest_cases() -> SearchStrategy[Case]:
    lines = [json.loads(line) for line in manifest_bytes(_A_MANIFEST).splitlines()]
    seeds = tuple(json.dumps(line).encode() for line in lines)
    text = st.lists(mutated_json(seeds), max_size=4).map(b"\n".join)
    odd = st.deferred(lambda: st.sampled_from(_odd_tables()))
    table = st.one_of(mutated_bytes((parquet_bytes(_A_MANIFEST),)), odd)
    named = st.one_of(st.tuples(st.just("m.jsonl"), text), st.tuples(st.just("m.parquet"), table))
    return named.map(lambda pair: {"name": pair[0], "data": pair[1]})


def check_manifest(case: Case, folder: Path, sandbox: Sandbox) -> None:
    (folder / case["name"]).write_bytes(case["data"])
    sandbox.allow(readable=[folder])
    try:
        rows = read_manifest(str(folder / case["name"]))
    except InputError as error:
        expect_fit_for_people(str(error), "an error about a manifest")
        return
    for row in rows:
        expect(row.status in ("stored", "failed", "missing"), "a row has no status", row)
        expect(row.uri is None or isinstance(row.uri, str), "a row's URI is no text", row)
        expect(row.width is None or isinstance(row.width, int), "a row's width is no number", row)


_A_MANIFEST = [manifest_row(item, status="missing") for item in checked_items(_ROWS)]


def _large_file() -> Case:
    rows = [{**_ROWS[0], "key": f"p-{number}"} for number in range(MAX_ITEMS)]
    return {
        "name": "/data/items.csv",
        "data": csv_bytes(rows),
        "prompt": None,
        "size": None,
        "seed": -1,
        "variants": 1,
    }


def _large_list() -> Case:
    rows = [{**_ROWS[0], "key": f"p-{number}"} for number in range(1000)]
    return {"rows": rows, "prompt": None, "size": None, "seed": -1, "variants": 1}


def _large_manifest() -> Case:
    return {"name": "m.jsonl", "data": manifest_bytes(_A_MANIFEST * 1000)}


TARGETS = (
    Target("item-files", _files(), check_file, _large_file, times=6, most_mib=256),
    Target("item-rows", rows_cases(), check_rows, _large_list, most_mib=64),
    Target("manifests", manifest_cases(), check_manifest, _large_manifest, most_mib=256),
)
