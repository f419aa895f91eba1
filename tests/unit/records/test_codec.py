"""Reading one record with the caution that money deserves."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from airflow_provider_bitdance.exceptions import Paid, RecordNewerError, RecordUnreadableError
from airflow_provider_bitdance.records.codec import read_record
from tests.unit.support import MemoryFolder


class Mood(StrEnum):
    """A closed set of words."""

    CALM = "calm"


class Wind(BaseModel):
    """One kind of event."""

    model_config = ConfigDict(extra="forbid")

    event: Literal["wind"]


class Rain(BaseModel):
    """Another."""

    model_config = ConfigDict(extra="forbid")

    event: Literal["rain"]


class Note(BaseModel):
    """A record of this test."""

    model_config = ConfigDict(extra="forbid")

    format: int = 1
    text: str
    mood: Mood = Mood.CALM
    events: tuple[Annotated[Wind | Rain, Field(discriminator="event")], ...] = ()


def read(data: bytes) -> Note | None:
    return read_record(Note, MemoryFolder({"mem://disk/n": data}, "mem://disk"), "n")


def error_of(data: bytes) -> RecordUnreadableError:
    with pytest.raises(RecordUnreadableError, match="mem://disk/n") as caught:
        read(data)
    return caught.value


def test_a_record_is_read() -> None:
    assert read(b'{"format": 1, "text": "hello"}') == Note(format=1, text="hello")


def test_a_record_that_is_not_there_is_none() -> None:
    assert read_record(Note, MemoryFolder({}, "mem://disk"), "n") is None


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
        (b'{"format": 1}', "is damaged at text"),
        (b'{"format": 1, "text": 3}', "is damaged at text"),
        (b'{"format": 1, "texd": "hello"}', "is damaged at text, texd"),
        (b'{"format": 1, "text": "hello", "events": [{"event": "wind"}, {}]}', "is damaged at events.1"),
        (b'{"format": "1", "text": "hello"}', "is damaged at format"),
        (b'{"format": null, "text": "hello"}', "is damaged at format"),
    ],
)
def test_a_damaged_record_is_refused_and_no_retry_is_made(data: bytes, complaint: str) -> None:
    error = error_of(data)
    assert error.what == f"The record mem://disk/n {complaint}"
    assert (error.retry_helps, error.paid) == (False, Paid.POSSIBLY)
    assert "a receipt alone, any other record with its whole folder" in str(error)


@pytest.mark.parametrize(
    ("data", "how"),
    [
        (b'{"format": 2, "text": "hello"}', "its format is 2, but this version reads only up to 1"),
        (b'{"format": 2, "other": "shape"}', "its format is 2"),
        (b'{"format": 1, "text": "hello", "more": 1}', "does not understand more"),
        (b'{"format": 1, "text": "hello", "events": [{"event": "snow"}]}', "understand events.0"),
        (
            b'{"format": 1, "text": "hello", "events": [{"event": "rain", "litres": 3}]}',
            "understand events.0.rain.litres",
        ),
        (b'{"format": 1, "text": "hello", "mood": "stormy", "more": 1}', "understand mood, more"),
    ],
)
def test_a_record_of_a_newer_version_is_not_called_damaged_and_nobody_is_told_to_move_it_away(
    data: bytes, how: str
) -> None:
    error = error_of(data)
    assert isinstance(error, RecordNewerError)
    assert "was written by a newer version of airflow-provider-bitdance: " in error.what
    assert how in error.what
    assert not re.search(r"damaged|move it|anew", str(error))


def test_a_retry_of_it_helps_for_it_may_run_on_a_worker_that_is_upgraded() -> None:
    error = error_of(b'{"format": 2}')
    assert (error.retry_helps, error.paid) == (True, Paid.POSSIBLY)


@pytest.mark.parametrize(
    "data",
    [
        b'{"format": 1, "text": ["a secret prompt"]}',
        b'{"format": 1, "text": "a secret prompt", "mood": "a secret prompt", "more": "a secret prompt"}',
        b'{"format": 1, "text": "a", "events": [{"event": "a secret prompt"}]}',
    ],
)
def test_a_record_that_cannot_be_read_is_not_quoted(data: bytes) -> None:
    assert "secret" not in str(error_of(data))
