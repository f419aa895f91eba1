"""What this package assumes of the API, the account and the machine, as one list; and how a check judges it.

Pure: observations in, a verdict and a few words out. To add an assumption, add a row to one of the three
lists and one to the table of ``tests/unit/check/test_assumptions.py``.
"""

from __future__ import annotations

from airflow_provider_bitdance.check.account_assumptions import OF_ACCOUNT
from airflow_provider_bitdance.check.machine_assumptions import OF_MACHINE
from airflow_provider_bitdance.check.observations import Observations
from airflow_provider_bitdance.check.purchase_assumptions import OF_PURCHASES
from airflow_provider_bitdance.check.verdicts import Assumption, Verdict

ASSUMPTIONS = (*OF_MACHINE, *OF_ACCOUNT, *OF_PURCHASES)
"""All of them, in the order of the table."""


def judge_all(seen: Observations) -> list[tuple[Assumption, Verdict, str]]:
    """Judge every assumption: with the verdict, and what it rests on."""
    return [(each, *each.judge(seen)) for each in ASSUMPTIONS]
