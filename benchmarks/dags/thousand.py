"""A thousand task instances for `thousand.py` to defer. They never run: by then there is no scheduler."""

from __future__ import annotations

from airflow.sdk import DAG, task

for count in (50, 1000):
    with DAG(f"waiting_{count}", schedule=None):

        @task
        def image(number: int) -> None: ...

        image.expand(number=list(range(count)))
