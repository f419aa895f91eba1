"""Schemas of models as the API described them, for other tasks.

A record here loosens or tightens what is checked before a request, and nothing else: the price comes from the
connection or the API.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pydantic import JsonValue

from airflow_provider_bitdance.exceptions import RecordError, StorageError
from airflow_provider_bitdance.records.codec import Strict, read_record
from airflow_provider_bitdance.records.events import FORMAT
from airflow_provider_bitdance.records.fields import Moment, Name
from airflow_provider_bitdance.storage import Folder
from airflow_provider_bitdance.storage.naming import safe_name


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


def read_schema(records: Folder, *, host: str, model: str) -> ModelSchema | None:
    """Return the schema of a model, if there is one that can be read. Blocks."""
    try:
        found = read_record(ModelSchema, records, _name(host, model))
    except (RecordError, StorageError):
        return None
    return found if found is not None and (found.host, found.model) == (host, model) else None


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
