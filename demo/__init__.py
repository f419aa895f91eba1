"""`python -m demo`: a real Airflow, the local service and three images. Not part of the wheel."""
