"""`make matrix`: the tests on each Airflow and Python that the package says it runs on, from its wheel."""
