"""What is checked of the Prompt Enhancer: the style that a user asks for, the text that comes back. Pure."""

from __future__ import annotations

import re

from airflow_provider_bitdance.exceptions import EnhancedPromptError, InputError
from airflow_provider_bitdance.redaction import shorten
from airflow_provider_bitdance.text_checks import shows_nothing

ENHANCER_STYLES = ("default", "artistic", "photographic", "technical", "anime", "realistic")
"""https://wavespeed.ai/models/wavespeed-ai/prompt-optimizer"""
_URL = re.compile(r"[a-z][a-z0-9+.-]*://|data:[a-z]+/|www\.", re.IGNORECASE)


def style_of(value: object) -> str | None:
    """Return the style that ``enhance_prompt`` asks for; ``None``: the prompt is sent as it is.

    :raises InputError: There is no such style.
    """
    text = value.strip() if isinstance(value, str) else value
    if text in (None, "", "None"):
        return None
    if text not in ENHANCER_STYLES:
        raise InputError(
            f"enhance_prompt is {shorten(repr(value))}", allowed=f"None, or {', '.join(ENHANCER_STYLES)}"
        )
    return str(text)


def check_enhanced(outputs: tuple[str, ...], *, longest: int) -> str:
    """Return the text that the enhancer made.

    :param longest: The most characters that the image's model takes.
    :raises EnhancedPromptError: It is no prompt. It is paid for.
    """
    text = outputs[0].strip() if outputs else ""
    wrong = ""
    if not text or shows_nothing(text) or "\0" in text:
        wrong = "is empty"
    elif len(text) > longest:
        wrong = f"has {len(text)} characters, and the model takes {longest}"
    elif _URL.search(text):
        wrong = "has a URL in it"
    if wrong:
        raise EnhancedPromptError(
            f"What the Prompt Enhancer returned {wrong}",
            fix="Change the prompt, or set enhance_prompt=None to send it as it is",
        )
    return text
