"""Reservations on a store: of two jobs one takes a destination, and the last reservation holds it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from airflow_provider_bitdance.records.reservations import Reservation, Reservations
from airflow_provider_bitdance.storage.naming import parse_destination
from tests.unit.support import OUTPUT, RECORDS, START, MemoryFolder, a_job, a_writer

COVER = parse_destination(f"{OUTPUT}/cover.png", default_stem="cover")


@pytest.fixture
def reservations() -> Reservations:
    return Reservations(MemoryFolder({}, RECORDS))


def a_reservation(number: int = 1, *, task_id: str = "ours") -> Reservation:
    return Reservation(
        number=number,
        time=datetime.fromtimestamp(START, UTC),
        writer=a_writer(job=a_job(task_id=task_id), token=task_id),
        key="image",
        fingerprint="fp",
    )


def test_nobody_holds_a_destination_at_first(reservations: Reservations) -> None:
    assert reservations.last(COVER) is None


def test_of_two_tasks_one_takes_a_destination(reservations: Reservations) -> None:
    theirs = a_reservation(task_id="theirs")
    assert reservations.take(COVER, theirs) == theirs
    assert reservations.take(COVER, a_reservation()) == theirs
    assert reservations.last(COVER) == theirs


def test_a_reservation_that_the_stores_client_wrote_twice_is_ours(reservations: Reservations) -> None:
    assert reservations.take(COVER, a_reservation()) == a_reservation()
    assert reservations.take(COVER, a_reservation()) == a_reservation()


@pytest.mark.parametrize("known", [0, 1, 2, 3, 4])
def test_the_last_reservation_holds_whichever_is_known(reservations: Reservations, known: int) -> None:
    """Also where the known one, which a receipt speaks of, is gone or is not there yet."""
    for number in (1, 2, 3):
        reservations.take(COVER, a_reservation(number))
    assert reservations.last(COVER, known=known) == a_reservation(3)
