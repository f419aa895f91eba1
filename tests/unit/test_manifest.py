"""The manifest of a batch: written in the order of the items, read back as it was, by any tool."""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_bitdance.batch import Item, checked_items
from airflow_provider_bitdance.batch.columns import RESULT_COLUMNS
from airflow_provider_bitdance.exceptions import InputError
from airflow_provider_bitdance.manifest import (
    ManifestRow,
    manifest_bytes,
    manifest_row,
    parquet_bytes,
    read_manifest,
    read_manifest_frame,
)
from airflow_provider_bitdance.text_checks import invisible_in
from tests.unit.support import a_receipt


def an_item(key: str = "cat", **columns: Any) -> Item:
    (item,) = checked_items([{"key": key, "prompt": "a cat", **columns}])
    return item


def a_result(**changes: Any) -> dict[str, Any]:
    return a_receipt().summary(receipt="mem://r", reused=False, possibly_paid=0) | changes


def three_rows() -> list[ManifestRow]:
    return [
        manifest_row(an_item("b", id=7, note="x"), status="stored", result=a_result()),
        manifest_row(an_item("a", id=8, note=None), status="failed", error="moderated"),
        manifest_row(an_item("c", id=9), status="missing", result={"prediction_id": "p", "possibly_paid": 1}),
    ]


def written(folder: Path, rows: list[ManifestRow], kind: str) -> str:
    file = folder / f"manifest.{kind}"
    file.write_bytes(manifest_bytes(rows) if kind == "jsonl" else parquet_bytes(rows))
    return str(file)


def test_a_row_has_every_field_of_the_single_operators_result_and_no_name_that_items_may_use() -> None:
    assert {*a_result()} <= {*ManifestRow.model_fields}
    assert {*ManifestRow.model_fields} == RESULT_COLUMNS


def test_a_row_is_flat_with_our_columns_first() -> None:
    row = manifest_row(an_item(id=7, note=None), status="stored", result=a_result())
    (line,) = manifest_bytes([row]).splitlines()
    found = json.loads(line)
    assert list(found) == [*ManifestRow.model_fields, "id", "note"]
    ours = {"key": "cat", "variant_of": None, "status": "stored", "error": None}
    prompts = {"prompt_asked": None, "prompt_sent": None}
    assert found == {**ours, **a_result(), **prompts, "id": 7, "note": None}


def test_a_free_column_does_not_pass_for_one_of_ours() -> None:
    """Items with such columns are refused; a plan that somebody else wrote may have them."""
    item = replace(
        an_item(note="mine"), columns={"uri": "s3://theirs/x.png", "status": "stored", "note": "x"}
    )
    missing = manifest_row(item, status="missing")
    assert (missing.uri, missing.status, missing.columns) == (None, "missing", {"note": "x"})
    assert manifest_row(item, status="stored", result=a_result()).uri == a_result()["uri"]


def test_rows_stand_in_the_order_in_which_they_come() -> None:
    assert [json.loads(line)["key"] for line in manifest_bytes(three_rows()).splitlines()] == ["b", "a", "c"]


def test_the_same_rows_give_the_same_bytes() -> None:
    assert manifest_bytes(three_rows()) == manifest_bytes(three_rows())
    assert parquet_bytes(three_rows()) == parquet_bytes(three_rows())


def test_a_variant_names_its_row() -> None:
    items = checked_items([{"key": "cat", "prompt": "p"}], variants=2)
    rows = [manifest_row(item, status="missing") for item in items]
    assert [(row.key, row.variant_of) for row in rows] == [("cat-v1", "cat"), ("cat-v2", "cat")]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_manifest_is_read_as_it_was_written(tmp_path: Path, kind: str) -> None:
    rows = three_rows()
    found = read_manifest(written(tmp_path, rows, kind))
    assert [row.model_dump(include=set(ManifestRow.model_fields)) for row in found] == [
        row.model_dump(include=set(ManifestRow.model_fields)) for row in rows
    ]
    assert [row.columns["id"] for row in found] == [7, 8, 9]
    assert (found[0].uri, found[0].columns["note"]) == (a_result()["uri"], "x")
    assert (found[1].status, found[1].error, found[1].uri) == ("failed", "moderated", None)


def test_a_manifest_is_read_by_its_file_uri_too(tmp_path: Path) -> None:
    assert read_manifest(f"file://{written(tmp_path, three_rows(), 'jsonl')}") == three_rows()


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT
COLUMNS = st.dictionaries(
    (TEXT | st.sampled_from(["columns", "as_dict", "self", "model_dump", "__dict__"])).filter(
        lambda name: (
            name.strip()
            and not invisible_in(name)
            and name.strip().casefold() not in RESULT_COLUMNS | {"prompt"}
        )
    ),
    SCALARS,
    max_size=4,
)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(COLUMNS, max_size=4))
def test_free_columns_of_any_name_and_value_come_back_as_they_were(
    tmp_path: Path, columns: list[dict[str, Any]]
) -> None:
    rows = [manifest_row(an_item(f"k{n}", **found), status="missing") for n, found in enumerate(columns)]
    found = [row.columns for row in read_manifest(written(tmp_path, rows, "jsonl"))]
    assert repr(found) == repr(columns)  # repr tells 1 from 1.0 and True


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(SCALARS, min_size=1, max_size=4))
def test_in_parquet_a_column_of_one_kind_stays_and_one_of_mixed_kinds_becomes_text(
    tmp_path: Path, values: list[Any]
) -> None:
    rows = [manifest_row(an_item(f"k{n}", c=value), status="missing") for n, value in enumerate(values)]
    found = [row.columns["c"] for row in read_manifest(written(tmp_path, rows, "parquet"))]
    one_kind = len({type(value) for value in values if value is not None}) <= 1
    if one_kind and all(not isinstance(value, int) or abs(value) < 2**63 for value in values):
        assert repr(found) == repr(values)
    else:
        texts = [value if isinstance(value, str | None) else json.dumps(value) for value in values]
        assert found == texts


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_frame_keeps_whole_numbers_and_truth_values_where_some_are_missing(
    tmp_path: Path, kind: str
) -> None:
    frame = read_manifest_frame(written(tmp_path, three_rows(), kind))
    assert list(frame["key"]) == ["b", "a", "c"]
    assert {name: str(frame[name].dtype) for name in ("width", "reused", "inference_ms", "id")} == {
        "width": "Int64",
        "reused": "boolean",
        "inference_ms": "float64",
        "id": "int64",
    }
    assert frame["width"][0] == a_result()["width"]
    assert frame["width"][1] is pandas.NA


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_an_empty_manifest_has_no_rows_and_all_our_columns(tmp_path: Path, kind: str) -> None:
    uri = written(tmp_path, [], kind)
    assert read_manifest(uri) == []
    assert list(read_manifest_frame(uri).columns) == list(ManifestRow.model_fields)


@pytest.mark.parametrize("uri", ["manifest.jsonl", "/data/manifest.csv", "/data/manifest", "", "None"])
def test_what_is_no_address_of_a_manifest_is_refused(uri: str) -> None:
    with pytest.raises(InputError, match="is not the URI of a manifest"):
        read_manifest(uri)


def test_a_manifest_that_is_not_there_is_missed(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"There is no manifest at .*\. Pass result\[\"manifest\"\] of a batch"
    ):
        read_manifest(f"{tmp_path}/manifest.jsonl")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("x.jsonl", b'{"key": "a", "status": "stored"}\n{"key": "b", "sta'),
        ("x.jsonl", b'{"key": "a"}\n'),
        ("x.jsonl", b'{"key": "a", "status": "sold"}\n'),
        ("x.jsonl", b"\xff\xfe\n"),
        ("x.parquet", b"PAR1"),
        ("x.parquet", b'{"key": "a", "status": "stored"}\n'),
    ],
)
def test_what_is_no_manifest_is_refused_by_its_name(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=f"{name} is not a manifest"):
        read_manifest(f"{tmp_path}/{name}")


@pytest.mark.parametrize(
    ("missing", "call", "advice"),
    [
        ("pyarrow", lambda uri: parquet_bytes(three_rows()), "airflow-provider-bitdance[parquet]"),
        ("pyarrow", lambda uri: read_manifest(uri), "airflow-provider-bitdance[parquet]"),
        ("pandas", lambda uri: read_manifest_frame(uri), "pip install pandas"),
    ],
)
def test_where_a_library_is_missing_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str, call: Any, advice: str
) -> None:
    uri = written(tmp_path, three_rows(), "parquet")
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(InputError, match=re.escape(advice)):
        call(uri)


ROW = b'{"key": "a", "status": "stored"'
HOSTILE: dict[str, tuple[str, Any, str]] = {
    "rows": ("jsonl", lambda: (ROW + b"}\n") * 10_001, "it has more than 10000 rows"),
    "a long row": (
        "jsonl",
        lambda: ROW + b', "x": "' + b"x" * 2**20 + b'"}',
        "row 1 has more than 524288 bytes",
    ),
    "lists": ("jsonl", lambda: ROW + b', "x": [[], []]}', "is not a manifest"),
    "depth": ("jsonl", lambda: ROW + b', "x": ' + b"[" * 100_000, "is not a manifest"),
    "a number": ("jsonl", lambda: ROW + b', "width": 1' + b"0" * 5_000 + b"}", "is not a manifest"),
    "NUL bytes": ("jsonl", lambda: bytes(1_000), "is not a manifest"),
    "a Parquet file of many rows": ("parquet", lambda: many_rows(), "has 20000 rows; the limit is 10000"),
}


def many_rows() -> bytes:
    import pyarrow
    from pyarrow import parquet

    file = BytesIO()
    parquet.write_table(pyarrow.table({"key": ["a"] * 20_000, "status": ["stored"] * 20_000}), file)
    return file.getvalue()


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("read", [read_manifest, read_manifest_frame])
def test_a_hostile_manifest_is_refused(tmp_path: Path, name: str, read: Any) -> None:
    kind, make, said = HOSTILE[name]
    (tmp_path / f"x.{kind}").write_bytes(make())
    with pytest.raises(InputError, match=said):
        read(f"{tmp_path}/x.{kind}")


def test_a_manifest_whose_numbers_fit_no_frame_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(ROW + b', "width": 1' + b"0" * 30 + b"}")
    assert read_manifest(f"{tmp_path}/x.jsonl")[0].width == 10**30
    with pytest.raises(InputError, match="is not a manifest"):
        read_manifest_frame(f"{tmp_path}/x.jsonl")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_no_manifest(tmp_path: Path, make: Any) -> None:
    make(tmp_path / "x.jsonl")
    with pytest.raises(InputError, match=r"is a (folder|named pipe)"):
        read_manifest(f"{tmp_path}/x.jsonl")


def test_blank_lines_of_a_manifest_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(b"\n" + ROW + b"}\n\n")
    assert [row.key for row in read_manifest(f"{tmp_path}/x.jsonl")] == ["a"]
