"""Integrity: is a stored file there as its receipt says? All that reuses or verifies an image asks here."""

from __future__ import annotations

import hashlib

from airflow_provider_bitdance.records.receipts import Receipt
from airflow_provider_bitdance.storage import Folder


def is_intact(folder: Folder, receipt: Receipt, *, by_size: bool = False) -> bool:
    """Say whether the file of a receipt is there as it was stored. Reads it where the size is right.

    :param folder: Where the file is.
    :param by_size: Does not read it: of hundreds of images that would be gigabytes.
    """
    if folder.size(receipt.file) != receipt.bytes:
        return False
    return by_size or not damage(folder.read(receipt.file), receipt)


def damage(data: bytes | None, receipt: Receipt) -> str:
    """Say what is wrong with the content of a receipt's file; nothing where it is as recorded."""
    if data is None:
        return "the file is missing"
    if len(data) != receipt.bytes:
        return f"the file has {len(data)} bytes; it had {receipt.bytes} when it was stored"
    if hashlib.sha256(data).hexdigest() != receipt.sha256:
        return "the file has changed since it was stored: its sha256 differs"
    return ""
