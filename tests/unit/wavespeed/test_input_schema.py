"""What a model takes beside prompt, size and seed, by a schema that nobody here has seen before."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_bitdance.exceptions import InputError
from airflow_provider_bitdance.wavespeed.image_request import ImageRequest
from airflow_provider_bitdance.wavespeed.input_schema import Input, InputSchema
from airflow_provider_bitdance.wavespeed.inputs import MAX_INPUTS, Refused, read_inputs
from airflow_provider_bitdance.wavespeed.model_schema import MAX_SCHEMA, read_model
from airflow_provider_bitdance.wavespeed.models import MAX_PIXELS, MAX_PROMPT, MAX_SEED

PATH = "vendor/unseen"
IMAGE = "https://example.com/a/sketch.png"
SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["prompt", "style"],
    "additionalProperties": False,
    "x-order-properties": ["prompt", "style"],
    "properties": {
        "prompt": {"type": "string", "maxLength": 800},
        # As WaveSpeed writes it: bounds of a side at a text, which JSON Schema ignores.
        "size": {"type": "string", "minimum": 512, "maximum": 2048, "default": "1024*1024"},
        "seed": {"type": "integer", "minimum": -1, "maximum": 99_999},
        "style": {"type": "string", "enum": ["oil", "ink", "16"]},
        "quality": {"type": "integer", "enum": [1, 2, 4]},
        "steps": {"type": "integer", "minimum": 1, "maximum": 50, "default": 28},
        "guidance": {"type": "number", "minimum": 0, "maximum": 10},
        "negative_prompt": {"type": "string", "maxLength": 20},
        "tile": {"type": "boolean"},
        "image": {"type": "string"},
        "reference_images": {"type": "array", "items": {"type": "string"}, "maxItems": 2},
        "image_size": {"type": "string", "enum": ["small", "large"]},
        "weights": {"type": "array", "items": {"type": "number", "minimum": 0}, "minItems": 1},
        "either": {"anyOf": [{"type": "integer", "minimum": 5}, {"type": "null"}, {"type": "string"}]},
        "number_or_none": {"type": ["number", "null"], "maximum": 3},
        "lora": {"type": "object"},
        "anything": {},
        "num_images": {"type": "integer", "minimum": 1, "maximum": 4, "default": 1},
        "enable_sync_mode": {"type": "boolean", "default": False},
    },
}
UNSEEN = read_model(PATH, SCHEMA, "text-to-image")


def ask(*, model: Any = UNSEEN, prompt: object = "a lighthouse", **given: Any) -> ImageRequest:
    return ImageRequest.of(prompt=prompt, model=model, **given)


def asked(**inputs: Any) -> dict[str, Any]:
    """Return what is sent of some inputs, beside the one that is required."""
    sent = ask(inputs={"style": "oil", **inputs}).inputs
    return {name: value for name, value in sent.items() if name != "style" or "style" in inputs}


def refusal(**inputs: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        asked(**inputs)
    return caught.value


def a_model(properties: dict[str, Any], **schema: Any) -> Any:
    return read_model(PATH, {"properties": {"prompt": {"type": "string"}, **properties}, **schema})


@pytest.mark.parametrize(
    ("name", "value", "sent"),
    [
        ("style", "ink", "ink"),
        ("style", " ink\n", "ink"),
        ("style", "16", "16"),
        ("quality", 2, 2),
        ("quality", "2", 2),
        ("quality", 2.0, 2),
        ("steps", 28, 28),
        ("steps", "28", 28),
        ("steps", " 28 ", 28),
        ("steps", 28.0, 28),
        ("guidance", 3.5, 3.5),
        ("guidance", "3.5", 3.5),
        ("guidance", 3, 3.0),
        ("guidance", "0", 0.0),
        ("tile", True, True),
        ("tile", "True", True),
        ("tile", "false", False),
        ("negative_prompt", "28", "28"),
        ("negative_prompt", "", ""),
        ("image", IMAGE, IMAGE),
        ("image", f" {IMAGE}\n", IMAGE),
        ("image", "", ""),
        ("reference_images", [IMAGE, IMAGE], [IMAGE, IMAGE]),
        ("image_size", "large", "large"),
        ("weights", ["1", 2], [1.0, 2.0]),
        ("either", 7, 7),
        ("either", "7", "7"),
        ("number_or_none", "2.5", 2.5),
        ("lora", {"a": [1, {"b": None}]}, {"a": [1, {"b": None}]}),
        ("anything", [1, "a"], [1, "a"]),
        ("num_images", "1", 1),
    ],
)
def test_an_input_is_sent_as_its_schema_has_it(name: str, value: Any, sent: Any) -> None:
    (found,) = asked(**{name: value}).values()
    assert (found, type(found)) == (sent, type(sent))


REFUSED = [
    ("stile", "oil", "is not an input of this model", "its inputs are anything, either, guidance"),
    ("style", "wax", "is not one of the allowed values", "one of oil, ink, 16"),
    ("style", "OIL", "is not one of the allowed values", "one of oil, ink, 16"),
    ("quality", 3, "is not one of the allowed values", "one of 1, 2, 4"),
    ("quality", True, "is not one of the allowed values", "one of 1, 2, 4"),
    ("steps", "many", "is not a whole number", "a whole number, at least 1, at most 50"),
    ("steps", 2.5, "is not a whole number", "a whole number"),
    ("steps", True, "is not a whole number", "a whole number"),
    ("steps", "true", "is not a whole number", "a whole number"),
    ("steps", [28], "is not a whole number", "a whole number"),
    ("steps", "", "is not a whole number", "a whole number"),
    ("steps", 0, "is out of range", "at least 1, at most 50"),
    ("steps", "51", "is out of range", "at least 1, at most 50"),
    ("steps", 10**400, "is not a whole number", "a whole number"),
    ("guidance", 10.1, "is out of range", "a number, at least 0, at most 10"),
    ("guidance", "NaN", "is not a number", "a number"),
    ("guidance", "1e999", "is not a number", "a number"),
    ("guidance", 10**400, "is not a number", "a number"),
    ("guidance", "[" * 20_000, "is not a number", "a number"),
    ("negative_prompt", "x" * 21, "is out of range", "text, at most 20 characters"),
    ("negative_prompt", 5, "is not text", "text, at most 20 characters"),
    ("tile", 1, "is not true or false", "true or false"),
    ("tile", "yes", "is not true or false", "true or false"),
    ("reference_images", [IMAGE] * 3, "is out of range", "a list, at most 2 entries"),
    ("reference_images", IMAGE, "is not a list", "a list"),
    ("weights", [], "is out of range", "a list, at least 1 entries"),
    ("weights", [1, -1], "is out of range", "a number, at least 0"),
    ("either", 4, "is out of range", "a whole number, at least 5 or null or text"),
    ("number_or_none", 4, "is out of range", "a number, at most 3 or null"),
    ("lora", "a", "is not an object", "an object"),
    ("prompt", "another", "has its own option", "use prompt=… instead"),
    ("size", "1*1", "has its own option", "use size=… instead"),
    ("seed", 1, "has its own option", "use seed=… instead"),
    ("num_images", 2, "makes several images", "variants=n of a batch"),
    ("num_images", "4", "makes several images", "variants=n of a batch"),
    ("num_images", True, "makes several images", "variants=n of a batch"),
    ("enable_sync_mode", True, "is set by the provider", "omit it"),
    ("enable_sync_mode", False, "is set by the provider", "omit it"),
    ("webhook_url", "https://example.com/", "is set by the provider", "the result is polled"),
]


@pytest.mark.parametrize(("name", "value", "wrong", "allowed"), REFUSED)
def test_a_refused_input_is_named_with_what_is_allowed(
    name: str, value: Any, wrong: str, allowed: str
) -> None:
    error = refusal(**{name: value})
    assert error.what.startswith(f"inputs.{name} {wrong}")
    assert (error.allowed or "").startswith(f"inputs.{name}: ")
    assert allowed in (error.allowed or "")


def test_a_required_input_that_is_missing_is_named() -> None:
    for inputs in ({}, None, "", {"style": None}):
        with pytest.raises(InputError, match=r"inputs\.style is missing") as caught:
            ask(inputs=inputs)
        assert caught.value.allowed == "inputs.style: one of oil, ink, 16"


def test_all_that_is_wrong_is_said_at_once() -> None:
    error = refusal(style="wax", steps=0, stile=1)
    for name in ("style", "steps", "stile"):
        assert f"inputs.{name} " in error.what
        assert f"inputs.{name}: " in (error.allowed or "")


SIGNED = "https://bucket.s3.amazonaws.com/a.png?X-Amz-Signature=0123456789abcdef"


@pytest.mark.parametrize(
    "url",
    [
        SIGNED,
        f"{IMAGE}#part",
        f"{IMAGE}?",
        "http://example.com/a.png",
        "https://user:secret@example.com/a.png",
        "https://10.0.0.1/a.png",
        "https://127.0.0.1:8000/a.png",
        "https://localhost/a.png",
        "https://[::1]/a.png",
        "https://2130706433/a.png",
        "https://files.internal/a.png",
        "https://exa\tmple.com/a.png",
        "https://example.com/a b.png",
        "https://example.com/a.png\ufffdSignature=secret",
        "https://example.com/a.png\uff1fSignature=secret",
        "https:///a.png",
        "https://[bad/a.png",
        "s3://bucket/a.png?Signature=secret",
        "ttps://example.com/a.png?Signature=secret",
        "s3://user:secret@bucket/a.png",
        "file:///etc/passwd",
        "data:image/png;base64,AAAA",
        f"https://example.com/{'a' * 9000}.png",
    ],
)
@pytest.mark.parametrize("place", ["image", "reference_images", "anything", "lora", "negative_prompt"])
def test_only_a_public_url_without_a_query_is_an_input(url: str, place: str) -> None:
    values: dict[str, Any] = {"reference_images": [url], "lora": {"path": [url]}}
    error = refusal(**{place: values.get(place, url)})
    assert error.what.startswith(f"inputs.{place} is ")
    if place != "negative_prompt":
        assert "a public https URL without a query" in (error.allowed or "")
    assert "Signature" not in str(error)
    assert "secret" not in str(error)


@pytest.mark.parametrize("value", ["/data/a.png", "a.png", "iVBORw0KGgo="])
def test_what_is_named_as_an_image_is_a_url(value: str) -> None:
    for name in ("image", "mask_url", "reference_image_2", "image_1", "control_images"):
        model = a_model({name: {"type": "string"}})
        with pytest.raises(InputError, match=rf"inputs\.{name} is not an https URL"):
            ask(model=model, inputs={name: value})


@pytest.mark.parametrize("name", ["image_size", "image_format", "url_style", "imagery", "maskable"])
def test_what_only_speaks_of_images_is_any_text(name: str) -> None:
    assert ask(model=a_model({name: {"type": "string"}}), inputs={name: "a"}).inputs == {name: "a"}


@pytest.mark.parametrize("default", [4, "2", 0])
def test_a_model_that_makes_several_images_unless_told_otherwise_is_told(default: object) -> None:
    model = a_model({"num_images": {"type": "integer", "default": default}})
    with pytest.raises(InputError, match=r"inputs\.num_images makes several images if it is omitted"):
        ask(model=model)
    assert ask(model=model, inputs={"num_images": 1}).body()["num_images"] == 1


def test_a_model_takes_size_and_seed_as_its_schema_has_them() -> None:
    request = ask(size="512*2048", seed=99_999, inputs={"style": "oil"})
    assert request.body() == {"prompt": "a lighthouse", "size": "512*2048", "seed": 99_999, "style": "oil"}
    error = refusal_of(size="511*2048", seed=100_000, prompt="a" * 801)
    assert "512 to 2048 pixels" in (error.allowed or "")
    assert "-1 (any seed) to 99999" in str(refusal_of(seed="100000"))
    assert "at most 800 characters" in (error.allowed or "")
    assert 0 <= UNSEEN.seed_of(MAX_SEED) <= 99_999


def refusal_of(**given: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        ask(inputs={"style": "oil"}, **given)
    return caught.value


def test_without_a_size_the_model_chooses_and_any_seed_is_not_sent() -> None:
    """Whether this model knows -1 is not known; what is bought has a seed that was drawn."""
    request = ask(inputs={"style": "oil"})
    assert (request.size, request.seed) == (None, -1)
    assert request.body() == {"prompt": "a lighthouse", "style": "oil"}


@pytest.mark.parametrize(
    ("properties", "option"),
    [
        ({}, "size"),
        ({}, "seed"),
        ({"size": {"type": "integer"}}, "size"),
        ({"size": {"type": "string", "enum": [1, 2]}}, "size"),
        ({"seed": {"type": "string"}}, "seed"),
        ({"image_size": {"type": "string"}, "random_seed": {"type": "integer"}}, "size"),
    ],
)
def test_size_and_seed_are_options_only_where_the_schema_has_them_by_name_and_type(
    properties: dict[str, Any], option: str
) -> None:
    model = a_model(properties)
    with pytest.raises(InputError, match=f"{option} is not an option of this model"):
        ask(model=model, **{option: {"size": "16:9", "seed": 7}[option]})
    assert ask(model=model).body() == {"prompt": "a lighthouse"}
    with pytest.raises(InputError, match="width is not an option of this model"):
        ask(model=a_model({"width": {"type": "integer"}}), width=512, height=512)
    assert ask(model=a_model({"width": {"type": "integer"}}), inputs={"width": 512}).inputs == {"width": 512}


def test_a_size_of_a_list_is_one_of_it() -> None:
    model = a_model({"size": {"type": "string", "enum": ["1024x1024", "square_hd", "Wide 16:9", "\n", 3]}})
    sent = {
        "1024x1024": "1024x1024",
        "1024*1024": "1024x1024",
        "square_hd": "square_hd",
        "Wide 16:9": "Wide 16:9",
    }
    assert {size: ask(model=model, size=size).size for size in sent} == sent
    with pytest.raises(InputError, match="not a size of this model") as caught:
        ask(model=model, size="512*512")
    assert "square_hd" in (caught.value.allowed or "")


def test_a_size_that_is_required_is_asked_for() -> None:
    model = a_model({"size": {"type": "string"}}, required=["prompt", "size"])
    with pytest.raises(InputError, match="size is missing"):
        ask(model=model)
    assert ask(model=model, size="640*480").size == "640*480"


def test_more_pixels_than_can_be_stored_are_not_bought() -> None:
    model = a_model({"size": {"type": "string"}})
    assert ask(model=model, size="4096*4096").size == "4096*4096"
    with pytest.raises(InputError, match="too many pixels") as caught:
        ask(model=model, size="4097*4096")
    assert str(MAX_PIXELS) in (caught.value.allowed or "")


@pytest.mark.parametrize(
    ("schema", "kind", "wrong"),
    [
        ({}, "", "takes no prompt"),
        ({"properties": []}, "", "takes no prompt"),
        ({"properties": {"prompt": {"type": "array"}}}, "text-to-image", "is text-to-image"),
        ({"properties": {"prompt": {"type": "string"}}}, "llm", "is llm"),
        ({"properties": {"prompt": {"type": "string"}}}, "text-to-video", "is text-to-video"),
        ({"properties": {"prompt": {"type": "string"}}}, "x" * 5000 + "-to-image", "makes no image"),
        ({"properties": {"text": {"type": "string"}}}, "text-to-image", "takes no prompt"),
    ],
)
def test_a_model_that_makes_no_image_of_a_prompt_is_refused(
    schema: dict[str, Any], kind: str, wrong: str
) -> None:
    with pytest.raises(InputError, match=wrong):
        read_model(PATH, schema, kind)


HUGE = {"properties": {f"input_{number}": {"type": "string"} for number in range(20_000)}}
DEEP: dict[str, Any] = {}
for _ in range(500):
    DEEP = {"items": DEEP, "type": "array"}
WIDE_TYPES: dict[str, Any] = {"type": "string"}
for _ in range(12):
    WIDE_TYPES = {"type": ["array"] * 60 + ["null"], "items": WIDE_TYPES}


@pytest.mark.parametrize(
    "schema",
    [
        HUGE,
        {"properties": {"prompt": {"type": "string"}, "deep": DEEP}},
        {"properties": {"prompt": {"type": "string", "maxLength": float("nan")}}},
        {"properties": {"prompt": {"type": "string", "title": "\ud800"}}},
        {"properties": {"prompt": {"type": "string", "title": "x" * MAX_SCHEMA}}},
    ],
)
def test_a_schema_that_is_too_large_or_is_no_plain_json_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="has a schema in GET /models that cannot be used"):
        read_model(PATH, schema)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ({"type": "string", "pattern": "(a+)+$"}, "a" * 5000 + "b"),
        ({"$ref": "https://example.com/schema.json"}, 1),
        ({"type": "integer", "minimum": 9, "maximum": 1}, 5),
        ({"type": "integer", "minimum": "9", "maximum": True}, 5),
        ({"type": "number", "minimum": 10**400}, 5.0),
        ({"type": "string", "minLength": -3, "maxLength": "x"}, "a"),
        ({"type": "string", "minimum": 256, "maximum": 1536}, "1024*1024"),
        ({"type": "array", "minItems": 2.5, "items": [1]}, [1, 2, 3]),
        ({"type": "complex"}, [1]),
        ({"type": {"a": 1}}, [1]),
        ({"type": [["string"]]}, [1]),
        ({"type": []}, [1]),
        ({"enum": []}, [1]),
        ({"enum": [{"a": 1}, None, [2]]}, [1]),
        ({"enum": {"a": 1}}, [1]),
        ({"enum": [str(number) for number in range(5000)]}, "another"),
        ({"anyOf": []}, [1]),
        ({"anyOf": [1, None]}, [1]),
        ({"oneOf": {"a": 1}}, [1]),
        (WIDE_TYPES, [[]]),
        ([], [1]),
        (None, [1]),
        ("string", [1]),
    ],
)
def test_a_keyword_that_makes_no_sense_restricts_nothing_and_takes_no_time(part: Any, value: Any) -> None:
    started = time.perf_counter()
    read = a_model({"it": part}, required="prompt")
    assert ask(model=read, inputs={"it": value}).inputs == {"it": value}
    assert time.perf_counter() - started < 1


def test_an_enum_of_mixed_types_takes_each_as_it_is() -> None:
    schema = Input.of({"enum": ["1", 1.5, True, "auto", None]})
    assert [schema.read(value) for value in ("1", 1.5, "1.5", True, "true", "auto")] == [
        "1",
        1.5,
        1.5,
        True,
        True,
        "auto",
    ]
    for wrong in (1, 2, None, "", [1], "None"):
        with pytest.raises(Refused):
            schema.read(wrong)


@pytest.mark.parametrize(
    ("value", "wrong"),
    [
        ("{", "is text that is not JSON"),
        ("[" * 20_000, "is text that is not JSON"),
        ("[1]", "is not an object"),
        ([1], "is not an object"),
        (7, "is not an object"),
        ({1: "a"}, "is not an object"),
        ({"a": float("nan")}, "has a value that JSON cannot hold"),
        ({"a": object()}, "has a value that JSON cannot hold"),
        ({"a": b"x"}, "has a value that JSON cannot hold"),
        ({"a": "\ud800"}, "has a value that JSON cannot hold"),
        ({"a": "x" * MAX_INPUTS}, "has more than 32768 characters as JSON"),
        (json.dumps({"a": "x" * MAX_INPUTS}), "has more than 32768 characters"),
        ({"a": [[[[[[[[1]]]]]]]]}, "has more than 8 levels"),
        ('{"a":' * 5000 + "1" + "}" * 5000, "is text that is not JSON|more than 8 levels"),
    ],
)
def test_what_is_no_object_of_inputs_is_refused(value: Any, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        read_inputs(value)
    with pytest.raises(InputError, match=r"inputs (is|has) ") as caught:
        ask(inputs=value)
    assert (caught.value.allowed or "").startswith("inputs: an object with names of the model's inputs; ")


@pytest.mark.parametrize(
    "value",
    [
        f'{{"image": "{SIGNED}"',
        [SIGNED],
        {"image": {1: SIGNED, 2: b""}},
        "{" + SIGNED.partition("?")[2],
        "bucket/a.png&" + SIGNED.partition("?")[2],
    ],
)
def test_inputs_that_cannot_be_read_do_not_show_a_signed_url(value: Any) -> None:
    with pytest.raises(InputError) as caught:
        ask(inputs=value)
    assert "[url]" in str(caught.value)
    assert "Signature" not in str(caught.value)


def test_what_contains_itself_is_refused() -> None:
    round_about: list[Any] = []
    round_about += [round_about] * 100
    with pytest.raises(ValueError, match="more than 8 levels"):
        read_inputs({"a": round_about})


@pytest.mark.parametrize(
    ("value", "read"), [(None, {}), ("", {}), (" ", {}), ("null", {}), ({"a": None}, {})]
)
def test_no_inputs_may_be_written_in_several_ways(value: Any, read: dict[str, Any]) -> None:
    assert read_inputs(value) == read


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
KEYWORDS = st.sampled_from(
    ["type", "enum", "minimum", "maximum", "minLength", "maxItems", "items", "anyOf", "format", "default"]
)
TYPES = st.sampled_from(["string", "integer", "number", "boolean", "array", "object", "null"])
PARTS = st.recursive(
    st.dictionaries(KEYWORDS, JSON | TYPES, max_size=4) | JSON,
    lambda inner: st.fixed_dictionaries(
        {"type": TYPES, "items": inner, "anyOf": st.lists(inner, max_size=3)}
    ),
    max_leaves=6,
)


@settings(max_examples=60)
@given(
    properties=st.dictionaries(st.sampled_from(["a", "image", "size", "seed", "num_images"]), PARTS),
    required=JSON,
    inputs=st.dictionaries(st.sampled_from(["a", "image", "size", "num_images"]), JSON) | JSON,
    size=st.none() | st.text(max_size=9),
)
def test_of_any_schema_and_any_inputs_comes_a_request_or_our_error(
    properties: dict[str, Any], required: Any, inputs: Any, size: Any
) -> None:
    try:
        model = a_model(properties, required=required)
        request = ask(model=model, inputs=inputs, size=size)
    except InputError:
        return
    assert json.loads(request.model_dump_json())["prompt"] == "a lighthouse"
    assert ImageRequest.model_validate_json(request.model_dump_json()) == request
    # What is sent is allowed, and stays as it is.
    again = InputSchema.of(properties, without=model.options)
    assert again.check(request.inputs, options=model.options)[0] == request.inputs


def test_bounds_of_a_prompt_that_make_no_sense_are_ours() -> None:
    for bound in (None, "x", True, 10**400, MAX_PROMPT * 2):
        assert (
            read_model(
                PATH, {"properties": {"prompt": {"type": "string", "maxLength": bound}}}
            ).longest_prompt
            == MAX_PROMPT
        )


@pytest.mark.parametrize(
    ("bounds", "seeds"),
    [
        ({}, (0, MAX_SEED)),
        ({"minimum": -1, "maximum": 2**40}, (0, MAX_SEED)),
        ({"minimum": 5, "maximum": 9}, (5, 9)),
        ({"minimum": 9, "maximum": 5}, (0, MAX_SEED)),
        ({"minimum": -9, "maximum": -5}, (0, MAX_SEED)),
        ({"minimum": "a", "maximum": None}, (0, MAX_SEED)),
    ],
)
def test_a_seed_is_drawn_within_the_models_bounds(bounds: dict[str, Any], seeds: tuple[int, int]) -> None:
    model = a_model({"seed": {"type": "integer", **bounds}})
    assert model.seeds == seeds
    assert all(seeds[0] <= model.seed_of(drawn) <= seeds[1] for drawn in (0, 1, 6, MAX_SEED))


@pytest.mark.parametrize(
    "schema",
    [
        {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": 4},
        {"oneOf": [{"type": "integer"}, {"type": "null"}], "default": 4},
        {"anyOf": [{"type": "integer", "default": 4}, {"type": "null"}]},
        {"type": ["integer", "null"], "default": 4},
        {"anyOf": [{"type": "integer"}] * 9, "default": 4},
        {"type": "integer", "minimum": 2},
        {"enum": [2, 4]},
        {"type": "string", "default": "4"},
    ],
)
def test_however_a_schema_says_it_a_model_makes_no_several_images(schema: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"inputs\.num_images makes several images if it is omitted"):
        ask(model=a_model({"num_images": schema}))


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"default": "1"},
        {"default": 1.0},
        {"default": None},
        {"minimum": 0},
        {"enum": [4, 1]},
        {"anyOf": []},
    ],
)
def test_a_model_that_makes_one_image_needs_not_be_told(schema: dict[str, Any]) -> None:
    assert ask(model=a_model({"num_images": schema})).inputs == {}


@pytest.mark.parametrize("name", ["num_samples", "num_images_per_prompt", "number_of_images", "image_count"])
def test_several_images_have_other_names(name: str) -> None:
    model = a_model({name: {"type": "integer", "default": 1}})
    with pytest.raises(InputError, match="makes several images"):
        ask(model=model, inputs={name: 2})


def test_a_size_of_a_list_that_is_too_large_to_be_stored_is_not_bought() -> None:
    model = a_model({"size": {"type": "string", "enum": ["1024*1024", "8192x8192", "2K"]}})
    assert [ask(model=model, size=size).size for size in ("1024*1024", "2K")] == ["1024*1024", "2K"]
    for size in ("8192x8192", "8192*8192"):
        with pytest.raises(InputError, match="is not a size"):
            ask(model=model, size=size)


def test_a_default_that_is_too_large_to_be_stored_is_not_bought() -> None:
    model = a_model({"size": {"type": "string", "default": "8192*8192"}})
    with pytest.raises(InputError, match="size is missing"):
        ask(model=model)
    assert ask(model=model, size="512*512").size == "512*512"


def nested(levels: int, number: int) -> dict[str, Any]:
    return {"anyOf": [nested(levels - 1, number)] * number} if levels else {"type": "null"}


@pytest.mark.parametrize("schema", [nested(1, 14_000), nested(5, 6)], ids=["wide", "deep"])
def test_alternatives_of_any_number_are_tried_in_no_time(schema: dict[str, Any]) -> None:
    model = a_model({"style": schema})
    began = time.process_time()
    for _ in range(10):
        model.inputs.check({"style": "oil"}, options={})
    assert time.process_time() - began < 1.0
