"""Check: compares the API, the account and this machine with what the package assumes of them.

For a user's first day with a key, and for the maintainers, who never had one. Free, but for what ``spend``
allows; bought is through the engine only (``purchases.py``). What was seen is plain values
(``observations.py``), and what is assumed a list (``assumptions.py``).
"""

from airflow_provider_bitdance.check.run import Report, check

__all__ = ["Report", "check"]
