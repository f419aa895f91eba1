"""What operators check of what they are given: options when a Dag is parsed, and the trigger's event."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from numbers import Integral, Real
from typing import Any

from airflow_provider_bitdance.exceptions import InputError
from airflow_provider_bitdance.redaction import shorten
from airflow_provider_bitdance.storage.path_objects import text_of_path
from airflow_provider_bitdance.text_checks import texts_in, unrendered_in
from airflow_provider_bitdance.triggers.bitdance import Reason
from airflow_provider_bitdance.wavespeed.inputs import read_inputs, shown_input

INPUTS_ALLOWED = 'an object with the names of inputs, such as {"guidance_scale": 5}, or JSON text of one'
_UNFILLED = re.compile(
    r"\{\{(?:[^{}]{0,80}\}\})?|\{%(?:[^{}]{0,80}%\})?|\{(?![0-9A-Fa-f]+-[0-9A-Fa-f-]+\})[^{}]{0,80}\}"
)
"""Jinja and columns. An id in braces, as Windows writes them, is a name: ``{0a1b-22}``."""


def check_choice(name: str, value: object, allowed: tuple[str | None, ...]) -> None:
    """Refuse an option that is none of those allowed."""
    if value not in allowed:
        raise InputError(f"{name} is {value!r}", allowed=", ".join(map(str, allowed)))


def check_boolean(name: str, value: object) -> None:
    """Refuse an option that is no boolean: the text "False" would mean yes."""
    if not isinstance(value, bool):
        raise InputError(f"{name} is {value!r}", allowed="True or False, without quotes")


def checked_number(
    name: str, value: Any, least: float, most: float, unit: str, *, whole: bool = False
) -> float:
    """Return an option that is a number, also one of numpy's, as Python's own.

    :raises InputError: It is no number, or out of range.
    """
    is_number = isinstance(value, Integral if whole else Real) and not isinstance(value, bool)
    if not (is_number and least <= value <= most):
        raise InputError(f"{name} is {value!r}", allowed=f"a number of {unit}, {least:g} to {most:g}")
    return int(value) if isinstance(value, Integral) else float(value)


def rendered_amount(name: str, value: Any, *, most: float) -> float:
    """Return an amount of US dollars that may be text, as Airflow renders templates, or a ``Decimal``.

    :raises InputError: It is no amount, negative, or more than ``most``.
    """
    number = value
    if isinstance(value, str | Decimal):
        try:
            number = float(Decimal(value))
        except (InvalidOperation, ValueError):  # the second of a signaling NaN
            number = None
    try:
        return checked_number(name, number, 0.0, most, "US dollars")
    except InputError as error:
        raise InputError(
            f"{name} is {shorten(repr(value))}",
            allowed=error.allowed,
            fix="If another task returns the amount, check that it has run and what it returned",
        ) from None


def rendered_path(name: str, value: Any, *, kind: str = "") -> Any:
    """Return a path as :func:`text_of_path` does, after Airflow has rendered it.

    :raises InputError: Something in it was not filled in.
    """
    text = text_of_path(name, value, kind=kind)
    if isinstance(text, str) and (left := _UNFILLED.search(text)):
        raise InputError(
            f"{name} is {shorten(repr(text))}: {left[0]} was not filled in",
            allowed="templates that Airflow renders; columns of items fill in prompts, not paths",
            fix="Give the final text: Airflow renders neither .expand arguments nor what a template returns",
        )
    return text


def rendered(name: str, value: Any) -> Any:
    """Return a prompt, or the inputs of a model, after Airflow has rendered them.

    :raises InputError: Jinja is left in a text.
    """
    for text in texts_in(value):
        if left := unrendered_in(text):
            raise InputError(
                f"{name} has {shorten(left)}, which was not rendered: {shorten(repr(text))}",
                fix=(
                    "Give the final text: Airflow renders neither .expand arguments nor what a template "
                    "returns"
                ),
            )
    return value


def merged_inputs(*given: object) -> dict[str, Any]:
    """Return the inputs of a model that several places give; a later one goes before an earlier one.

    :raises InputError: One is neither an object nor JSON text of one.
    """
    try:
        return {name: value for inputs in given for name, value in read_inputs(inputs).items()}
    except ValueError as error:
        raise InputError(f"inputs {error}: {shown_input(given[-1])}", allowed=INPUTS_ALLOWED) from None


def reason_of(event: dict[str, Any]) -> Reason:
    """Read the trigger's event; a triggerer of another version may send what this one does not know."""
    try:
        return Reason(event["reason"])
    except (KeyError, TypeError, ValueError):
        raise ValueError(
            f"The trigger sent the event {shorten(repr(event))}. Allowed: one of the reasons "
            f"{', '.join(Reason)}. Install the same version of airflow-provider-bitdance on "
            "all workers and triggerers. A retry continues with the same prediction and "
            "buys nothing."
        ) from None
