"""Notes: what a process bought for a job that another process had taken over meanwhile.

Such a process slept while its submission was under way. It may not write into the journal any more, so it
leaves a file of its own beside it: immutable, created exclusively, named after the prediction. Whoever reads
the journal counts it as possibly paid, unless the intent is known to have given that very prediction.
"""

from __future__ import annotations

from collections.abc import Iterable

from airflow_provider_bitdance.records.codec import Strict, read_record
from airflow_provider_bitdance.records.events import FORMAT
from airflow_provider_bitdance.records.fields import Count, Key, Moment, PredictionId
from airflow_provider_bitdance.records.owner import Owner
from airflow_provider_bitdance.storage import Folder

NOTES = "/notes"
"""What follows a journal's folder in the name of the folder of its notes."""


class Note(Strict):
    """One purchase by a process that had been replaced.

    :param owner: That process.
    :param intent: Which intent of the image it was, counted from 1.
    """

    format: int = FORMAT
    time: Moment
    owner: Owner
    key: Key
    prediction_id: PredictionId
    intent: Count


def is_note(name: str) -> bool:
    """Say whether a file below a journal's folder is a note."""
    folder, _, file = name.rpartition("/")
    return folder.endswith(NOTES) and file.endswith(".json") and not file.startswith(".")


def read_notes(folder: Folder, names: Iterable[str]) -> list[Note]:
    """Read notes, in the order in which they were left."""
    notes = [note for name in names if (note := read_record(Note, folder, name)) is not None]
    return sorted(notes, key=lambda note: (note.time, note.prediction_id))
