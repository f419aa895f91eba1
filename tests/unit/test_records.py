"""Reading one record with the caution that money deserves."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, ConfigDict

from airflow_provider_bitdance.api.errors import Paid, RecordUnreadableError
from airflow_provider_bitdance.records import read_record


class Note(BaseModel):
    """A record of this test."""

    model_config = ConfigDict(extra="forbid")

    format: int
    text: str


def test_a_record_is_read() -> None:
    data = b'{"format": 1, "text": "hello"}'
    assert read_record(Note, data, newest=1, uri="mem://n") == Note(format=1, text="hello")


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "is damaged"),
        (b"{", "is damaged"),
        (b"\xff\xfe\x00", "is damaged"),
        (b"null", "is damaged"),
        (b"[1]", "is damaged"),
        (b'"format"', "is damaged"),
        (b'{"text": "hello"}', "is damaged"),
        (b'{"format": 1}', "damaged at text"),
        (b'{"format": 1, "text": 3}', "damaged at text"),
        (b'{"format": 1, "text": "hello", "more": 1}', "damaged at more"),
        (b'{"format": 2, "text": "hello"}', "has format 2; this version knows formats up to 1"),
        (b'{"format": 2, "other": "shape"}', "has format 2"),
        (b'{"format": "1", "text": "hello"}', "has format 1"),
        (b'{"format": null, "text": "hello"}', "has format None"),
    ],
)
def test_a_record_that_is_damaged_or_newer_is_refused(data: bytes, complaint: str) -> None:
    with pytest.raises(RecordUnreadableError, match=complaint) as caught:
        read_record(Note, data, newest=1, uri="mem://n")
    assert "mem://n" in str(caught.value)
    assert caught.value.paid is Paid.POSSIBLY


def test_a_damaged_record_is_not_quoted() -> None:
    with pytest.raises(RecordUnreadableError) as caught:
        read_record(Note, b'{"format": 1, "text": ["a secret prompt"]}', newest=1, uri="mem://n")
    assert "secret" not in str(caught.value)
