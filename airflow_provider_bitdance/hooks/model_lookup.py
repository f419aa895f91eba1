"""What is known of a model: from the provider's own table, else from the API's catalogue. Free."""

from __future__ import annotations

from contextlib import suppress
from difflib import get_close_matches
from typing import TYPE_CHECKING, Final

from airflow_provider_bitdance.clock import Clock
from airflow_provider_bitdance.exceptions import InputError, StorageError
from airflow_provider_bitdance.redaction import shorten
from airflow_provider_bitdance.wavespeed import protocol
from airflow_provider_bitdance.wavespeed.model_schema import read_model
from airflow_provider_bitdance.wavespeed.models import MODELS, Model, checked_path, is_path

if TYPE_CHECKING:
    from airflow_provider_bitdance.hooks.bitdance import BitDanceHook
    from airflow_provider_bitdance.storage import Folder

KEPT: Final = 24 * 3600.0
"""Seconds for which the description of a model is used: the list of all models has megabytes."""
_LONGEST, _MOST_COMPARED = 100, 2000
"""Characters and number of the paths among which an unknown one is searched for its like: 10,000 of 200
characters, which a catalogue may have, took a minute. WaveSpeed has about 1,000."""
_found: dict[tuple[str, str], tuple[float, Model]] = {}
"""By host and path, what this process has asked for, with the Unix time."""


def find_model(
    path: object, hook: BitDanceHook, records: Folder | None = None, *, clock: Clock | None = None
) -> Model:
    """Return what is known of a model. Blocks where the API has to be asked, once a day.

    :param records: The records path, where the answer is kept for other tasks.
    :raises InputError: There is no such model, or it makes no image of a prompt.
    :raises BitDanceError: The API could not be asked; a retry may help.
    """
    model = checked_path(path)
    if model in MODELS:
        return MODELS[model]
    place, now = (hook.settings.host, model), (clock or Clock()).time()
    known = _found.get(place)
    if known is None or not 0 <= now - known[0] < KEPT:
        known = None if records is None else _recorded(records, *place, now)
        known = known or _ask(records, hook, model, now)
        _found[place] = known
    return known[1]


def _recorded(records: Folder, host: str, model: str, now: float) -> tuple[float, Model] | None:
    """Return a model as its record describes it, with its time; one that cannot be used is asked for."""
    # Here: Dag files import the hook, and need no records.
    from airflow_provider_bitdance.records.model_schemas import read_schema

    found = read_schema(records, host=host, model=model)
    if found is None or not 0 <= now - found.time.timestamp() < KEPT:
        return None
    try:
        return found.time.timestamp(), read_model(model, found.request_schema, found.kind)
    except InputError:
        return None


def _ask(records: Folder | None, hook: BitDanceHook, model: str, now: float) -> tuple[float, Model]:
    """Return a model as the API's catalogue describes it, and write that down."""
    from airflow_provider_bitdance.records.model_schemas import write_schema

    with hook.get_conn() as client:
        items = client.send(protocol.list_models()).items
    item = next((item for item in items if item.model_id == model), None)
    if item is None:
        paths = [item.model_id for item in items if is_path(item.model_id) and len(item.model_id) <= _LONGEST]
        near = get_close_matches(model[:_LONGEST], paths[:_MOST_COMPARED], n=3)
        allowed = shorten(", ".join(near), 300) if near else "a path from wavespeed.ai/models"
        raise InputError(f"WaveSpeed has no model {shorten(model)}", allowed=f"model: {allowed}")
    known, host = read_model(model, item.request_schema, item.kind), hook.settings.host
    if records is not None:
        with suppress(StorageError):  # the next task asks, too
            write_schema(records, host=host, model=model, kind=item.kind, schema=item.request_schema, now=now)
    return now, known
