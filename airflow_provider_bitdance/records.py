"""Reads records, the journal's entries and the receipts, with the caution that money deserves."""

from __future__ import annotations

import json
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from airflow_provider_bitdance.api.errors import RecordUnreadableError

R = TypeVar("R", bound=BaseModel)


def read_record(kind: type[R], data: bytes, *, newest: int, uri: str) -> R:
    """Read one record.

    :param kind: What it should be.
    :param data: Its bytes.
    :param newest: The newest format that this version of the package knows.
    :param uri: Where it lies, for the error.
    :raises RecordUnreadableError: It is damaged or newer. A person has to look: it may stand for money.
    """
    try:
        found = json.loads(data)
        version = found["format"]
    except (ValueError, KeyError, TypeError):
        raise _unreadable(uri, "is damaged") from None
    if not isinstance(version, int) or version > newest:
        raise RecordUnreadableError(
            f"The record {uri} has format {version}; this version knows formats up to {newest}",
            fix="Upgrade airflow-provider-bitdance on this worker",
        )
    try:
        return kind.model_validate(found)
    except ValidationError as error:
        fields = ", ".join(".".join(map(str, finding["loc"])) for finding in error.errors()[:5])
        raise _unreadable(uri, f"is damaged at {fields}") from None


def _unreadable(uri: str, how: str) -> RecordUnreadableError:
    return RecordUnreadableError(
        f"The record {uri} {how}", fix="Look at the file; move it away to have its images bought anew"
    )
