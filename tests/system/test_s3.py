"""Images and records on S3, on a real Airflow: the connection is looked up in a real task process."""

from __future__ import annotations

import json

import pytest

from tests.s3 import SECRET_KEY, S3Server
from tests.system.conftest import System, check_picture


@pytest.mark.parametrize("dag_id", ["s3_in_the_worker", "s3_deferred"])
def test_an_image_on_s3_is_stored_once_and_billed_once_and_no_secret_gets_out(
    system: System, s3: S3Server, s3_path: str, dag_id: str
) -> None:
    run = system.airflow.trigger(dag_id, conf={"prompt": f"a lighthouse for {dag_id}"})
    assert system.airflow.wait_for_run(dag_id, run) == "success", system.fails(dag_id, run)
    assert system.airflow.was_deferred(dag_id, run, "image") == (dag_id == "s3_deferred")

    result = system.airflow.xcom(dag_id, run, "image")
    root = f"s3://my_s3@{s3_path}/"
    ours = {name: data for name, data in s3.files(s3_path).items() if dag_id in name}
    assert (system.billed, result["possibly_paid"], result["reused"]) == (1, 0, False)
    assert [f"{root}{name}" for name in ours if name.endswith(".png")] == [result["uri"]]
    check_picture(result, lambda uri: ours[uri.removeprefix(root)])
    entries = [json.loads(data) for name, data in sorted(ours.items()) if "/jobs/" in name]
    assert [entry["number"] for entry in entries] == list(range(1, len(entries) + 1))
    assert entries[-1]["events"][-1]["event"] == "stored"

    system.airflow.clear(dag_id, run)
    assert system.airflow.wait_for_run(dag_id, run) == "success", system.fails(dag_id, run)
    again = system.airflow.xcom(dag_id, run, "image")
    assert (system.billed, again["reused"], again["sha256"]) == (1, True, result["sha256"])

    files = [path for path in system.airflow.home.rglob("*") if path.is_file()]
    assert any(f"dag_id={dag_id}" in str(path) for path in files)
    assert [path for path in files if SECRET_KEY.encode() in path.read_bytes()] == []
