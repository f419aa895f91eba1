"""The options that all operators share, checked when a Dag is parsed."""

from __future__ import annotations

from typing import Any

from airflow_provider_bitdance.operators.previews import MOST_PREVIEWS
from airflow_provider_bitdance.operators.validation import (
    check_boolean,
    check_choice,
    checked_number,
    rendered_amount,
)

LONGEST_WAIT = 7 * 24 * 3600.0
"""Seconds; WaveSpeed keeps an output no longer."""

LARGEST_LIMIT = 1e6
"""US dollars."""

NUMBERS = (
    ("defer_after", 0.0, LONGEST_WAIT, "seconds", False),
    ("timeout", 1.0, LONGEST_WAIT, "seconds", False),
    ("poll_interval", 0.1, LONGEST_WAIT, "seconds", False),
    ("previews", 0, MOST_PREVIEWS, "images", True),
    ("max_cost_usd", 0.0, LARGEST_LIMIT, "US dollars", False),
)
"""Each with its least and most, its unit, and whether it is a whole number."""
MAY_BE_NONE = ("previews", "max_cost_usd")


def check_options(operator: Any) -> None:
    """Refuse an option of another kind, or out of range; numbers of numpy become Python's.

    :raises InputError: Names the option, and what is allowed.
    """
    operator._has_limit = operator.max_cost_usd is not None  # what a template gives may be None
    for name in ("deferrable", "check_balance", "retry_failed"):
        check_boolean(name, getattr(operator, name))
    check_choice("if_exists", operator.if_exists, ("reuse", "regenerate", "fail"))
    check_choice("nsfw", operator.nsfw, ("fail", "skip", "allow"))
    check_choice("on_size_mismatch", operator.on_size_mismatch, ("warn", "fail"))
    check_choice("label", operator._label, (None, "iptc", "none"))
    check_choice("on_lost_response", operator.on_lost_response, ("buy_again", "fail"))
    for name, least, most, unit, whole in NUMBERS:
        if (value := getattr(operator, name)) is not None or name not in MAY_BE_NONE:
            if name != "max_cost_usd":
                value = checked_number(name, value, least, most, unit, whole=whole)
            elif not _is_template(value):
                value = rendered_amount(name, value, most=most)
            setattr(operator, name, value)


def limit_of(operator: Any) -> float | None:
    """Return ``max_cost_usd`` as Airflow has rendered it; ``None`` where the task has no limit.

    :raises InputError: It is no amount. A template that gives nothing is an error, too, and not "no limit".
    """
    if operator.max_cost_usd is None and not operator._has_limit:
        return None
    return rendered_amount("max_cost_usd", operator.max_cost_usd, most=LARGEST_LIMIT)


def is_limit_unknown(operator: Any) -> bool:
    """Say whether ``max_cost_usd`` is the result of a task that has not run yet."""
    return operator._has_limit and str(operator.max_cost_usd or "").strip() in ("", "None")


def _is_template(value: Any) -> bool:
    """Say whether Airflow makes something else of a value: of Jinja, or of another task's result."""
    return hasattr(value, "resolve") or (isinstance(value, str) and ("{{" in value or "{%" in value))
