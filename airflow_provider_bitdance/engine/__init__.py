"""The engine: carries a job's images from the plan to the store, from the state that the journal has of them.

Async, and knows no Airflow: client, journal, folders and clock are passed in. First try, retry, resume after
a deferral and take-over are one call of :func:`run_job`.
"""

from airflow_provider_bitdance.engine.charges import with_charges
from airflow_provider_bitdance.engine.context import JobContext, Wanted
from airflow_provider_bitdance.engine.estimate import Estimate, estimate
from airflow_provider_bitdance.engine.policy import Policy
from airflow_provider_bitdance.engine.result import Finished, Waiting
from airflow_provider_bitdance.engine.run import run_job

__all__ = [
    "Estimate",
    "Finished",
    "JobContext",
    "Policy",
    "Waiting",
    "Wanted",
    "estimate",
    "run_job",
    "with_charges",
]
