"""What the API answers: the envelope and the shapes inside it.

Plain functions from state to JSON values. The shapes are those of WaveSpeed's documentation and of its
official clients; the keys that only some of its answers carry are given where they were seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal

from airflow_provider_bitdance.local.service import Prediction, Service

Json = Mapping[str, object]


def envelope(data: Json | None, *, code: int = 200, message: str = "success") -> Json:
    """Wrap data as every API answer is wrapped."""
    return {"code": code, "message": message, "data": data}


def prediction(task: Prediction, now: float, *, base_url: str, picture_format: str) -> dict[str, object]:
    """Show a prediction at a moment.

    :param task: the prediction.
    :param now: seconds since the epoch.
    :param base_url: of the service, without a slash at the end.
    :param picture_format: extension of the output file.
    """
    status = task.status(now)
    completed, ended = status == "completed", status in ("completed", "failed")
    inference_ms = round((task.due_at - task.created_at) * 1000) if ended else 0
    shown: dict[str, object] = {
        "id": task.id,
        "model": task.model,
        "status": status,
        "outputs": [f"{base_url}/outputs/{task.id}/1.{picture_format}"] if completed else [],
        "urls": {"get": f"{base_url}/api/v3/predictions/{task.id}/result"},
        "has_nsfw_contents": [task.nsfw] if completed else [],
        "created_at": moment(task.created_at),
        "error": task.failure.error if ended and task.failure else "",
        "executionTime": inference_ms,
        "timings": {"inference": inference_ms},
    }
    if ended and task.failure:
        shown["code"] = task.failure.code
    return shown


def inputs(task: Prediction) -> Json:
    """Show the inputs as they were asked for: the seed may be -1."""
    return {"prompt": task.inputs.prompt, "size": task.inputs.size, "seed": task.inputs.seed}


def price(model: str, usd: Decimal) -> Json:
    """Quote a price."""
    return {"model_id": model, "price": float(usd), "discounted_price": float(usd), "currency": "USD"}


def moment(seconds: float) -> str:
    """Write a time as the API does, with nine fractional digits."""
    whole = int(seconds)
    nanoseconds = int((seconds - whole) * 1e9)
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}.{nanoseconds:09d}Z"


def admin_prediction(task: Prediction, now: float) -> dict[str, object]:
    """Show a prediction with what the API keeps to itself: its prompt and its real seed."""
    status = task.status(now)
    return {
        "id": task.id,
        "model": task.model,
        **inputs(task),
        "seed_asked": task.inputs.seed,
        "seed": task.seed,
        "status": status,
        "created_at": moment(task.created_at),
        "completed_at": moment(task.due_at) if status in ("completed", "failed") else None,
        "downloads": task.downloads,
    }


def admin_predictions(service: Service) -> list[dict[str, object]]:
    """Show all predictions that were not deleted, oldest first."""
    now = service.clock()
    return [admin_prediction(task, now) for task in service.predictions()]
