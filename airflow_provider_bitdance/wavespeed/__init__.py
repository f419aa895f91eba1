"""The WaveSpeed v3 API over httpx. Knows no Airflow, keeps no records, repeats no request."""
