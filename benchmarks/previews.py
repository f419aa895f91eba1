"""What the Images tab costs: CPU of a thumbnail, size and time of its page: `python -m benchmarks.previews`.

The page is that of Airflow's own app, with a database of its own (SQLite) and without a network between.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from json import dumps
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image, ImageFilter

from airflow_provider_bitdance.imaging.thumbnail import thumbnail
from airflow_provider_bitdance.preview import PREVIEW_KEY, Preview, PreviewImage
from airflow_provider_bitdance.preview.content import bounded, chosen

SIDE = 1024
BATCH = 1000
ROUNDS = 20
DAG_ID, RUN_ID, TASK_ID = "shows_images", "run", "batch"


def main() -> None:
    """Measure, and print a line for each figure."""
    noise = Image.effect_noise((SIDE, SIDE), 80).convert("RGB")
    pictures = {"photograph": noise.filter(ImageFilter.GaussianBlur(3)), "noise, the worst": noise}
    thumbnails = {name: thumbnail(picture) for name, picture in pictures.items()}
    for name, picture in pictures.items():
        cpu = _measured(lambda picture=picture: thumbnail(picture), time.process_time)  # type: ignore[misc]
        print(f"thumbnail of {SIDE} x {SIDE} pixels, {name}: {cpu:.1f} ms CPU, {len(thumbnails[name])} bytes")
    with TemporaryDirectory() as home:
        os.environ["AIRFLOW_HOME"] = home
        os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "CRITICAL"
        os.environ["AIRFLOW__API_AUTH__JWT_SECRET"] = "a secret of a benchmark " * 4
        subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], check=True, capture_output=True)
        page = _app_page()
        for limit in (24, 200):
            preview = _batch(limit, thumbnails["photograph"])
            value = preview.as_xcom()
            milliseconds, html = page(value)
            size = len(dumps(value)) / 1000
            print(f"previews={limit} of {BATCH} images: {len(preview.images)} shown, XCom {size:.0f} kB")
            print(f"its page: {html / 1000:.0f} kB in {milliseconds:.0f} ms")


def _measured(call: Callable[[], object], clock: Callable[[], float]) -> float:
    """Return the median of some rounds, in milliseconds."""
    taken = []
    for _ in range(ROUNDS):
        start = clock()
        call()
        taken.append(1000 * (clock() - start))
    return median(taken)


def _batch(limit: int, made: bytes) -> Preview:
    encoded = b64encode(made).decode()
    uri = f"s3://my_s3@my-bucket/posters/2026-11-29/{'k' * 40}.png"
    images = [
        PreviewImage(
            key=f"poster-{number:04}", status="stored", width=SIDE, height=SIDE, seed=number, cost_usd=0.01,
            uri=uri, thumbnail=encoded,
        )
        for number in range(BATCH)
    ]  # fmt: skip
    whole = Preview(total=BATCH, stored=BATCH, cost_usd=10.0, images=tuple(chosen(images, limit)))
    return bounded(whole, limit)


def _app_page() -> Callable[[dict[str, Any]], tuple[float, int]]:
    """Return what puts a preview into the database, and says in which time its page comes and its bytes."""
    from airflow.api_fastapi.app import create_app
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
    from fastapi.testclient import TestClient

    from airflow_provider_bitdance.plugin import PREFIX

    logging.disable(logging.CRITICAL)
    app = create_app(apps="core")
    run = _a_run()
    user = SimpleAuthManagerUser(username="somebody", role="viewer")
    token = app.state.auth_manager.generate_jwt(user, expiration_time_in_seconds=600)
    client = TestClient(app, headers={"Authorization": f"Bearer {token}"})
    address = f"{PREFIX}/images/{DAG_ID}/{RUN_ID}/{TASK_ID}/-1"

    def page(value: dict[str, Any]) -> tuple[float, int]:
        _put(run, value)
        response = client.get(address)
        response.raise_for_status()
        return _measured(lambda: client.get(address), time.perf_counter), len(response.content)

    return page


def _a_run() -> int:
    from airflow.models.dag import DagModel
    from airflow.models.dagbundle import DagBundleModel
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from airflow.utils.state import DagRunState

    moment = datetime(2026, 11, 29, tzinfo=UTC)
    with create_session() as session:
        session.merge(DagBundleModel(name="benchmarks"))
        session.flush()
        session.merge(DagModel(dag_id=DAG_ID, bundle_name="benchmarks", fileloc="f.py"))  # type: ignore[no-untyped-call]
        session.flush()
        run = DagRun(
            dag_id=DAG_ID, run_id=RUN_ID, run_type="manual", logical_date=moment, run_after=moment,
            state=DagRunState.SUCCESS,
        )  # fmt: skip
        session.add(run)
        session.flush()
        return int(run.id)


def _put(run: int, value: dict[str, Any]) -> None:
    """Write the XCom; the task instance that it would be of is of no interest here."""
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session
    from sqlalchemy import delete, text

    with create_session() as session:
        session.execute(text("PRAGMA foreign_keys = OFF"))
        session.execute(delete(XComModel).where(XComModel.dag_id == DAG_ID))
        session.add(
            XComModel(
                dag_run_id=run, dag_id=DAG_ID, run_id=RUN_ID, task_id=TASK_ID, map_index=-1,
                key=PREVIEW_KEY, value=value,
            )
        )  # fmt: skip


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
