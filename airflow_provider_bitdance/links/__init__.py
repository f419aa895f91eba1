"""The links of a task in Airflow's UI."""
