"""Collects the small pictures of what a process stores, up to a bound."""

from __future__ import annotations

from base64 import b64encode

from airflow_provider_bitdance.preview.sheet import MAX_SHEETS


class Thumbnails:
    """The thumbnails of the first images that a process stores, and the contact sheets of the first rows.

    :param limit: So many thumbnails are kept; 0 keeps nothing.
    :ivar limit: The same.
    :ivar found: Thumbnails by key, WebP as base64.
    :ivar sheets: Contact sheets by the key of their row, WebP as base64.
    """

    def __init__(self, limit: int = 0) -> None:
        self.found: dict[str, str] = {}
        self.sheets: dict[str, str] = {}
        self.limit = self._left = limit
        self._room = MAX_SHEETS if limit else 0

    def wants_more(self) -> bool:
        """Take a place for one image, and say whether there was one."""
        self._left -= 1
        return self._left >= 0

    def take(self, key: str, thumbnail: bytes) -> None:
        """Keep a thumbnail; of an image without one nothing is kept."""
        if thumbnail:
            self.found[key] = b64encode(thumbnail).decode()

    def wants_sheet(self) -> bool:
        """Say whether there is room for another contact sheet."""
        return self._room > 0

    def take_sheet(self, key: str, sheet: bytes) -> None:
        """Keep a contact sheet, if there is one; the first for which there is no room ends it."""
        self._room -= len(sheet)
        if sheet and self._room >= 0:
            self.sheets[key] = b64encode(sheet).decode()
