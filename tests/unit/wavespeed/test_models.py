"""What the provider knows of each model by itself: one row a model. To add one, add a row here, too."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from airflow_provider_bitdance.exceptions import InputError
from airflow_provider_bitdance.wavespeed import protocol
from airflow_provider_bitdance.wavespeed.image_request import ImageRequest
from airflow_provider_bitdance.wavespeed.input_schema import InputSchema
from airflow_provider_bitdance.wavespeed.models import (
    BITDANCE_14B,
    MAX_BYTES,
    MAX_PIXELS,
    MAX_SEED,
    MODELS,
    Model,
    Sizes,
    checked_path,
    is_other_size,
    largest_file,
)

MIB = 2**20


@dataclass(frozen=True, slots=True)
class Row:
    """What is expected of a model.

    :param price: In US dollars.
    :param size: What is sent where no size is requested: input and value.
    :param presets: What is sent for each, and the pixels of the image.
    :param sizes: Other sizes that are taken, with what is sent.
    :param refused: Sizes that are not.
    :param has_seed: Whether it takes a seed.
    :param inputs: One value for each of its other inputs.
    """

    price: float
    size: tuple[str, str]
    presets: dict[str, tuple[str, tuple[int, int]]]
    sizes: dict[str, str]
    refused: tuple[str, ...]
    has_seed: bool
    inputs: dict[str, Any] = field(default_factory=dict)


MEGAPIXEL = {
    "1:1": ("1024*1024", (1024, 1024)),
    "16:9": ("1280*720", (1280, 720)),
    "9:16": ("720*1280", (720, 1280)),
    "4:3": ("1152*864", (1152, 864)),
    "3:4": ("864*1152", (864, 1152)),
    "3:2": ("1248*832", (1248, 832)),
    "2:3": ("832*1248", (832, 1248)),
}
ROWS = {
    BITDANCE_14B: Row(
        price=0.01,
        size=("size", "1024*1024"),
        presets=MEGAPIXEL,
        sizes={"256*1536": "256*1536", "512x768": "512*768"},
        refused=("255*1024", "1024*1537", "21:9", "2K"),
        has_seed=True,
    ),
    "bytedance/seedream-v5.0-lite": Row(
        price=0.04,
        size=("size", "2048*2048"),
        presets={
            "1:1": ("2048*2048", (2048, 2048)),
            "16:9": ("2560*1440", (2560, 1440)),
            "9:16": ("1440*2560", (1440, 2560)),
            "4:3": ("2304*1728", (2304, 1728)),
            "3:4": ("1728*2304", (1728, 2304)),
            "3:2": ("2496*1664", (2496, 1664)),
            "2:3": ("1664*2496", (1664, 2496)),
        },
        sizes={"1440*2560": "1440*2560", "4096x2540": "4096*2540"},
        # Too few pixels in all, too many, and a side out of range.
        refused=("1024*1024", "1440*1440", "4096*4096", "1439*4096", "2000*4097"),
        has_seed=False,
    ),
    "recraft-ai/recraft-v4/text-to-image": Row(
        price=0.04,
        size=("image_size", "1:1"),
        presets={
            "1:1": ("1:1", (1024, 1024)),
            "16:9": ("16:9", (1344, 768)),
            "9:16": ("9:16", (768, 1344)),
            "4:3": ("4:3", (1216, 896)),
            "3:4": ("3:4", (896, 1216)),
        },
        sizes={"1024*1024": "1:1", "1344x768": "16:9"},
        refused=("3:2", "1280*720", "512*512"),
        has_seed=False,
    ),
    "wavespeed-ai/flux-dev": Row(
        price=0.012,
        size=("size", "1024*1024"),
        presets=MEGAPIXEL,
        sizes={"512*1536": "512*1536"},
        refused=("511*1024", "1024*1537"),
        has_seed=True,
        inputs={
            "num_inference_steps": 28,
            "guidance_scale": 3.5,
            "num_images": 1,
            "output_format": "png",
            "image": "https://example.com/sketch.png",
            "mask_image": "https://example.com/mask.png",
            "strength": 0.8,
        },
    ),
}
PRESETS = [(path, preset) for path, row in ROWS.items() for preset in row.presets]


def ask(path: str, **given: Any) -> ImageRequest:
    return ImageRequest.of(prompt="a lighthouse", model=path, **given)


def test_each_model_has_a_row() -> None:
    assert list(MODELS) == list(ROWS)
    assert all(path == model.path for path, model in MODELS.items())


@pytest.mark.parametrize("path", ROWS)
def test_a_model_is_sent_what_it_takes_and_nothing_else(path: str) -> None:
    row, request = ROWS[path], ask(path)
    name, size = row.size
    assert request.body() == {"prompt": "a lighthouse", name: size, **({"seed": -1} if row.has_seed else {})}
    call = protocol.submit(request)
    assert (call.path, call.body) == (f"/api/v3/{path}", request.body())
    assert protocol.get_price(request).body == {"model_id": path, "inputs": request.body()}


@pytest.mark.parametrize(("path", "preset"), PRESETS)
def test_a_preset_is_sent_as_the_model_has_it_and_gives_these_pixels(path: str, preset: str) -> None:
    row, request = ROWS[path], ask(path, size=preset)
    sent, (width, height) = row.presets[preset]
    assert request.body()[row.size[0]] == request.size == sent
    assert not is_other_size(request.size, width, height)
    assert is_other_size(request.size, width, height + 200)
    assert ask(path, width=width, height=height) == request


@pytest.mark.parametrize("path", ROWS)
def test_a_preset_that_a_model_has_is_allowed_and_no_other(path: str) -> None:
    with pytest.raises(InputError) as caught:
        ask(path, size="5:4")
    assert all(preset in (caught.value.allowed or "") for preset in ROWS[path].presets)
    sizes = MODELS[path].sizes
    assert sizes is not None
    assert {name for name in sizes.names if ":" in name} == set(ROWS[path].presets)


@pytest.mark.parametrize(
    ("path", "size", "sent"),
    [(path, *sizes) for path, row in ROWS.items() for sizes in row.sizes.items()],
)
def test_another_size_that_a_model_takes_is_sent_in_its_form(path: str, size: str, sent: str) -> None:
    width, height = size.replace("x", "*").split("*")
    assert ask(path, size=size).size == ask(path, width=width, height=int(height)).size == sent


@pytest.mark.parametrize(
    ("path", "size"), [(path, size) for path, row in ROWS.items() for size in row.refused]
)
def test_a_size_that_a_model_does_not_have_is_refused_with_its_own_list(path: str, size: str) -> None:
    with pytest.raises(InputError, match=r"^size ") as caught:
        ask(path, size=size)
    sizes = MODELS[path].sizes
    assert sizes is not None
    assert sizes.allowed in (caught.value.allowed or "")


@pytest.mark.parametrize("path", ROWS)
def test_a_seed_is_sent_where_the_model_has_one_and_else_refused(path: str) -> None:
    if ROWS[path].has_seed:
        assert ask(path, seed=42).body()["seed"] == 42
        assert MODELS[path].seed_of(MAX_SEED) == MAX_SEED
        assert MODELS[path].seed_of(0) == 0
    else:
        assert ask(path).seed is None
        with pytest.raises(InputError, match="seed is not an option of this model: 42"):
            ask(path, seed=42)


@pytest.mark.parametrize("path", ROWS)
def test_a_model_takes_its_inputs_and_no_other(path: str) -> None:
    row = ROWS[path]
    assert set(MODELS[path].inputs.properties) == set(row.inputs)
    request = ask(path, inputs=row.inputs)
    assert request.inputs == row.inputs
    assert row.inputs.items() <= request.body().items()
    with pytest.raises(InputError, match=r"inputs\.style is not an input of this model: 'oil'") as caught:
        ask(path, inputs={"style": "oil"})
    assert all(name in (caught.value.allowed or "") for name in row.inputs)


@pytest.mark.parametrize("path", ROWS)
def test_a_model_has_a_price(path: str) -> None:
    assert MODELS[path].price_usd == ROWS[path].price


@pytest.mark.parametrize("path", ROWS)
@pytest.mark.parametrize("name", ["prompt", "size", "seed", "image_size"])
def test_what_has_an_option_is_no_input(path: str, name: str) -> None:
    with pytest.raises(InputError, match=rf"inputs\.{name} (has its own option|is not an input)"):
        ask(path, inputs={name: "1:1"})


def test_a_fifth_model_needs_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = Model(
        path="vendor/fifth",
        price_usd=0.05,
        sizes=Sizes({"square": "square_hd", "16:9": "landscape"}, default="square_hd", field="image_size"),
        seeds=(1, 9),
        inputs=InputSchema.of({"style": {"type": "string", "enum": ["oil", "ink"]}}),
        longest_prompt=20,
    )
    monkeypatch.setitem(MODELS, entry.path, entry)  # type: ignore[misc]  # what an edit of the table does
    request = ask("vendor/fifth", size="16:9", seed="7", inputs={"style": "ink"})
    assert protocol.submit(request).body == {
        "prompt": "a lighthouse",
        "image_size": "landscape",
        "seed": 7,
        "style": "ink",
    }
    assert ImageRequest.model_validate_json(request.model_dump_json()) == request
    assert {entry.seed_of(drawn) for drawn in range(100)} == set(range(1, 10))
    for wrong in ({"seed": 10}, {"seed": 0}, {"size": "3:2"}, {"inputs": {"style": "wax"}}):
        with pytest.raises(InputError):
            ask("vendor/fifth", **wrong)
    with pytest.raises(InputError, match="prompt has 21 characters"):
        ImageRequest.of(prompt="a" * 21, model="vendor/fifth")


@pytest.mark.parametrize(
    ("requested", "pixels", "differs"),
    [
        ("1024*1024", (1024, 1024), False),
        ("1024*1024", (1024, 1025), True),
        ("1280*720", (720, 1280), True),
        ("1024x1024", (1024, 1024), False),
        ("16:9", (1344, 768), False),
        ("16:9", (1280, 720), False),
        ("16:9", (1024, 1024), True),
        ("1:1", (1080, 1024), True),
        ("0:0", (1, 1), True),
        ("square_hd", (3, 4), False),
        (None, (3, 4), False),
    ],
)
def test_an_image_has_another_size_where_its_pixels_or_its_ratio_differ(
    requested: str | None, pixels: tuple[int, int], differs: bool
) -> None:
    assert is_other_size(requested, *pixels) is differs


@pytest.mark.parametrize(
    ("path", "most"),
    [
        (BITDANCE_14B, 1536**2 * 4 + MIB),
        ("bytedance/seedream-v5.0-lite", 10_404_496 * 4 + MIB),
        # Its presets do not say how many pixels they are.
        ("recraft-ai/recraft-v4/text-to-image", MAX_BYTES),
        ("other/model", MAX_BYTES),
    ],
)
def test_a_file_may_be_as_large_as_the_models_largest_image_and_never_above_64_mib(
    path: str, most: int
) -> None:
    assert largest_file(path) == most <= MAX_BYTES == 64 * MIB


def test_every_image_that_can_be_requested_can_be_stored() -> None:
    assert all(model.sizes and model.sizes.most_pixels <= MAX_PIXELS for model in MODELS.values())


def test_the_prompt_enhancer_is_no_model_of_images() -> None:
    with pytest.raises(InputError, match="returns text, not an image") as caught:
        checked_path("wavespeed-ai/prompt-optimizer")
    assert 'enhance_prompt="default"' in str(caught.value)


def test_a_path_loses_surrounding_white_space() -> None:
    assert checked_path(f" {BITDANCE_14B}\n") == BITDANCE_14B


def test_a_model_that_nobody_knows_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(InputError, match="model other/model is unknown") as caught:
        ask("other/model")
    assert all(path in (caught.value.allowed or "") for path in MODELS)
