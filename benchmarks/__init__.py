"""What this provider is measured against: what a user would take instead, on the same service, in one run.

`python -m benchmarks` plays the rows of `rows.py`. Read `alone.py` for the engine against a script, `lab.py`
and `dags/` for whole Dag runs, `thousand.py` for the triggerer, and `measure.py` for what is counted.
"""
