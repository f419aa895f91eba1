"""What a preview holds, and its bounds. Pure; read by the api-server, so it trusts nothing that it reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import zip_longest
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

PREVIEW_KEY = "bitdance_preview"
"""The XCom's key."""
MAX_PREVIEW = 200_000
"""Bytes of the XCom as JSON."""
MOST_IMAGES = 200
_Text = Annotated[str, Field(max_length=2_000)]
_Thumbnail = Annotated[str, Field(max_length=24_000, pattern=r"^[A-Za-z0-9+/]*={0,2}$")]


class PreviewImage(BaseModel):
    """One image: what a person asks of it.

    :param status: ``"stored"``, ``"failed"`` or ``"missing"``.
    :param thumbnail: WebP as base64; empty where there is none.
    :param prompt: Only where the user wants prompts in the database.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    key: _Text
    status: Literal["stored", "failed", "missing"]
    variant_of: _Text | None = None
    width: int | None = None
    height: int | None = None
    size_differs: bool = False
    seed: int | None = None
    cost_usd: float | None = None
    reused: bool = False
    possibly_paid: int = 0
    uri: _Text | None = None
    error: _Text | None = None
    prompt: _Text | None = None
    thumbnail: _Thumbnail = ""


class Preview(BaseModel):
    """What a task made, for people.

    :param total: How many images the task has; ``images`` may be a part of them.
    :param flagged: Stored images that are flagged as not safe for work; none of them is in ``images``.
    :param cost_usd: Estimated, of what this task bought.
    :param manifest: Of a batch.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    format: Literal[1] = 1
    total: int = Field(ge=0)
    stored: int = 0
    reused: int = 0
    failed: int = 0
    missing: int = 0
    flagged: int = 0
    cost_usd: float = 0.0
    possibly_paid: int = 0
    manifest: _Text | None = None
    images: tuple[PreviewImage, ...] = Field(default=(), max_length=MOST_IMAGES)

    def as_xcom(self) -> dict[str, Any]:
        """Return the XCom's value: what says nothing is left out."""
        return self.model_dump(mode="json", exclude_defaults=True) | {"format": 1}


def read_preview(value: object) -> Preview | None:
    """Read an XCom's value; nothing where it is no preview."""
    try:
        return Preview.model_validate(value)
    except (ValidationError, RecursionError):
        return None


def chosen(images: Sequence[PreviewImage], limit: int) -> list[PreviewImage]:
    """Choose what is shown of many images: failures and the rest in turn, each in the plan's order."""
    if len(images) <= limit:
        return list(images)
    failed = [image for image in images if image.status == "failed"]
    others = [image for image in images if image.status != "failed"]
    pairs = zip_longest(failed[: max(limit // 2, limit - len(others))], others)
    kept = {image.key for image in [one for pair in pairs for one in pair if one is not None][:limit]}
    return [image for image in images if image.key in kept]


def bounded(preview: Preview, limit: int) -> Preview:
    """Return a preview that is within its bounds: with fewer images, then without thumbnails.

    :param limit: Images that are shown at most.
    """
    images = chosen(preview.images, min(limit, MOST_IMAGES))
    while True:
        made = preview.model_copy(update={"images": tuple(images)})
        size = len(json.dumps(made.as_xcom()).encode())
        if size <= MAX_PREVIEW or not images:
            return made
        over = size / MAX_PREVIEW
        images = images[: max(int(len(images) / over) - 1, 0)]
