"""Chaos on a real Airflow: what is stored, billed and possibly paid when processes die at the worst time."""
