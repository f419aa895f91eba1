"""Contact sheets: all variants of a row in one image beside them, and a small one of it for Airflow's UI."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Any

from airflow_provider_bitdance.batch import CONTACT_SHEET
from airflow_provider_bitdance.exceptions import UnsafeFileError
from airflow_provider_bitdance.imaging.contact_sheet import comment_of, contact_sheet, small_sheet
from airflow_provider_bitdance.preview.sheet import MAX_SHEET

if TYPE_CHECKING:
    from airflow_provider_bitdance.engine import Finished, JobContext
    from airflow_provider_bitdance.storage import Folder


def write_contact_sheets(finished: Finished, job: JobContext) -> None:
    """Show all variants of a row in one image, for a person to choose from, unless it is there already."""
    for row, found in _rows(finished):
        sheet = _sheet(f"{row}{CONTACT_SHEET}.jpg", found, job.images)
        is_flagged = any(result["nsfw"] for result in found.values())
        if not is_flagged and job.thumbnails.wants_sheet():
            job.thumbnails.take_sheet(row, small_sheet(sheet, limit=MAX_SHEET))


def _rows(finished: Finished) -> Iterator[tuple[str, dict[str, dict[str, Any]]]]:
    """Yield the key of each row of which variants are stored, and their results by file."""
    plans = (image.plan for image in finished.images if image.plan.variant_of is not None)
    for row, variants in groupby(plans, key=lambda plan: plan.variant_of):
        stored = (finished.stored[plan.key] for plan in variants if plan.key in finished.stored)
        if found := {result["uri"].rpartition("/")[2]: result for result in stored}:
            yield str(row), found


def _sheet(name: str, found: dict[str, dict[str, Any]], images: Folder) -> bytes:
    """Return the contact sheet of these images: the stored one, or a new one that is stored now."""
    shown = "\n".join(f"{file} {result['sha256']}" for file, result in found.items())
    comment = hashlib.sha256(shown.encode()).hexdigest()
    stored = _content(images, name)
    if comment_of(stored) == comment:
        return stored
    variants = ((_label(file, result), _content(images, file)) for file, result in found.items())
    images.replace(name, sheet := contact_sheet(variants, comment=comment))
    return sheet


def _label(file: str, result: dict[str, Any]) -> str:
    """Return what a contact sheet says of an image; not every model has a seed."""
    return file if result["seed"] is None else f"{file}\nseed {result['seed']}"


def _content(images: Folder, name: str) -> bytes:
    """Return the content of a file; none where there is no file, or something else in its place: a contact
    sheet is a help, and its batch is paid for."""
    try:
        return images.read(name) or b""
    except UnsafeFileError:
        return b""
