"""WaveSpeed's Prompt Enhancer as the provider knows it: its styles, and what its texts may be. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from airflow_provider_bitdance.exceptions import EnhancedPromptError, GarbledResponseError, InputError, Paid
from airflow_provider_bitdance.redaction import shorten
from airflow_provider_bitdance.text_checks import BYTE_ORDER_MARK, shows_nothing
from airflow_provider_bitdance.wavespeed.responses import Prediction

ENHANCER_STYLES = ("default", "artistic", "photographic", "technical", "anime", "realistic")
"""https://wavespeed.ai/models/wavespeed-ai/prompt-optimizer"""
_WORD = re.compile(r"\w+")
_URL = re.compile(r"://|data:[a-z]{1,32}/|www\.", re.IGNORECASE)
"""A scheme is not searched for its first letter: in a text of letters alone that takes the square of their
number, 16 s for 32,768 of them."""


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


def enhanced_in(outputs: Sequence[str]) -> str:
    """Return the text in the outputs of a prediction; empty where there is none."""
    return outputs[0].replace(BYTE_ORDER_MARK, "").strip() if outputs else ""


def check_echo(prediction: Prediction, *, requested: str, style: str) -> None:
    """Make sure that what the API echoes of a prediction, where it does, is not another text.

    It may trim, quote, cut or extend a text, so only one whose words begin otherwise is another. An image's
    prediction has a prompt in the place of the text.

    :param requested: The text that was sent, in this style.
    :raises GarbledResponseError: It is: a cache before the API repeats a response, or a record was forged.
    """
    echoed = prediction.input or {}
    text, shown_style = echoed.get("text", echoed.get("prompt")), echoed.get("style")
    shown = text if isinstance(text, str) else ""
    one, other = (" ".join(_WORD.findall(each.casefold())) for each in (shown, requested))
    is_another_style = shown_style in ENHANCER_STYLES and shown_style != style
    if is_another_style or not (one.startswith(other) or other.startswith(one)):
        raise GarbledResponseError(
            f"The response for prediction {prediction.id} shows a different text or style than was sent",
            fix="Check whether a proxy between this worker and the API caches responses",
            paid=Paid.POSSIBLY,
        )


def check_enhanced(text: str, *, requested: str, longest: int) -> str:
    """Make sure that what the enhancer made is a prompt, and return it.

    :param requested: What it was made of. Whoever writes a URL into a prompt gets it back.
    :param longest: The most characters that are sent.
    :raises EnhancedPromptError: It is none. It is paid for.
    """
    wrong = ""
    if not text or shows_nothing(text) or any(char == "\0" or "\ud800" <= char <= "\udfff" for char in text):
        wrong = "has no visible text"
    elif len(text) > longest:
        wrong = f"has {len(text)} characters; the limit is {longest}"
    elif _URL.search(text) and not _URL.search(requested):
        wrong = "has a URL, but the prompt has none"
    if wrong:
        raise EnhancedPromptError(
            f"The enhanced prompt for {shorten(requested)!r} {wrong}",
            fix="Change the prompt, or set enhance_prompt=None to send it as it is",
        )
    return text
