"""Prune: what is removed, what is kept, and that a rerun after it buys nothing."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_bitdance.engine import run_job
from airflow_provider_bitdance.exceptions import StorageError
from airflow_provider_bitdance.maintenance.prune import CLOSED_FOR, NONE_IS_THERE, PruneReport, Pruning
from airflow_provider_bitdance.maintenance.scan import Finding, read_records
from airflow_provider_bitdance.records import Journal
from airflow_provider_bitdance.records.receipts import Receipts
from airflow_provider_bitdance.storage import Folder, LocalFolder
from airflow_provider_bitdance.storage.naming import Destination
from tests.unit.maintenance.support import Office
from tests.unit.support import (
    OUTPUT,
    Crash,
    MemoryFolder,
    SteppingFolder,
    a_job,
    a_receipt,
    a_wanted,
    a_writer,
    run,
)


def prune(office: Office, folder: Folder | None = None, **changes: Any) -> PruneReport:
    fields: dict[str, Any] = {
        "open_folder": office.open_folder,
        "outputs": (OUTPUT,),
        "dry_run": False,
        "clock": office.clock,
    }
    return Pruning(folder or office.folder, **(fields | changes)).run()


def files(office: Office, below: str) -> list[str]:
    return [name for name in office.disk if f"/{below}/" in name]


def an_old_image(**task: Any) -> Office:
    office = Office()
    office.task(**task)
    office.wait(days=31)
    return office


# What is removed


def test_the_journal_of_an_image_that_was_stored_long_ago_is_removed_and_its_receipt_stays() -> None:
    office = an_old_image()

    report = prune(office)

    assert (report.journals, report.receipts, report.kept) == ((a_job(),), (), {})
    assert (files(office, "jobs"), len(files(office, "receipts"))) == ([], 1)


def test_a_dry_run_says_the_same_and_changes_nothing() -> None:
    office = an_old_image()
    before = dict(office.disk)

    report = prune(office, dry_run=True)

    assert report.journals == (a_job(),)
    assert office.disk == before


def test_nothing_is_left_of_the_generations_that_a_clear_has_claimed() -> None:
    office = Office()
    office.task(job=a_job(generation=2))
    office.task(job=a_job(generation=5), try_number=2, wanted=a_wanted("a fox"))
    office.wait(days=31)
    assert len({name.rpartition("/")[0] for name in files(office, "jobs")}) == 6

    report = prune(office)
    office.wait(days=1)
    prune(office)

    assert {job.generation for job in report.journals} == {2, 5}
    assert files(office, "jobs") == []


def test_a_claim_of_a_clear_stays_as_long_as_its_process_may_wake_up() -> None:
    office = Office()
    office.task(job=a_job(generation=2))
    office.task(job=a_job(generation=5), try_number=2, wanted=a_wanted("a fox"))
    office.wait(days=29)
    before = dict(office.disk)

    prune(office)

    assert office.disk == before


def test_an_image_that_was_bought_and_has_expired_is_past_help() -> None:
    office = an_old_image(dies="before poll")

    assert prune(office).journals == (a_job(),)


def test_a_receipt_goes_with_its_file_where_other_images_are_still_there() -> None:
    office = an_old_image()
    office.task(job=a_job(task_id="second"), wanted=a_wanted("a hare", name="hare"))
    del office.disk[f"{OUTPUT}/cover.png"]

    assert prune(office).receipts == (f"{OUTPUT}/cover.png",)
    assert len(files(office, "receipts")) == 1


# What is kept


def test_a_recent_journal_is_kept() -> None:
    office = Office()
    office.task()
    office.wait(days=29)

    report = prune(office)

    assert (report.journals, report.kept) == ((), {"running or recent": 1})


def test_a_job_whose_lease_has_not_ended_is_kept() -> None:
    office = Office()
    office.task(timeout=6 * 24 * 3600.0, dies="before poll")
    office.wait(days=5)

    assert prune(office, older_than=timedelta(days=1)).kept == {"running or recent": 1}


def test_a_job_with_a_possibly_paid_image_is_kept_however_old_it_is() -> None:
    office = Office()
    office.api.on_post = [office.api.lose_answer]
    office.task(on_lost_response="fail")
    office.wait(days=300)

    report = prune(office)

    assert (report.journals, report.kept) == ((), {"possibly paid": 1})


def test_a_job_that_was_about_to_buy_is_kept() -> None:
    assert prune(an_old_image(dies="before POST")).kept == {"possibly paid": 1}


def test_one_recent_generation_keeps_the_others_of_its_task() -> None:
    office = an_old_image()
    office.task(job=a_job(generation=2), try_number=2)

    report = prune(office)

    assert (report.journals, report.kept) == ((), {"running or recent": 2})


def test_a_damaged_journal_is_a_finding_and_stays_and_the_others_go() -> None:
    office = an_old_image()
    office.task(job=a_job(dag_id="posters"), wanted=a_wanted("a cat", name="cat"))
    office.wait(days=31)
    damaged = office.damage("jobs/posters/")

    report = prune(office)

    assert report.journals == (a_job(),)
    assert [finding.uri for finding in report.findings] == [damaged.rpartition("/")[0]]
    assert damaged in office.disk


def test_a_damaged_generation_keeps_the_others_of_its_task() -> None:
    office = an_old_image()
    office.task(job=a_job(generation=2), try_number=2)
    office.wait(days=31)
    office.damage("generation=2/")

    report = prune(office)

    assert (report.journals, report.kept) == ((), {"damaged": 1})


def test_where_no_image_of_an_output_folder_is_there_its_receipts_stay() -> None:
    office = an_old_image()
    del office.disk[f"{OUTPUT}/cover.png"]

    report = prune(office)

    assert (report.receipts, len(files(office, "receipts"))) == ((), 1)
    assert report.findings == (Finding(OUTPUT, NONE_IS_THERE),)


def on_disk(office: Office, root: Path, *files: str) -> Callable[..., PruneReport]:
    """Store an image at each of these paths below a folder, and return a prune with that as its output."""
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"png")
        destination = Destination(f"file://{path.parent}", path.stem)
        Receipts(office.folder).write(destination, a_receipt(b"png", uri=f"file://{path}"))
    office.wait(days=31)
    return partial(prune, office, outputs=(f"file://{root}",), open_folder=open_on_disk)


def open_on_disk(uri: str) -> Folder:
    return LocalFolder(Path(uri.removeprefix("file://")))


@pytest.mark.parametrize("others", ["cover.png", "day=1/cover.png", "shops/1/cover.png"])
def test_receipts_of_a_disk_that_is_not_mounted_stay_whatever_else_is_below_the_output_folder(
    others: str, tmp_path: Path
) -> None:
    """When the disk is back, their images would be bought again."""
    pruned = on_disk(Office(), tmp_path, others, "shops/2/cover.png", "shops/2/day=1/cover.png")
    shutil.rmtree(tmp_path / "shops/2")
    (tmp_path / "shops/2").mkdir()  # the mount point

    report = pruned()

    assert (report.receipts, report.findings) == (
        (),
        (Finding(f"file://{tmp_path}/shops/2", NONE_IS_THERE),),
    )


def test_receipts_go_with_a_folder_that_was_deleted_beside_others_that_have_images(tmp_path: Path) -> None:
    pruned = on_disk(Office(), tmp_path, "day=1/cover.png", "day=2/a/cover.png", "day=3/cover.png")
    shutil.rmtree(tmp_path / "day=2")
    shutil.rmtree(tmp_path / "day=3")

    report = pruned()

    assert report.findings == ()
    gone = {f"file://{tmp_path}/day=2/a/cover.png", f"file://{tmp_path}/day=3/cover.png"}
    assert set(report.receipts) == gone


def test_a_slash_at_the_end_of_an_output_folder_makes_no_difference() -> None:
    office = an_old_image()
    office.task(job=a_job(task_id="second"), wanted=a_wanted("a hare", name="hare"))
    del office.disk[f"{OUTPUT}/cover.png"]

    report = prune(office, outputs=(f"{OUTPUT}/",))

    assert (report.receipts, report.findings) == ((f"{OUTPUT}/cover.png",), ())


def test_receipts_stay_where_the_output_folder_itself_is_gone(tmp_path: Path) -> None:
    pruned = on_disk(Office(), tmp_path / "covers", "day=1/cover.png")
    shutil.rmtree(tmp_path / "covers")

    report = pruned()

    assert (report.receipts, [finding.uri for finding in report.findings]) == (
        (),
        [f"file://{tmp_path}/covers"],
    )


def test_receipts_of_folders_that_nobody_named_are_not_looked_at() -> None:
    office = an_old_image()
    del office.disk[f"{OUTPUT}/cover.png"]

    report = prune(office, outputs=())

    assert (report.receipts, report.findings) == ((), ())


def test_a_receipt_at_the_destination_of_a_job_that_is_kept_stays() -> None:
    office = an_old_image()
    office.task(job=a_job(task_id="second"), wanted=a_wanted("a hare", name="hare"))
    del office.disk[f"{OUTPUT}/cover.png"]
    office.task(job=a_job(run_id="run-2"), dies="before POST", if_exists="regenerate")

    assert prune(office).receipts == ()


def test_a_hostile_record_removes_nothing_outside_of_the_records() -> None:
    office = an_old_image()
    office.disk["mem://elsewhere/000001.json"] = b"{}"
    (receipt,) = files(office, "receipts")
    office.disk[receipt] = office.disk[receipt].replace(b"cover.png", b"../../elsewhere/000001.json")

    report = prune(office)

    assert report.needs_attention
    assert "mem://elsewhere/000001.json" in office.disk
    assert f"{OUTPUT}/cover.png" in office.disk


# A rerun


@pytest.mark.parametrize("named", [False, True])
def test_a_task_that_is_cleared_after_its_journal_was_removed_buys_nothing(named: bool) -> None:
    wanted = a_wanted(named=named)
    office = an_old_image(wanted=wanted)
    prune(office)

    for job, try_number in ((a_job(), 2), (a_job(generation=2), 2), (a_job(run_id="run-2"), 1)):
        office.task(job=job, try_number=try_number, wanted=wanted)

    assert office.api.billed == 1


def test_another_task_at_a_destination_whose_last_maker_is_forgotten_buys_once() -> None:
    wanted = a_wanted(named=True)
    office = an_old_image(wanted=wanted)
    prune(office)
    del office.disk[f"{OUTPUT}/cover.png"]

    for task_id in ("second", "third"):
        office.task(job=a_job(task_id=task_id), wanted=wanted)

    assert office.api.billed == 2


# Kills and races


def steps_of(office: Office) -> list[str]:
    """Return every step that a prune makes in a copy of the disk."""
    steps: list[str] = []
    copy = MemoryFolder(dict(office.disk), office.folder.uri)
    prune(office, SteppingFolder(copy, steps.append))  # type: ignore[arg-type]
    return steps


def test_a_prune_that_is_killed_at_any_step_costs_nothing_and_the_next_one_ends_it() -> None:
    for killed_at in range(len(steps_of(an_old_image()))):
        office, seen = an_old_image(), 0

        def step(name: str, at: int = killed_at) -> None:
            nonlocal seen
            seen += 1
            if seen > at:
                raise Crash(name)

        with pytest.raises(Crash):
            prune(office, SteppingFolder(office.folder, step))  # type: ignore[arg-type]
        office.wait(seconds=CLOSED_FOR)
        prune(office)
        assert files(office, "jobs") == []
        office.task(job=a_job(generation=2), try_number=2)
        assert office.api.billed == 1


class Half(MemoryFolder):
    """An object store, in the middle of whose removal of a folder the process dies."""

    left = 1

    def remove_folder(self, name: str) -> None:
        for each in sorted(self.names(name), reverse=True)[: -self.left]:
            self.remove(each)
        raise Crash(name)


def a_half_removed_image(left: int) -> Office:
    office = an_old_image()
    folder = Half(office.disk, office.folder.uri)
    folder.left = left
    with pytest.raises(Crash):
        prune(office, folder)  # type: ignore[arg-type]
    assert len(files(office, "jobs")) == left
    office.wait(seconds=CLOSED_FOR)
    return office


@pytest.mark.parametrize("left", [1, 2, 3])
def test_what_a_killed_prune_left_of_a_journal_in_an_object_store_is_removed_by_the_next(left: int) -> None:
    office = a_half_removed_image(left)

    prune(office)

    assert files(office, "jobs") == []


@pytest.mark.parametrize("left", [1, 2, 3])
def test_a_journal_that_is_half_removed_is_no_new_one(left: int) -> None:
    office = a_half_removed_image(left)
    before = files(office, "jobs")

    with pytest.raises(StorageError, match="records prune is removing the journal"):
        run(run_job(office.context(try_number=2), [a_wanted()]))
    assert files(office, "jobs") == before

    office.task(job=a_job(generation=2), try_number=2)  # a clear goes on without it
    prune(office)
    office.task(try_number=3)  # max_tries has come back to its old value
    assert office.api.billed == 1


def test_what_a_killed_prune_left_of_a_journal_on_a_disk_is_removed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder is renamed before its files go, so a reader never sees half of a journal."""
    office, folder = an_old_image(), LocalFolder(tmp_path)
    for path, data in office.disk.items():
        if path.startswith(f"{office.folder.uri}/"):
            folder.create(path.removeprefix(f"{office.folder.uri}/"), data)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", dies)
        with pytest.raises(Crash):
            prune(office, folder)
    assert [*tmp_path.rglob("jobs/**/*.json")] != []
    assert read_records(folder).jobs == ()
    office.wait(seconds=CLOSED_FOR)

    report = prune(office, folder)

    assert report.findings == ()
    assert [*tmp_path.rglob("jobs/**/*.json")] == []


def dies(*_: object, **__: object) -> None:
    raise Crash


def test_another_task_at_the_destination_of_a_half_removed_job_buys_once() -> None:
    wanted = a_wanted(named=True)
    office = an_old_image(wanted=wanted)
    with pytest.raises(Crash):
        prune(office, Half(office.disk, office.folder.uri))  # type: ignore[arg-type]
    del office.disk[f"{OUTPUT}/cover.png"]
    office.wait(seconds=CLOSED_FOR)

    for task_id in ("second", "third"):
        office.task(job=a_job(task_id=task_id), wanted=wanted)

    assert office.api.billed == 2


def test_what_another_prune_removes_at_this_moment_is_left_to_it() -> None:
    office = an_old_image()
    with pytest.raises(Crash):
        prune(office, Half(office.disk, office.folder.uri))  # type: ignore[arg-type]

    prune(office)

    assert len(files(office, "jobs")) == 1


def test_what_another_prune_has_claimed_at_this_moment_is_left_to_it() -> None:
    office = an_old_image()

    def step(name: str) -> None:
        if name.startswith("before replace"):
            raise Crash(name)

    with pytest.raises(Crash):
        prune(office, SteppingFolder(office.folder, step))  # type: ignore[arg-type]
    assert prune(office).kept == {"running or recent": 1}

    office.wait(seconds=CLOSED_FOR)
    assert len(prune(office).journals) == 1


@pytest.mark.parametrize("fails", ["create", "replace", "remove_folder"])
def test_a_store_error_at_one_journal_is_a_finding_and_the_others_go(fails: str) -> None:
    office = an_old_image()
    office.task(job=a_job(dag_id="posters"), wanted=a_wanted("a cat", name="cat"))
    office.wait(days=31)

    class Failing(MemoryFolder):
        def __getattribute__(self, name: str) -> Any:
            def refused(path: str, *_: Any) -> None:
                if "posters" in path:
                    raise StorageError(f"Could not write {path}")
                getattr(MemoryFolder, name)(self, path, *_)

            return refused if name == fails else super().__getattribute__(name)

    report = prune(office, Failing(office.disk, office.folder.uri))  # type: ignore[arg-type]

    assert (report.journals, report.kept) == ((a_job(),), {"not removed": 1})
    assert [finding.uri.partition("/jobs/")[2][:7] for finding in report.findings] == ["posters"]
    assert report.needs_attention


def test_a_store_error_at_one_receipt_is_a_finding_and_the_others_go() -> None:
    office = an_old_image()
    for name in ("hare", "cat"):
        office.task(job=a_job(task_id=name), wanted=a_wanted(f"a {name}", name=name))
    office.wait(days=31)
    for name in ("cover", "hare"):
        del office.disk[f"{OUTPUT}/{name}.png"]

    class Failing(MemoryFolder):
        def remove(self, name: str) -> None:
            if name.startswith("receipts/") and b"hare.png" in (self.read(name) or b""):
                raise StorageError(f"Could not delete {name}")
            super().remove(name)

    report = prune(office, Failing(office.disk, office.folder.uri))  # type: ignore[arg-type]

    assert report.receipts == (f"{OUTPUT}/cover.png",)
    assert [finding.what for finding in report.findings] != []


def test_a_receipt_that_is_written_between_the_search_and_the_removal_stays() -> None:
    office = an_old_image()
    office.task(job=a_job(task_id="second"), wanted=a_wanted("a hare", name="hare"))
    image = office.disk.pop(f"{OUTPUT}/cover.png")

    class Late(MemoryFolder):
        reads = 0

        def read(self, name: str) -> bytes | None:
            if name.startswith("receipts/") and image not in office.disk.values():
                self.reads += 1
                if self.reads > 2:  # each receipt has been read once: now it is to be removed
                    office.disk[f"{OUTPUT}/cover.png"] = image
            return super().read(name)

    report = prune(office, Late(office.disk, office.folder.uri))  # type: ignore[arg-type]

    assert (report.receipts, len(files(office, "receipts"))) == ((), 2)


def test_a_hostile_journal_that_says_it_is_being_removed_until_2096_is_removed() -> None:
    office = a_half_removed_image(1)
    (name,) = files(office, "jobs")
    office.disk[name] = re.sub(rb'"deadline": [0-9.]+', b'"deadline": 3976214400.0', office.disk[name])

    prune(office)

    assert files(office, "jobs") == []


def test_a_task_that_began_since_its_journal_was_read_keeps_it() -> None:
    office = an_old_image()

    class Late(MemoryFolder):
        def create(self, name: str, data: bytes) -> None:
            if not self.is_late:
                self.is_late = True
                office.task(try_number=2)
            super().create(name, data)

        is_late = False

    report = prune(office, Late(office.disk, office.folder.uri))  # type: ignore[arg-type]

    assert (report.journals, report.kept) == ((), {"running or recent": 1})
    assert len(files(office, "jobs")) >= 3


def test_no_process_enters_a_job_that_is_being_removed_however_long_that_takes() -> None:
    office, refused = an_old_image(), []

    class Slow(MemoryFolder):
        def remove_folder(self, name: str) -> None:
            for _ in range(2):
                journal = Journal(office.folder, a_writer(try_number=2))
                journal.load()
                with pytest.raises(StorageError, match="records prune is removing the journal"):
                    journal.claim(office.clock.now, office.clock.now)
                refused.append(office.clock.now)
                office.wait(seconds=CLOSED_FOR)

    prune(office, Slow(office.disk, office.folder.uri))  # type: ignore[arg-type]

    assert len(refused) == 2


def test_two_prunes_at_once_remove_a_journal_once() -> None:
    office, others = an_old_image(), []

    class Second(MemoryFolder):
        def remove_folder(self, name: str) -> None:
            others.append(prune(office))
            super().remove_folder(name)

    first = prune(office, Second(office.disk, office.folder.uri))  # type: ignore[arg-type]

    assert (first.journals, others[0].journals) == ((a_job(),), ())
