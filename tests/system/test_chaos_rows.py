"""Seven rows of the chaos table, the most telling ones, at the same time on the Airflow of all system tests.

`make chaos` plays them all, also with dying triggerer, scheduler, API server: internals/guarantees.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from airflow_provider_bitdance.local import LocalService
from demo.real_airflow import RealAirflow
from tests.chaos.rows import ROWS
from tests.chaos.scene import DAG_ID, Outcome

SEVEN = {
    "request sent, response not read · echo": (2, 4),
    "submitted": (4, 8),
    "half a download": (4, 8),
    "receipt written, journal entry missing": (4, 8),
    "task SIGSTOP past its heartbeat, SIGCONT": (2, 4),
    "triggerer SIGKILL": (3, 3),
    "batch: 8 responses not read · echo": (40, 2),
}
"""The rows, each with the images that it asks for and the tries that they take at least."""


@pytest.fixture(scope="module")
def playing(
    running: tuple[RealAirflow, LocalService, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[Outcome]]]:
    airflow, _, _ = running
    airflow.wait_for_dag(DAG_ID)
    folder = tmp_path_factory.mktemp("chaos")
    with ThreadPoolExecutor(len(SEVEN)) as pool:
        yield {row.name: pool.submit(row.play, airflow, folder) for row in ROWS if row.name in SEVEN}


@pytest.mark.parametrize("name", SEVEN)
def test_each_image_is_stored_and_billed_once_whatever_dies(
    playing: dict[str, Future[Outcome]], name: str
) -> None:
    outcome = playing[name].result()
    asked, tries = SEVEN[name]
    assert (outcome.asked, outcome.stored, outcome.billed) == (asked, asked, asked)
    assert (outcome.possibly_paid, outcome.wrong) == (0, 0)
    assert outcome.tries >= tries, "the fault did not happen"
