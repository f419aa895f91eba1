"""Collects the thumbnails of what a process stores, up to a bound."""

from __future__ import annotations

from base64 import b64encode


class Thumbnails:
    """The thumbnails of the first images that a process stores.

    :param limit: So many are kept; 0 keeps none.
    :ivar limit: The same.
    :ivar found: By key, WebP as base64.
    """

    def __init__(self, limit: int = 0) -> None:
        self.found: dict[str, str] = {}
        self.limit = self._left = limit

    def wants_more(self) -> bool:
        """Take a place for one image, and say whether there was one."""
        self._left -= 1
        return self._left >= 0

    def take(self, key: str, thumbnail: bytes) -> None:
        """Keep a thumbnail; of an image without one nothing is kept."""
        if thumbnail:
            self.found[key] = b64encode(thumbnail).decode()
