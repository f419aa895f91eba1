"""The examples of two Dags and of a person, on a real Airflow. The person answers through its API."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import httpx
import pytest
from PIL import Image

from airflow_provider_bitdance.local import LocalService
from airflow_provider_bitdance.local.pictures import labels
from airflow_provider_bitdance.manifest import ManifestRow
from airflow_provider_bitdance.wavespeed.models import PROMPT_OPTIMIZER
from demo.http_json import send
from demo.real_airflow import RealAirflow
from tests.system.conftest import System, read_from_disk

APPROVAL = "example_bitdance_approval"
DAILY, PAGE = "example_bitdance_daily", "example_bitdance_daily_page"
SECONDS_TO_READ = 6
"""A task that is answered within about 5 may be taken for killed, and ask again (apache/airflow#71580)."""


@pytest.fixture(scope="module")
def runs(running: tuple[RealAirflow, LocalService, Path]) -> Iterator[dict[str, str]]:
    """Start all runs at once: they wait more than they work."""
    airflow, _, _ = running
    started = {
        name: airflow.trigger(APPROVAL, conf={"name": name, "prompt": f"The {name} poster"})
        for name in ("refused", "approved")
    }
    # Triggered before it is switched on: for a day that has a run, the schedule makes no other.
    started["daily"] = airflow.trigger(DAILY, logical_date=f"{datetime.now(UTC):%Y-%m-%d}T00:00:00Z")
    airflow.unpause(DAILY)
    yield started
    # At midnight it would buy in the middle of another test.
    airflow.patch(f"/dags/{DAILY}", {"is_paused": True})


def bought(system: System, words: str) -> int:
    """Return how many images with these words were bought; enhanced prompts have them, too."""
    made = system.service.predictions()
    return sum(words in each["prompt"] for each in made if each["model"] != PROMPT_OPTIMIZER)


def answer(system: System, run: str, task_id: str, choice: str) -> None:
    """Read a question and answer it."""
    asked = datetime.fromisoformat(system.airflow.question(APPROVAL, run, task_id)["created_at"])
    time.sleep(max(0.0, SECONDS_TO_READ - (datetime.now(UTC) - asked).total_seconds()))
    system.airflow.answer(APPROVAL, run, task_id, choice)


def picture_in(system: System, question: str) -> bytes:
    """Return the picture that a question shows, from where Airflow's UI loads it."""
    (address,) = re.findall(r"!\[Contact sheet\]\((.+?)\)", question)
    token = send("GET", f"{system.airflow.url}/auth/token")["access_token"]
    answer = httpx.get(
        f"{system.airflow.url}/{address}", headers={"Authorization": f"Bearer {token}"}, trust_env=False
    )
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/webp")
    return answer.content


def ended(system: System, run: str) -> dict[str, str]:
    """Wait for the end of a run and return its tasks' states."""
    assert system.airflow.wait_for_run(APPROVAL, run) == "success", system.fails(APPROVAL, run)
    return {task["task_id"]: task["state"] for task in system.airflow.task_instances(APPROVAL, run)}


def test_what_a_person_refuses_is_not_bought(system: System, runs: dict[str, str]) -> None:
    question = system.airflow.question(APPROVAL, runs["refused"], "approve")
    assert question["options"] == ["Approve", "Reject"]
    assert question["body"].startswith("The refused poster")
    assert "0 reused, 4 to buy, about $0.04" in question["body"]

    answer(system, runs["refused"], "approve", "Reject")

    assert ended(system, runs["refused"]) == {
        "estimate": "success",
        "approve": "success",
        "posters": "skipped",
        "choose": "skipped",
        "publish": "skipped",
    }
    assert bought(system, "The refused poster") == 0
    assert list(system.images.glob("posters/refused*")) == []


def test_what_a_person_approves_is_bought_and_what_they_choose_is_published(
    system: System, runs: dict[str, str]
) -> None:
    folder = system.images / "posters"
    system.airflow.question(APPROVAL, runs["approved"], "approve")
    assert bought(system, "The approved poster") == 0

    answer(system, runs["approved"], "approve", "Approve")
    question = system.airflow.question(APPROVAL, runs["approved"], "choose")
    assert bought(system, "The approved poster") == 4
    assert str(folder / "approved-contact-sheet.jpg") in question["body"]
    assert (folder / "approved-contact-sheet.jpg").exists()
    with Image.open(BytesIO(picture_in(system, question["body"]))) as picture:
        assert (picture.format, picture.width) == ("WEBP", 840 * 384 // 512)
    assert not (folder / "published").exists()

    answer(system, runs["approved"], "choose", "v3")
    assert set(ended(system, runs["approved"]).values()) == {"success"}
    published = (folder / "published" / "approved.png").read_bytes()
    assert published == (folder / "approved-v3.png").read_bytes()
    assert labels(published).prompt == "The approved poster"

    again = system.airflow.trigger(APPROVAL, conf={"name": "approved", "prompt": "The approved poster"})
    assert "4 reused, 0 to buy" in system.airflow.question(APPROVAL, again, "approve")["body"]
    assert bought(system, "The approved poster") == 4


def test_a_daily_run_updates_the_asset_and_its_event_starts_the_page(
    system: System, runs: dict[str, str]
) -> None:
    assert system.airflow.wait_for_run(DAILY, runs["daily"]) == "success", system.fails(DAILY, runs["daily"])
    result = system.airflow.xcom(DAILY, runs["daily"], "pictures")
    page_run = system.airflow.wait_for_new_run(PAGE)
    assert system.airflow.wait_for_run(PAGE, page_run) == "success", system.fails(PAGE, page_run)

    events = system.airflow.get(f"/dags/{PAGE}/dagRuns/{page_run}/upstreamAssetEvents")["asset_events"]
    assert [(event["source_run_id"], event["extra"]) for event in events] == [(runs["daily"], result)]
    page = Path(system.airflow.xcom(PAGE, page_run, "page"))
    shown = re.findall('<img src="([^"]+)"', page.read_text())
    rows = [ManifestRow.model_validate_json(line) for line in read_from_disk(result["manifest"]).splitlines()]
    assert shown == [Path(str(row.uri)).name for row in rows]
    for name in shown:
        assert labels((page.parent / name).read_bytes()).prompt.startswith(f"A harbour town on {name[:10]},")
    assert bought(system, "A harbour town") == result["stored"] == 3
