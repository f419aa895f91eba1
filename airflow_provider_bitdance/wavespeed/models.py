"""The models: what the provider knows of each, in one table, and how one is read that is not in it.

To add a model, add an entry to :data:`MODELS` and a row to ``tests/unit/wavespeed/test_models.py``. Its
inputs are written as in ``properties`` of the model's ``request_schema`` in ``GET /models``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from airflow_provider_bitdance.exceptions import InputError
from airflow_provider_bitdance.redaction import shorten
from airflow_provider_bitdance.wavespeed.input_schema import InputSchema

BITDANCE_14B: Final = "wavespeed-ai/bitdance-14b/text-to-image"
PROMPT_OPTIMIZER: Final = "wavespeed-ai/prompt-optimizer"
ENHANCER_PRICE_USD: Final = 0.001
MAX_SEED: Final = 2**31 - 1
BITDANCE_SIDES: Final = (256, 1536)
MAX_PROMPT: Final = 2**15
"""Characters. WaveSpeed publishes no limit for these models; text encoders read a few thousand words. More is
a file in the place of a prompt, and would be in each record and response."""
_PATH = re.compile(r"(?=.{1,200}\Z)[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)+")
SIZE = re.compile(r"\s*(\d{1,5})\s*[*xX]\s*(\d{1,5})\s*", re.ASCII)
_RATIO = re.compile(r"(\d{1,2}):(\d{1,2})", re.ASCII)
SIZE_PATTERN: Final = r"^[!-~]([ -~]{0,38}[!-~])?$"
"""What may be sent as a size: a width and a height, a ratio, or the name of a preset."""
MAX_PIXELS: Final = 4096 * 4096
"""Of an image that is stored, more than the largest of the models that the provider knows, which has 10
million; these take 64 MB in memory."""
MAX_BYTES: Final = 64 * 2**20
"""Of an image that is stored: several downloads are in memory at once."""
RATIO_MARGIN = 0.05
"""How far a picture's ratio may be from the one requested: Recraft's own 16:9 is 1344 x 768 pixels, 1.75."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes of a model.

    :param names: What a user may write beside ``"W*H"``, each with what is sent for it.
    :param default: What is sent where the user asks for none; ``None`` sends nothing.
    :param sides: Least and most pixels of a side; ``None``: only what is in ``names`` is taken.
    :param pixels: Least and most pixels of an image; ``None``: whatever the sides give.
    :param field: The input that says the size.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    default: str | None = None
    sides: tuple[int, int] | None = None
    pixels: tuple[int, int] | None = None
    field: str = "size"

    @property
    def allowed(self) -> str:
        """What a user may write, in words."""
        parts = [f"a preset ({shorten(', '.join(self.names), 400)})"] if self.names else []
        if self.sides:
            area = f", {self.pixels[0]} to {self.pixels[1]} in total" if self.pixels else ""
            parts.append(f'"W*H" with sides of {self.sides[0]} to {self.sides[1]} pixels{area}')
        return " or ".join(parts)

    @property
    def most_pixels(self) -> int:
        """Pixels of the largest image; 0 where only presets are known, which do not say theirs."""
        most = self.sides[1] ** 2 if self.sides else 0
        return min(most, self.pixels[1]) if self.pixels else most

    def read(self, value: object) -> str:
        """Return a size as it is sent.

        :raises ValueError: Says what is wrong with it.
        """
        text = value.strip() if isinstance(value, str) else ""
        if text in self.names:
            return self.names[text]
        match = SIZE.fullmatch(text)
        if match is None:
            raise ValueError("is neither a preset nor a width and a height")
        size = f"{int(match[1])}*{int(match[2])}"
        if size in self.names:
            return self.names[size]
        if self.sides is None:
            raise ValueError("is not a size of this model")
        if not all(self.sides[0] <= int(side) <= self.sides[1] for side in size.split("*")):
            raise ValueError("has a side out of range")
        if self.pixels and not self.pixels[0] <= int(match[1]) * int(match[2]) <= self.pixels[1]:
            raise ValueError("has too few or too many pixels in total")
        return size


@dataclass(frozen=True, slots=True)
class Model:
    """What is known of a model that makes one image of one prompt.

    :param path: The model's path on WaveSpeed.
    :param price_usd: Of one image, in US dollars; ``None``: the connection or the API has to say.
    :param sizes: ``None`` where it takes no size.
    :param seeds: Least and most seed; ``None`` where it takes none, and tells none. -1 stands for any.
    :param inputs: What else it takes.
    :param longest_prompt: Characters.
    :param needs_size: A request has to say a size, because there is no default.
    """

    path: str
    price_usd: float | None = None
    sizes: Sizes | None = None
    seeds: tuple[int, int] | None = None
    inputs: InputSchema = field(default_factory=InputSchema)
    longest_prompt: int = MAX_PROMPT
    needs_size: bool = False

    @property
    def highest_seed(self) -> int:
        """The largest seed that may be sent; 0 where it takes none."""
        return self.seeds[1] if self.seeds else 0

    @property
    def options(self) -> dict[str, str]:
        """The names of the inputs that have an option of their own, each with that option's name."""
        size = {self.sizes.field: "size"} if self.sizes else {}
        return {"prompt": "prompt", **size, **({"seed": "seed"} if self.seeds else {})}

    def seed_of(self, drawn: int) -> int:
        """Make a seed of this model of a number that was drawn from 0 to :data:`MAX_SEED`."""
        least, most = self.seeds or (0, 0)
        return least + drawn % (most - least + 1)


PATH_ALLOWED = f'model: the path of a WaveSpeed text-to-image model, such as "{BITDANCE_14B}"'


def is_path(text: str) -> bool:
    """Say whether a text can be the path of a model."""
    return _PATH.fullmatch(text) is not None


def checked_path(path: object) -> str:
    """Return the path of a model.

    :raises InputError: It is none, or that of a model that makes no image.
    """
    text = path.strip() if isinstance(path, str) else ""
    if not is_path(text):
        raise InputError(f"model is not a model's path: {shorten(repr(path))}", allowed=PATH_ALLOWED)
    if text == PROMPT_OPTIMIZER:
        raise InputError(
            f"model {text} returns text, not an image",
            allowed=PATH_ALLOWED,
            fix='To rewrite prompts, set enhance_prompt="default" with an image model',
        )
    return text


def largest_file(path: str) -> int:
    """Return the bytes that an image of a model may have: four a pixel of its largest, none compressed, and
    1 MiB for what else is in the file.
    """
    known = MODELS.get(path)
    pixels = known.sizes.most_pixels if known and known.sizes else 0
    return min(pixels * 4 + 2**20, MAX_BYTES) if pixels else MAX_BYTES


def is_other_size(requested: str | None, width: int, height: int) -> bool:
    """Say whether an image has another size than was requested: other pixels, or another ratio."""
    if requested is None:
        return False
    if ratio := _RATIO.fullmatch(requested):
        across, down = int(ratio[1]), int(ratio[2])
        return abs(width * down / max(height * across, 1) - 1) > RATIO_MARGIN
    sides = SIZE.fullmatch(requested)
    return sides is not None and (int(sides[1]), int(sides[2])) != (width, height)


_MEGAPIXEL: Final = {
    "1:1": "1024*1024",
    "16:9": "1280*720",
    "9:16": "720*1280",
    "4:3": "1152*864",
    "3:4": "864*1152",
    "3:2": "1248*832",
    "2:3": "832*1248",
}
"""Our sizes for WaveSpeed's presets, whose pixel sizes are not published: exact ratios, multiples of 16."""
_FOUR_MEGAPIXELS: Final = {
    "1:1": "2048*2048",
    "16:9": "2560*1440",
    "9:16": "1440*2560",
    "4:3": "2304*1728",
    "3:4": "1728*2304",
    "3:2": "2496*1664",
    "2:3": "1664*2496",
}
"""ByteDance's own sizes of 2K (docs.byteplus.com, Seedream 4.0-5.0 API)."""
_RECRAFT: Final = {
    **{ratio: ratio for ratio in ("1:1", "16:9", "9:16", "4:3", "3:4")},
    # The pixels of each preset: https://www.recraft.ai/docs/api-reference/appendix
    **{"1024*1024": "1:1", "1344*768": "16:9", "768*1344": "9:16", "1216*896": "4:3", "896*1216": "3:4"},
}
_URL: Final = {"type": "string", "format": "uri"}

MODELS: Final[Mapping[str, Model]] = {
    model.path: model
    for model in (
        # https://wavespeed.ai/docs/docs-api/wavespeed-ai/bitdance-14b-text-to-image
        Model(
            path=BITDANCE_14B,
            price_usd=0.01,
            sizes=Sizes(_MEGAPIXEL, default="1024*1024", sides=BITDANCE_SIDES),
            seeds=(0, MAX_SEED),
        ),
        # https://wavespeed.ai/docs/docs-api/bytedance/bytedance-seedream-v5.0-lite: $0.04 in one place and
        # $0.035 in its table; the higher one counts. Sides up to 4096, 8192 in a newer copy; the pixels in
        # all are those of other hosts, and what has fewer fails after it was submitted.
        Model(
            path="bytedance/seedream-v5.0-lite",
            price_usd=0.04,
            sizes=Sizes(
                _FOUR_MEGAPIXELS, default="2048*2048", sides=(1440, 4096), pixels=(3_686_400, 10_404_496)
            ),
        ),
        # https://wavespeed.ai/docs/docs-api/recraft-ai/recraft-v4/text-to-image
        Model(
            path="recraft-ai/recraft-v4/text-to-image",
            price_usd=0.04,
            sizes=Sizes(_RECRAFT, default="1:1", field="image_size"),
        ),
        # https://wavespeed.ai/docs-api/flux-dev; only an old copy says which sides it takes, 512 to 1536.
        Model(
            path="wavespeed-ai/flux-dev",
            price_usd=0.012,
            sizes=Sizes(_MEGAPIXEL, default="1024*1024", sides=(512, 1536)),
            seeds=(0, MAX_SEED),
            inputs=InputSchema.of(
                {
                    "num_inference_steps": {"type": "integer", "minimum": 1, "maximum": 50},
                    "guidance_scale": {"type": "number", "minimum": 0, "maximum": 10},
                    "num_images": {"type": "integer", "minimum": 1, "maximum": 1},
                    "output_format": {"type": "string", "enum": ["jpeg", "png", "webp"]},
                    "image": _URL,
                    "mask_image": _URL,
                    "strength": {"type": "number", "minimum": 0, "maximum": 1},
                }
            ),
        ),
    )
}
"""The models that need no schema from the API, by path."""
