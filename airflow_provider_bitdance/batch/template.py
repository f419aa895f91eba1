"""Prompt templates: ``"A {style} poster of {product}"``, filled from a row's columns.

Not ``str.format``: that reaches the attributes and the elements of what it fills in, so a template could
read what is none of its business. Here braces hold the name of a column and nothing else. Single braces do
not clash with Airflow's Jinja.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from airflow_provider_bitdance.batch.columns import Scalar, scalar
from airflow_provider_bitdance.exceptions import InputError
from airflow_provider_bitdance.redaction import shorten
from airflow_provider_bitdance.text_checks import BYTE_ORDER_MARK, invisible_in, texts_in
from airflow_provider_bitdance.wavespeed.inputs import read_inputs, shown_input
from airflow_provider_bitdance.wavespeed.models import MAX_PROMPT

_BRACES = re.compile(r"(\{\{|\}\}|\{[^{}]*\}|[{}])")
_JINJA = re.compile(r"\{\{\s(?:(?!\{\{).)*?\s\}\}|\{%(?:(?!\{%).)*?%\}", re.DOTALL)
"""As Airflow's are written. ``{{word}}`` is a word in literal braces. A search ends at the next opening:
32,000 characters of openings alone would take 16 s."""
_CODE = re.compile(r"[.\[\]!:]")
_ALLOWED = (
    "the name of a column in braces, such as {column}, without . [ ] ! or :; {{ and }} for literal braces"
)


class PromptTemplate:
    """A prompt with places for columns.

    :param text: As the user wrote it, after Airflow has rendered it.
    :param field: What it is, for errors.
    :ivar columns: The names of the columns that it uses, each once, in the order of their first use.
    :raises InputError: A brace has no partner, or holds anything but a column's name.
    """

    def __init__(self, text: str, *, field: str = "prompt") -> None:
        self._field = field
        text = text.replace(BYTE_ORDER_MARK, "")
        if len(text) > MAX_PROMPT:
            raise _refusal(field, text, f"it has {len(text)} characters; the limit is {MAX_PROMPT}")
        if left := _JINJA.search(text):
            raise _refusal(field, text, f"Airflow did not render {shorten(left[0])}")
        # Literal texts at even places, names of columns at odd ones.
        self._parts = [""]
        for part in _BRACES.split(text):
            if part in ("{{", "}}"):
                self._parts[-1] += part[0]
            elif part.startswith(("{", "}")):
                self._parts += [_column(field, part, text), ""]
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
            raise ValueError(f"has a {self._field} of {length} characters; the limit is {MAX_PROMPT}")
        return "".join(filled)


class InputTemplates:
    """The inputs of a batch, whose texts may have places for columns.

    :param inputs: As the user wrote them: an object, or JSON text of one.
    :ivar fixed: Those without a place for a column.
    :raises InputError: They cannot be read, or a brace has no partner.
    """

    def __init__(self, inputs: object) -> None:
        try:
            read = _read(inputs)
        except ValueError as error:
            raise InputError(str(error), allowed="an object with the names of inputs") from None
        parsed = {name: _parsed(f"inputs.{shorten(name)}", value) for name, value in read.items()}
        self.fixed = {name: value for name, value in parsed.items() if not any(_templates(value))}
        self._filled = {name: value for name, value in parsed.items() if name not in self.fixed}

    def of_row(self, row: Mapping[Any, Any]) -> dict[str, Any]:
        """Return the inputs of a row: its own column ``inputs`` goes before those of the batch.

        :raises ValueError: Says why there are none.
        """
        own = _read(row.get("inputs"))
        if column := unfilled_in(own, row):
            raise ValueError(f"has {column} in its inputs, but columns fill in only the operator's inputs")
        used = {name: value for name, value in self._filled.items() if name not in own}
        columns = {name for value in used.values() for part in _templates(value) for name in part.columns}
        if missing := ", ".join(f"{{{name}}}" for name in sorted(columns) if row.get(name) is None):
            raise ValueError(f"has no value for {shorten(missing)} in the inputs")
        values = {name: scalar(name, row[name]) for name in columns}
        return {**self.fixed, **{name: _filled(value, values) for name, value in used.items()}, **own}


def _read(inputs: object) -> dict[str, Any]:
    try:
        return read_inputs(inputs)
    except ValueError as error:
        raise ValueError(f"inputs {error}: {shown_input(inputs)}") from None


def unfilled_in(value: object, row: Mapping[Any, Any]) -> str:
    """Return a column of a row in braces that a text of its own holds, which would be bought as it is."""
    for text in texts_in(value):
        for name in row:
            if f"{{{name}}}" in text:
                return shorten(f"{{{name}}}")
    return ""


def _parsed(field: str, value: Any) -> Any:
    """Put a template in the place of each text that has places for columns."""
    if isinstance(value, str):
        template = PromptTemplate(value, field=field)
        return template if template.columns else template.fill({})
    if isinstance(value, dict):
        return {name: _parsed(f"{field}.{shorten(name)}", part) for name, part in value.items()}
    return [_parsed(field, part) for part in value] if isinstance(value, list) else value


def _templates(value: Any) -> Iterator[PromptTemplate]:
    if isinstance(value, PromptTemplate):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _templates(part)


def _filled(value: Any, columns: Mapping[str, Scalar]) -> Any:
    if isinstance(value, PromptTemplate):
        return value.fill(columns)
    if isinstance(value, dict):
        return {name: _filled(part, columns) for name, part in value.items()}
    return [_filled(part, columns) for part in value] if isinstance(value, list) else value


def _column(field: str, part: str, text: str) -> str:
    name = part[1:-1].strip()
    if len(part) == 1:
        wrong = f"a {part} is unmatched"
    elif not name:
        wrong = "the braces contain no column name"
    elif _CODE.search(name):
        wrong = f"{shorten(part)} is not a plain column name"
    elif code_point := invisible_in(name):
        wrong = f"{shorten(repr(part))} has {code_point}, an invisible character"
    else:
        return name
    raise _refusal(field, text, wrong)


def _refusal(field: str, text: str, wrong: str) -> InputError:
    return InputError(f"{field} is {shorten(repr(text))}: {wrong}", allowed=_ALLOWED)


def _text(value: Scalar) -> str:
    return value if isinstance(value, str) else json.dumps(value)
