"""The engine: carries a job's images from the plan to the store, from wherever the journal says they stand.

Async, and knows no Airflow: client, journal, folders and clock are passed in. First try, retry, resume after
a deferral and take-over are one call of :func:`advance`.
"""

from airflow_provider_bitdance.engine.advance import advance
from airflow_provider_bitdance.engine.bench import Bench, Policy, Wanted
from airflow_provider_bitdance.engine.forecast import Forecast, forecast
from airflow_provider_bitdance.engine.outcome import Finished, Waiting

__all__ = [
    "Bench",
    "Finished",
    "Forecast",
    "Policy",
    "Waiting",
    "Wanted",
    "advance",
    "forecast",
]
