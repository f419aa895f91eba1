"""Reads records, the journal's entries and the receipts, with the caution that money deserves.

What is no record at all is damaged. One with names that this version does not have is whole: a newer version
wrote it, and a worker that is upgraded can read it.
"""

from __future__ import annotations

import json
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from airflow_provider_bitdance.exceptions import RecordNewerError, RecordUnreadableError
from airflow_provider_bitdance.storage import Folder, uri_of

R = TypeVar("R", bound=BaseModel)

_NOT_KNOWN = {"extra_forbidden", "union_tag_invalid", "enum"}
"""What pydantic finds wrong with a field, an event and a word that only a later version has."""


class Strict(BaseModel):
    """A record or a part of one: it never changes, and nothing in it is skipped."""

    # Without the last, JSON would hold a null where a number is infinite.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def read_record(kind: type[R], folder: Folder, name: str) -> R | None:
    """Read one record; ``None`` where there is no file of this name.

    :param kind: What it should be. Its field ``format`` defaults to the newest that this version knows.
    :raises RecordNewerError: A newer version wrote it.
    :raises RecordUnreadableError: It is damaged. A person has to check it: it may stand for money.
    :raises StorageError: The store failed.
    """
    data = folder.read(name)
    if data is None:
        return None
    uri, newest = uri_of(folder, name), kind.model_fields["format"].default
    try:
        found = json.loads(data)
        version = found["format"]
    except (ValueError, KeyError, TypeError):
        raise _damaged(uri) from None
    if not isinstance(version, int):
        raise _damaged(uri, "format")
    if version > newest:
        raise _newer(uri, f"its format is {version}, but this version reads only up to {newest}")
    try:
        return kind.model_validate(found)
    except ValidationError as error:
        findings = error.errors()
    fields = ", ".join(".".join(map(str, finding["loc"])) for finding in findings[:5])
    if all(finding["type"] in _NOT_KNOWN for finding in findings):
        raise _newer(uri, f"this version does not understand {fields}")
    raise _damaged(uri, fields)


def _damaged(uri: str, fields: str = "") -> RecordUnreadableError:
    where = f" at {fields}" if fields else ""
    return RecordUnreadableError(
        f"The record {uri} is damaged{where}",
        fix=(
            "Keep the file. To buy its images again, move it away: a receipt alone, any "
            "other record with its whole folder"
        ),
    )


def _newer(uri: str, how: str) -> RecordNewerError:
    return RecordNewerError(
        f"The record {uri} was written by a newer version of airflow-provider-bitdance: {how}",
        fix="Leave the file in place, and upgrade this worker",
    )
