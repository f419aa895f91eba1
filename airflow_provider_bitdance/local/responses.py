"""What the service responds: from its state to the bodies of ``schemas.py``. Plain functions."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from functools import cache
from typing import Final, Literal

from starlette.responses import JSONResponse, Response

from airflow_provider_bitdance.local import catalogue, schemas
from airflow_provider_bitdance.local.echo import Echo, echoed
from airflow_provider_bitdance.local.inputs import OptimizerInputs
from airflow_provider_bitdance.local.ledger import Record
from airflow_provider_bitdance.local.prediction import Prediction

RECORDED_AFTER: Final = 0.0015
"""Seconds. What a submit response calls ``created_at`` was that much before what the result calls so."""


def ok(data: object) -> Response:
    """Respond with data in an envelope."""
    return JSONResponse(schemas.Envelope(code=200, message="success", data=data))


def error(status: int, message: str) -> Response:
    """Respond with an error envelope."""
    return JSONResponse(schemas.Error(code=status, message=message, data=None), status)


def prediction(task: Prediction, now: float, *, base_url: str) -> schemas.Prediction:
    """Show a prediction at a moment; ``base_url`` has no slash at the end."""
    status = task.status(now)
    completed, ended = status == "completed", status in ("completed", "failed")
    inference_ms = round((task.due_at - task.started_at) * 1000) if ended else 0
    failure = task.failure if ended else None
    shown = schemas.Prediction(
        id=task.id,
        model=task.model,
        status=status,
        outputs=[_output(task, base_url)] if completed else [],
        urls={"get": f"{base_url}/api/v3/predictions/{task.id}/result"},
        has_nsfw_contents=[task.nsfw] if completed else [],
        created_at=moment(task.created_at),
        error=failure.error.replace("{prompt}", task.inputs.prompt) if failure else "",
        executionTime=inference_ms,
        timings={"inference": inference_ms},
    )
    if failure:
        shown["code"] = failure.code
    return shown


def submitted(shown: schemas.Prediction, task: Prediction) -> schemas.Prediction:
    """Show a prediction as a submit does: the time a little earlier, and in milliseconds."""
    return {**shown, "created_at": moment(task.created_at - RECORDED_AFTER)[: -len("000000Z")] + "Z"}


def with_inputs(
    shown: schemas.Prediction, task: Prediction, echo: Echo, key: Literal["input", "inputs"] = "input"
) -> schemas.Prediction:
    """Show a prediction with its inputs, in one of the ways of ``echo.py``."""
    inputs = echoed(task.inputs, echo)
    if inputs is not None:
        shown[key] = inputs
    return shown


def unfinished(shown: schemas.Prediction, seconds: float) -> schemas.Prediction:
    """Show a prediction that a submit in sync mode waited for in vain."""
    message = (
        f"Sync mode timed out after {seconds:.0f} seconds. The prediction is still processing asynchronously."
    )
    return {**shown, "status": "processing", "code": 5004, "error": message}


def price(model: catalogue.Model) -> schemas.Price:
    """Quote a price."""
    usd = float(model.price)
    return {"model_id": model.id, "price": usd, "discounted_price": usd, "currency": "USD"}


def models(base_url: str) -> list[schemas.Model]:
    """List the catalogue."""
    return [
        {
            "model_id": model.id,
            "name": model.name,
            "description": model.description,
            "type": model.kind,
            "base_price": float(model.price),
            "api_schema": {
                "api_schemas": [
                    {
                        "type": "model_run",
                        "method": "POST",
                        "server": base_url,
                        "api_path": f"/api/v3/{model.id}",
                        "request_schema": _request_schema(model.id),
                    }
                ]
            },
        }
        for model in catalogue.MODELS.values()
    ]


def billing(record: Record, now: float) -> schemas.Billing:
    """Show a charge or a refund; its ids are the same each time."""
    task, usd = record.prediction, float(record.prediction.price)
    return {
        "uuid": _uuid(task, record.billing_type),
        "billing_type": record.billing_type,
        "price": usd,
        "created_at": moment(record.created_at),
        "order": {"uuid": _uuid(task, "order"), "state": "done", "price": usd, "origin_price": usd},
        "prediction": {"uuid": task.id, "model_uuid": task.model, "status": task.status(now)},
    }


def admin_prediction(task: Prediction, now: float) -> schemas.AdminPrediction:
    """Show a prediction with what the API keeps to itself: its prompt and its real seed."""
    status = task.status(now)
    return {
        "id": task.id,
        "model": task.model,
        "prompt": task.inputs.prompt,
        "size": task.inputs.size,
        "seed_asked": task.inputs.seed,
        "seed": task.seed,
        "status": status,
        "created_at": moment(task.created_at),
        "completed_at": moment(task.due_at) if status in ("completed", "failed") else None,
    }


def moment(seconds: float) -> str:
    """Write a time as the API does, with nine fractional digits."""
    whole = int(seconds)
    nanoseconds = int((seconds - whole) * 1e9)
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}.{nanoseconds:09d}Z"


def _output(task: Prediction, base_url: str) -> str:
    if isinstance(task.inputs, OptimizerInputs):
        return catalogue.optimized(task.inputs)
    return f"{base_url}/outputs/{task.id}/1.{task.picture_format}"


@cache
def _request_schema(model_id: str) -> schemas.RequestSchema:
    schema = catalogue.MODELS[model_id].inputs.model_json_schema()
    return {
        "type": "object",
        "properties": schema["properties"],
        "required": schema.get("required", []),
        "x-order-properties": list(schema["properties"]),
    }


def _uuid(task: Prediction, what: str) -> str:
    return hashlib.sha256(f"{task.id}:{what}".encode()).hexdigest()[:32]
