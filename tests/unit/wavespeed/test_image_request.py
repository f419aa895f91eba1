"""What may be asked, and what a refusal says."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from airflow_provider_bitdance.exceptions import InputError
from airflow_provider_bitdance.redaction import shorten
from airflow_provider_bitdance.wavespeed.image_request import ImageRequest
from airflow_provider_bitdance.wavespeed.models import BITDANCE_14B, MAX_SEED, MODELS
from tests.unit.golden import GOLDEN

HOST = "api.wavespeed.ai"
SIZES = MODELS[BITDANCE_14B].sizes
assert SIZES is not None
SIZE_PRESETS = SIZES.names
FLUX, RECRAFT = "wavespeed-ai/flux-dev", "recraft-ai/recraft-v4/text-to-image"


def ask(prompt: object = "a lighthouse", **given: Any) -> ImageRequest:
    return ImageRequest.of(prompt=prompt, **given)


def refusal(**given: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        ask(**given)
    return caught.value


def test_a_request_has_the_apis_defaults() -> None:
    assert ask() == ImageRequest(prompt="a lighthouse", size="1024*1024", seed=-1, model=BITDANCE_14B)


@pytest.mark.parametrize(("preset", "size"), SIZE_PRESETS.items())
def test_a_preset_becomes_a_size_of_its_exact_ratio(preset: str, size: str) -> None:
    (across, down), (width, height) = (map(int, preset.split(":")), map(int, size.split("*")))
    assert ask(size=preset).size == size
    assert width * down == height * across
    assert width % 16 == height % 16 == 0


@pytest.mark.parametrize(
    ("given", "size"),
    [
        ({"size": "512*768"}, "512*768"),
        ({"size": "512x768"}, "512*768"),
        ({"size": "512X768"}, "512*768"),
        ({"size": " 512 x 768 "}, "512*768"),
        ({"size": " 16:9 "}, "1280*720"),
        ({"size": "0512*0768"}, "512*768"),
        ({"size": "256*1536"}, "256*1536"),
        ({"width": 512, "height": 768}, "512*768"),
        ({"width": "512", "height": " 768 "}, "512*768"),
        ({"width": 256, "height": "1536"}, "256*1536"),
    ],
)
def test_a_size_is_sent_in_the_apis_form(given: dict[str, Any], size: str) -> None:
    assert ask(**given).size == size


@pytest.mark.parametrize(
    ("seed", "sent"),
    [(42, 42), ("42", 42), (" 42 ", 42), ("-1", -1), (0, 0), (MAX_SEED, MAX_SEED), (7.0, 7), (None, -1)],
)
def test_a_seed_may_be_a_rendered_string(seed: object, sent: int) -> None:
    assert ask(seed=seed).seed == sent


@pytest.mark.parametrize("prompt", ["a lighthouse", "  a lighthouse\n", "\ta lighthouse\u00a0"])
def test_a_prompt_loses_surrounding_white_space(prompt: str) -> None:
    assert ask(prompt).prompt == "a lighthouse"


def test_a_prompt_keeps_its_inner_lines_and_every_script() -> None:
    assert ask("灯塔\n\nहिन्दी 🗼").prompt == "灯塔\n\nहिन्दी 🗼"


REFUSED = [
    ("prompt", "", "is blank"),
    ("prompt", " \n\u2003", "is blank"),
    ("prompt", None, "is NoneType, not text"),
    ("prompt", 42, "is int, not text"),
    ("prompt", ["a"], "is list, not text"),
    ("prompt", b"a", "is bytes, not text"),
    ("prompt", "a \ud800 b", "lone surrogate"),
    ("size", "", "neither a preset nor"),
    ("size", "5:4", "neither a preset nor"),
    ("size", "1024", "neither a preset nor"),
    ("size", "1024*", "neither a preset nor"),
    ("size", "1024*1024*3", "neither a preset nor"),
    ("size", "-512*512", "neither a preset nor"),
    ("size", "512.0*512", "neither a preset nor"),
    ("size", "999999*512", "neither a preset nor"),
    ("size", 1024, "neither a preset nor"),
    ("size", (512, 512), "neither a preset nor"),
    ("size", "255*1024", "side out of range"),
    ("size", "1024x1537", "side out of range"),
    ("prompt", "None", "what a template renders for a missing value"),
    ("size", "None", "neither a preset nor"),
    ("size", "{{ params.size }}", "neither a preset nor"),
    ("seed", True, "boolean"),
    ("seed", -2, "greater than or equal to -1"),
    ("seed", MAX_SEED + 1, f"less than or equal to {MAX_SEED}"),
    ("seed", "2147483648", f"less than or equal to {MAX_SEED}"),
    ("seed", 1.5, "valid integer"),
    ("seed", "1.5", "valid integer"),
    ("seed", float("nan"), "finite number"),
    ("seed", float("inf"), "finite number"),
    ("seed", "", "valid integer"),
    ("seed", "None", "valid integer"),
    ("seed", "{{ x }}", "valid integer"),
    ("model", "", "is not a model's path"),
    ("model", None, "is not a model's path"),
    ("model", 42, "is not a model's path"),
    ("model", "a/" + "b" * 199, "is not a model's path"),
    ("model", "bitdance", "is not a model's path"),
    ("model", "a/../b", "is not a model's path"),
    ("model", "a/b?webhook=https:", "is not a model's path"),
    ("model", "/a/b", "is not a model's path"),
    ("model", "a/b\nc", "is not a model's path"),
    ("model", "{{ x }}", "is not a model's path"),
]


@pytest.mark.parametrize(("field", "value", "wrong"), REFUSED)
def test_a_refusal_names_field_value_and_what_is_allowed(field: str, value: object, wrong: str) -> None:
    error = refusal(**{field: value})
    assert error.what.startswith(f"{field} ")
    assert wrong in error.what
    assert shorten(repr(value)) in error.what
    assert (error.allowed or "").startswith(f"{field}: ")


@pytest.mark.parametrize(
    ("side", "wrong"),
    [
        (255, "is out of range"),
        (1537, "is out of range"),
        ("1537", "is out of range"),
        (0, "is out of range"),
        (-512, "is not a whole number"),
        (512.0, "is not a whole number"),
        (True, "is not a whole number"),
        ("", "is not a whole number"),
        ("512\x1f", "is not a whole number"),
        ("None", "is not a whole number"),
        ("{{ x }}", "is not a whole number"),
        ("999999", "is not a whole number"),
        (None, "is missing"),
    ],
)
@pytest.mark.parametrize("field", ["width", "height"])
def test_a_refused_side_is_named(field: str, side: object, wrong: str) -> None:
    error = refusal(**{"width": 512, "height": 512, field: side})
    assert error.what == f"{field} {wrong}: {side!r}"
    assert "256 to 1536 pixels" in (error.allowed or "")


@pytest.mark.parametrize("sides", [{"width": 512, "height": 512}, {"width": 512}, {"height": "512"}])
def test_size_and_sides_contradict_each_other_even_where_they_agree(sides: dict[str, Any]) -> None:
    error = refusal(size="512*512", **sides)
    assert "size contradicts width and height: '512*512'" in error.what
    assert all(f"{side} contradicts size" in error.what for side in sides)
    assert "without size" in (error.allowed or "")


def test_everything_wrong_is_said_at_once() -> None:
    error = refusal(prompt=" ", width="wide", height=9999, seed="many", inputs={"steps": 4})
    for field in ("prompt", "width", "height", "seed", "inputs.steps"):
        assert re.search(rf"(^|; ){field} ", error.what), field
        assert re.search(rf"(^|; ){field}: ", error.allowed or ""), field


def test_a_refusal_shows_at_most_80_characters_of_the_value() -> None:
    error = refusal(prompt="secret " * 100 + "\ud800")
    assert len(error.what) < 200
    assert "secret " * 12 not in error.what


def test_a_refusal_is_a_value_error_that_no_retry_mends() -> None:
    error = refusal(seed="x")
    assert isinstance(error, ValueError)
    assert error.retry_helps is False


def test_the_same_request_has_the_same_fingerprint_however_it_was_written() -> None:
    one = ask(" a lighthouse", size="16:9", seed="42")
    other = ask("a lighthouse\n", width=1280, height="720", seed=42)
    assert one.fingerprint(HOST) == other.fingerprint(HOST)


@pytest.mark.parametrize(
    "changed",
    [
        {"prompt": "A lighthouse"},
        {"size": "512*512"},
        {"seed": 1},
        {"model": FLUX},
        {"model": FLUX, "inputs": {"guidance_scale": 5}},
    ],
)
def test_every_field_counts_in_the_fingerprint(changed: dict[str, Any]) -> None:
    assert ask(**changed).fingerprint(HOST) != ask().fingerprint(HOST)


def test_the_api_host_counts_in_the_fingerprint() -> None:
    assert ask().fingerprint("127.0.0.1:8000") != ask().fingerprint(HOST)


def test_a_fingerprint_stays_the_same_from_version_to_version() -> None:
    # Receipts on disk carry it: another value would buy every image again.
    assert ask(size="1:1", seed=7).fingerprint(HOST) == (
        "c896d581144741a8f1295b24e7d27d43f04b832703e86dd0a8328e31fa059ea1"
    )


PINNED = json.loads((GOLDEN / "0.1.0" / "fingerprints.json").read_text())


@pytest.mark.parametrize(
    "pin", [pin for pin in PINNED if pin["request"].get("model", BITDANCE_14B) in MODELS]
)
def test_what_a_user_requests_has_the_fingerprint_of_0_1_0(pin: dict[str, Any]) -> None:
    assert ImageRequest.of(**pin["request"]).fingerprint(pin["api_host"]) == pin["fingerprint"]


class LaterRequest(ImageRequest):
    """What a later version may make of a request."""

    negative_prompt: str = ""
    loras: list[str] = Field(default_factory=list)


ASKED: dict[str, Any] = {"prompt": "a lighthouse", "size": "1280*720", "seed": 7}


def test_a_field_of_a_later_version_changes_no_fingerprint_while_it_is_at_its_default() -> None:
    later = LaterRequest(**ASKED, inputs={})
    assert later.fingerprint(HOST) == ImageRequest(**ASKED).fingerprint(HOST)
    assert later.model_dump() == ImageRequest(**ASKED).model_dump() == ASKED | {"model": BITDANCE_14B}


@pytest.mark.parametrize(
    "changed", [{"negative_prompt": "fog"}, {"loras": ["a"]}, {"inputs": {"steps": 4}}, {"seed": None}]
)
def test_a_field_of_a_later_version_counts_in_the_fingerprint_where_it_is_not_at_its_default(
    changed: dict[str, Any],
) -> None:
    assert LaterRequest(**{**ASKED, **changed}).fingerprint(HOST) != LaterRequest(**ASKED).fingerprint(HOST)


def test_the_order_in_which_inputs_are_given_does_not_count() -> None:
    one, other = (ImageRequest(**ASKED, inputs=dict(given)) for given in (["ax", "by"], ["by", "ax"]))
    assert one.fingerprint(HOST) == other.fingerprint(HOST)


@pytest.mark.parametrize(
    "more", [{}, {"seed": None}, {"inputs": {"steps": 4, "loras": ["a", {"scale": 0.5}]}}]
)
def test_a_request_is_read_as_it_was_written(more: dict[str, Any]) -> None:
    request = ImageRequest(**{**ASKED, **more})
    assert ImageRequest.model_validate_json(request.model_dump_json()) == request


def test_inputs_count_in_the_fingerprint_as_they_are_sent() -> None:
    one = ask(model=FLUX, inputs={"guidance_scale": "5", "strength": None})
    other = ask(model=FLUX, inputs='{"guidance_scale": 5.0}')
    assert one == other
    assert one.fingerprint(HOST) == other.fingerprint(HOST)
    assert ask(model=FLUX, inputs={}).fingerprint(HOST) == ask(model=FLUX).fingerprint(HOST)


@pytest.mark.parametrize(("seed", "sent"), [(None, -1), (-1, -1), ("7", 7)])
def test_a_model_that_has_a_seed_is_sent_one(seed: object, sent: int) -> None:
    assert ask(seed=seed).body()["seed"] == ask(seed=seed).seed == sent


@pytest.mark.parametrize("seed", [None, -1, "-1"])
def test_a_model_that_has_no_seed_is_sent_none(seed: object) -> None:
    request = ask(model=RECRAFT, seed=seed)
    assert request.seed is None
    assert request.body() == {"prompt": "a lighthouse", "image_size": "1:1"}


@pytest.mark.parametrize("seed", [42, "42", 0, True, "None"])
def test_a_seed_of_a_model_that_has_none_is_refused(seed: object) -> None:
    error = refusal(model=RECRAFT, seed=seed)
    assert error.what == f"seed is not an option of this model: {seed!r}"
    assert "the API does not return it" in (error.allowed or "")


@pytest.mark.parametrize(
    "changed",
    [
        {"model": "a/../b"},
        {"model": "a/b?webhook=https://example.com"},
        {"size": "512*512\n"},
        {"size": "a" * 41},
        {"inputs": {"webhook_url": "https://example.com/"}},
        {"inputs": {"enable_sync_mode": True}},
        {"inputs": {"num_images": 4}},
        {"inputs": {"num_outputs": "2"}},
        {"inputs": {"image": "https://10.0.0.1/secret"}},
        {"inputs": {"loras": [{"path": "http://example.com/lora"}]}},
        {"inputs": {"text": "x" * 40_000}},
        {"inputs": {"deep": [[[[[[[[[1]]]]]]]]]}},
    ],
)
def test_a_record_cannot_hold_a_request_that_nobody_may_make(changed: dict[str, Any]) -> None:
    """Whoever can write the records folder must not thereby buy more, or send the output elsewhere."""
    with pytest.raises(ValidationError):
        ImageRequest(**{**ASKED, "model": FLUX, **changed})


def test_what_is_requested_goes_before_an_input_of_the_same_name() -> None:
    request = ImageRequest(**ASKED, inputs={"prompt": "another", "size": "1*1", "seed": 1})
    assert request.body() == ASKED


LOOSE_SIDE = st.one_of(
    st.integers(200, 1600), st.integers(200, 1600).map(str), st.none(), st.text(max_size=6)
)
LOOSE_SIZE = st.one_of(
    st.none(),
    st.sampled_from([*SIZE_PRESETS]),
    st.tuples(st.integers(200, 1600), st.sampled_from("*xX"), st.integers(200, 1600)).map(
        lambda parts: f"{parts[0]}{parts[1]}{parts[2]}"
    ),
    st.text(max_size=12),
)
LOOSE_SEED = st.one_of(st.none(), st.integers(), st.integers(-1, MAX_SEED).map(str), st.floats(), st.text())


@given(prompt=st.text(), size=LOOSE_SIZE, width=LOOSE_SIDE, height=LOOSE_SIDE, seed=LOOSE_SEED)
def test_an_accepted_request_is_in_range_and_stable_and_a_refusal_is_an_input_error(
    prompt: str, size: object, width: object, height: object, seed: object
) -> None:
    try:
        request = ask(prompt, size=size, width=width, height=height, seed=seed)
    except InputError:
        return
    assert request.size is not None
    assert all(256 <= int(side) <= 1536 for side in request.size.split("*"))
    assert re.fullmatch(r"[0-9]{3,4}\*[0-9]{3,4}", request.size)
    assert request.seed is not None
    assert -1 <= request.seed <= MAX_SEED
    assert request.prompt == request.prompt.strip() != ""
    assert ask(request.prompt, size=request.size, seed=request.seed) == request


@given(st.integers(256, 1536), st.integers(256, 1536), st.integers(-1, MAX_SEED))
def test_every_documented_request_is_accepted(width: int, height: int, seed: int) -> None:
    assert ask(width=width, height=str(height), seed=str(seed)).size == f"{width}*{height}"
    assert ask(size=f"{width}x{height}", seed=seed).seed == seed
