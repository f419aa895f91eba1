"""The journal: the write-ahead log of one job, from which every process that enters the job goes on.

A job is one task instance and one generation. Its journal is a folder of immutable JSON entries, numbered
from 1 and created exclusively, so the number is the lock: two processes cannot both write entry n+1, and
one that finds its number taken knows that it has been replaced. An entry holds one or more events of one
process. What a replaced process has bought all the same is a note beside the journal (``notes.py``).
"""

from airflow_provider_bitdance.records.events import (
    Adopted,
    Failed,
    Failure,
    Intended,
    Lost,
    NotCreated,
    Planned,
    PlannedImage,
    Status,
    Stored,
    Submitted,
)
from airflow_provider_bitdance.records.journal import Journal
from airflow_provider_bitdance.records.notes import Note
from airflow_provider_bitdance.records.owner import Job, Owner
from airflow_provider_bitdance.records.state import ImageState, JobState, fold

__all__ = [
    "Adopted",
    "Failed",
    "Failure",
    "ImageState",
    "Intended",
    "Job",
    "JobState",
    "Journal",
    "Lost",
    "NotCreated",
    "Note",
    "Owner",
    "Planned",
    "PlannedImage",
    "Status",
    "Stored",
    "Submitted",
    "fold",
]
