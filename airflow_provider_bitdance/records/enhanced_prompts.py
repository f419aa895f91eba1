"""Enhanced prompts: what the Prompt Enhancer made of a text, bought once for all tasks of a records path.

Below ``prompts/<hash of text, style and host>/``: ``1.intent.json`` before a purchase, ``1.outcome.json``
after its response, ``text.json`` when the text is there. Intents are created exclusively: the number is the
lock.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime

from airflow_provider_bitdance.records.codec import Strict, damaged, read_record
from airflow_provider_bitdance.records.events import FORMAT, Owner
from airflow_provider_bitdance.records.fields import Moment, Name, PredictionId, Reason, UnixTime, Usd
from airflow_provider_bitdance.storage import Folder

_INTENT = re.compile(r"([1-9][0-9]{0,3})\.intent\.json")
LONGEST_LEASE = 600.0
"""Seconds for which another process is waited for at most, whatever its intent says."""


@dataclass(frozen=True, slots=True)
class PromptKey:
    """What one purchase of the enhancer is known by.

    :param text: The prompt as the user requested it.
    :param host: Of the API.
    """

    text: str
    style: str
    host: str

    @property
    def folder(self) -> str:
        """Where its records are, below the records path."""
        requested = json.dumps([self.text, self.style, self.host])
        return f"prompts/{hashlib.sha256(requested.encode()).hexdigest()}"


class PromptIntent(Strict):
    """About to buy: from here on a response may be lost.

    :param until: Unix time after which nobody waits for its outcome any more.
    """

    format: int = FORMAT
    time: Moment
    owner: Owner
    until: UnixTime
    estimated_cost_usd: Usd


class PromptOutcome(Strict):
    """What came of an intent: a prediction, or the certainty that there is none.

    :param reason: Why there is none.
    """

    format: int = FORMAT
    time: Moment
    prediction_id: PredictionId | None = None
    reason: Reason | None = None


class EnhancedPrompt(Strict):
    """What the enhancer made of a text."""

    format: int = FORMAT
    time: Moment
    owner: Owner
    text: str
    style: Name
    host: Name
    enhanced: str
    prediction_id: PredictionId


@dataclass(frozen=True, slots=True)
class PromptAttempt:
    """One intent, and what came of it where that is known.

    :param number: Counted from 1.
    """

    number: int
    intent: PromptIntent
    outcome: PromptOutcome | None

    @property
    def prediction_id(self) -> str:
        """The prediction that was bought; empty where none is known."""
        return (self.outcome.prediction_id if self.outcome else None) or ""

    @property
    def is_lost(self) -> bool:
        """Whether it may have been charged, and nobody knows its prediction."""
        return self.outcome is None

    @property
    def cost_usd(self) -> float:
        """What it cost at most."""
        is_free = self.outcome is not None and self.outcome.prediction_id is None
        return 0.0 if is_free else self.intent.estimated_cost_usd


class EnhancedPrompts:
    """The enhanced prompts below one records path. Its methods block.

    :param folder: The records path.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def find(self, key: PromptKey) -> EnhancedPrompt | None:
        """Return what the enhancer made of a text, where it is there.

        :raises RecordUnreadableError: It is damaged, of another text, or newer than this package.
        """
        name = f"{key.folder}/text.json"
        found = read_record(EnhancedPrompt, self._folder, name)
        if found is not None and (found.text, found.style, found.host) != (key.text, key.style, key.host):
            raise damaged(self._folder, name, "is of another text")
        return found

    def attempts(self, key: PromptKey) -> list[PromptAttempt]:
        """Return all purchases that were begun for a text, the oldest first.

        :raises RecordUnreadableError: One is damaged, or newer than this package.
        """
        found = []
        for name in self._folder.names(key.folder):
            if match := _INTENT.fullmatch(name.rpartition("/")[2]):
                number = int(match[1])
                intent = read_record(PromptIntent, self._folder, _name(key, number, "intent"))
                outcome = read_record(PromptOutcome, self._folder, _name(key, number, "outcome"))
                if intent is not None:
                    found.append(PromptAttempt(number, intent, outcome))
        return sorted(found, key=lambda attempt: attempt.number)

    def begin(self, key: PromptKey, number: int, intent: PromptIntent) -> bool:
        """Write an intent; say whether it is ours, and not of a process that was quicker."""
        try:
            self._folder.create(_name(key, number, "intent"), _bytes(intent))
        except FileExistsError:
            return False
        return True

    def end(self, key: PromptKey, number: int, outcome: PromptOutcome) -> None:
        """Write what came of an intent of ours."""
        self._folder.replace(_name(key, number, "outcome"), _bytes(outcome))

    def write(self, key: PromptKey, enhanced: str, *, prediction_id: str, owner: Owner, now: float) -> None:
        """Write down what the enhancer made of a text."""
        made = EnhancedPrompt(
            time=datetime.fromtimestamp(now, UTC),
            owner=owner,
            text=key.text,
            style=key.style,
            host=key.host,
            enhanced=enhanced,
            prediction_id=prediction_id,
        )
        self._folder.replace(f"{key.folder}/text.json", _bytes(made))


def _name(key: PromptKey, number: int, what: str) -> str:
    return f"{key.folder}/{number}.{what}.json"


def _bytes(record: Strict) -> bytes:
    return record.model_dump_json(indent=1, exclude_none=True).encode()
