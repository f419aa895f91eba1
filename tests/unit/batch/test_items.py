"""What a batch is given: files, prompts from templates, keys, and every bad row at once."""

from __future__ import annotations

import random
import re
import sys
from datetime import UTC, datetime
from decimal import Decimal
from io import BytesIO
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_bitdance.batch import CONTACT_SHEET, Item, checked_items, read_items
from airflow_provider_bitdance.batch import template as module
from airflow_provider_bitdance.batch.columns import RESULT_COLUMNS
from airflow_provider_bitdance.batch.keys import derived_key
from airflow_provider_bitdance.batch.readers import Row
from airflow_provider_bitdance.batch.template import PromptTemplate
from airflow_provider_bitdance.batch.validation import MAX_ITEMS
from airflow_provider_bitdance.exceptions import InputError
from airflow_provider_bitdance.storage.naming import parse_destination, safe_name
from airflow_provider_bitdance.wavespeed.image_request import MAX_SEED, ImageRequest

FLUX = "wavespeed-ai/flux-dev"


def findings(rows: object, **options: Any) -> list[str]:
    """Return the findings of a batch that is refused, one line a row."""
    with pytest.raises(InputError) as caught:
        checked_items(rows, **options)
    return [line.strip() for line in caught.value.what.splitlines()[1:]]


def keys(rows: object, **options: Any) -> list[str]:
    return [item.key for item in checked_items(rows, **options)]


def parquet(rows: list[dict[str, Any]]) -> bytes:
    import pyarrow
    import pyarrow.parquet

    file = BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    return file.getvalue()


# What rows become


def test_a_list_of_prompts_becomes_items_in_its_order() -> None:
    items = checked_items(["a cat", " a dog "], size="16:9", seed=7)
    assert [item.request.prompt for item in items] == ["a cat", "a dog"]
    assert {(item.request.size, item.request.seed) for item in items} == {("1280*720", 7)}


def test_what_a_row_gives_wins_over_what_the_batch_gives() -> None:
    (item,) = checked_items([{"key": "x", "prompt": "p", "size": "512x256", "seed": "9"}], size="1:1", seed=1)
    assert (item.key, item.request.size, item.request.seed) == ("x", "512*256", 9)


def test_a_row_that_gives_nothing_takes_what_the_batch_gives() -> None:
    row = {"key": None, "prompt": "p", "size": None, "seed": None, "inputs": None}
    (item,) = checked_items([row], size="9:16", seed=3, model=FLUX, inputs={"strength": 1})
    request = item.request
    assert (request.size, request.seed, request.model) == ("720*1280", 3, FLUX)
    assert request.inputs == {"strength": 1.0}


def test_all_other_columns_are_kept_as_they_are() -> None:
    (item,) = checked_items([{"prompt": "p", "id": 7, "price": 1.5, "sold": False, "note": None}])
    assert item.columns == {"id": 7, "price": 1.5, "sold": False, "note": None}


def test_what_a_database_gives_becomes_text() -> None:
    at = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    row = {"prompt": "p", "at": at, "day": at.date(), "price": Decimal("1.50"), "id": UUID(int=1)}
    (item,) = checked_items([row])
    assert item.columns == {
        "at": "2026-01-02T03:04:00+00:00",
        "day": "2026-01-02",
        "price": "1.50",
        "id": "00000000-0000-0000-0000-000000000001",
    }


@pytest.mark.parametrize("rows", [None, "a cat", b"a cat", {"prompt": "a cat"}, 7, iter(["a cat"])])
def test_what_is_no_list_is_refused(rows: object) -> None:
    with pytest.raises(InputError, match="items is of type"):
        checked_items(rows)


def test_no_items_are_refused() -> None:
    with pytest.raises(InputError, match="nothing to make"):
        checked_items([])


@pytest.mark.parametrize(("rows", "variants"), [(10_001, 1), (5_001, 2)])
def test_more_images_than_a_batch_takes_are_refused(rows: int, variants: int) -> None:
    prompts = [f"number {number}" for number in range(rows)]
    with pytest.raises(InputError, match="Allowed: 10000 images"):
        checked_items(prompts, variants=variants)
    assert len(checked_items(prompts[:5_000], variants=2)) == 10_000


def test_the_most_items_are_checked_and_told_apart() -> None:
    assert len(set(keys([f"number {number}" for number in range(MAX_ITEMS)]))) == MAX_ITEMS


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"size": "large"}, "size is neither"),
        ({"seed": MAX_SEED + 1}, "seed should be"),
        ({"model": "bitdance"}, "model is not"),
        ({"prompt": " "}, "prompt is blank"),
        ({"prompt": "A {style"}, "unmatched"),
    ],
)
def test_what_is_wrong_for_all_rows_is_said_once(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint) as caught:
        checked_items(["a cat", "a dog"], **options)
    assert "row 1" not in str(caught.value)


# Bad rows

BAD_ROWS: list[tuple[object, str]] = [
    (7, "is of type int"),
    (None, "is of type NoneType"),
    (["a cat"], "is of type list"),
    ("", "prompt is blank"),
    ("None", "template renders for a missing value"),
    ("a \ud800", "lone surrogate"),
    ({}, "has no prompt; it has no columns"),
    ({"promt": "a cat"}, "has no prompt; it has promt"),
    ({"Prompt": "a cat"}, "column 'Prompt' resembles 'prompt'"),
    ({"prompt": 7}, "prompt is int, not text"),
    ({"prompt": "p", "size": "large"}, "size is neither a preset nor a width and a height: 'large'"),
    ({"prompt": "p", "size": "64*64"}, "size has a side out of range"),
    ({"prompt": "p", "size": ""}, "size is neither"),
    ({"prompt": "p", "seed": "x"}, "seed should be a valid integer"),
    ({"prompt": "p", "seed": 1.5}, "seed should be a valid integer"),
    ({"prompt": "p", "seed": float("nan")}, "seed should be a finite number"),
    ({"prompt": "p", "seed": -2}, "seed should be greater"),
    ({"prompt": "p", "seed": True}, "seed is a boolean"),
    ({"prompt": "p", "key": ""}, "key is not a safe file name: ''"),
    ({"prompt": "p", "key": "a/b"}, "key is not a safe file name"),
    ({"prompt": "p", "key": ".."}, "key is not a safe file name"),
    ({"prompt": "p", "key": "é"}, "key is not a safe file name"),
    ({"prompt": "p", "key": "k" * 101}, "key is not a safe file name"),
    ({"prompt": "p", "key": 1.0}, "key is of type float, not text"),
    ({"prompt": "p", "key": "cat.PNG"}, "key ends in .PNG"),
    ({"prompt": "p", "key": f"x{CONTACT_SHEET.upper()}"}, "the name of a contact sheet"),
    ({"prompt": "p", "tags": ["a"]}, "column 'tags' is of type list"),
    ({"prompt": "p", "price": float("inf")}, "column 'price' is inf, which is not a number"),
    ({"prompt": "p", "price": Decimal("NaN")}, "column 'price' is NaN, which is not a number"),
    ({"prompt": "p", "note": "\udfff"}, "column 'note' contains a lone surrogate"),
    ({"prompt": "p", "uri": "x"}, "column 'uri' collides with the manifest's own column 'uri'"),
    ({"prompt": "p", " Status": "x"}, "manifest's own column 'status'"),
    ({"prompt": "p", "width": 512}, "column 'width' is not supported; use size"),
    ({"prompt": "p", 7: "x"}, "column 7 has an unusable name"),
    ({"prompt": "p", " ": "x"}, "column ' ' has an unusable name"),
    (Row(0, None, "is not JSON"), "is not JSON"),
]


@pytest.mark.parametrize(("row", "complaint"), BAD_ROWS, ids=[complaint for _, complaint in BAD_ROWS])
def test_a_bad_row_is_found(row: object, complaint: str) -> None:
    (finding,) = findings([row, "a good one"])
    assert complaint in finding
    assert re.match(r"row [01]: ", finding)


def test_every_bad_row_is_found_at_once_and_named_by_its_number() -> None:
    rows: list[object] = ["a good one", *(row for row, _ in BAD_ROWS[:-1])]
    found = findings(rows)
    assert [line.split(":")[0] for line in found] == [f"row {number}" for number in range(2, len(rows) + 1)]


def test_everything_wrong_with_one_row_is_found_at_once() -> None:
    (finding,) = findings([{"key": "a/b", "size": "large", "seed": "x", "tags": []}])
    assert all(f"{name}" in finding for name in ("key is", "no prompt", "size is", "seed should", "'tags'"))


def test_what_would_be_right_is_said_once_for_each_field() -> None:
    with pytest.raises(InputError) as caught:
        checked_items([{"prompt": f"p{n}", "size": "large", "seed": "x"} for n in range(9)] + [""])
    assert re.findall(r"(\w+): ", caught.value.allowed or "") == ["size", "seed", "prompt"]


def test_of_very_many_bad_rows_the_first_are_named_and_the_rest_counted() -> None:
    found = findings([""] * 200)
    assert len(found) == 51
    assert found[49].startswith("row 50: ")
    assert found[50] == "and 150 more"


def test_a_long_value_is_shown_in_short() -> None:
    found = findings([{"prompt": "p", "size": "x" * 5000}, {"prompt": "p", "y" * 5000: []}])
    assert max(map(len, found)) < 250


@settings(max_examples=50)
@given(st.lists(st.booleans(), min_size=1, max_size=120))
def test_a_batch_is_refused_whole_and_counts_its_bad_rows(good: list[bool]) -> None:
    rows = [f"number {number}" if is_good else "" for number, is_good in enumerate(good)]
    if all(good):
        assert len(checked_items(rows)) == len(rows)
    else:
        with pytest.raises(InputError, match=f"^{good.count(False)} of {len(good)} rows"):
            checked_items(rows)


def test_a_row_with_very_many_faults_is_cut() -> None:
    (finding,) = findings([{"prompt": "p"} | {f"column {number}": [] for number in range(99)}])
    assert len(finding) < 450


def test_rows_without_a_prompt_are_not_called_the_same_image_too() -> None:
    assert findings([{"x": 1}, {"x": 1}]) == [f"row {n}: has no prompt; it has x" for n in (1, 2)]


# Templates


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("A {style} poster of {product}", "A bold poster of tea"),
        ("{ style }{style}", "boldbold"),
        ("{{style}} {{{style}}}", "{style} {bold}"),
        ("no columns", "no columns"),
        ("{sold} {price} {count} {Preis (EUR)}", "true 1.5 7 9"),
    ],
)
def test_braces_are_filled_from_the_row(text: str, filled: str) -> None:
    row = {"style": "bold", "product": "tea", "sold": True, "price": 1.5, "count": 7, "Preis (EUR)": 9}
    (item,) = checked_items([row], prompt=text)
    assert item.request.prompt == filled


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{a.b}", "{a.b} is not a plain column name"),
        ("{a.__class__}", "not a plain column"),
        ("{a[0]}", "not a plain column"),
        ("{a!r}", "not a plain column"),
        ("{a:>9}", "not a plain column"),
        ("{a:{b}}", "a { is unmatched"),
        ("{}", "no column name"),
        ("{ }", "no column name"),
        ("{a", "a { is unmatched"),
        ("a}", "a } is unmatched"),
        ("{{a}", "a } is unmatched"),
    ],
)
def test_braces_that_hold_more_than_a_columns_name_are_refused(text: str, complaint: str) -> None:
    with pytest.raises(InputError, match=re.escape(complaint)):
        PromptTemplate(text)


class Trap(str):
    """Text that tells when anybody looks at its attributes, its elements or its format."""

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError(f"{name} was looked up")

    def __getitem__(self, index: object) -> str:
        raise AssertionError(f"element {index!r} was looked up")

    def __format__(self, how: str) -> str:
        raise AssertionError("it was formatted")


TEMPLATES = st.text(alphabet="ab{}{}.[]!:_0r ", max_size=24)


@settings(max_examples=500)
@given(TEMPLATES)
def test_no_template_looks_into_what_it_fills_in(text: str) -> None:
    try:
        template = PromptTemplate(text)
    except InputError:
        return
    assert all(re.fullmatch(r"[^{}.\[\]!:]+", column) for column in template.columns)
    template.fill({column: Trap("x") for column in template.columns})


@settings(max_examples=500)
@given(st.lists(st.sampled_from(["{a}", "{b}", "{{", "}}", "{", "}", "x", " "]), max_size=8).map("".join))
def test_with_plain_names_a_template_means_what_str_format_means(text: str) -> None:
    try:
        expected = text.format(a="1", b="2")
    except (ValueError, KeyError, IndexError):
        expected = None
    if module._JINJA.search(text):
        expected = None  # as Airflow's templates are written, which it has not rendered
    try:
        template = PromptTemplate(text)
        filled = template.fill({"a": "1", "b": "2"}) if {*template.columns} <= {"a", "b"} else None
    except InputError:
        filled = None
    assert filled == expected


def test_braces_in_a_value_are_not_filled_again() -> None:
    (item,) = checked_items([{"a": "{b} {a.b} {{", "b": "secret"}], prompt="{a}")
    assert item.request.prompt == "{b} {a.b} {{"


def test_a_rows_own_prompt_is_a_column_of_the_template() -> None:
    items = checked_items(["a cat", {"prompt": "a dog"}], prompt="{prompt}, in oil")
    assert [item.request.prompt for item in items] == ["a cat, in oil", "a dog, in oil"]


def test_a_template_that_would_leave_out_a_rows_own_prompt_is_refused() -> None:
    (finding,) = findings([{"prompt": "a cat"}, {"key": "x"}], prompt="a poster")
    assert finding.startswith("row 1: has its own prompt")


def test_a_prompt_that_is_not_used_and_a_column_that_is_missing_are_found_at_once() -> None:
    (finding,) = findings([{"prompt": "a cat"}], prompt="A {style} poster")
    assert "has its own prompt" in finding
    assert "has no value for {style}" in finding


@pytest.mark.parametrize("row", [{"product": "tea"}, {"product": "tea", "style": None}])
def test_a_column_that_a_row_lacks_is_named_with_those_that_it_has(row: dict[str, object]) -> None:
    assert findings([row], prompt="A {style} poster of {product}") == [
        "row 1: has no value for {style} in the prompt; it has product"
    ]


def test_a_column_of_the_template_that_holds_a_list_is_one_fault() -> None:
    (finding,) = findings([{"style": []}], prompt="A {style} poster")
    assert finding.count("style") == 1


def test_a_rows_own_prompt_that_holds_a_list_cannot_be_filled_in() -> None:
    (finding,) = findings([{"prompt": ["a cat"]}], prompt="{prompt}, in oil")
    assert finding.startswith("row 1: column 'prompt' is of type list")


def test_a_row_with_a_bad_column_is_named_as_the_same_image_too() -> None:
    found = findings([{"prompt": "p", "tags": []}, "p"])
    assert [line.split(":")[0] for line in found] == ["row 1", "row 2"]


def test_key_size_and_seed_may_stand_in_a_template() -> None:
    (item,) = checked_items([{"key": 12, "size": "1:1", "seed": 7}], prompt="{key} {size} {seed}")
    assert item.request.prompt == "12 1:1 7"


# Keys


def test_a_whole_number_is_a_key() -> None:
    assert keys([{"key": 7, "prompt": "p"}]) == ["7"]


@settings(max_examples=300)
@given(st.one_of(st.text(max_size=120), st.from_regex(r"[A-Za-z0-9._=-]{1,104}", fullmatch=True)))
def test_a_key_is_a_safe_file_name_or_refused(key: str) -> None:
    try:
        (item, _) = checked_items([{"key": key, "prompt": "p"}], variants=2)
    except InputError:
        return
    assert safe_name(item.key) == item.key
    address = parse_destination(f"/data/{item.key}", default_stem="other")
    assert (address.stem, address.extension) == (item.key, "")
    assert not item.key.startswith(".")


@settings(max_examples=200)
@given(st.text(min_size=1, max_size=300))
def test_a_derived_key_is_a_safe_file_name(prompt: str) -> None:
    try:
        items = checked_items([prompt], variants=16)
    except InputError:
        return
    assert [safe_name(item.key) for item in items] == [item.key for item in items]


PROMPTS = st.lists(
    st.text("abc äß日", min_size=1, max_size=6).filter(str.strip), unique_by=str.strip, min_size=1
)


@settings(max_examples=100)
@given(PROMPTS, st.randoms(use_true_random=False))
def test_derived_keys_are_stable_under_reordering(prompts: list[str], chance: random.Random) -> None:
    before = {item.request.prompt: item.key for item in checked_items(prompts)}
    shuffled = list(prompts)
    chance.shuffle(shuffled)
    after = {item.request.prompt: item.key for item in checked_items(shuffled)}
    assert after == before
    assert len({*after.values()}) == len(prompts)


def test_a_derived_key_says_what_it_is_about_and_stays_what_it_was() -> None:
    """Another key for the same request would have every image bought again."""
    assert keys(["A lighthouse, at dawn!"]) == ["a-lighthouse-at-dawn-19312a5a2575"]
    assert keys(["灯台"]) == ["6c4e3c47ab9a"]


def test_a_field_that_a_later_version_adds_changes_a_derived_key_only_where_it_is_not_at_its_default() -> (
    None
):
    class LaterRequest(ImageRequest):
        negative_prompt: str = ""

    now = derived_key(ImageRequest(prompt="p"))
    assert now == keys(["p"])[0]
    assert derived_key(LaterRequest(prompt="p", inputs={})) == now
    assert derived_key(LaterRequest(prompt="p", negative_prompt="fog")) != now
    assert derived_key(ImageRequest(prompt="p", inputs={"steps": 4})) != now


def test_a_free_column_does_not_change_a_derived_key() -> None:
    assert keys([{"prompt": "p", "updated_at": "today"}]) == keys(["p"])


@pytest.mark.parametrize("changed", [{"prompt": "q"}, {"size": "16:9"}, {"seed": 1}])
def test_another_request_has_another_derived_key(changed: dict[str, object]) -> None:
    assert keys([{"prompt": "p"} | changed]) != keys(["p"])


@pytest.mark.parametrize(
    ("one", "other", "complaint"),
    [
        ("cat", "cat", "row 3: key 'cat' is already used by row 1"),
        ("cat", "CAT", "row 3: key 'CAT' is already used by row 1"),
        (7, "7", "row 3: key '7' is already used by row 1"),
    ],
)
def test_one_key_twice_is_refused_also_where_only_case_differs(
    one: object, other: object, complaint: str
) -> None:
    rows = [{"key": one, "prompt": "p"}, "between", {"key": other, "prompt": "q"}]
    assert findings(rows) == [complaint]


def test_one_request_twice_without_keys_is_refused() -> None:
    assert findings(["a cat", {"prompt": " a cat", "id": 7}]) == [
        "row 2: requests the same image as row 1; give each row a key, or use variants"
    ]


def test_a_derived_key_that_another_row_gives_is_refused() -> None:
    (derived,) = keys(["a cat"])
    assert findings([{"key": derived, "prompt": "a dog"}, "a cat"]) == [
        f"row 2: key '{derived}' is already used by row 1"
    ]


def test_one_request_twice_with_keys_is_wanted_twice() -> None:
    assert keys([{"key": "a", "prompt": "p"}, {"key": "b", "prompt": "p"}]) == ["a", "b"]


def test_a_duplicate_of_a_row_with_another_fault_is_found_too() -> None:
    found = findings([{"key": "a", "prompt": ""}, {"key": "a", "prompt": "p"}])
    assert [line.split(":")[0] for line in found] == ["row 1", "row 2"]


# Variants


def test_variants_of_a_row_stand_next_to_one_another_under_keys_of_their_own() -> None:
    items = checked_items([{"key": "a", "prompt": "p", "id": 1}, {"key": "b", "prompt": "q"}], variants=2)
    assert [(item.key, item.variant_of) for item in items] == [
        ("a-v1", "a"),
        ("a-v2", "a"),
        ("b-v1", "b"),
        ("b-v2", "b"),
    ]
    assert [item.columns for item in items] == [{"id": 1}, {"id": 1}, {}, {}]


def test_one_variant_is_the_row_itself() -> None:
    (item,) = checked_items([{"key": "a", "prompt": "p"}], variants=1)
    assert (item.key, item.variant_of) == ("a", None)


@pytest.mark.parametrize(("seed", "seeds"), [(-1, [-1, -1, -1]), (0, [0, 1, 2]), (MAX_SEED - 2, None)])
def test_a_fixed_seed_counts_up_and_any_seed_stays_any(seed: int, seeds: list[int] | None) -> None:
    items = checked_items(["p"], seed=seed, variants=3)
    assert [item.request.seed for item in items] == (seeds or [seed, seed + 1, seed + 2])


def test_a_seed_without_room_for_all_variants_is_refused() -> None:
    (finding,) = findings([{"prompt": "p", "seed": MAX_SEED - 1}], variants=3)
    assert "leaves no room for 3 variants" in finding


def test_a_key_leaves_room_for_the_number_of_the_variant() -> None:
    longest = "k" * 97
    assert len(keys([{"key": longest, "prompt": "p"}], variants=9)[-1]) == 100
    assert "safe file name" in findings([{"key": longest, "prompt": "p"}], variants=10)[0]


def test_the_number_of_a_variant_alone_is_no_key() -> None:
    assert "safe file name" in findings([{"key": "", "prompt": "p"}], variants=2)[0]


@settings(max_examples=100)
@given(st.lists(st.from_regex(r"[ab](-v[12])?(-v[12])?", fullmatch=True), unique=True, min_size=1))
def test_no_two_variants_share_a_key(given_keys: list[str]) -> None:
    found = keys([{"key": key, "prompt": "p"} for key in given_keys], variants=3)
    assert len({*found}) == 3 * len(given_keys)


# Files

CSV = b"key,prompt,seed,style\na,a cat,7,bold\nb,a dog,,\n"
JSONL = b'{"key": "a", "prompt": "a cat", "seed": 7, "style": "bold"}\n\n{"key": "b", "prompt": "a dog"}'


def seen(items: list[Item]) -> list[tuple[str, str, int, object]]:
    return [(item.key, item.request.prompt, item.request.seed, item.columns.get("style")) for item in items]


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (CSV, "s3://conn@bucket/items.csv"),
        (b"\xef\xbb\xbf" + CSV, "/data/ITEMS.CSV"),
        (CSV.replace(b"\n", b"\r\n"), "items.csv"),
        (JSONL, "items.jsonl"),
        (b"\xef\xbb\xbf" + JSONL.replace(b"\n", b"\r\n"), "items.ndjson"),
        (
            parquet(
                [{"key": "a", "prompt": "a cat", "seed": 7, "style": "bold"}, {"key": "b", "prompt": "a dog"}]
            ),
            "items.parquet",
        ),
    ],
    ids=["CSV", "CSV with BOM", "CSV of Windows", "JSONL", "NDJSON with BOM", "Parquet"],
)
def test_each_kind_of_file_gives_the_same_items(data: bytes, name: str) -> None:
    assert seen(checked_items(read_items(data, name=name))) == [
        ("a", "a cat", 7, "bold"),
        ("b", "a dog", -1, None),
    ]


def test_numbers_in_free_columns_of_a_csv_file_stay_text() -> None:
    (item,) = checked_items(read_items(b"prompt,id\np,007\n", name="x.csv"))
    assert item.columns == {"id": "007"}


def test_a_line_of_json_may_be_a_prompt() -> None:
    (item,) = checked_items(read_items('"a\u2028cat"\n'.encode(), name="x.jsonl"))
    assert item.request.prompt == "a\u2028cat"


def test_a_row_of_a_csv_file_is_named_by_the_line_on_which_it_begins() -> None:
    data = b'prompt,style\n"two\nlines",x\n\n,\nb\xc3\xa4r,y\n"quoted, ""twice""",z\n'
    rows = read_items(data, name="x.csv")
    assert [row.number for row in rows] == [2, 6, 7]
    assert rows[2].value == {"prompt": 'quoted, "twice"', "style": "z"}


@pytest.mark.parametrize(
    ("data", "name", "numbers", "complaint"),
    [
        (b"prompt,a\np\nq,1\n", "x.csv", ["2"], "has 1 cells, but the header has 2"),
        (b"prompt,a\nq,1\np,1,2\n", "x.csv", ["3"], "has 3 cells"),
        (b'prompt,a\nq,1\n"p"x,1\nr,1\n"s"x,2\n', "x.csv", ["3", "5"], "is not CSV"),
        (b'prompt,a\nq,1\n"p,1\nr,1\n', "x.csv", ["3"], "is not CSV: unexpected end of data"),
        (b"prompt\nq\n\xff\xe9\nr\n", "x.csv", ["3"], "is not UTF-8"),
        (b'"q"\n{"prompt": "\xe9"}\n"r"\n', "x.jsonl", ["2"], "is not UTF-8"),
        (b'"q"\n{"prompt": \n"r"\n}', "x.jsonl", ["2", "4"], "is not JSON: Expecting value at character"),
        (b'{"prompt": "p", "a": 1, "a": 2}', "x.jsonl", ["1"], "a name occurs twice"),
        (b'{"prompt": "p", "a": NaN}', "x.jsonl", ["1"], "NaN is not a number"),
        (b"[" * 200_000, "x.jsonl", ["1"], "is not JSON"),
        (b'\n["p"]\n7\nnull', "x.jsonl", ["2", "3", "4"], "is of type"),
    ],
)
def test_a_broken_line_is_a_finding_and_reading_goes_on(
    data: bytes, name: str, numbers: list[str], complaint: str
) -> None:
    found = findings(read_items(data, name=name))
    assert re.findall(r"^row (\d+)", "\n".join(found), re.MULTILINE) == numbers
    assert all(complaint in line for line in found)


@pytest.mark.parametrize(
    ("data", "name", "complaint"),
    [
        (CSV, "items", "no extension"),
        (CSV, "items.csv.gz", "no extension"),
        (b"[]", "items.json", "no extension"),
        (b"", "x.csv", "no header row"),
        (b"\n\n", "x.csv", "no header row"),
        (b"prompt,,a\n", "x.csv", "no name for column 2"),
        (b"prompt, a,a\n", "x.csv", "two columns named 'a'"),
        (b"prompt;style\np;x\n", "x.csv", "a header without commas"),
        (b'"prompt"x\np\n', "x.csv", "unreadable header row"),
        ("prompt\np\n".encode("utf-16"), "x.csv", "is UTF-16"),
        (b"PAR1 and no more", "x.parquet", "not a readable Parquet file"),
        (b"", "x.parquet", "not a readable Parquet file"),
    ],
)
def test_a_file_that_cannot_be_read_at_all_is_refused(data: bytes, name: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        read_items(data, name=name)


def test_a_parquet_file_with_lists_is_refused_with_the_name_of_their_column() -> None:
    with pytest.raises(InputError, match=r"has a column 'tags' of type list<.*>; a column can hold text"):
        read_items(parquet([{"prompt": "p", "tags": ["x"]}]), name="x.parquet")


def test_without_pyarrow_a_parquet_file_is_refused_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=re.escape("pip install 'airflow-provider-bitdance[parquet]'")):
        read_items(b"", name="x.parquet")


THIRTY_BAD_LINES = [
    *('"', "{", "[" * 9000, "nul", '{"prompt": "p" "size": 1}', '{"prompt": "p", "prompt": "q"}'),
    *(
        "7",
        "null",
        "[]",
        "{}",
        '""',
        '"None"',
        r'"\ud800"',
        '{"prompt": 7}',
        '{"prompt": "p", "size": "large"}',
    ),
    *('{"prompt": "p", "size": "9*9"}', '{"prompt": "p", "size": ""}', '{"prompt": "p", "seed": "x"}'),
    *('{"prompt": "p", "seed": -2}', '{"prompt": "p", "seed": true}', '{"prompt": "p", "seed": 2147483648}'),
    *('{"prompt": "p", "key": "../etc"}', '{"prompt": "p", "key": ".x"}', '{"prompt": "p", "key": "a.jpg"}'),
    *(
        '{"prompt": "p", "key": "a-contact-sheet"}',
        '{"prompt": "p", "key": "GOOD"}',
        '{"prompt": "a good one"}',
    ),
    *('{"prompt": "p", "tags": []}', '{"prompt": "p", "uri": "x"}', '{"prompt": "p", "Seed": 7}'),
]


def test_a_file_of_thirty_bad_rows_of_every_kind_gives_thirty_findings() -> None:
    lines = ['{"key": "good", "prompt": "p"}', '"a good one"', *THIRTY_BAD_LINES]
    found = findings(read_items("\n".join(lines).encode(), name="items.jsonl"))
    assert [line.split(":")[0] for line in found] == [f"row {number}" for number in range(3, 33)]


def test_the_names_of_the_manifests_columns_are_refused_in_any_case() -> None:
    for name in sorted(RESULT_COLUMNS - {"key", "size", "seed"}):
        for column in (name, name.upper()):
            assert len(findings([{"prompt": "p", column: "x"}])) == 1
