"""What differs between the Airflow versions that this package runs on, each with its reason."""

from __future__ import annotations

from airflow import __version__ as airflow_version

AIRFLOW_VERSION = tuple(
    int("".join(filter(str.isdigit, part)) or 0) for part in airflow_version.split(".")[:2]
)

SHORTEST_DEFERRAL = 0.0 if AIRFLOW_VERSION >= (3, 4) else 10.0
"""Seconds from a deferral to the first event of its trigger.

Below Airflow 3.4 a deferral that ends within about 5 seconds may be taken for a killed task
(apache/airflow#67287, #71580, #72716): measured 13 and 14 of 50 failed tasks.
"""

REENTRY_SECONDS = 4.0
"""From a trigger's event until the task works again: measured 3 to 4 at one task."""
