"""Maintenance: reads all records of an account at once, checks them, and compares them with the account.

Tasks never need it: each reads its own records only. It is for what no task will come back to: a worker
that died, a Dag run that was deleted, a bill that has to be explained. Nothing here buys anything.
"""

from airflow_provider_bitdance.maintenance.reconcile import reconcile

__all__ = ["reconcile"]
