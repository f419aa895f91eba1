"""Verify: is each stored image there as its receipt says, and has each its receipt? Reads only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from airflow_provider_bitdance.exceptions import BitDanceError
from airflow_provider_bitdance.imaging.validation import validate_image
from airflow_provider_bitdance.maintenance.outputs import Place, folder_of_records, open_place
from airflow_provider_bitdance.maintenance.scan import READERS, Finding, Records, file_of
from airflow_provider_bitdance.records import Status
from airflow_provider_bitdance.records.integrity import damage
from airflow_provider_bitdance.records.receipts import Receipt
from airflow_provider_bitdance.storage import Folder


def verify(
    records: Records, open_folder: Callable[[str], Folder], *, outputs: Sequence[str] = ()
) -> list[Finding]:
    """Return everything that is not as it should be. Reads every stored image; blocks.

    :param open_folder: Resolves an output folder.
    :param outputs: Output folders: images are read in these and below, and in the folder that the records
        lie in by default. A receipt must not choose what is opened, nor with which connection.
    """
    outputs = (*outputs, *folder_of_records(records.uri))
    receipts = records.receipts.values()
    folders = {
        uri: open_place(open_folder, uri, outputs) for uri in sorted({receipt.folder for receipt in receipts})
    }
    with ThreadPoolExecutor(READERS) as pool:
        problems = pool.map(lambda receipt: _problem(receipt, folders[receipt.folder]), receipts)
        wrong = [Finding(receipt.uri, what) for receipt, what in zip(receipts, problems, strict=True) if what]
    # A damaged receipt is reported once.
    there = records.receipts.keys() | {file_of(finding.uri) for finding in records.findings}
    missing = [
        Finding(
            record.uri,
            f"the receipt of its stored image {image.plan.key!r} is missing: {records.uri}/receipts/{file}",
        )
        for record in records.jobs
        for image in record.state.having(Status.STORED)
        if (file := file_of(image.receipt)) not in there
    ]
    return [*records.findings, *wrong, *missing]


def _problem(receipt: Receipt, place: Place | str) -> str:
    """Say what is wrong with the file of a receipt; nothing where it is as recorded."""
    if isinstance(place, str):
        return place
    try:
        data = place.folder.read(f"{place.below}{receipt.file}")
        if (wrong := damage(data, receipt)) or data is None:
            return wrong
        image = validate_image(data)
    except BitDanceError as error:
        return error.what
    found = (image.media_type, image.width, image.height)
    if found != (receipt.media_type, receipt.width, receipt.height):
        return (
            f"the file is {found}, but its receipt says {receipt.media_type}, "
            f"{receipt.width}, {receipt.height}"
        )
    return ""
