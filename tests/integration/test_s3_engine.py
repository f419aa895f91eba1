"""The engine's crash tests with images and records on a real S3 server."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_bitdance.engine import JobContext
from airflow_provider_bitdance.records import Journal
from airflow_provider_bitdance.storage import ObjectFolder
from tests.s3 import S3Server
from tests.unit.engine import test_crashes
from tests.unit.engine.test_crashes import POINTS, UNANSWERED, UNSENT, check, finish, go
from tests.unit.support import OUTPUT, RECORDS, Step, SteppingFolder, World


class S3World(World):
    """A world whose disk is a bucket; messages and results name the paths that its base class names."""

    def __init__(self, server: S3Server, **options: Any) -> None:
        super().__init__(**options)
        self.server = server
        self.path = server.new_path()
        self.filesystem = server.filesystem()  # one for all its processes: making one takes 0.2 s

    def context(self, *, step: Step = lambda _: None, records: str = RECORDS, **options: Any) -> JobContext:
        made = super().context(step=step, **options)
        folder = SteppingFolder(self._folder(records), step)
        journal = Journal(folder, made.journal.owner)
        journal.load()
        return replace(
            made, journal=journal, records=folder, images=SteppingFolder(self._folder(OUTPUT), step)
        )

    def _folder(self, uri: str) -> ObjectFolder:
        return ObjectFolder(self.filesystem, f"{self.path}{uri.removeprefix(OUTPUT)}", uri)

    @property
    def disk(self) -> dict[str, bytes]:
        return {f"{OUTPUT}/{name}": data for name, data in self.server.files(self.path).items()}

    @disk.setter
    def disk(self, _: dict[str, bytes]) -> None:
        pass


@pytest.mark.parametrize("at", range(len(POINTS)), ids=lambda at: f"{at + 1} {POINTS[at]}")
def test_after_a_crash_anywhere_the_image_is_stored_once_and_the_bill_is_explained(
    s3: S3Server, at: int
) -> None:
    world = S3World(s3)
    assert go(world, crash_at=at + 1) is None
    (result,) = finish(world)
    check(world, [result])
    unproven = POINTS[at] in UNANSWERED
    assert world.api.billed == (2 if unproven else 1)
    assert result["possibly_paid"] == (1 if unproven or POINTS[at] in UNSENT else 0)


@pytest.mark.parametrize("crashes", [[4, 8, 17], [3, 3, 3, 3], [2, 14, 15, 16, 17]], ids=str)
def test_after_several_crashes_in_a_row(s3: S3Server, crashes: list[int]) -> None:
    world = S3World(s3)
    for try_number, crash_at in enumerate(crashes, start=1):
        go(world, crash_at=crash_at, try_number=try_number)
    check(world, finish(world, first_try=len(crashes) + 1))


@pytest.mark.parametrize("at", range(1, len(POINTS) + 1, 2))
def test_a_process_that_was_only_paused_does_nothing_more_once_another_has_taken_over(
    s3: S3Server, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(test_crashes, "World", lambda: S3World(s3))
    test_crashes.test_a_process_that_was_only_paused_does_nothing_more_once_another_has_taken_over(at)


def test_many_processes_at_once_buy_one_image(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(test_crashes, "World", lambda: S3World(s3))
    test_crashes.test_many_processes_at_once_buy_one_image()
