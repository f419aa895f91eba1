"""The models over real sockets: what is requested is in picture, receipt and result, or refused before.

The local service drops what a model does not know, draws another seed and bills it all the same, as WaveSpeed
does.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from pydantic import Field

from airflow_provider_bitdance.hooks import model_lookup
from airflow_provider_bitdance.hooks.bitdance import BitDanceHook
from airflow_provider_bitdance.imaging.contact_sheet import contact_sheet
from airflow_provider_bitdance.local import LocalService, Options, catalogue, running_service
from airflow_provider_bitdance.local.inputs import ImageInputs
from airflow_provider_bitdance.local.pictures import labels
from airflow_provider_bitdance.manifest import read_manifest
from airflow_provider_bitdance.operators.bitdance import BitDanceBatchOperator, BitDanceTextToImageOperator
from airflow_provider_bitdance.wavespeed.models import MODELS
from tests.builders import API_KEY, connection_to, context
from tests.unit.support import FakeClock

BITDANCE = "wavespeed-ai/bitdance-14b/text-to-image"
SEEDREAM = "bytedance/seedream-v5.0-lite"
RECRAFT = "recraft-ai/recraft-v4/text-to-image"
FLUX = "wavespeed-ai/flux-dev"
STRANGER = "a-vendor/a-model/text-to-image"
"""A model that only the catalogue of the service knows."""


@pytest.fixture
def service(local: LocalService, monkeypatch: pytest.MonkeyPatch) -> LocalService:
    """Return a service whose pictures are quick to make."""
    fast = replace(local.service.options, pictures="fast")
    monkeypatch.setattr(local.service, "options", fast)
    return local


def operator(output: Path, model: str, **given: Any) -> BitDanceTextToImageOperator:
    arguments: dict[str, Any] = {
        "task_id": "image",
        "prompt": "A mug",
        "output_path": f"{output}/",
        "retries": 2,
    }
    return BitDanceTextToImageOperator(**{**arguments, "model": model, **given})


def sent(service: LocalService) -> dict[str, Any]:
    """Return what the one submission said, as the service understood it."""
    (made,) = service.service.predictions()
    return made.inputs.model_dump(exclude_unset=True)


def receipt(output: Path) -> dict[str, Any]:
    (file,) = output.glob(".bitdance/receipts/*.json")
    return dict(json.loads(file.read_text()))


def submissions(service: LocalService) -> list[str]:
    free = ("/api/v3/models", "/api/v3/balance", "/api/v3/model/price")
    return [event.path for event in service.requests() if event.method == "POST" and event.path not in free]


def refused(service: LocalService, output: Path, model: str, **given: Any) -> str:
    with pytest.raises(AirflowFailException) as caught:
        operator(output, model, **given).execute(context())
    assert submissions(service) == []
    assert service.bill().cost_usd == 0
    assert not list(output.glob("[!.]*"))
    return str(caught.value)


# What each model is sent, and what comes of it

MADE: list[tuple[str, dict[str, Any], dict[str, Any], tuple[int, int], int | None]] = [
    (BITDANCE, {"size": "16:9", "seed": 42}, {"size": "1280*720", "seed": 42}, (1280, 720), 42),
    (BITDANCE, {"width": 512, "height": 256, "seed": 0}, {"size": "512*256", "seed": 0}, (512, 256), 0),
    (SEEDREAM, {}, {"size": "2048*2048"}, (2048, 2048), None),
    (SEEDREAM, {"size": "16:9"}, {"size": "2560*1440"}, (2560, 1440), None),
    (RECRAFT, {}, {"image_size": "1:1"}, (1024, 1024), None),
    (RECRAFT, {"size": "16:9"}, {"image_size": "16:9"}, (1344, 768), None),
    (RECRAFT, {"width": 768, "height": 1344}, {"image_size": "9:16"}, (768, 1344), None),
    (FLUX, {"size": "3:4", "seed": 7}, {"size": "864*1152", "seed": 7}, (864, 1152), 7),
    (
        FLUX,
        {"seed": 7, "inputs": {"num_inference_steps": 8, "guidance_scale": "5.5"}},
        {"size": "1024*1024", "seed": 7, "num_inference_steps": 8, "guidance_scale": 5.5},
        (1024, 1024),
        7,
    ),
]


@pytest.mark.parametrize(("model", "given", "body", "pixels", "seed"), MADE)
def test_what_is_asked_for_is_in_picture_receipt_and_result(
    service: LocalService,
    tmp_path: Path,
    model: str,
    given: dict[str, Any],
    body: dict[str, Any],
    pixels: tuple[int, int],
    seed: int | None,
) -> None:
    result = operator(tmp_path, model, **given).execute(context())

    assert sent(service) == {"prompt": "A mug", **body}
    picture = labels(Path(result["uri"].removeprefix("file://")).read_bytes())
    assert (picture.model, picture.size) == (model, f"{pixels[0]}*{pixels[1]}")
    assert seed is None or picture.seed == seed
    assert (result["width"], result["height"], result["seed"], result["size_differs"]) == (
        *pixels,
        seed,
        False,
    )
    written = receipt(tmp_path)
    assert (written["width"], written["height"], written["request"]["seed"]) == (*pixels, seed)
    assert "size_differs" not in written
    assert result["estimated_cost_usd"] == MODELS[model].price_usd


def test_each_model_of_the_table_has_a_row_here() -> None:
    assert {row[0] for row in MADE} == set(MODELS)


# What was a lie


def test_recraft_is_not_sent_a_size_and_a_seed_that_it_does_not_know(
    service: LocalService, tmp_path: Path
) -> None:
    text = refused(service, tmp_path, RECRAFT, size="16:9", seed=42)
    assert "seed is not an option of this model: 42" in text
    assert "omit it" in text


@pytest.mark.parametrize(
    ("given", "found", "allowed"),
    [
        ({"seed": 5}, "seed is not an option of this model: 5", "omit it"),
        ({"size": "1280*720"}, "size has a side out of range", "1440 to 4096"),
        ({"size": "1440*1440"}, "size has too few or too many pixels in total", "3686400"),
        (
            {"inputs": {"guidance_scale": 3}},
            "inputs.guidance_scale is not an input of this model",
            "no other inputs",
        ),
    ],
)
def test_seedream_is_not_bought_what_would_fail_or_be_another_picture(
    service: LocalService, tmp_path: Path, given: dict[str, Any], found: str, allowed: str
) -> None:
    text = refused(service, tmp_path, SEEDREAM, **given)
    assert found in text
    assert allowed in text.partition("Allowed: ")[2]


@pytest.mark.parametrize(
    ("inputs", "found"),
    [
        ({"steps": 8}, "inputs.steps is not an input of this model"),
        ({"num_inference_steps": 51}, "inputs.num_inference_steps is out of range: 51"),
        ({"num_images": 4}, "inputs.num_images makes several images"),
        ({"output_format": "bmp"}, "inputs.output_format is not one of the allowed values"),
        ({"image": "https://bucket.example/a.png?X-Amz-Signature=1"}, "inputs.image is a URL with"),
        ({"enable_sync_mode": True}, "inputs.enable_sync_mode is set by the provider"),
    ],
)
def test_flux_has_its_own_inputs_and_no_others(
    service: LocalService, tmp_path: Path, inputs: dict[str, Any], found: str
) -> None:
    assert found in refused(service, tmp_path, FLUX, inputs=inputs)


def test_the_prompt_enhancer_is_no_model_of_images(service: LocalService, tmp_path: Path) -> None:
    text = refused(service, tmp_path, "wavespeed-ai/prompt-optimizer")
    assert "returns text, not an image" in text
    assert "enhance_prompt" in text


# The hook


@pytest.mark.parametrize("call", ["submit", "generate"])
def test_the_hook_sends_inputs_and_checks_them(service: LocalService, call: str) -> None:
    hook = BitDanceHook()
    submit = getattr(hook, call)
    with pytest.raises(ValueError, match=r"inputs\.strength is out of range: 2"):
        submit(prompt="A mug", model=FLUX, inputs={"strength": 2})
    assert submissions(service) == []
    submit(prompt="A mug", model=FLUX, seed=3, inputs={"strength": 1})
    assert sent(service) == {"prompt": "A mug", "size": "1024*1024", "seed": 3, "strength": 1.0}


# A batch


@pytest.mark.parametrize("manifest_format", ["jsonl", "parquet"])
def test_variants_of_a_model_without_a_seed_have_none_in_plan_receipt_and_manifest(
    service: LocalService,
    tmp_path: Path,
    manifest_format: Literal["jsonl", "parquet"],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if manifest_format == "parquet":
        pytest.importorskip("pyarrow")
    shown: list[str] = []

    def sheet(images: Iterator[tuple[str, bytes]], *, comment: str) -> bytes:
        variants = list(images)
        shown.extend(label for label, _ in variants)
        return contact_sheet(iter(variants), comment=comment)

    monkeypatch.setattr("airflow_provider_bitdance.operators.contact_sheets.contact_sheet", sheet)
    result = BitDanceBatchOperator(
        task_id="image",
        items=[{"key": "mug", "prompt": "A mug"}],
        model=RECRAFT,
        size="4:3",
        variants=3,
        output_path=f"{tmp_path}/",
        manifest_format=manifest_format,
        retries=2,
    ).execute(context())

    rows = read_manifest(result["manifest"])
    assert [(row.seed, row.size, row.size_differs) for row in rows] == [(None, "4:3", False)] * 3
    assert result["estimated_cost_usd"] == 0.12
    plans = [json.loads(file.read_text()) for file in tmp_path.glob(".bitdance/jobs/**/000001.json")]
    (planned,) = [event for plan in plans for event in plan["events"] if event["event"] == "planned"]
    assert {image["request"]["seed"] for image in planned["images"]} == {None}
    assert shown == ["mug-v1.png", "mug-v2.png", "mug-v3.png"]  # and no seed below


def test_a_batch_counts_images_of_another_size_and_names_them(
    service: LocalService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(MODELS, RECRAFT, replace(MODELS[RECRAFT], sizes=MODELS[BITDANCE].sizes))  # type: ignore[arg-type]
    given: dict[str, Any] = {
        "task_id": "image",
        "items": ["A mug", "A jug"],
        "model": RECRAFT,
        "size": "16:9",
        "output_path": f"{tmp_path}/",
    }

    result = BitDanceBatchOperator(**given).execute(context())
    assert (result["size_differs"], result["stored"]) == (2, 2)
    assert [row.size_differs for row in read_manifest(result["manifest"])] == [True, True]

    with pytest.raises(AirflowFailException, match=r"2 of 2 images failed: .*1280\*720 was requested"):
        BitDanceBatchOperator(**given, on_size_mismatch="fail").execute(context(run_id="later"))
    (manifest,) = tmp_path.glob("*later*.jsonl")
    rows = read_manifest(f"file://{manifest}")
    assert [(row.status, row.size_differs, row.width) for row in rows] == [("failed", True, 1024)] * 2
    assert all(row.uri and Path(row.uri.removeprefix("file://")).exists() for row in rows)
    assert service.bill().submitted == 2


# A model that the provider does not know


class StrangersInputs(ImageInputs):
    """Inputs of a model that no table of the provider has."""

    style: Literal["oil", "ink"]
    size: Annotated[str, Field(json_schema_extra={"minimum": 512, "maximum": 2048})] = "512*512"
    seed: Annotated[int, Field(ge=-1, le=999)] = -1
    detail: Annotated[int, Field(ge=1, le=9)] = 5

    def sides(self) -> tuple[int, int]:
        width, _, height = self.size.partition("*")
        return int(width), int(height)


STRANGER_MODEL = catalogue.Model(
    STRANGER,
    "A model",
    "text-to-image",
    Decimal("0.03"),
    StrangersInputs,  # type: ignore[arg-type]  # the service knows those of its own models
    "Of a test.",
)


@pytest.fixture(scope="module")
def with_stranger() -> Iterator[LocalService]:
    """Start a service with a model more. It makes its routes when it starts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(catalogue.MODELS, STRANGER, STRANGER_MODEL)  # type: ignore[arg-type]
        with running_service(Options(api_key=API_KEY, pictures="fast")) as service:
            yield service


@pytest.fixture
def stranger(with_stranger: LocalService, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> LocalService:
    with_stranger.service.clock = clock.time
    with_stranger.reset()
    monkeypatch.setenv("AIRFLOW_CONN_BITDANCE_DEFAULT", connection_to(with_stranger))
    monkeypatch.setattr(model_lookup, "_found", {})
    return with_stranger


def lookups(service: LocalService) -> int:
    return sum(event.path == "/api/v3/models" for event in service.requests())


def test_a_model_of_the_catalogue_is_looked_up_priced_bought_and_stored(
    stranger: LocalService, tmp_path: Path
) -> None:
    given: dict[str, Any] = {"size": "1024x512", "inputs": {"style": "ink", "detail": "7"}}
    task = operator(tmp_path, STRANGER, output_path=f"{tmp_path}/mug.png", **given)
    result = task.execute(context())

    body = sent(stranger)
    assert 0 <= body.pop("seed") <= 999
    assert body == {"prompt": "A mug", "size": "1024*512", "style": "ink", "detail": 7}
    assert (result["width"], result["height"], result["size_differs"]) == (1024, 512, False)
    assert result["estimated_cost_usd"] == 0.03
    assert receipt(tmp_path)["request"]["inputs"] == {"style": "ink", "detail": 7}
    assert (lookups(stranger), len(submissions(stranger))) == (1, 1)

    assert task.execute(context(run_id="later"))["reused"] is True
    assert lookups(stranger) == 1


@pytest.mark.parametrize(
    ("given", "found", "allowed"),
    [
        ({}, "inputs.style is missing", "one of oil, ink"),
        (
            {"inputs": {"style": "felt"}},
            "inputs.style is not one of the allowed values: 'felt'",
            ("one of oil, ink"),
        ),
        ({"inputs": {"style": "ink", "depth": 3}}, "inputs.depth is not an input", "detail, style"),
        ({"inputs": {"style": "ink", "detail": "x"}}, "inputs.detail is not a whole number", "1"),
        ({"inputs": {"style": "ink", "detail": 10}}, "inputs.detail is out of range: 10", "at most 9"),
        ({"inputs": {"style": "ink"}, "size": "16:9"}, "size is neither", "512 to 2048"),
        ({"inputs": {"style": "ink"}, "size": "256*256"}, "size has a side out of range", "512 to 2048"),
        ({"inputs": {"style": "ink"}, "seed": 1000}, "seed is out of range: 1000", "-1 (any seed) to 999"),
    ],
)
def test_a_model_of_the_catalogue_is_held_to_its_schema(
    stranger: LocalService, tmp_path: Path, given: dict[str, Any], found: str, allowed: str
) -> None:
    text = refused(stranger, tmp_path, STRANGER, **given)
    assert found in text
    assert allowed in text.partition("Allowed: ")[2]


def test_a_price_of_the_connection_goes_before_a_quote(
    stranger: LocalService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = connection_to(stranger, model_prices={STRANGER: 0.5})
    monkeypatch.setenv("AIRFLOW_CONN_BITDANCE_DEFAULT", connection)
    given: dict[str, Any] = {"inputs": {"style": "oil"}, "max_cost_usd": 0.4}
    assert "cost about $0.50" in refused(stranger, tmp_path, STRANGER, **given)


def test_a_path_of_no_model_is_refused_with_what_is_near(stranger: LocalService, tmp_path: Path) -> None:
    text = refused(stranger, tmp_path, STRANGER.replace("a-model", "a-modle"))
    assert f"Allowed: model: {STRANGER}" in text
