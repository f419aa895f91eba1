"""What operators check of what they are given: options when a Dag is parsed, and the trigger's event."""

from __future__ import annotations

from types import UnionType
from typing import Any

from airflow_provider_bitdance.exceptions import InputError
from airflow_provider_bitdance.redaction import shorten
from airflow_provider_bitdance.triggers.bitdance import Reason


def check_choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    """Refuse an option that is none of those allowed."""
    if value not in allowed:
        raise InputError(f"{name} is {value!r}", allowed=", ".join(allowed))


def check_boolean(name: str, value: object) -> None:
    """Refuse an option that is no boolean: the text "False" would mean yes."""
    if not isinstance(value, bool):
        raise InputError(f"{name} is {value!r}", allowed="True or False, without quotes")


def check_number(
    name: str,
    value: object,
    least: float,
    most: float,
    unit: str,
    *,
    kind: type | UnionType = int | float,
) -> None:
    """Refuse an option that is no number of this kind, or out of range."""
    is_number = isinstance(value, kind) and not isinstance(value, bool)
    if not (is_number and least <= value <= most):  # type: ignore[operator]  # a number
        raise InputError(f"{name} is {value!r}", allowed=f"a number of {unit}, {least:g} to {most:g}")


def reason_of(event: dict[str, Any]) -> Reason:
    """Read the trigger's event; a triggerer of another version may send what this one does not know."""
    try:
        return Reason(event["reason"])
    except (KeyError, TypeError, ValueError):
        raise ValueError(
            f"The trigger sent the event {shorten(repr(event))}. Allowed: a reason of "
            f"{', '.join(Reason)}. Install one version of airflow-provider-bitdance on "
            "all workers and triggerers. A retry continues with the same prediction and "
            "buys nothing."
        ) from None
