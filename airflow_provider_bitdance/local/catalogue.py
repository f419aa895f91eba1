"""The models of the local service: BitDance, those that its page calls related, and one that writes text.

To add a model, write its inputs in ``inputs.py`` and a row here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Literal

from airflow_provider_bitdance.local.inputs import (
    BitDanceInputs,
    FluxDevInputs,
    Inputs,
    OptimizerInputs,
    RecraftInputs,
    Refused,
    SeedreamInputs,
)

NOT_FOUND: Final = "model not found"
STYLE_WORDS: Final = {
    "default": "clear subject, balanced composition, soft light",
    "artistic": "painterly, bold brush strokes, rich palette",
    "photographic": "photograph, 50 mm lens, shallow depth of field, natural light",
    "technical": "precise lines, labelled parts, neutral background",
    "anime": "anime, clean line art, cel shading, vivid colours",
    "realistic": "realistic, fine texture, true colours, even light",
}


@dataclass(frozen=True, slots=True)
class Model:
    """One model.

    :param id: what clients put into the path.
    :param name: for people.
    :param kind: what WaveSpeed calls its type.
    :param price: USD per task.
    :param inputs: the class of its inputs.
    :param description: one sentence.
    """

    id: str
    name: str
    kind: Literal["text-to-image", "llm"]
    price: Decimal
    inputs: type[Inputs]
    description: str


# Ids, prices and parameters are those of the pages named; all other parameters are dropped in silence.
_ALL: Final = (
    # https://wavespeed.ai/docs/docs-api/wavespeed-ai/bitdance-14b-text-to-image
    Model(
        "wavespeed-ai/bitdance-14b/text-to-image",
        "BitDance 14B",
        "text-to-image",
        Decimal("0.01"),
        BitDanceInputs,
        "Autoregressive text-to-image model with binary visual tokens.",
    ),
    # https://wavespeed.ai/docs/docs-api/bytedance/bytedance-seedream-v5.0-lite, which says $0.04 in one
    # place and $0.035 in its price table, and 4096 or, in a newer copy, 8192 for the longest side. Its
    # default size is not in the stored copies; 2048*2048 is assumed. The least pixels are other hosts'.
    Model(
        "bytedance/seedream-v5.0-lite",
        "Seedream V5.0 Lite",
        "text-to-image",
        Decimal("0.035"),
        SeedreamInputs,
        "Fast text-to-image model for large pictures and legible text.",
    ),
    # https://wavespeed.ai/docs/docs-api/recraft-ai/recraft-v4/text-to-image; the pixels of each preset are
    # from https://www.recraft.ai/docs/api-reference/appendix
    Model(
        "recraft-ai/recraft-v4/text-to-image",
        "Recraft V4",
        "text-to-image",
        Decimal("0.04"),
        RecraftInputs,
        "Text-to-image model for design work, with presets of sizes.",
    ),
    # https://wavespeed.ai/docs-api/flux-dev; bounds of the sides as for BitDance, an old copy says 512.
    Model(
        "wavespeed-ai/flux-dev",
        "FLUX.1 Dev",
        "text-to-image",
        Decimal("0.012"),
        FluxDevInputs,
        "Open text-to-image model with 12 billion parameters.",
    ),
    # https://wavespeed.ai/models/wavespeed-ai/prompt-optimizer/llms.txt
    Model(
        "wavespeed-ai/prompt-optimizer",
        "Prompt Optimizer",
        "llm",
        Decimal("0.001"),
        OptimizerInputs,
        "Rewrites a prompt. Here a stand-in that appends fixed style words.",
    ),
)

MODELS: Final[Mapping[str, Model]] = {model.id: model for model in _ALL}
"""The models by id, in the order of ``GET /models``."""


def find(model_id: str) -> Model:
    """Look up a model.

    :param model_id: such as ``wavespeed-ai/bitdance-14b/text-to-image``.
    :raises Refused: HTTP 400 for an unknown one, as the real API responds.
    """
    if model_id not in MODELS:
        raise Refused(400, NOT_FOUND)
    return MODELS[model_id]


def optimized(inputs: OptimizerInputs) -> str:
    """Write the prompt optimizer's output: a stand-in without a language model, the same each time."""
    subject = inputs.text.strip() or "the picture given"
    motion = ", slow camera movement" if inputs.mode == "video" else ""
    return f"{subject}, {STYLE_WORDS[inputs.style]}{motion}"
