"""The inputs of a model in a batch: of all rows, of one row, and filled in from columns by name only."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_bitdance.batch import checked_items, read_items, validation
from airflow_provider_bitdance.exceptions import InputError
from airflow_provider_bitdance.wavespeed.model_schema import read_model

FLUX = "wavespeed-ai/flux-dev"
STYLED = read_model(
    "a/styled-model",
    {
        "properties": {
            "prompt": {"type": "string"},
            "style": {"type": "string", "enum": ["oil", "ink"]},
            "note": {"type": "string"},
            "marks": {"type": "array", "items": {"type": "string"}},
            "camera": {"type": "object"},
            "is_flat": {"type": "boolean"},
        },
        "required": ["prompt", "style"],
    },
    "text-to-image",
)


def inputs_of(rows: object, **options: Any) -> list[dict[str, Any]]:
    options = {"model": FLUX, "prompt": "A mug", **options}
    return [item.request.inputs for item in checked_items(rows, **options)]


def finding(row: dict[str, Any], **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        inputs_of([{"key": "good", "id": 1}, {"key": "bad", **row}], **options)
    return str(caught.value)


# Of all rows, and of one


def test_a_rows_own_inputs_go_before_those_of_the_batch() -> None:
    given = {"guidance_scale": 3, "num_inference_steps": 28}
    rows = [{"key": "a"}, {"key": "b", "inputs": {"guidance_scale": 5}}]
    assert inputs_of(rows, inputs=given) == [given, {"guidance_scale": 5.0, "num_inference_steps": 28}]


@pytest.mark.parametrize(
    "inputs",
    [{"guidance_scale": 3}, '{"guidance_scale": 3}', {"guidance_scale": "3"}, '{"guidance_scale": "3"}'],
)
def test_inputs_are_an_object_or_json_text_of_one(inputs: object) -> None:
    assert inputs_of([{"key": "a"}], inputs=inputs) == [{"guidance_scale": 3.0}]
    assert inputs_of([{"key": "a", "inputs": inputs}]) == [{"guidance_scale": 3.0}]


def csv(text: str) -> tuple[bytes, str]:
    cell = text.replace('"', '""')
    return f'key,inputs\na,"{cell}"\nb,\n'.encode(), "items.csv"


def jsonl_text(text: str) -> tuple[bytes, str]:
    return f'{json.dumps({"key": "a", "inputs": text})}\n{{"key": "b"}}\n'.encode(), "items.jsonl"


def jsonl_object(text: str) -> tuple[bytes, str]:
    return f'{{"key": "a", "inputs": {text}}}\n{{"key": "b", "inputs": null}}\n'.encode(), "items.jsonl"


def parquet(text: str) -> tuple[bytes, str]:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet as writer

    file = io.BytesIO()
    writer.write_table(pyarrow.table({"key": ["a", "b"], "inputs": [text, None]}), file)
    return file.getvalue(), "items.parquet"


@pytest.mark.parametrize("written", [csv, jsonl_text, jsonl_object, parquet])
def test_a_file_has_inputs_as_json(written: Callable[[str], tuple[bytes, str]]) -> None:
    data, name = written('{"num_inference_steps": 8, "output_format": "png"}')
    rows = read_items(data, name=name)
    assert inputs_of(rows) == [{"num_inference_steps": 8, "output_format": "png"}, {}]


def test_an_object_in_a_file_of_json_lines_keeps_what_is_nested_in_it() -> None:
    rows = read_items(
        b'{"inputs": {"style": "ink", "marks": ["a"], "camera": {"lens": [50]}}}', name="x.jsonl"
    )
    assert inputs_of(rows, model=STYLED) == [{"style": "ink", "marks": ["a"], "camera": {"lens": [50]}}]


def test_inputs_make_another_request_with_another_derived_key() -> None:
    plain, drawn = checked_items(["A mug", {"prompt": "A mug", "inputs": {"strength": 0.5}}], model=FLUX)
    assert plain.key != drawn.key
    assert plain.request.fingerprint("h") != drawn.request.fingerprint("h")


# Filled in from columns


@pytest.mark.parametrize(
    ("template", "filled"),
    [
        ({"style": "{look}"}, {"style": "ink"}),
        ('{"style": "{look}"}', {"style": "ink"}),
        ({"style": "ink", "note": "{id} in {look}, {{so}}"}, {"style": "ink", "note": "7 in ink, {so}"}),
        ({"style": "ink", "is_flat": "{flat}"}, {"style": "ink", "is_flat": True}),
        ({"style": "ink", "marks": ["{look}", "x"]}, {"style": "ink", "marks": ["ink", "x"]}),
        ({"style": "ink", "camera": {"of": "{look}"}}, {"style": "ink", "camera": {"of": "ink"}}),
    ],
)
def test_braces_in_the_batchs_inputs_are_filled_from_the_row(template: Any, filled: dict[str, Any]) -> None:
    row = {"look": "ink", "id": 7, "flat": True}
    assert inputs_of([row], model=STYLED, inputs=template) == [filled]


def test_what_a_column_gives_is_not_filled_again() -> None:
    row = {"look": "{secret}", "secret": "s", "style": "x"}
    assert inputs_of([row], model=STYLED, inputs={"style": "oil", "note": "{look}"}) == [
        {"style": "oil", "note": "{secret}"}
    ]


def test_a_free_column_is_never_an_input_by_its_name() -> None:
    (item,) = checked_items([{"prompt": "p", "strength": 0.1, "style": "oil"}], model=FLUX)
    assert item.request.inputs == {}
    assert item.columns == {"strength": 0.1, "style": "oil"}


def test_a_row_that_gives_an_input_itself_needs_no_column_for_it() -> None:
    rows = [{"look": "ink"}, {"inputs": {"style": "oil"}}]
    assert inputs_of(rows, model=STYLED, inputs={"style": "{look}"}) == [{"style": "ink"}, {"style": "oil"}]


# What is wrong with a row


@pytest.mark.parametrize(
    ("row", "found", "allowed"),
    [
        ({"inputs": {"steps": 3}}, "inputs.steps is not an input of this model: 3", "num_inference_steps"),
        ({"inputs": {"strength": 2}}, "inputs.strength is out of range: 2", "at most 1"),
        (
            {"inputs": {"output_format": "gif"}},
            "inputs.output_format is not one of the allowed values: 'gif'",
            "png, webp",
        ),
        ({"inputs": {"num_images": 2}}, "inputs.num_images makes several images", "variants=n"),
        ({"inputs": {"seed": 2}}, "inputs.seed has its own option", "seed=…"),
        ({"inputs": "strength=1"}, "inputs is text that is not JSON", ""),
        ({"inputs": "[1]"}, "inputs is not an object", ""),
        ({"inputs": 7}, "inputs is not an object", ""),
        (
            {"inputs": {"image": "https://h.example/a.png?sig=1"}},
            "inputs.image is a URL with",
            "without a query",
        ),
        (
            {"inputs": {"output_format": "{id}"}, "id": 1},
            "has {id} in its inputs, but columns fill in only the operator's",
            "",
        ),
        ({"inputs": {"output_format": "{{ ds }}"}}, "inputs has {{ ds }}, which was not rendered", ""),
        ({"Inputs": {}}, "column 'Inputs' resembles 'inputs'; use exactly that name", ""),
    ],
)
def test_a_bad_value_names_its_row_its_field_and_what_is_allowed(
    row: dict[str, Any], found: str, allowed: str
) -> None:
    text = finding(row)
    assert f"row 2: {found}" in text
    assert allowed in text.partition("Allowed: ")[2]


def test_a_column_that_a_row_lacks_is_a_bad_row() -> None:
    text = finding({}, model=STYLED, inputs={"style": "oil", "note": "{id}"})
    assert "row 2: has no value for {id} in the inputs" in text


def test_what_is_filled_in_is_checked_row_by_row() -> None:
    rows = [{"look": "oil"}, {"look": "felt"}, {"look": ["oil"]}]
    with pytest.raises(InputError) as caught:
        inputs_of(rows, model=STYLED, inputs={"style": "{look}"})
    assert "row 2: inputs.style is not one of the allowed values: 'felt'" in str(caught.value)
    assert "row 3: " in str(caught.value)
    assert "inputs.style: one of oil, ink" in str(caught.value)


def test_an_input_that_every_request_needs_may_come_from_the_row_or_the_batch() -> None:
    assert inputs_of([{"inputs": {"style": "oil"}}], model=STYLED) == [{"style": "oil"}]
    assert "row 1: inputs.style is missing" in finding({"inputs": {"style": "oil"}}, model=STYLED)


@pytest.mark.parametrize(
    ("inputs", "wrong"),
    [
        ({"steps": 3}, "inputs.steps is not an input of this model"),
        ({"strength": "{a"}, "inputs.strength is '{a': a { is unmatched"),
        ({"strength": "{{ ds }}"}, "Airflow did not render {{ ds }}"),
        ("strength=1", "inputs is text that is not JSON"),
        ([1], "inputs is not an object"),
    ],
)
def test_what_is_wrong_with_the_batchs_inputs_is_said_once(inputs: Any, wrong: str) -> None:
    with pytest.raises(InputError) as caught:
        inputs_of(["p", "q"], inputs=inputs, prompt=None)
    assert wrong in str(caught.value)
    assert "row 1" not in str(caught.value)


def test_inputs_count_in_what_a_batch_may_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "MAX_BATCH", 1000)
    rows = [{"key": f"k{n}", "inputs": {"style": "oil", "note": "x" * 300}} for n in range(9)]
    with pytest.raises(InputError, match="At row 3, prompts, inputs and columns exceed 1000 bytes"):
        inputs_of(rows, model=STYLED)


# Models without a seed


def test_variants_of_a_model_without_a_seed_have_none() -> None:
    items = checked_items([{"key": "a", "prompt": "p"}], model="bytedance/seedream-v5.0-lite", variants=3)
    assert [(item.key, item.request.seed) for item in items] == [
        ("a-v1", None),
        ("a-v2", None),
        ("a-v3", None),
    ]


def test_a_seed_for_a_model_without_one_is_a_bad_row() -> None:
    text = finding({"seed": 4}, model="recraft-ai/recraft-v4/text-to-image")
    assert "row 2: seed is not an option of this model: 4" in text
