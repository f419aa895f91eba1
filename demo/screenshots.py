"""`python -m demo.screenshots`: the pictures of the README and the docs, of a real Airflow. Needs Chromium.

It fills in the connection's form as a person does, runs the smallest example Dag with what it saved, and
writes docs/images/*.png.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from urllib.parse import quote, urlsplit

from .browser import Browser
from .real_airflow import RealAirflow
from .service import LocalService

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
DAG_ID = "example_bitdance_basic"
RUN_ID = "first-run"

FORM = "document.querySelector('[role=dialog]')"
TYPE_BOX = f"{FORM}.querySelector('[role=combobox]')"


def main() -> int:
    """Take the pictures."""
    with tempfile.TemporaryDirectory(prefix="screenshots-") as folder:
        home = Path(folder)
        (home / "dags").mkdir()
        shutil.copy(ROOT / "example_dags" / f"{DAG_ID}.py", home / "dags")
        service = LocalService(home)
        env = {
            "BITDANCE_OUTPUT_PATH": f"file://{home / 'images'}/",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        }
        try:
            service.start()
            with Browser() as browser, RealAirflow(home, dags_folder=home / "dags", env=env) as airflow:
                _log_in(browser, airflow)
                _fill_in_the_form(browser, airflow, service)
                _run_the_dag(browser, airflow)
        finally:
            service.stop()
    return 0


def _log_in(browser: Browser, airflow: RealAirflow) -> None:
    # Airflow 3.1 leads to its start page after the first login, whatever page was asked for.
    browser.open(airflow.url)
    browser.wait_for("document.body.innerText.includes('Health')")


def _fill_in_the_form(browser: Browser, airflow: RealAirflow, service: LocalService) -> None:
    browser.resize(1280, 1400)
    browser.open(f"{airflow.url}/connections")
    browser.click(_button("document", "Add Connection"))
    browser.type(f"{FORM}.querySelector('[name=connection_id]')", "bitdance_default")
    browser.type(TYPE_BOX, "BitDance")
    browser.wait_for("document.querySelector('[role=option]').innerText.includes('BitDance')")
    browser.type(TYPE_BOX, "", enter=True)
    browser.type(f"{FORM}.querySelector('[name=password]')", service.api_key)
    browser.settle()
    _picture(browser, "connection-form", FORM)
    # The local service's address, which is on no picture.
    address = urlsplit(service.url)
    browser.type(f"{FORM}.querySelector('[name=host]')", f"{address.scheme}://{address.hostname}")
    browser.type(f"{FORM}.querySelector('[name=port]')", str(address.port))
    browser.click(_button(FORM, "Extra Fields"))
    browser.type(f"{FORM}.querySelector('[name=element_max_in_flight]')", "10")
    browser.type(f"{FORM}.querySelector('[name=element_requests_per_minute]')", "60")
    browser.settle()
    _picture(browser, "connection-form-extra", FORM)
    browser.click(_button(FORM, "Save"))
    browser.wait_for("document.body.innerText.includes('bitdance_default')")


def _run_the_dag(browser: Browser, airflow: RealAirflow) -> None:
    run_id = airflow.trigger(DAG_ID, run_id=RUN_ID)
    state = airflow.wait_for_run(DAG_ID, run_id)
    if state != "success":
        raise RuntimeError(f"The Dag run is {state}")
    browser.resize(1280, 640)
    browser.open(f"{airflow.url}/dags/{DAG_ID}/runs/{quote(run_id, safe='')}")
    browser.wait_for("document.body.innerText.match(/BitDanceTextToImageOperator/g).length == 3")
    browser.settle()
    _picture(browser, "dag-run", "document.documentElement")
    browser.open(f"{airflow.url}/dags/{DAG_ID}/runs/{quote(run_id, safe='')}/plugin/bitdance-dag-run")
    browser.wait_for("document.querySelector('iframe') !== null")
    browser.settle(3)
    _picture(browser, "images-tab", "document.documentElement")


def _button(within: str, text: str) -> str:
    return f"[...{within}.querySelectorAll('button')].find(each => each.innerText.trim() == '{text}')"


def _picture(browser: Browser, name: str, element: str) -> None:
    file = IMAGES / f"{name}.png"
    browser.picture(file, element)
    print(f"Wrote {file.relative_to(ROOT)}, {file.stat().st_size:,} bytes", flush=True)


if __name__ == "__main__":
    sys.exit(main())
