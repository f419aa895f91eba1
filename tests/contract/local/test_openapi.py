"""The service's description of itself, and whether the service keeps to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from airflow_provider_bitdance.local import LocalService, Options, running_service
from airflow_provider_bitdance.local.catalogue import MODELS
from tests.contract.local.caller import SUBMIT, get

# Some data that fits its schema is refused all the same, for JSON Schema has no words for it: the sides of a
# size, a key of a rule that only some points have, a model that there is not.
MAY_REFUSE = {"/admin/faults", "/api/v3/model/price", *(f"/api/v3/{model}" for model in MODELS)}

PATHS = {
    "/outputs/{prediction_id}/{name}": {"get"},
    "/admin/bill": {"get"},
    "/admin/predictions": {"get"},
    "/admin/requests": {"get"},
    "/admin/faults": {"post"},
    "/admin/reset": {"post"},
    "/api/v3/predictions/{prediction_id}/result": {"get"},
    "/api/v3/predictions/{prediction_id}": {"delete"},
    "/api/v3/predictions": {"post"},
    "/api/v3/predictions/delete": {"post"},
    "/api/v3/balance": {"get"},
    "/api/v3/billings/search": {"post"},
    "/api/v3/models": {"get"},
    "/api/v3/model/price": {"post"},
    **{f"/api/v3/{model}": {"post"} for model in MODELS},
}


@pytest.fixture(scope="module")
def local() -> Iterator[LocalService]:
    with running_service(Options(balance_usd=1e6, result_echo="defaults", history_echo="intact")) as local:
        yield local


@pytest.fixture(scope="module")
def schema(local: LocalService) -> Any:
    schema = schemathesis.openapi.from_url(f"{local.url}/openapi.json")
    # The key is sent with every request; what is answered without it is a check of its own.
    schema.config.generation.update(with_security_parameters=False)
    return schema


def test_every_path_is_described(local: LocalService) -> None:
    described = get(f"{local.url}/openapi.json").json()
    assert {path: set(operations) for path, operations in described["paths"].items()} == PATHS
    assert "ValidationError" not in json.dumps(described)


def test_only_the_api_asks_for_a_key_and_says_so(local: LocalService) -> None:
    described = get(f"{local.url}/openapi.json").json()
    for path, operations in described["paths"].items():
        for operation in operations.values():
            assert ("security" in operation, "401" in operation["responses"]) == (
                path.startswith("/api"),
            ) * 2
    assert described["components"]["securitySchemes"]["key"] == {"type": "http", "scheme": "bearer"}


@pytest.mark.parametrize("mode", GenerationMode)
def test_the_service_keeps_to_its_description_whatever_is_sent(
    local: LocalService, schema: Any, mode: GenerationMode
) -> None:
    for operation in (found.ok() for found in schema.get_all_operations()):
        if mode is GenerationMode.NEGATIVE and not operation.body:
            continue
        local.reset()
        _ask_at_random(operation, mode, local.api_key)


def _ask_at_random(operation: Any, mode: GenerationMode, key: str) -> None:
    excluded = [positive_data_acceptance] if operation.path in MAY_REFUSE else []

    @settings(max_examples=15, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: schemathesis.Case) -> None:
        case.call_and_validate(headers={"Authorization": f"Bearer {key}"}, excluded_checks=excluded)

    ask()


@pytest.mark.parametrize(
    ("rule", "status", "has_picture"),
    [
        ({"kind": "latency", "seconds": 0}, "completed", True),
        ({"kind": "nsfw"}, "completed", True),
        ({"kind": "failed"}, "failed", False),
        ({"kind": "never_finish"}, "created", False),
    ],
)
def test_the_service_keeps_to_its_description_of_predictions_that_exist(
    local: LocalService, schema: Any, rule: dict[str, object], status: str, has_picture: bool
) -> None:
    def ask(method: str, path: str, **given: Any) -> Any:
        case = schema[path][method].Case(**given)
        return case.call_and_validate(headers={"Authorization": f"Bearer {local.api_key}"})

    local.reset()
    local.add_fault(on="submit", **rule)
    submitted = ask("POST", SUBMIT, body={"prompt": "x", "size": "256*256"}).json()["data"]
    one = {"prediction_id": submitted["id"]}
    assert submitted["status"] == status
    assert ask("GET", "/api/v3/predictions/{prediction_id}/result", path_parameters=one).status_code == 200
    picture = ask("GET", "/outputs/{prediction_id}/{name}", path_parameters={**one, "name": "1.png"})
    assert picture.status_code == (200 if has_picture else 404)
    for path in ("/admin/predictions", "/admin/requests"):
        assert ask("GET", path).json() != []
    for path in ("/api/v3/predictions", "/api/v3/billings/search"):
        assert ask("POST", path, body={"page": 1, "page_size": 1}).json()["data"]["items"] != []
    assert ask("DELETE", "/api/v3/predictions/{prediction_id}", path_parameters=one).status_code == 200
