"""Text that is fit for errors and logs: short, on one line, without URLs, without whole prompts."""

from __future__ import annotations

import re

PROMPT_SHOWN = 80
"""A prompt is shown to at most this many characters in errors and logs."""

_API_TEXT_SHOWN = 200
_API_TEXT_READ = 5_000
_URL = re.compile(r"https?://\S+", re.IGNORECASE)


def shorten(text: str, limit: int = PROMPT_SHOWN) -> str:
    """Return ``text`` on one line and in at most ``limit`` characters, the last one "…" where it was cut."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def redact(message: object, *, prompt: str = "") -> str:
    """Return what the API said, fit for an error: short, without URLs, the prompt cut to 80 characters.

    :param message: The API's text; moderation messages may quote the whole prompt back.
    :param prompt: The prompt of the request, where it is known.
    """
    text, sent = (" ".join(_URL.sub("[url]", part).split()) for part in (str(message or ""), prompt))
    return shorten(_cut_quotes(text[:_API_TEXT_READ], sent), _API_TEXT_SHOWN)


def _cut_quotes(text: str, prompt: str) -> str:
    """Cut each part of ``text`` that is also in ``prompt``: the API may quote a prompt without its end."""
    longer = PROMPT_SHOWN + 1
    for start in range(len(text) - PROMPT_SHOWN):
        if text[start : start + longer] in prompt:
            end = start + longer
            while end < len(text) and text[start : end + 1] in prompt:
                end += 1
            return text[:start] + shorten(text[start:end]) + _cut_quotes(text[end:], prompt)
    return text
