"""A person at a browser decides in the approval example: approves, sees the posters, chooses one.

Each step is checked: a question without its picture, or a choice that publishes another file, is an error.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from .browser import Browser
from .real_airflow import RealAirflow

DAG_ID = "example_bitdance_approval"
CHOICE = "v3"
SECONDS_TO_READ = 6
"""A task that is answered within about 5 may be taken for killed, and ask again (apache/airflow#71580)."""
SHEET = "document.querySelector('img[alt=\"Contact sheet\"]')"


class DecisionError(RuntimeError):
    """A step of the example did not show or do what it should."""


def decide(browser: Browser, airflow: RealAirflow, images: Path, look: Callable[[], None]) -> Path:
    """Walk through the example and return the published file.

    :param images: The folder in which the example stores.
    :param look: Called while the question with the posters is on the screen.
    :raises DecisionError: See there.
    """
    run_id = airflow.trigger(DAG_ID, run_id="manual__2026-11-29T10:00:00+00:00")
    _read(browser, airflow, run_id, "approve", says="4 to buy, about $0.04")
    browser.click(_button("Approve"))
    _read(browser, airflow, run_id, "choose", says="Which poster is published?")
    browser.wait_for(f"{SHEET}.complete")
    if not browser.run(f"{SHEET}.naturalWidth") > 0:
        raise DecisionError(f"The question shows no image: {browser.run(f'{SHEET}.src')}")
    look()
    browser.type("document.querySelector('main [role=combobox], [role=combobox]')", CHOICE, enter=True)
    browser.click(_button("Respond"))
    state = airflow.wait_for_run(DAG_ID, run_id)
    published = images / "posters" / "published" / "jazz-night.png"
    chosen = images / "posters" / f"jazz-night-{CHOICE}.png"
    if state != "success" or published.read_bytes() != chosen.read_bytes():
        raise DecisionError(f"The Dag run is {state}, and {published} is not {chosen.name}")
    return published


def _read(browser: Browser, airflow: RealAirflow, run_id: str, task_id: str, *, says: str) -> None:
    """Open a question and read it."""
    asked = datetime.fromisoformat(airflow.question(DAG_ID, run_id, task_id)["created_at"])
    run = f"{airflow.url}/dags/{DAG_ID}/runs/{quote(run_id, safe='')}"
    browser.open(f"{run}/tasks/{task_id}/required_actions")
    browser.wait_for(f"document.body.innerText.includes('{says}')")
    time.sleep(max(0.0, SECONDS_TO_READ - (datetime.now(UTC) - asked).total_seconds()))


def _button(text: str) -> str:
    enabled = f"each.innerText.trim() == '{text}' && !each.disabled"
    return f"[...document.querySelectorAll('button')].find(each => {enabled})"
