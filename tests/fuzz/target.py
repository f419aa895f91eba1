"""What a target is, and what it may say: a fault."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hypothesis.strategies import SearchStrategy

from tests.fuzz.cases import Case
from tests.fuzz.sandbox import Sandbox

MIB = 2**20


class Fault(AssertionError):
    """An example that broke a rule.

    :param kind: Names the rule, the same for all examples that break it in this way.
    """

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(f"{kind}: {detail}" if detail else kind)
        self.kind = kind


@dataclass(frozen=True)
class Target:
    """One way into the package.

    :param cases: Valid inputs, mutated.
    :param check: Gives a case to the package and raises a :class:`Fault` where the outcome is neither an
        error of the package nor right. It may write below the folder, which is empty.
    :param normal: The largest input that is usual, whose cost is the measure of all others.
    :param times: So many times its CPU a case may take.
    :param most_mib: Memory that a case may take at its peak.
    """

    name: str
    cases: SearchStrategy[Case]
    check: Callable[[Case, Path, Sandbox], None]
    normal: Callable[[], Case]
    times: float = 20.0
    most_mib: int = 64


def expect(holds: object, kind: str, detail: object = "") -> None:
    """Raise a fault where something does not hold."""
    if not holds:
        raise Fault(kind, str(detail)[:500])


_MOST_TEXT = 30_000
_SHOWN = 80
_URL = re.compile(r"https?://(?!\S*\]?\s*$)\S*(output|secret)\S*", re.IGNORECASE)
SECRET = "wsk-a-key-that-nobody-may-see"
LONG_PROMPT = " ".join(f"word{number}" for number in range(60))
"""Of which a text for people shows 80 characters at most."""


def expect_fit_for_people(text: str, where: str, *, prompt: str = "") -> None:
    """Check an error, a log line or a command's output: short, no secrets, nothing a terminal obeys.

    :param prompt: The prompt that was sent, of which at most 80 characters are shown.
    """
    expect(len(text) <= _MOST_TEXT, f"{where} is very long", len(text))
    expect(SECRET not in text, f"{where} holds the API key")
    expect(not _URL.search(text), f"{where} holds an output URL", text)
    odd = {char for char in text if char != "\n" and unicodedata.category(char) in ("Cc", "Cs")}
    odd |= {
        char for char in text if char in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f"
    }
    expect(not odd, f"{where} holds control characters", f"{odd!r} in {text!r}")
    parts = (prompt[start : start + _SHOWN + 1] for start in range(0, len(prompt) - _SHOWN, 7))
    expect(not any(part in text for part in parts), f"{where} shows more than 80 characters of the prompt")
