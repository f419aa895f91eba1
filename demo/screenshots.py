"""Takes the pictures of the docs, of a real Airflow below a path of its host. Needs Chromium.

It fills in the connection's form as a person does, runs the smallest example Dag with what it saved, looks at
the Images tab of many tasks, decides in the approval example, and writes docs/images/*.png. It fails where a
step does, or where a page lacks its pictures.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path
from urllib.parse import quote, urlsplit

from airflow_provider_bitdance.links.bitdance import IMAGES_TAB

from . import decision
from .browser import Browser
from .decision import decide
from .real_airflow import RealAirflow
from .service import LocalService

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
DAG_ID = "example_bitdance_basic"
RUN_ID = "first-run"
PICTURES = Path(__file__).parent / "dags" / "pictures.py"

FAILS = "in the dark"
"""Words of the prompts in dags/pictures.py that are to fail."""
FORM = "document.querySelector('[role=dialog]')"
TYPE_BOX = f"{FORM}.querySelector('[role=combobox]')"


def main() -> int:
    """Take the pictures."""
    with tempfile.TemporaryDirectory(prefix="screenshots-") as folder:
        home = Path(folder)
        (home / "dags").mkdir()
        for dag_id in (DAG_ID, decision.DAG_ID):
            shutil.copy(ROOT / "example_dags" / f"{dag_id}.py", home / "dags")
        shutil.copy(PICTURES, home / "dags")
        service = LocalService(home)
        env = {
            "BITDANCE_OUTPUT_PATH": f"file://{home / 'images'}/",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        }
        try:
            service.start()
            service.fail(FAILS)
            airflow = RealAirflow(home, dags_folder=home / "dags", env=env, path="/airflow")
            with Browser() as browser, airflow:
                _log_in(browser, airflow)
                _fill_in_the_form(browser, airflow, service)
                _run_the_dag(browser, airflow)
                _look_at_the_images(browser, airflow)
                browser.resize(1280, 1180)
                look = partial(_picture, browser, "images-question", "document.documentElement")
                print(f"Published {decide(browser, airflow, home / 'images', look).name}", flush=True)
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


def _look_at_the_images(browser: Browser, airflow: RealAirflow) -> None:
    run_id = airflow.trigger("pictures", run_id="manual__2026-11-29T10:00:00+00:00")
    if (state := airflow.wait_for_run("pictures", run_id)) != "success":
        raise RuntimeError(f"The Dag run is {state}")
    of_run, tab = f"{airflow.url}/dags/pictures/runs/{quote(run_id, safe='')}", f"plugin/{IMAGES_TAB}"
    for name, page, shown, height in (
        ("images-batch", f"tasks/products/{tab}", 22, 1000),
        ("images-mapped", f"tasks/cover/mapped/1/{tab}", 1, 640),
        ("images-variants", f"tasks/posters/{tab}", 4, 700),
        ("images-run", "plugin/bitdance-dag-run", 28, 1000),
    ):
        browser.resize(1280, height)
        _show_tab(browser, f"{of_run}/{page}", shown)
        _picture(browser, name, "document.documentElement")
    browser.prefer("dark")
    _show_tab(browser, f"{of_run}/tasks/products/{tab}", 22)
    _picture(browser, "images-dark", "document.documentElement")
    browser.prefer("light")


def _show_tab(browser: Browser, page: str, shown: int) -> None:
    """Open a tab and wait for its pictures."""
    browser.open(page)
    images = "[...document.querySelector('iframe').contentDocument.images]"
    browser.wait_for(f"{images}.filter(each => each.naturalWidth > 0).length == {shown}")
    browser.wait_for("document.body.innerText.includes('Audit Log')")
    browser.settle()


def _button(within: str, text: str) -> str:
    return f"[...{within}.querySelectorAll('button')].find(each => each.innerText.trim() == '{text}')"


def _picture(browser: Browser, name: str, element: str) -> None:
    file = IMAGES / f"{name}.png"
    browser.picture(file, element)
    print(f"Wrote {file.relative_to(ROOT)}, {file.stat().st_size:,} bytes", flush=True)


if __name__ == "__main__":
    sys.exit(main())
