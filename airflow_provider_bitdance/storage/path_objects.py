"""Path objects, as ``Path`` and ``ObjectStoragePath``: their text, where it says all that is needed. Pure."""

from __future__ import annotations

import os
import re
from typing import Any

from airflow_provider_bitdance.exceptions import InputError
from airflow_provider_bitdance.redaction import shorten
from airflow_provider_bitdance.storage.address import address_of
from airflow_provider_bitdance.storage.naming import has_known_extension


def text_of_path(name: str, value: Any, *, kind: str = "") -> Any:
    """Return the text of a path object; anything else is returned as it is.

    :param kind: ``"file"`` or ``"folder"`` where the field is always one. Elsewhere a slash at the end makes
        the difference, which path objects drop: only an extension shows that a file is meant.
    :raises InputError: The object says less than the text that it was made from, is no absolute path, or is
        a number or bytes.
    """
    if isinstance(value, bool | int | float | bytes):  # False would pass for a path that was not given
        raise InputError(f"{name} is {shorten(repr(value))}", allowed="text: an absolute path or a URI")
    if hasattr(value, "storage_options") and hasattr(value, "protocol"):  # ObjectStoragePath and its like
        # Up to Airflow 3.1 the connection, which the text names, is one of the options.
        text, has_options = str(value), bool(set(value.storage_options) - {"conn_id"})
    elif isinstance(value, os.PathLike):
        text, has_options = os.fsdecode(value), False
    else:
        return value
    wrong, right = "", f'text: "{text}/" for a folder, "{text}.png" for a file'
    if has_options:
        wrong, right = (
            "whose storage options are not part of its text",
            "text that names the connection, as in s3://conn_id@…",
        )
    elif re.match(r"\w[\w+.-]*:/(?!/)", text):
        wrong, right = (
            "in which pathlib collapsed two slashes into one",
            (f"text: {text.replace(':/', '://', 1)!r}"),
        )
    elif not (kind or text.endswith("/") or has_known_extension(text)):
        wrong = (
            "which does not show whether it is a folder or a file, because path objects drop a trailing slash"
        )
    if wrong:
        raise InputError(
            f"{name} is a {type(value).__name__} {wrong}: {shorten(repr(text), 200)}", allowed=right
        )
    if "{{" not in text and "{%" not in text:
        address_of(text, field=name, allowed="an absolute path or a URI")
    return text
