"""The options that all operators share, checked when a Dag is parsed."""

from __future__ import annotations

from typing import Any

from airflow_provider_bitdance.operators.previews import MOST_PREVIEWS
from airflow_provider_bitdance.operators.validation import check_boolean, check_choice, checked_number

LONGEST_WAIT = 7 * 24 * 3600.0
"""Seconds; WaveSpeed keeps an output no longer."""

NUMBERS = (
    ("defer_after", 0.0, LONGEST_WAIT, "seconds", False),
    ("timeout", 1.0, LONGEST_WAIT, "seconds", False),
    ("poll_interval", 0.1, LONGEST_WAIT, "seconds", False),
    ("previews", 0, MOST_PREVIEWS, "images", True),
    ("max_cost_usd", 0.0, 1e6, "US dollars", False),
)
"""Each with its least and most, its unit, and whether it is a whole number."""
MAY_BE_NONE = ("previews", "max_cost_usd")


def check_options(operator: Any) -> None:
    """Refuse an option of another kind, or out of range; numbers of numpy become Python's.

    :raises InputError: Names the option, and what is allowed.
    """
    for name in ("deferrable", "check_balance", "retry_failed"):
        check_boolean(name, getattr(operator, name))
    check_choice("if_exists", operator.if_exists, ("reuse", "regenerate", "fail"))
    check_choice("nsfw", operator.nsfw, ("fail", "skip", "allow"))
    check_choice("on_size_mismatch", operator.on_size_mismatch, ("warn", "fail"))
    check_choice("label", operator._label, (None, "iptc", "none"))
    check_choice("on_lost_response", operator.on_lost_response, ("buy_again", "fail"))
    for name, least, most, unit, whole in NUMBERS:
        if (value := getattr(operator, name)) is not None or name not in MAY_BE_NONE:
            setattr(operator, name, checked_number(name, value, least, most, unit, whole=whole))
