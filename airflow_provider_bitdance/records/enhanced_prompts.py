"""Enhanced prompts: what the Prompt Enhancer made of a text, bought once for all tasks of a records path.

Below ``prompts/<hash of text, style and host>/``: ``1.intent.json`` before a purchase, ``1.outcome.json``
after its response, ``text.json`` when the text is there. All are created exclusively: the number of an intent
is the lock, and of two texts the first one counts.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

from pydantic import Field

from airflow_provider_bitdance.records.codec import Strict, damaged, read_record
from airflow_provider_bitdance.records.events import FORMAT
from airflow_provider_bitdance.records.fields import Moment, Name, PredictionId, Reason, UnixTime, Usd
from airflow_provider_bitdance.records.owner import Job, Owner
from airflow_provider_bitdance.storage import Folder
from airflow_provider_bitdance.wavespeed.models import MAX_PROMPT

PROMPTS = "prompts"
MOST_ATTEMPTS = 1000
"""Of one text. Honest processes make two and, where the account refuses it, one a minute for some hours."""
LONGEST_LEASE = 600.0
"""Seconds for which another process is waited for at most, whatever its intent says."""
_INTENT = re.compile(rf"({PROMPTS}/[0-9a-f]{{64}})/([1-9][0-9]{{0,8}})\.intent\.json")

Text = Annotated[str, Field(max_length=MAX_PROMPT)]


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
        return f"{PROMPTS}/{hashlib.sha256(requested.encode()).hexdigest()}"


class _OfText(Strict):
    """A record of one text.

    :param text: The prompt as the user requested it.
    :param host: Of the API.
    """

    format: int = FORMAT
    time: Moment
    owner: Owner
    text: Text
    style: Name
    host: Name

    @property
    def key(self) -> PromptKey:
        """What it is a record of."""
        return PromptKey(self.text, self.style, self.host)


class PromptIntent(_OfText):
    """About to buy: from here on a response may be lost.

    :param until: Unix time after which nobody waits for its outcome any more.
    """

    until: UnixTime
    estimated_cost_usd: Usd

    def lease_end(self, now: float) -> float:
        """Return the Unix time until which its process may be at work; 0 where that is further away than any
        process writes it."""
        return self.until if self.until <= now + LONGEST_LEASE else 0.0


class PromptOutcome(Strict):
    """What came of an intent: a prediction, or the certainty that there is none.

    :param reason: Why there is none.
    """

    format: int = FORMAT
    time: Moment
    prediction_id: PredictionId | None = None
    reason: Reason | None = None


class EnhancedPrompt(_OfText):
    """What the enhancer made of a text."""

    enhanced: Text
    prediction_id: PredictionId


@dataclass(frozen=True, slots=True)
class PromptAttempt:
    """One intent, and what came of it where that is known.

    :param number: Counted from 1.
    """

    number: int
    intent: PromptIntent
    outcome: PromptOutcome | None = None

    @property
    def prediction_id(self) -> str:
        """The prediction that was bought; empty where none is known."""
        return (self.outcome.prediction_id if self.outcome else None) or ""

    @property
    def is_lost(self) -> bool:
        """Whether it may have been charged, and nobody knows its prediction."""
        return self.outcome is None

    @property
    def is_charged(self) -> bool:
        """Whether it was, or may have been."""
        return self.is_lost or bool(self.prediction_id)

    def is_of(self, job: Job) -> bool:
        """Whether a process of this job made it."""
        return self.intent.owner.job == job


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
        if found is not None and found.key != key:
            raise damaged(self._folder, name, "belongs to another text")
        return found

    def attempts(self, key: PromptKey) -> list[PromptAttempt]:
        """Return all purchases that were begun for a text, the oldest first.

        :raises RecordUnreadableError: One is damaged, of another text, or newer than this package.
        """
        return self.attempts_in(key.folder, self._folder.names(key.folder))

    def attempts_in(self, folder: str, names: list[str]) -> list[PromptAttempt]:
        """Return the purchases in one text's folder.

        :param names: Of the files that are there.
        :raises RecordUnreadableError: One is damaged, of another text, or newer than this package.
        """
        found = []
        for number in sorted(int(match[2]) for name in names if (match := _INTENT.fullmatch(name))):
            name = _name(folder, number, "intent")
            self._check_number(name, number)
            if (intent := read_record(PromptIntent, self._folder, name)) is not None:
                if intent.key.folder != folder:
                    raise damaged(self._folder, name, "belongs to another text")
                outcome = read_record(PromptOutcome, self._folder, _name(folder, number, "outcome"))
                found.append(PromptAttempt(number, intent, outcome))
        return found

    def begin(self, number: int, intent: PromptIntent) -> bool:
        """Write an intent; say whether it is ours, and not of a process that was quicker.

        :raises RecordUnreadableError: What is there is none, as a folder, which no listing shows: it would be
            waited for without an end. Or nobody would read an intent of this number again.
        """
        name = _name(intent.key.folder, number, "intent")
        self._check_number(name, number)
        if self._create(name, intent):
            return True
        return read_record(PromptIntent, self._folder, name) == intent

    def end(self, key: PromptKey, number: int, outcome: PromptOutcome) -> None:
        """Write what came of an intent of ours."""
        self._create(_name(key.folder, number, "outcome"), outcome)

    def write(self, key: PromptKey, enhanced: str, *, prediction_id: str, owner: Owner, now: float) -> None:
        """Write down what the enhancer made of a text, unless another process has."""
        made = EnhancedPrompt(
            time=datetime.fromtimestamp(now, UTC),
            owner=owner,
            text=key.text,
            style=key.style,
            host=key.host,
            enhanced=enhanced,
            prediction_id=prediction_id,
        )
        self._create(f"{key.folder}/text.json", made)

    def _check_number(self, name: str, number: int) -> None:
        if number > MOST_ATTEMPTS:
            raise damaged(self._folder, name, f"has a number above {MOST_ATTEMPTS}")

    def _create(self, name: str, record: Strict) -> bool:
        try:
            self._folder.create(name, record.model_dump_json(indent=1, exclude_none=True).encode())
        except FileExistsError:
            return False
        return True


def folder_of(name: str) -> str:
    """Return the folder of one text of which a file is an intent, below the records path; else nothing."""
    return match[1] if (match := _INTENT.fullmatch(name)) else ""


def _name(folder: str, number: int, what: str) -> str:
    return f"{folder}/{number}.{what}.json"
