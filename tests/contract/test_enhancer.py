"""The Prompt Enhancer of the local service over real sockets: what is bought, and what is possibly paid."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_bitdance.local import LocalService, Options, running_service
from airflow_provider_bitdance.local.catalogue import STYLE_WORDS
from airflow_provider_bitdance.local.pictures import labels
from airflow_provider_bitdance.operators.bitdance import BitDanceTextToImageOperator
from airflow_provider_bitdance.wavespeed.models import PROMPT_OPTIMIZER
from tests.builders import connection_to, context
from tests.integration.test_dag_test import local_path


@pytest.fixture(scope="module")
def shared() -> Iterator[LocalService]:
    with running_service(Options(latency=0)) as service:
        yield service


@pytest.fixture
def service(shared: LocalService, monkeypatch: pytest.MonkeyPatch) -> LocalService:
    shared.reset()
    shared.service.clock = time.time
    monkeypatch.setenv("AIRFLOW_CONN_BITDANCE_DEFAULT", connection_to(shared))
    return shared


def fox(folder: Path, *, try_number: int = 1, **options: Any) -> dict[str, Any]:
    operator = BitDanceTextToImageOperator(
        task_id="fox",
        prompt="A fox",
        enhance_prompt="anime",
        output_path=f"{folder}/fox",
        size="256*256",
        poll_interval=0.1,
        **options,
    )
    result: dict[str, Any] = operator.execute(context(try_number=try_number))
    return result


def texts(service: LocalService) -> int:
    return sum(made["model"] == PROMPT_OPTIMIZER for made in service.predictions())


def test_the_image_shows_what_the_enhancer_made(service: LocalService, tmp_path: Path) -> None:
    result = fox(tmp_path)

    assert labels(local_path(result["uri"]).read_bytes()).prompt == f"A fox, {STYLE_WORDS['anime']}"
    assert (result["estimated_cost_usd"], service.bill().billed) == (0.011, 2)


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "reset", "after_create": True},
        {"kind": "no_id"},
        {"kind": "status", "status": 503, "after_create": True},
    ],
    ids=lambda fault: fault["kind"],
)
def test_a_response_that_cannot_be_read_is_possibly_paid_and_the_text_is_bought_again(
    service: LocalService, tmp_path: Path, fault: dict[str, Any]
) -> None:
    service.add_fault(on="submit", times=1, **fault)

    result = fox(tmp_path)

    assert (result["possibly_paid"], result["prompts_possibly_paid"]) == (0, 1)
    assert (texts(service), service.bill().billed) == (2, 3)
    assert service.bill().billed <= 2 + result["prompts_possibly_paid"]


def test_a_prompt_that_is_moderated_buys_no_image(service: LocalService, tmp_path: Path) -> None:
    service.add_fault(on="submit", kind="failed", code=1200, error="Content flagged as potentially sensitive")

    for try_number in (1, 2):
        with pytest.raises(Exception, match="nothing for images"):
            fox(tmp_path, try_number=try_number)

    assert (texts(service), len(service.predictions())) == (1, 1)
