"""Notes: what a process bought for a job that another process had taken over meanwhile.

Such a process slept while its submission was under way. It may not write into the journal any more, so it
leaves a file of its own beside it: immutable, created exclusively, named after the prediction. Whoever reads
the journal counts it as possibly paid, unless the intent is known to have given that very prediction.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from datetime import datetime

from pydantic import BaseModel, ConfigDict

from airflow_provider_bitdance.records.codec import read_record
from airflow_provider_bitdance.records.events import FORMAT, Owner
from airflow_provider_bitdance.storage import Folder, uri_of
from airflow_provider_bitdance.storage.naming import safe_name

__all__ = ["NOTES", "Note", "is_note", "list_notes", "read_notes", "write_note"]

NOTES = "/notes"
"""What follows a journal's folder in the name of the folder of its notes."""


class Note(BaseModel):
    """One purchase by a process that had been replaced.

    :param owner: That process.
    :param key: Of the image.
    :param intent: Which intent of the image it was, counted from 1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = FORMAT
    time: datetime
    owner: Owner
    key: str
    prediction_id: str
    intent: int


def write_note(folder: Folder, note: Note) -> None:
    """Leave a note beside the journal of its owner's job.

    :raises StorageError: The store failed; nothing is known to be written.
    """
    name = f"{note.owner.job.folder}{NOTES}/{safe_name(note.prediction_id)}.json"
    # One that is there already is this one: the store's client has repeated its write.
    with contextlib.suppress(FileExistsError):
        folder.create(name, note.model_dump_json(indent=1).encode())


def is_note(name: str) -> bool:
    """Say whether a file below a journal's folder is a note."""
    folder, _, file = name.rpartition("/")
    return folder.endswith(NOTES) and file.endswith(".json") and not file.startswith(".")


def list_notes(folder: Folder, journal: str) -> list[str]:
    """Return the names of the notes beside a journal.

    :param journal: The journal's folder.
    :raises StorageError: The store failed.
    """
    return [name for name in folder.names(f"{journal}{NOTES}") if is_note(name)]


def read_notes(folder: Folder, names: Iterable[str]) -> list[Note]:
    """Read notes, in the order in which they were left.

    :raises RecordUnreadableError: One is damaged or of a newer format.
    :raises StorageError: The store failed.
    """
    notes = [
        read_record(Note, data, newest=FORMAT, uri=uri_of(folder, name))
        for name in names
        if (data := folder.read(name)) is not None
    ]
    return sorted(notes, key=lambda note: (note.time, note.prediction_id))
