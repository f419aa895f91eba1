"""What every folder promises: files that are whole, and of many creators exactly one.

A suite, to be run on each kind of store by a class that says what ``place`` is.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Barrier

import pytest

from airflow_provider_bitdance.storage import Folder, check_writable, uri_of


@dataclass(frozen=True)
class Place:
    """A folder to be tested, and a way to look at it that does not go through it.

    :ivar files: Returns the names of all files in and around the folder.
    """

    folder: Folder
    files: Callable[[], set[str]]


class FolderSuite:
    """Holds on every store, for one worker."""

    @pytest.fixture
    def folder(self, place: Place) -> Folder:
        return place.folder

    def test_a_created_file_is_read_back(self, folder: Folder) -> None:
        folder.create("jobs/a/000001.json", b"one")
        assert folder.read("jobs/a/000001.json") == b"one"
        assert folder.size("jobs/a/000001.json") == 3

    def test_a_second_creation_fails_and_changes_nothing(self, folder: Folder) -> None:
        folder.create("jobs/000001.json", b"one")
        with pytest.raises(FileExistsError):
            folder.create("jobs/000001.json", b"two")
        assert folder.read("jobs/000001.json") == b"one"

    def test_a_removed_file_can_be_created_anew(self, folder: Folder) -> None:
        folder.create("x", b"one")
        folder.remove("x")
        folder.create("x", b"two")
        assert folder.read("x") == b"two"

    def test_a_removed_folder_is_gone_with_all_that_is_in_it_and_nothing_else(self, place: Place) -> None:
        names = [f"jobs/run[1]*/g=0/{number:06}.json" for number in range(1, 4)]
        for name in (*names, "jobs/run[1]*/g=0/notes/x.json", "jobs/run[1]*/g=01/000001.json", "jobs/run1/x"):
            place.folder.create(name, b"one")
        place.folder.create("jobs/plain/g=0/000001.json", b"one")
        place.folder.create("jobs/plain/g=0/000002.json", b"two")
        place.folder.remove_folder("jobs/run[1]*/g=0")
        place.folder.remove_folder("jobs/plain/g=0")
        assert sorted(place.folder.names("jobs")) == ["jobs/run1/x", "jobs/run[1]*/g=01/000001.json"]
        assert not any("g=0/" in name or ".tmp" in name for name in place.files())
        place.folder.create(names[0], b"two")
        assert place.folder.read(names[0]) == b"two"

    def test_removing_a_folder_that_is_not_there_is_no_error(self, folder: Folder) -> None:
        folder.remove_folder("jobs/a/b")

    def test_a_replaced_file_holds_the_new_bytes_only(self, folder: Folder) -> None:
        folder.replace("receipts/x", b"a long first version")
        folder.replace("receipts/x", b"short")
        assert folder.read("receipts/x") == b"short"
        assert folder.size("receipts/x") == 5

    def test_an_empty_file_is_a_file(self, folder: Folder) -> None:
        folder.replace("x", b"")
        assert folder.read("x") == b""
        assert folder.size("x") == 0

    def test_what_is_not_there_is_none(self, folder: Folder) -> None:
        assert folder.read("jobs/nothing") is None
        assert folder.size("jobs/nothing") is None

    def test_a_file_that_was_just_written_is_no_longer_missing(self, folder: Folder) -> None:
        assert folder.size("x") is None
        folder.replace("x", b"1234")
        assert folder.size("x") == 4
        folder.replace("x", b"123456")
        assert folder.size("x") == 6

    def test_a_file_may_be_removed_twice(self, folder: Folder) -> None:
        folder.replace("x", b"1")
        folder.remove("x")
        folder.remove("x")
        assert folder.read("x") is None

    def test_the_files_below_a_folder_are_listed_at_any_depth_and_no_others(self, folder: Folder) -> None:
        assert folder.names("jobs") == []
        for name in ("jobs/a/b/000001.json", "jobs/a/b/000002.json", "jobs/x.json", "jobs2/y.json", "z.json"):
            folder.replace(name, b"1")
        expected = {"jobs/a/b/000001.json", "jobs/a/b/000002.json", "jobs/x.json"}
        listed = folder.names("jobs")
        assert set(listed) == expected
        assert len(listed) == len(expected)
        assert set(folder.names("jobs/a")) == expected - {"jobs/x.json"}

    def test_a_file_that_was_just_written_or_removed_is_listed_right(self, folder: Folder) -> None:
        folder.replace("jobs/1", b"1")
        assert folder.names("jobs") == ["jobs/1"]
        folder.replace("jobs/2", b"2")
        assert sorted(folder.names("jobs")) == ["jobs/1", "jobs/2"]
        folder.remove("jobs/1")
        assert folder.names("jobs") == ["jobs/2"]

    def test_the_writable_check_leaves_nothing(self, place: Place) -> None:
        check_writable(place.folder)
        assert place.files() == set()

    def test_a_uri_has_no_slash_at_its_end(self, folder: Folder) -> None:
        assert uri_of(folder, "a/b").endswith("/records/a/b")

    def test_no_temporary_file_is_left(self, place: Place) -> None:
        folder = place.folder
        folder.create("jobs/1", b"one")
        folder.replace("x", b"two")
        with pytest.raises(FileExistsError):
            folder.create("jobs/1", b"three")
        assert place.files() <= {"records/jobs/1", "records/x"}


class RaceSuite:
    """Holds where the store decides: for many workers at once."""

    racers, rounds = 8, 15

    def test_of_many_creators_exactly_one_wins_and_its_bytes_stand(self, place: Place) -> None:
        start = Barrier(self.racers)

        def race(number: int) -> list[bool]:
            won = []
            for turn in range(self.rounds):
                start.wait(timeout=30)
                try:
                    place.folder.create(f"jobs/{turn}", bytes([number]) * 5000)
                except FileExistsError:
                    won.append(False)
                else:
                    won.append(True)
            return won

        with ThreadPoolExecutor(self.racers) as pool:
            wins = list(pool.map(race, range(self.racers)))
        for turn in range(self.rounds):
            winners = [number for number in range(self.racers) if wins[number][turn]]
            assert len(winners) == 1
            assert place.folder.read(f"jobs/{turn}") == bytes(winners) * 5000

    def test_it_says_that_it_creates_exclusively(self, place: Place) -> None:
        assert place.folder.is_exclusive()
        assert place.folder.is_exclusive()


class WholeSuite:
    """Holds where a new file appears at once."""

    def test_a_reader_never_sees_half_of_a_new_file(self, place: Place) -> None:
        data = b"x" * 500_000
        seen: set[int | None] = set()

        def read_all() -> None:
            while (found := place.folder.read("x")) is None or len(found) < len(data):
                seen.add(None if found is None else len(found))

        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(read_all)
            place.folder.create("x", data)
            reading.result(timeout=30)
        assert seen <= {None}
