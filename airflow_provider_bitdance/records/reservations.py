"""Reservations: which job is making the image at a destination that the user named.

A name made from Dag, task, run and map index belongs to one task instance; a name that the user chose may be
wanted by two tasks at once. Reservations are numbered and created exclusively, as the journal's entries are:
the last one holds the destination until its job's journal says that the image is stored or has failed.
"""

from __future__ import annotations

from airflow_provider_bitdance.records.codec import Strict, damaged, read_record
from airflow_provider_bitdance.records.fields import Count, Key, Moment, Name
from airflow_provider_bitdance.records.owner import Owner
from airflow_provider_bitdance.storage import Folder
from airflow_provider_bitdance.storage.naming import Destination


class Reservation(Strict):
    """One job's hold on a destination.

    :param key: The image's name within that job.
    :param fingerprint: Identity of what that job requests.
    """

    format: int = 1
    number: Count
    time: Moment
    writer: Owner
    key: Key
    fingerprint: Name


class Reservations:
    """The reservations below one records path. Its methods block.

    :param folder: The records path.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def last(self, destination: Destination, *, known: int = 0, after: int = 0) -> Reservation | None:
        """Return the reservation that holds a destination, or the last that did.

        :param known: Number of a reservation that is known to be there: the search begins at it.
        :param after: Number of a reservation that was read already: only later ones are searched for.
        """
        last, number = None, 1
        if after:
            number = after + 1
        elif known and self._folder.size(self._name(destination, known)) is not None:
            number = known
        while found := self._read(destination, number):
            last, number = found, number + 1
        return last

    def _read(self, destination: Destination, number: int) -> Reservation | None:
        name = self._name(destination, number)
        found = read_record(Reservation, self._folder, name)
        if found is not None and found.number != number:  # the next one would leave a gap, and be overlooked
            raise damaged(self._folder, name, f"says that it is number {found.number}")
        return found

    def take(self, destination: Destination, reservation: Reservation) -> Reservation | None:
        """Take a destination, and return the reservation of this number: another may have been quicker.

        :return: An equal one where it worked; nothing where the store does not show yet which was quicker.
        """
        data = reservation.model_dump_json(indent=1).encode()
        try:
            self._folder.create(self._name(destination, reservation.number), data)
        except FileExistsError:
            # A store's client may repeat a write whose response it lost: then this one is ours.
            return self._read(destination, reservation.number)
        return reservation

    def _name(self, destination: Destination, number: int) -> str:
        return f"addresses/{destination.record_name}/{number:06}.json"
