"""Prompt templates: ``"A {style} poster of {product}"``, filled from a row's columns.

Not ``str.format``: that reaches the attributes and the elements of what it fills in, so a template could
read what is none of its business. Here braces hold the name of a column and nothing else. Single braces do
not clash with Airflow's Jinja.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from airflow_provider_bitdance.batch.columns import Scalar
from airflow_provider_bitdance.exceptions import InputError
from airflow_provider_bitdance.redaction import shorten
from airflow_provider_bitdance.text_checks import BYTE_ORDER_MARK, invisible_in
from airflow_provider_bitdance.wavespeed.image_request import MAX_PROMPT

_BRACES = re.compile(r"(\{\{|\}\}|\{[^{}]*\}|[{}])")
_JINJA = re.compile(r"\{\{\s(?:(?!\{\{).)*?\s\}\}|\{%(?:(?!\{%).)*?%\}", re.DOTALL)
"""As Airflow's are written. ``{{word}}`` is a word in literal braces. A search ends at the next opening:
32,000 characters of openings alone would take 16 s."""
_CODE = re.compile(r"[.\[\]!:]")
_ALLOWED = "{column} with the name of a column, which has none of . [ ] ! :, and {{ or }} for a literal brace"


class PromptTemplate:
    """A prompt with places for columns.

    :param text: As the user wrote it, after Airflow has rendered it.
    :ivar columns: The names of the columns that it uses, each once, in the order of their first use.
    :raises InputError: A brace has no partner, or holds anything but a column's name.
    """

    def __init__(self, text: str) -> None:
        text = text.replace(BYTE_ORDER_MARK, "")
        if len(text) > MAX_PROMPT:
            raise _refusal(text, f"it has {len(text)} characters, and at most {MAX_PROMPT} are sent")
        if left := _JINJA.search(text):
            raise _refusal(text, f"Airflow has not rendered {shorten(left[0])}")
        # Literal texts at even places, names of columns at odd ones.
        self._parts = [""]
        for part in _BRACES.split(text):
            if part in ("{{", "}}"):
                self._parts[-1] += part[0]
            elif part.startswith(("{", "}")):
                self._parts += [_column(part, text), ""]
            else:
                self._parts[-1] += part
        self.columns = tuple(dict.fromkeys(self._parts[1::2]))

    def fill(self, values: Mapping[str, Scalar]) -> str:
        """Return the prompt. Braces in what is filled in have no effect.

        :param values: At least the columns that the template uses.
        :raises ValueError: It is too long; many places for one long value could take all memory.
        """
        filled = list(self._parts)
        filled[1::2] = [_text(values[column]) for column in self._parts[1::2]]
        if (length := sum(map(len, filled))) > MAX_PROMPT:
            raise ValueError(f"has a prompt of {length} characters, and at most {MAX_PROMPT} are sent")
        return "".join(filled)


def _column(part: str, text: str) -> str:
    name = part[1:-1].strip()
    if len(part) == 1:
        wrong = f"a {part} is unmatched"
    elif not name:
        wrong = "there is no name between { and }"
    elif _CODE.search(name):
        wrong = f"{shorten(part)} is not just a column name"
    elif code_point := invisible_in(name):
        wrong = f"{shorten(repr(part))} has {code_point}, a character that cannot be seen"
    else:
        return name
    raise _refusal(text, wrong)


def _refusal(text: str, wrong: str) -> InputError:
    return InputError(f"prompt is {shorten(repr(text))}: {wrong}", allowed=_ALLOWED)


def _text(value: Scalar) -> str:
    return value if isinstance(value, str) else json.dumps(value)
