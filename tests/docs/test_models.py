"""reference/models.md has the tables of MODELS, and each line of WaveSpeed's page names a test."""

from __future__ import annotations

import re

import pytest

from airflow_provider_bitdance.wavespeed.inputs import MAX_DEPTH, MAX_INPUTS, SEVERAL
from airflow_provider_bitdance.wavespeed.models import MAX_PROMPT, MAX_SEED, MODELS, RATIO_MARGIN, SIZE, Model
from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "reference" / "models.md").read_text(encoding="utf-8")
LINES = (ROOT / "docs" / "internals" / "bitdance-page.md").read_text(encoding="utf-8")
PRESETS = ("1:1", "16:9", "9:16", "4:3", "3:4", "3:2", "2:3")
TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def table(heading: str, page: str = PAGE) -> list[list[str]]:
    """Return the rows of the first table below a heading."""
    below = page.partition(f"{heading}\n")[2]
    lines = re.search(r"^\|.*?(?=\n\n|\n?\Z)", below, re.MULTILINE | re.DOTALL)
    assert lines is not None
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[0].splitlines()]
    return [rows[0], *rows[2:]]


def of_page() -> dict[str, list[str]]:
    """Return the rows of the first table by the model's path."""
    return {row[1].strip("`"): row for row in table("# Models")[1:]}


def pixels(model: Model, preset: str) -> str:
    """Return the pixels that a preset has; of a model that takes names, those that mean the same."""
    assert model.sizes is not None
    sent = model.sizes.names.get(preset, "")
    if not sent or SIZE.fullmatch(sent):
        return sent
    (found,) = (name for name, other in model.sizes.names.items() if other == sent and name != sent)
    return found


def test_each_model_has_a_row_with_its_price_seed_and_inputs() -> None:
    assert list(of_page()) == list(MODELS)
    for path, (_, _, price, sizes, seed, inputs) in of_page().items():
        model = MODELS[path]
        assert price == f"${model.price_usd}"
        assert seed == ("yes" if model.seeds else "no")
        assert re.findall(r"`(\w+)`", inputs) == [
            name for name in model.inputs.properties if name not in SEVERAL
        ]
        assert model.sizes is not None
        bounds = [*(model.sizes.sides or ()), *(model.sizes.pixels or ())]
        assert [int(number.replace(",", "")) for number in re.findall(r"\d[\d,]*", sizes)] == bounds


def test_the_pixels_of_each_preset_are_those_of_each_model() -> None:
    header, *rows = table("## Sizes")
    names = [row[0].removesuffix(", the default") for row in of_page().values()]
    assert header == ["preset", *names]
    assert [row[0] for row in rows] == list(PRESETS)
    for preset, *found in rows:
        assert found == [pixels(model, preset) for model in MODELS.values()]


def test_the_default_is_square() -> None:
    defaults = [model.sizes and model.sizes.default for model in MODELS.values()]
    assert defaults == [model.sizes and model.sizes.names["1:1"] for model in MODELS.values()]


def test_the_bounds_are_those_of_the_code() -> None:
    assert f"within\n{RATIO_MARGIN:.0%}".replace("%", " %") in PAGE
    assert f"more than {MAX_INPUTS // 1024} KiB as JSON, or {MAX_DEPTH} levels" in PAGE
    assert f"up to {MAX_PROMPT:,} characters" in PAGE
    assert f"as long as {MAX_PROMPT:,} characters" in LINES
    assert f"-1 to {MAX_SEED}" in LINES
    assert all(f"`{name}`" in PAGE for name in SEVERAL)


ROWS = [row for row in table("# BitDance's page, line by line", LINES)[1:] if row[1]]


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_each_line_of_wavespeeds_page_names_a_test_that_is_there(row: list[str]) -> None:
    named = TEST.findall(row[2])
    assert named, "a row names its test as `tests/…/test_x.py::test_y`"
    for file, test in named:
        assert f"def {test}(" in (ROOT / file).read_text(encoding="utf-8")
