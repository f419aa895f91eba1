"""The engine: carries a job's images from the plan to the store, from wherever the journal says they stand.

Async, and knows no Airflow: client, journal, folders and clock are passed in. First try, retry, resume after
a deferral and take-over are one call of :func:`advance`.
"""

from airflow_provider_bitdance.engine.context import JobContext, Wanted
from airflow_provider_bitdance.engine.estimate import Estimate, estimate
from airflow_provider_bitdance.engine.policy import Policy
from airflow_provider_bitdance.engine.result import Finished, Waiting
from airflow_provider_bitdance.engine.run import run_job

__all__ = [
    "JobContext",
    "Estimate",
    "Finished",
    "Policy",
    "Waiting",
    "Wanted",
    "run_job",
    "estimate",
]
