"""The host name of a component: each has its own, as on a machine of its own."""

from __future__ import annotations

import os

VARIABLE = "BITDANCE_CLUSTER_HOST"


def name() -> str:
    """Return it, for Airflow's `[core] hostname_callable`."""
    return os.environ[VARIABLE]
