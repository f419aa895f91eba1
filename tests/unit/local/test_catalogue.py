"""The models, and the inputs that each of them takes."""

from __future__ import annotations

from decimal import Decimal

import pytest

from airflow_provider_bitdance.local.catalogue import MODELS, find, optimized
from airflow_provider_bitdance.local.inputs import OptimizerInputs, Refused, checked
from tests.unit.local.builders import BITDANCE, FLUX

SEEDREAM = "bytedance/seedream-v5.0-lite"
RECRAFT = "recraft-ai/recraft-v4/text-to-image"
OPTIMIZER = "wavespeed-ai/prompt-optimizer"


def test_each_model_has_its_published_price() -> None:
    assert {model.id: str(model.price) for model in MODELS.values()} == {
        BITDANCE: "0.01",
        SEEDREAM: "0.035",
        RECRAFT: "0.04",
        FLUX: "0.012",
        OPTIMIZER: "0.001",
    }
    assert find(BITDANCE).price == Decimal("0.01")


def test_an_unknown_model_is_not_found() -> None:
    with pytest.raises(Refused, match=r"^model not found$") as refusal:
        find("nobody/nothing")
    assert refusal.value.status == 400


@pytest.mark.parametrize(
    ("model", "asked", "size", "sides", "seed"),
    [
        (BITDANCE, {}, "1024*1024", (1024, 1024), -1),
        (BITDANCE, {"size": "256*1536", "seed": 7}, "256*1536", (256, 1536), 7),
        (FLUX, {"size": "1536*256", "seed": 7, "output_format": "webp"}, "1536*256", (1536, 256), 7),
        (SEEDREAM, {"seed": 7}, "2048*2048", (2048, 2048), -1),
        (SEEDREAM, {"size": "1440*4096"}, "1440*4096", (1440, 4096), -1),
        (RECRAFT, {"size": "512*512", "seed": 7}, "1024*1024", (1024, 1024), -1),
        (RECRAFT, {"image_size": "16:9"}, "1344*768", (1344, 768), -1),
    ],
)
def test_inputs_tell_size_and_seed_whatever_the_model_calls_them(
    model: str, asked: dict[str, object], size: str, sides: tuple[int, int], seed: int
) -> None:
    inputs = checked(MODELS[model].inputs, {"prompt": "a lighthouse", **asked})
    assert (inputs.prompt, inputs.size, inputs.seed) == ("a lighthouse", size, seed)
    assert not isinstance(inputs, OptimizerInputs)
    assert inputs.sides() == sides


@pytest.mark.parametrize(
    ("model", "asked", "field"),
    [
        (SEEDREAM, {"prompt": "x", "size": "1024*1024"}, "size"),
        (SEEDREAM, {"prompt": "x", "size": "1440*4097"}, "size"),
        (RECRAFT, {"prompt": "x", "image_size": "3:2"}, "image_size"),
        (FLUX, {"prompt": "x", "output_format": "gif"}, "output_format"),
        (FLUX, {"prompt": "x", "seed": -2}, "seed"),
        (SEEDREAM, {"prompt": " "}, "prompt"),
        (RECRAFT, {}, "prompt"),
        (OPTIMIZER, {"style": "baroque"}, "style"),
        (OPTIMIZER, {"mode": "audio"}, "mode"),
        (OPTIMIZER, {"enable_sync_mode": "yes"}, "enable_sync_mode"),
    ],
)
def test_bad_inputs_are_refused_by_field(model: str, asked: dict[str, object], field: str) -> None:
    with pytest.raises(Refused, match=f'^invalid request body, Error at "/{field}": ') as refusal:
        checked(MODELS[model].inputs, asked)
    assert refusal.value.status == 400


def test_the_optimizer_says_the_same_again_and_heeds_text_style_and_mode() -> None:
    asked = {"text": "a lighthouse ", "style": "anime"}
    text = optimized(OptimizerInputs.model_validate(asked))
    assert text == "a lighthouse, anime, clean line art, cel shading, vivid colours"
    assert text == optimized(OptimizerInputs.model_validate(asked))
    others = ({"text": "a tower"}, {"style": "technical"}, {"mode": "video"}, {"text": ""})
    assert (
        len({optimized(OptimizerInputs.model_validate({**asked, **other})) for other in others} | {text}) == 5
    )
