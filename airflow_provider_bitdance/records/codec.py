"""Reads records, the journal's entries and the receipts, with the caution that money deserves.

What is no record at all is damaged. One with names that this version does not have is whole: a newer version
wrote it, and a worker that is upgraded can read it.
"""

from __future__ import annotations

import json
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from airflow_provider_bitdance.exceptions import RecordNewerError, RecordUnreadableError

R = TypeVar("R", bound=BaseModel)

_NOT_KNOWN = {"extra_forbidden", "union_tag_invalid", "enum"}
"""What pydantic finds wrong with a field, an event and a word that only a later version has."""


def read_record(kind: type[R], data: bytes, *, newest: int, uri: str) -> R:
    """Read one record.

    :param kind: What it should be.
    :param data: Its bytes.
    :param newest: The newest format that this version of the package knows.
    :param uri: Its URI, for the error.
    :raises RecordNewerError: A newer version wrote it.
    :raises RecordUnreadableError: It is damaged. A person has to check it: it may stand for money.
    """
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
