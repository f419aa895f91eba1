"""The pictures, without the service: what they show, what they say of themselves, what makes their bytes."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Final

import pytest
from PIL import Image

from airflow_provider_bitdance.imaging.validation import validate_image
from airflow_provider_bitdance.local.pictures import Labels, MediaType, draw, draw_fast, draw_photo, labels

MODEL: Final = "wavespeed-ai/bitdance-14b/text-to-image"
ASKED: Final[dict[str, str | int]] = {
    "model": MODEL,
    "prompt": "a lighthouse",
    "width": 256,
    "height": 320,
    "seed": 7,
}
MEDIA_TYPES: Final = ("image/png", "image/jpeg", "image/webp")

Drawing = Callable[..., bytes]


def a_drawing(media_type: MediaType) -> Drawing:
    """Return ``draw`` for one format, which is then called like ``draw_fast``."""

    def drawing(**asked: object) -> bytes:
        return draw(**asked, media_type=media_type)  # type: ignore[arg-type]

    return drawing


FOR_LOAD: Final[dict[str, Drawing]] = {"fast": draw_fast, "photo": draw_photo}
DRAWINGS: Final[dict[str, Drawing]] = FOR_LOAD | {kind: a_drawing(kind) for kind in MEDIA_TYPES}
every_drawing = pytest.mark.parametrize("drawing", DRAWINGS.values(), ids=list(DRAWINGS))


def pixels(picture: bytes) -> tuple[tuple[int, int], bytes]:
    with Image.open(io.BytesIO(picture)) as image:
        return image.size, image.convert("RGB").tobytes()


@every_drawing
def test_a_picture_is_whole_and_of_the_asked_size(drawing: Drawing) -> None:
    looked = validate_image(drawing(**ASKED))

    assert (looked.width, looked.height) == (256, 320)


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_picture_is_of_the_asked_format(name: str) -> None:
    looked = validate_image(DRAWINGS[name](**ASKED))

    assert looked.media_type == ("image/png" if name in FOR_LOAD else name)


@every_drawing
def test_a_picture_says_what_it_shows(drawing: Drawing) -> None:
    prompt = "灯台 \N{ELECTRIC LIGHT BULB} at dusk"

    said = labels(drawing(**{**ASKED, "prompt": prompt}))

    assert said == Labels(MODEL, prompt, "256*320", 7, said.id)
    assert len(said.id) == 8
    assert int(said.id, 16) >= 0


@pytest.mark.parametrize("drawing", [*FOR_LOAD.values(), DRAWINGS["image/png"]], ids=[*FOR_LOAD, "drawn"])
def test_anyone_can_read_the_labels_of_a_png(drawing: Drawing) -> None:
    with Image.open(io.BytesIO(drawing(**ASKED))) as image:
        image.load()
        said = {name: image.info[name] for name in ("model", "prompt", "size", "seed", "id")}

    assert said == {name: str(value) for name, value in asdict(labels(drawing(**ASKED))).items()}


def test_a_request_has_one_id_however_it_is_drawn() -> None:
    assert len({labels(drawing(**ASKED)).id for drawing in DRAWINGS.values()}) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"model": "wavespeed-ai/flux-dev"},
        {"prompt": "a lighthousf"},
        {"width": 320},
        {"height": 256},
        {"seed": 8},
    ],
    ids=lambda other: next(iter(other)),
)
@every_drawing
def test_another_request_gives_another_picture(drawing: Drawing, other: dict[str, object]) -> None:
    one, two = drawing(**ASKED), drawing(**{**ASKED, **other})

    assert pixels(one) != pixels(two)
    assert labels(one).id != labels(two).id


def test_a_photo_has_as_many_bytes_as_one_of_its_size() -> None:
    asked = {**ASKED, "width": 1024, "height": 1024}

    assert 800_000 < len(draw_photo(**asked)) < 1_200_000  # type: ignore[arg-type]


def test_the_end_of_a_long_prompt_counts() -> None:
    one, two = (labels(draw_fast(**{**ASKED, "prompt": "x" * 6_000 + end})) for end in "ab")  # type: ignore[arg-type]

    assert one.prompt == two.prompt
    assert one.id != two.id


def test_the_same_request_gives_the_same_bytes_in_every_process() -> None:
    script = f"""
from hashlib import sha256
from airflow_provider_bitdance.local.pictures import draw, draw_fast, draw_photo
for media_type in {MEDIA_TYPES}:
    print(sha256(draw(**{ASKED}, media_type=media_type)).hexdigest())
print(sha256(draw_fast(**{ASKED})).hexdigest())
print(sha256(draw_photo(**{ASKED})).hexdigest())
"""
    here = [
        validate_image(drawing(**ASKED)).sha256
        for drawing in (*(DRAWINGS[media_type] for media_type in MEDIA_TYPES), draw_fast, draw_photo)
    ]

    for hash_seed in ("1", "2"):
        elsewhere = subprocess.run(
            [sys.executable, "-c", script],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
        )
        assert elsewhere.stdout.split() == here


@pytest.mark.parametrize(
    "prompt", ["", "word " * 20_000, "x" * 100_000, "\N{ELECTRIC LIGHT BULB}" * 50_000, "\x00\n\t"]
)
@every_drawing
def test_any_prompt_can_be_drawn(drawing: Drawing, prompt: str) -> None:
    picture = drawing(**{**ASKED, "prompt": prompt})

    validate_image(picture)
    assert prompt.startswith(labels(picture).prompt)


def test_a_picture_from_elsewhere_has_no_labels() -> None:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")

    with pytest.raises(ValueError, match="no labels"):
        labels(file.getvalue())
