"""The hook: from an Airflow connection to the client."""
