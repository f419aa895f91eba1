"""The page: previews as HTML. Pure; all that comes from an XCom is text, never markup."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.resources import files
from itertools import groupby
from typing import TYPE_CHECKING

from airflow_provider_bitdance.preview.content import Preview, PreviewImage
from airflow_provider_bitdance.redaction import printable

if TYPE_CHECKING:
    from jinja2 import Template

_FILES = files(__package__)
STYLE = _FILES.joinpath("page.css").read_text()
STYLE_HASH = b64encode(sha256(STYLE.encode()).digest()).decode()
"""By which the page's policy knows its own stylesheet."""
NO_SHEET = _FILES.joinpath("no_sheet.svg").read_bytes()
"""What is shown in place of a contact sheet that is not there, and what to do."""
WHICH_SHEET = _FILES.joinpath("which_sheet.svg").read_bytes()
"""What is shown where several iterations of a loop have such a sheet, and what to do."""


@dataclass(frozen=True, slots=True)
class Section:
    """What one task instance has to show.

    :param message: Why there is no preview, where there is none.
    """

    title: str
    preview: Preview | None = None
    message: str = ""

    @property
    def groups(self) -> list[list[PreviewImage]]:
        """The images, variants of one key beside each other; what has failed comes first, to be seen."""
        images = self.preview.images if self.preview else ()
        groups = (list(group) for _, group in groupby(images, key=lambda one: one.variant_of or one.key))
        return sorted(groups, key=lambda group: all(image.status != "failed" for image in group))

    @property
    def is_of_one(self) -> bool:
        """Whether it is one of several tasks with an image each, which are beside each other."""
        return bool(self.title) and self.preview is not None and self.preview.total == 1


def render(sections: list[Section], *, nothing: str, more: int = 0) -> str:
    """Return the page.

    :param nothing: What it says where there is no section.
    :param more: How many task instances are left out.
    """
    from markupsafe import Markup  # the stylesheet is ours, and has no quotes to escape

    return _template().render(sections=sections, nothing=nothing, more=more, style=Markup(STYLE))


def _readable(value: object) -> object:
    """Write out what would turn or hide the text after it: an address must be the one that is read."""
    return printable(value) if type(value) is str else value


@cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_readable
    )
    environment.filters["usd"] = lambda amount: f"${amount or 0:.3f}".removesuffix("0")
    return environment.from_string(_FILES.joinpath("page.html.jinja").read_text())
