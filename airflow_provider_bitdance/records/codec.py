"""Reads records, the journal's entries and the receipts, with the caution that money deserves.

What is no record at all is damaged. One with names that this version does not have is whole: a newer version
wrote it, and a worker that is upgraded can read it.
"""

from __future__ import annotations

import json
import math
import re
from contextlib import nullcontext
from threading import Lock
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from airflow_provider_bitdance.exceptions import RecordNewerError, RecordUnreadableError, UnsafeFileError
from airflow_provider_bitdance.redaction import shorten
from airflow_provider_bitdance.storage import Folder, uri_of

_NOT_KNOWN = {"extra_forbidden", "union_tag_invalid", "enum"}
"""What pydantic finds wrong with a field, an event and a word that only a later version has."""


LARGE = 4 * 2**20
"""Bytes. Only a journal's entry, which may be a plan, is larger: a receipt has two prompts at most."""
MOST_PARTS = 2**20
"""Lists and objects of a record, two bytes of the file that take 56 and more in memory. A plan has a few for
each of its 10,000 images."""
_TEXT = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_ONE_LARGE = Lock()
"""Held while a large record is parsed, which takes many times its size: maintenance reads several at once."""


class Strict(BaseModel):
    """A record or a part of one: it never changes, and nothing in it is skipped.

    :cvar may_be_large: It may have more than :data:`LARGE` bytes.
    """

    may_be_large: ClassVar[bool] = False

    # Without the last, JSON would hold a null where a number is infinite.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


R = TypeVar("R", bound=Strict)


def read_record(kind: type[R], folder: Folder, name: str) -> R | None:
    """Read one record; ``None`` where there is no file of this name.

    :param kind: What it should be. Its field ``format`` defaults to the newest that this version knows.
    :raises RecordNewerError: A newer version wrote it.
    :raises RecordUnreadableError: It is damaged. A person has to check it: it may stand for money.
    :raises StorageError: The store failed.
    """
    uri, newest = uri_of(folder, name), kind.model_fields["format"].default
    try:
        data = folder.read(name)
    except UnsafeFileError as error:
        raise _damaged(uri, f": it {error.what.removeprefix(f'{uri} ')}") from None
    if data is None:
        return None
    if (len(data) > LARGE and not kind.may_be_large) or _has_too_many_parts(data):
        raise _damaged(uri, ": it is too large")
    try:
        with _ONE_LARGE if len(data) > LARGE else nullcontext():
            found = _parsed(data)
        version = found["format"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _damaged(uri) from None
    if type(version) is not int or version < 1:
        raise _damaged(uri, " at format")
    if version > newest:
        raise _newer(uri, f"its format is {version}, but this version reads only up to {newest}")
    try:
        return kind.model_validate(found)
    except ValidationError as error:
        findings = error.errors(include_url=False, include_input=False, include_context=False)
    places = (".".join(map(str, finding["loc"])) for finding in findings[:5])
    fields = ", ".join(shorten(ascii(place)[1:-1]) for place in places)
    if all(finding["type"] in _NOT_KNOWN for finding in findings):
        raise _newer(uri, f"this version does not understand {fields}")
    raise _damaged(uri, f" at {fields}")


def _has_too_many_parts(data: bytes) -> bool:
    """Count lists and objects. Brackets in prompts are none, which takes longer to see."""
    if data.count(b"[") + data.count(b"{") <= MOST_PARTS:
        return False
    data = _TEXT.sub(b"", data)
    return data.count(b"[") + data.count(b"{") > MOST_PARTS


def _parsed(data: bytes) -> Any:
    """Parse JSON as this package writes it: UTF-8, each name once, no NaN or infinity, no half characters.

    :raises ValueError: It is something else. Two readers could take it for two things.
    """
    found = json.loads(data.decode(), object_pairs_hook=_object, parse_constant=_finite, parse_float=_finite)
    if b"\\ud" in data or b"\\uD" in data:  # never written: what is no ASCII is UTF-8
        json.dumps(found, ensure_ascii=False).encode()
    return found


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError("not a finite number")
    return number


def damaged(folder: Folder, name: str, why: str) -> RecordUnreadableError:
    """Return the error for a record that contradicts the place where it lies.

    :param why: What is wrong, as the rest of a sentence about it.
    """
    return _damaged(uri_of(folder, name), f": it {why}")


def _damaged(uri: str, where: str = "") -> RecordUnreadableError:
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


def without(fields: dict[str, Any], name: str) -> dict[str, Any]:
    """Leave out a field that says nothing: older versions do not know it."""
    return {key: value for key, value in fields.items() if key != name or value is not None}
