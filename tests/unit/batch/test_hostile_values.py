"""Rows as exports and editors make them: missing values, byte order marks, invisible characters."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from io import BytesIO

import numpy
import pandas
import pyarrow
import pytest
from pyarrow import parquet

from airflow_provider_bitdance.batch import checked_items, read_items
from airflow_provider_bitdance.exceptions import InputError

BOM = "\ufeff"


@pytest.mark.parametrize(
    "value",
    [
        *(pandas.NaT, pandas.NA, float("nan"), float("-inf")),
        *(Decimal("NaN"), Decimal("sNaN"), Decimal("Infinity")),
        *(pandas.Timestamp("NaT"), pandas.Timedelta("NaT")),
    ],
)
@pytest.mark.parametrize("prompt", [None, "A cat of {when}"])
def test_what_is_not_a_value_is_a_bad_row(value: object, prompt: str | None) -> None:
    own = {} if prompt else {"prompt": "A cat"}
    with pytest.raises(InputError, match=r"1 of 2 rows .*\n  row 1: .*column 'when' is .*, which is not a"):
        checked_items(
            [{**own, "when": value}, {"when": "noon", **({} if prompt else {"prompt": "A dog"})}],
            prompt=prompt,
        )


@pytest.mark.parametrize("field", ["key", "prompt", "size", "seed"])
@pytest.mark.parametrize("value", [pandas.NaT, pandas.NA, float("nan")])
def test_what_is_not_a_value_asks_for_nothing(field: str, value: object) -> None:
    with pytest.raises(InputError, match=f"row 1: .*{field} "):
        checked_items([{"key": "a", "prompt": "A cat", field: value}])


def test_a_large_decimal_is_a_value() -> None:
    (item,) = checked_items([{"prompt": "A cat", "mass": Decimal("1E+400")}])
    assert item.columns["mass"] == "1E+400"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (f"{BOM}{BOM}key,prompt\nk,A cat\n", "x.csv"),
        (f'{BOM}"key",prompt\n{BOM}k,A cat\n', "x.csv"),
        (f'{BOM}{BOM}{{"key": "k", "prompt": "A cat"}}\n', "x.jsonl"),
        (f'{{"key": "k", "prompt": "A cat"}}\n{BOM}', "x.ndjson"),
        (json.dumps({"key": "k", "prompt": f"{BOM}A cat"}), "x.jsonl"),
    ],
)
def test_byte_order_marks_are_removed(text: str, name: str) -> None:
    (item,) = checked_items(read_items(text.encode(), name=name))
    assert (item.key, item.request.prompt) == ("k", "A cat")


def test_the_header_row_of_a_file_that_was_appended_is_no_item() -> None:
    text = f"{BOM}key,prompt\nk,A cat\n{BOM}key, prompt\nl,A dog\n"
    with pytest.raises(InputError, match=r"1 of 3 rows .*\n  row 3: repeats the header row"):
        checked_items(read_items(text.encode(), name="x.csv"))


def test_a_byte_order_mark_before_a_template_is_removed() -> None:
    (item,) = checked_items([{"product": "teapot"}], prompt=f"{BOM}A {{product}}")
    assert item.request.prompt == "A teapot"


@pytest.mark.parametrize("char", ["\u200b", "\u200c", "\u200d", "\u2060", "\xad", BOM, "\u202e", "\0"])
def test_an_invisible_character_in_a_header_or_key_is_named(char: str) -> None:
    point = re.escape(f"U+{ord(char):04X}")
    with pytest.raises(InputError, match=f"{point} in its name, an invisible character"):
        checked_items([{"prompt": "A cat", f"pro{char}duct": "x"}])
    with pytest.raises(InputError, match=f"key has {point}, an invisible character"):
        checked_items([{"prompt": "A cat", "key": f"p-1{char}"}])
    with pytest.raises(InputError, match=f"{point}, an invisible character, in the column name"):
        read_items(_parquet(f"pro{char}mpt"), name="x.parquet")


def test_an_invisible_character_in_a_csv_header_or_a_templates_name_is_named() -> None:
    with pytest.raises(
        InputError, match=r"U\+200B, an invisible character, in the column name 'pro\\u200bmpt'"
    ):
        read_items("key,pro\u200bmpt\nk,x\n".encode(), name="x.csv")
    with pytest.raises(InputError, match=r"has U\+200B, an invisible character"):
        checked_items([{"product": "teapot"}], prompt="A {product\u200b}")


@pytest.mark.parametrize("prompt", ["\u200b", "\u2060 \u200d\n", "\u3164", "\ufe0f", "\u2800"])
def test_a_prompt_that_shows_nothing_is_refused(prompt: str) -> None:
    with pytest.raises(InputError, match=r"row 1: prompt has only invisible characters, such as U\+"):
        checked_items([prompt])


def test_a_prompt_of_byte_order_marks_is_blank() -> None:
    with pytest.raises(InputError, match="row 1: prompt is blank"):
        checked_items([f"{BOM} {BOM}"])


@pytest.mark.parametrize("prompt", ["نمی\u200cخواهم", "क्\u200dष", "👩\u200d🎨 at work", "a\u200bb"])  # noqa: RUF001
def test_joiners_in_a_prompt_stay(prompt: str) -> None:
    (item,) = checked_items([prompt])
    assert item.request.prompt == prompt


@pytest.mark.parametrize(
    ("row", "prompt", "left"),
    [
        ("A cat, {{ ds }}", None, "{{ ds }}"),
        ({"prompt": "{% if x %}A cat{% endif %}"}, None, "{% if x %}"),
        ({"product": "{{ ds }}"}, "A {product}", "{{ ds }}"),
        ({"product": "teapot"}, "A {product}, {{ ds }}", "Airflow did not render {{ ds }}"),
        ({"product": "teapot"}, "{% raw %}A {product}", "Airflow did not render {% raw %}"),
        ({"product": "teapot", "prompt": "A {product}"}, None, "{product} in its prompt"),
        ({"product": "teapot"}, "A {produkt}", "no value for {produkt}"),
    ],
)
def test_what_nothing_has_filled_in_is_refused(row: object, prompt: str | None, left: str) -> None:
    with pytest.raises(InputError, match=re.escape(left)):
        checked_items([row], prompt=prompt)


@pytest.mark.parametrize("kind", [numpy.int64, numpy.uint8, numpy.int32])
def test_numpys_whole_numbers_are_whole_numbers(kind: type) -> None:
    row = {"prompt": "A cat", "key": kind(7), "seed": kind(5), "n": kind(3)}
    items = checked_items([row], variants=kind(2))
    assert [(item.key, item.request.seed) for item in items] == [("7-v1", 5), ("7-v2", 6)]
    assert json.dumps(items[0].columns) == '{"n": 3}'


def test_an_index_that_pandas_wrote_without_a_name_is_refused_with_what_to_do() -> None:
    data = pandas.DataFrame({"prompt": ["A cat"]}).to_csv().encode()
    with pytest.raises(InputError, match=r"has no name for column 1.*to_csv\(index=False\)"):
        read_items(data, name="x.csv")


@pytest.mark.parametrize("is_quoted", [True, False])
def test_a_csv_cell_may_be_as_long_as_a_row(is_quoted: bool) -> None:
    text = "x" * 200_000
    cell = f'"{text}"' if is_quoted else text
    (row,) = read_items(f"prompt,notes\nA cat,{cell}\n".encode(), name="x.csv")
    assert row.value == {"prompt": "A cat", "notes": text}


def _parquet(column: str) -> bytes:
    file = BytesIO()
    parquet.write_table(pyarrow.table({column: ["x"]}), file)
    return file.getvalue()
