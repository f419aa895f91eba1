"""What is known of a model: from the provider's own table, else from the API's catalogue. Free."""

from __future__ import annotations

from contextlib import suppress
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from airflow_provider_bitdance.clock import Clock
from airflow_provider_bitdance.exceptions import InputError, StorageError
from airflow_provider_bitdance.redaction import shorten
from airflow_provider_bitdance.wavespeed import protocol
from airflow_provider_bitdance.wavespeed.models import MODELS, Model, checked_path, is_path

if TYPE_CHECKING:
    from airflow_provider_bitdance.hooks.bitdance import BitDanceHook
    from airflow_provider_bitdance.storage import Folder

_found: dict[tuple[str, str], tuple[float, Model]] = {}
"""By host and path, what this process has asked for, with the Unix time."""


def find_model(path: object, hook: BitDanceHook, records: Folder | None = None) -> Model:
    """Return what is known of a model. Blocks where the API has to be asked, once a day.

    :param records: The records path, where the answer is kept for other tasks.
    :raises InputError: There is no such model, or it makes no image of a prompt.
    :raises BitDanceError: The API could not be asked; a retry may help.
    """
    # Here: Dag files import the hook, and need no records.
    from airflow_provider_bitdance.records.model_schemas import KEPT, read_schema, write_schema
    from airflow_provider_bitdance.wavespeed.model_schema import read_model

    model = checked_path(path)
    if model in MODELS:
        return MODELS[model]
    host, now = hook.settings.host, Clock().time()
    asked_at, known = _found.get((host, model), (0.0, None))
    if known is not None and 0 <= now - asked_at < KEPT:
        return known
    schema = read_schema(records, host=host, model=model, now=now) if records else None
    if schema is not None:
        asked_at, known = schema.time.timestamp(), read_model(model, schema.request_schema, schema.kind)
    else:
        kind, request_schema = _ask(model, hook)
        asked_at, known = now, read_model(model, request_schema, kind)
        if records is not None:
            # Whoever cannot write it asks again.
            with suppress(StorageError):
                write_schema(records, host=host, model=model, kind=kind, schema=request_schema, now=now)
    _found[host, model] = asked_at, known
    return known


def _ask(model: str, hook: BitDanceHook) -> tuple[str, dict[str, Any]]:
    """Return the type and the schema of a model in the API's catalogue."""
    with hook.get_conn() as client:
        items = client.send(protocol.list_models()).items
    found = next((item for item in items if item.model_id == model), None)
    if found is None:
        near = get_close_matches(model, [item.model_id for item in items if is_path(item.model_id)], n=3)
        allowed = shorten(", ".join(near), 300) if near else "a path from wavespeed.ai/models"
        raise InputError(f"WaveSpeed has no model {shorten(model)}", allowed=f"model: {allowed}")
    return found.kind, found.request_schema
