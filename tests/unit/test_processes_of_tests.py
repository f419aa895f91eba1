"""``make test`` gives a file's tests to one process, so what they prepare together is prepared once."""

from __future__ import annotations

import os

import pytest


@pytest.mark.parametrize("number", range(4))
def test_the_tests_of_a_file_run_in_one_process(
    tmp_path_factory: pytest.TempPathFactory, number: int
) -> None:
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # all processes share it
    seen = folder / "processes-of-a-file"
    seen.mkdir(exist_ok=True)
    (seen / str(os.getpid())).touch()
    assert [file.name for file in seen.iterdir()] == [str(os.getpid())]
