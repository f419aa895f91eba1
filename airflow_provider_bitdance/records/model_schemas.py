"""Schemas of models as the API described them: kept for a day, for the list of all models has megabytes.

A record here loosens or tightens what is checked before a request, and nothing else: what a request costs is
asked of the connection and the API.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pydantic import JsonValue

from airflow_provider_bitdance.exceptions import RecordUnreadableError, StorageError
from airflow_provider_bitdance.records.codec import Strict, read_record
from airflow_provider_bitdance.records.events import FORMAT
from airflow_provider_bitdance.records.fields import Moment, Name
from airflow_provider_bitdance.storage import Folder
from airflow_provider_bitdance.storage.naming import safe_name

KEPT = 24 * 3600.0
"""Seconds."""


class ModelSchema(Strict):
    """What ``GET /models`` said of one model.

    :param host: Of the API that said it.
    :param kind: The model's ``type``, such as ``text-to-image``.
    :param request_schema: JSON schema of its inputs.
    """

    format: int = FORMAT
    host: Name
    model: Name
    kind: Name
    time: Moment
    request_schema: dict[str, JsonValue]


def read_schema(records: Folder, *, host: str, model: str, now: float) -> ModelSchema | None:
    """Return the schema of a model, if it was asked for within a day. Blocks.

    One that is damaged, or cannot be read, is asked for again.
    """
    try:
        found = read_record(ModelSchema, records, _name(host, model))
    except (RecordUnreadableError, StorageError):
        return None
    is_of_this = found is not None and (found.host, found.model) == (host, model)
    return found if found and is_of_this and 0 <= now - found.time.timestamp() < KEPT else None


def write_schema(
    records: Folder, *, host: str, model: str, kind: str, schema: dict[str, Any], now: float
) -> ModelSchema:
    """Keep the schema of a model. Blocks.

    :raises StorageError: It cannot be written.
    """
    time = datetime.fromtimestamp(now, UTC)
    made = ModelSchema(host=host, model=model, kind=kind, time=time, request_schema=schema)
    records.replace(_name(host, model), made.model_dump_json(indent=1).encode())
    return made


def _name(host: str, model: str) -> str:
    return f"models/{safe_name(f'{model}@{host}'.replace('/', '.'), parts=[model, host])}.json"
