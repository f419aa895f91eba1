"""Dags of the system tests: runs again, at the same address, with prompts that change, and a sleeper."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, Context, Param, task

from airflow_provider_bitdance.operators.bitdance import BitDanceTextToImageOperator
from airflow_provider_bitdance.records import Intended, Journal

OUTPUT = os.environ["BITDANCE_OUTPUT_PATH"]


def dag(dag_id: str, *, schedule: str | None = None, params: Mapping[str, str] = {}, **dates: Any) -> DAG:
    return DAG(
        dag_id,
        schedule=schedule,
        catchup=False,
        params={name: Param(value) for name, value in {"conn_id": "bitdance_default", **params}.items()},
        **dates,
        default_args={"retries": 2, "retry_delay": timedelta(seconds=1)},
    )


class OfAnAccount(BitDanceTextToImageOperator):
    """Buys with the connection that the Dag run names."""

    template_fields = (*BitDanceTextToImageOperator.template_fields, "bitdance_conn_id")


class Sleeper(OfAnAccount):
    """Stops its process and its supervisor, as a paused machine does, right after the first intent."""

    def execute(self, context: Context) -> dict[str, Any]:
        if context["ti"].try_number == 1:
            append = Journal._append  # what a claim goes through, too

            def append_and_sleep(journal: Journal, now: float, *events: Any) -> Any:
                state = append(journal, now, *events)
                if any(isinstance(event, Intended) for event in events):
                    Path(OUTPUT, "sleeper", "pids").write_text(f"{os.getpid()} {os.getppid()}")
                    os.kill(os.getppid(), signal.SIGSTOP)
                    os.kill(os.getpid(), signal.SIGSTOP)
                return state

            Journal._append = append_and_sleep  # type: ignore[method-assign]
        return super().execute(context)


def an_image(operator: type[OfAnAccount] = OfAnAccount, **options: Any) -> Any:
    account = {"bitdance_conn_id": "{{ params.conn_id }}"}
    return operator(**{"task_id": "image", "output_path": OUTPUT, **account, **options})


with dag("sleeper"):
    an_image(Sleeper, prompt="a sleeper", output_path=f"{OUTPUT}sleeper/")

with dag("regenerated"):
    an_image(prompt="made anew", if_exists="regenerate")

with dag("of_the_moment"):
    an_image(prompt="at {{ macros.datetime.now() }}", deferrable=True, defer_after=0)

with dag("of_a_variable", params={"variable": "subject"}):
    an_image(prompt="a {{ var.value.get(params.variable, 'cat') }}", deferrable=True, defer_after=0)

with dag("of_an_upstream"):

    @task
    def subject() -> str:
        return "an upstream's dog"

    an_image(prompt=subject(), deferrable=True, defer_after=0)

for dag_id in ("named", "named_twin"):
    with dag(dag_id, params={"prompt": "a cover", "name": "cover"}):
        an_image(prompt="{{ params.prompt }}", output_path=f"{OUTPUT}{{{{ params.name }}}}")

# It ends in the past, so that only backfills run it.
with dag("daily", schedule="@daily", start_date=datetime(2026, 2, 1), end_date=datetime(2026, 3, 2)):
    an_image(prompt="the picture of {{ ds }}", output_path=f"{OUTPUT}daily-{{{{ ds }}}}")
