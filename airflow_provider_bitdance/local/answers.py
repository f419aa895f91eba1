"""What the service answers: from its state to the shapes of ``shapes.py``. Plain functions."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from typing import cast

from airflow_provider_bitdance.local import books, catalogue, shapes
from airflow_provider_bitdance.local.inputs import OptimizerInputs
from airflow_provider_bitdance.local.prediction import Prediction
from airflow_provider_bitdance.local.service import Service
from airflow_provider_bitdance.local.webhooks import Delivery


def prediction(task: Prediction, now: float, *, base_url: str) -> shapes.Prediction:
    """Show a prediction at a moment.

    :param task: the prediction.
    :param now: seconds since the epoch.
    :param base_url: of the service, without a slash at the end.
    """
    status = task.status(now)
    completed, ended = status == "completed", status in ("completed", "failed")
    inference_ms = round((task.due_at - task.admitted_at) * 1000) if ended else 0
    failure = task.failure if ended else None
    shown = shapes.Prediction(
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


def unfinished(shown: shapes.Prediction, seconds: float) -> shapes.Prediction:
    """Show a prediction that a submit in sync mode waited for in vain."""
    said = (
        f"Sync mode timed out after {seconds:.0f} seconds. The prediction is still processing asynchronously."
    )
    return {**shown, "status": "processing", "code": 5004, "error": said}


def webhook(task: Prediction, now: float, *, base_url: str) -> shapes.WebhookBody:
    """Show a prediction that ended, as its webhook brings it.

    :param task: the prediction.
    :param now: seconds since the epoch.
    :param base_url: of the service, without a slash at the end.
    """
    shown = prediction(task, now, base_url=base_url)
    shown["input"] = inputs(task)
    if shown["status"] != "completed":
        return cast("shapes.WebhookBody", {key: value for key, value in shown.items() if key != "outputs"})
    return cast("shapes.WebhookBody", shown)


def inputs(task: Prediction) -> shapes.Inputs:
    """Show the inputs as they were asked for: the seed may be -1."""
    return task.inputs.model_dump()


def price(model_id: str, usd: Decimal) -> shapes.Price:
    """Quote a price."""
    return {"model_id": model_id, "price": float(usd), "discounted_price": float(usd), "currency": "USD"}


def legacy_price(model_id: str, usd: Decimal) -> shapes.LegacyPrice:
    """Quote a price in its older form."""
    return {"model_id": model_id, "unit_price": float(usd), "currency": "USD"}


def models(base_url: str) -> list[shapes.Model]:
    """List the catalogue.

    :param base_url: of the service, without a slash at the end.
    """
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


def billings(page: int, records: list[books.Record], more: bool) -> shapes.Billings:
    """List charges and refunds."""
    return {"page": page, "has_more": more, "items": [_billing(record) for record in records]}


def usage(used: books.Usage) -> shapes.Usage:
    """Show what was used in a span."""
    return {
        "per_model_usage": [
            {
                "model_uuid": model.model,
                "model_type": model.kind,
                "unit_price": float(model.unit_price),
                "total_cost": float(model.cost_usd),
                "total_count": model.count,
                "last_used_date": model.last_used,
            }
            for model in used.models
        ],
        "daily_usage": [
            {
                "date": day.date,
                "amount": float(day.cost_usd),
                "count": day.count,
                "models": [
                    {"model_uuid": model, "amount": float(usd), "count": count}
                    for model, (usd, count) in day.models.items()
                ],
            }
            for day in used.days
        ],
        "summary": {
            "total_cost": float(used.cost_usd),
            "total_requests": used.requests,
            "success_requests": used.succeeded,
        },
    }


def moment(seconds: float) -> str:
    """Write a time as the API does, with nine fractional digits."""
    whole = int(seconds)
    nanoseconds = int((seconds - whole) * 1e9)
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}.{nanoseconds:09d}Z"


def admin_prediction(task: Prediction, now: float) -> shapes.AdminPrediction:
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
        "downloads": task.downloads,
    }


def admin_predictions(service: Service) -> list[shapes.AdminPrediction]:
    """Show all predictions that were not deleted, oldest first."""
    now = service.clock()
    return [admin_prediction(task, now) for task in service.predictions()]


def admin_webhook(delivery: Delivery) -> shapes.AdminWebhook:
    """Show what became of a webhook."""
    return {
        "id": delivery.id,
        "url": delivery.url,
        "status": delivery.status,
        "attempts": delivery.attempts,
        "answer": delivery.answer,
    }


def _billing(record: books.Record) -> shapes.Billing:
    usd = float(record.price)
    return {
        "uuid": record.uuid,
        "billing_type": record.billing_type,
        "price": usd,
        "created_at": moment(record.created_at),
        "order": {"uuid": record.order_uuid, "state": "done", "price": usd, "origin_price": usd},
        "prediction": {
            "uuid": record.prediction_id,
            "model_uuid": record.model,
            "status": record.status,
        },
    }


def _output(task: Prediction, base_url: str) -> str:
    if isinstance(task.inputs, OptimizerInputs):
        return catalogue.optimized(task.inputs)
    return f"{base_url}/outputs/{task.id}/1.{task.picture_format}"


@cache
def _request_schema(model_id: str) -> shapes.RequestSchema:
    schema = catalogue.MODELS[model_id].inputs.model_json_schema()
    return {
        "type": "object",
        "properties": schema["properties"],
        "required": schema.get("required", []),
        "x-order-properties": list(schema["properties"]),
    }
