"""The records of enhanced prompts: found by text, style and host, created once, and checked when read."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_bitdance.exceptions import BitDanceError, RecordUnreadableError
from airflow_provider_bitdance.records.enhanced_prompts import (
    MOST_ATTEMPTS,
    EnhancedPrompts,
    PromptIntent,
    PromptKey,
    PromptOutcome,
    folder_of,
)
from airflow_provider_bitdance.storage.local import LocalFolder
from tests.unit.support import RECORDS, START, MemoryFolder, a_writer

KEY = PromptKey("a fox", "anime", "api")
NOW = datetime.fromtimestamp(START, UTC)


@pytest.fixture
def disk() -> dict[str, bytes]:
    return {}


@pytest.fixture
def records(disk: dict[str, bytes]) -> EnhancedPrompts:
    return EnhancedPrompts(MemoryFolder(disk, RECORDS))


def an_intent(key: PromptKey = KEY, **changes: Any) -> PromptIntent:
    fields = {"text": key.text, "style": key.style, "host": key.host, "until": START + 180, **changes}
    return PromptIntent(time=NOW, owner=a_writer(), estimated_cost_usd=0.001, **fields)


def test_of_two_processes_one_begins(records: EnhancedPrompts) -> None:
    assert [records.begin(1, an_intent()), records.begin(1, an_intent())] == [True, False]


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/nowhere")])
def test_what_is_no_file_in_the_place_of_an_intent_is_not_waited_for(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    """A folder is in no listing, and nothing can be written there: the number was tried for ever."""
    (tmp_path / KEY.folder).mkdir(parents=True)
    make(tmp_path / KEY.folder / "1.intent.json")
    with pytest.raises(RecordUnreadableError, match="is damaged: it is a"):
        EnhancedPrompts(LocalFolder(tmp_path)).begin(1, an_intent())


def test_nothing_is_begun_under_a_number_that_nobody_reads(
    records: EnhancedPrompts, disk: dict[str, bytes]
) -> None:
    """A forged intent with the last number had a text bought whose records were damaged from then on."""
    with pytest.raises(RecordUnreadableError, match="a number above 1000"):
        records.begin(MOST_ATTEMPTS + 1, an_intent())
    assert disk == {}


def test_an_attempt_is_lost_until_its_outcome_is_written(records: EnhancedPrompts) -> None:
    records.begin(1, an_intent())
    (lost,) = records.attempts(KEY)
    assert (lost.is_lost, lost.is_charged, lost.prediction_id) == (True, True, "")
    records.end(KEY, 1, PromptOutcome(time=NOW, prediction_id="pred-1"))
    (bought,) = records.attempts(KEY)
    assert (bought.is_lost, bought.is_charged, bought.prediction_id) == (False, True, "pred-1")


def test_what_was_refused_is_not_charged(records: EnhancedPrompts) -> None:
    records.begin(1, an_intent())
    records.end(KEY, 1, PromptOutcome(time=NOW, reason="429"))
    (refused,) = records.attempts(KEY)
    assert (refused.is_lost, refused.is_charged) == (False, False)


def test_the_attempts_are_in_the_order_of_their_numbers(records: EnhancedPrompts) -> None:
    for number in (10, 2, 1):
        records.begin(number, an_intent())
    assert [attempt.number for attempt in records.attempts(KEY)] == [1, 2, 10]


def test_of_two_texts_the_first_counts(records: EnhancedPrompts) -> None:
    for number, text in enumerate(("first", "second")):
        records.write(KEY, text, prediction_id=f"pred-{number}", owner=a_writer(), now=START)
    found = records.find(KEY)
    assert found is not None
    assert (found.enhanced, found.prediction_id) == ("first", "pred-0")
    assert records.find(PromptKey("a fox", "artistic", "api")) is None


def spoil(disk: dict[str, bytes], name: str, **changes: Any) -> None:
    path = f"{RECORDS}/{KEY.folder}/{name}.json"
    disk[path] = json.dumps(json.loads(disk[path]) | changes).encode()


@pytest.mark.parametrize(
    "changes",
    [
        {"text": "another"},
        {"style": "artistic"},
        {"host": "elsewhere"},
        {"estimated_cost_usd": -1},
        {"until": 1e300},
        {"text": "x" * 40_000},
        {"time": "soon"},
    ],
    ids=str,
)
def test_a_forged_intent_is_damaged(
    records: EnhancedPrompts, disk: dict[str, bytes], changes: dict[str, Any]
) -> None:
    records.begin(1, an_intent())
    spoil(disk, "1.intent", **changes)
    with pytest.raises(RecordUnreadableError):
        records.attempts(KEY)


@pytest.mark.parametrize("prediction_id", ["../balance", "a b", "x" * 200])
def test_a_forged_prediction_is_damaged(
    records: EnhancedPrompts, disk: dict[str, bytes], prediction_id: str
) -> None:
    records.begin(1, an_intent())
    records.end(KEY, 1, PromptOutcome(time=NOW, prediction_id="pred-1"))
    spoil(disk, "1.outcome", prediction_id=prediction_id)
    with pytest.raises(RecordUnreadableError):
        records.attempts(KEY)


def test_a_number_that_no_honest_process_reaches_is_damaged(
    records: EnhancedPrompts, disk: dict[str, bytes]
) -> None:
    disk[f"{RECORDS}/{KEY.folder}/{MOST_ATTEMPTS + 1}.intent.json"] = an_intent().model_dump_json().encode()
    with pytest.raises(BitDanceError, match=f"a number above {MOST_ATTEMPTS}"):
        records.attempts(KEY)


@pytest.mark.parametrize(
    "name", ["readme.txt", "1.intent.json.tmp", "01.intent.json", "0.intent.json", "text.json"]
)
def test_other_files_are_no_intents(records: EnhancedPrompts, disk: dict[str, bytes], name: str) -> None:
    disk[f"{RECORDS}/{KEY.folder}/{name}"] = b"mine"
    assert (records.attempts(KEY), folder_of(f"{KEY.folder}/{name}")) == ([], "")


def test_an_intent_names_the_folder_of_its_text() -> None:
    assert folder_of(f"{KEY.folder}/12.intent.json") == KEY.folder
    assert folder_of(f"receipts/{KEY.folder}/1.intent.json") == ""
