"""Models: a schema of the API's catalogue, and what a user requests of that model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from airflow_provider_bitdance.exceptions import InputError
from airflow_provider_bitdance.text_checks import texts_in
from airflow_provider_bitdance.wavespeed import inputs
from airflow_provider_bitdance.wavespeed.image_request import ImageRequest
from airflow_provider_bitdance.wavespeed.model_schema import read_model
from tests.fuzz.cases import Case
from tests.fuzz.mutation import TEXTS, mutated_json
from tests.fuzz.sandbox import Sandbox
from tests.fuzz.target import SECRET, Target, expect, expect_fit_for_people

PATH = "vendor/unseen"
_SIGNED = f"https://bucket.example.com/secret.png?signature={SECRET}"
SCHEMA: dict[str, Any] = {
    "required": ["prompt", "style"],
    "properties": {
        "prompt": {"type": "string", "maxLength": 800},
        "size": {"type": "string", "minimum": 256, "maximum": 1536},
        "seed": {"type": "integer", "minimum": -1, "maximum": 99_999},
        "style": {"type": "string", "enum": ["oil", "ink", 3, True]},
        "steps": {"type": ["integer", "null"], "minimum": 1, "maximum": 50},
        "image": {"type": "string"},
        "more": {"type": "array", "items": {"anyOf": [{"type": "number"}, {"type": "string"}]}},
        "num_images": {"type": "integer", "default": 1},
    },
}
INPUTS = (
    {"style": "oil", "steps": "28", "image": "https://example.com/a.png", "more": [1, "2"], "num_images": 1},
    {"style": "ink", "image": _SIGNED},
    {"style": 3, "num_images": 4, "enable_sync_mode": True},
)
_KEYWORDS = ("type", "enum", ["array"] * 500, {"items": {}}, 1e400, 2**70, "(a+)+$", "#/properties/style")


def cases() -> SearchStrategy[Case]:
    return st.fixed_dictionaries(
        {
            "schema": mutated_json((json.dumps(SCHEMA).encode(),), most=4, more=_KEYWORDS),
            "inputs": mutated_json([json.dumps(each).encode() for each in INPUTS], more=(_SIGNED, 4)),
            "size": st.one_of(st.none(), st.sampled_from(("512*512", "16:9", *TEXTS))),
            "seed": st.one_of(st.just(-1), st.integers(-5, 2**33)),
        }
    )


def a_normal_case() -> Case:
    return {
        "schema": json.dumps(SCHEMA).encode(),
        "inputs": json.dumps(INPUTS[0]).encode(),
        "size": None,
        "seed": 7,
    }


def check(case: Case, folder: Path, sandbox: Sandbox) -> None:
    """Read the model and make a request of it: our error, or one that no rule forbids."""
    try:
        schema = json.loads(case["schema"])
    except (ValueError, RecursionError):
        return  # the client of the API refuses it
    given = case["inputs"].decode("utf-8", "replace")
    try:
        model = read_model(PATH, schema if isinstance(schema, dict) else {}, "text-to-image")
        request = ImageRequest.of(
            prompt="a fox", model=model, inputs=given, size=case["size"], seed=case["seed"]
        )
    except InputError as error:
        expect_fit_for_people(str(error), "the error")
        return
    body = request.body()
    expect(body["prompt"] == "a fox", "an input takes the prompt's place", body)
    expect(SECRET not in json.dumps(body), "a signed URL is an input", body)
    expect(not body.keys() & set(inputs.SET_BY_US), "an input is sent that is ours", body)
    expect(all(body.get(name, 1) == 1 for name in inputs.SEVERAL), "several images are bought", body)
    expect(all("://10." not in text for text in texts_in(body)), "a private URL is an input", body)
    again = ImageRequest.model_validate_json(request.model_dump_json())
    expect(again == request, "a request is read as another one", body)


TARGETS = (Target("models", cases(), check, a_normal_case),)
