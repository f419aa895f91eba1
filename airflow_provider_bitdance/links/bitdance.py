"""The links beside a task in Airflow's UI: to WaveSpeed, and to what the task stored.

The UI reads a link from XCom, where Airflow puts it when a leg of the task ends. :func:`show_predictions`
puts it there at once, so that it is there while the task runs. No link holds a key, or an output's URL.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.providers.common.compat.sdk import BaseOperatorLink

from airflow_provider_bitdance.wavespeed.urls import DEFAULT_BASE_URL

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk.types import TaskInstanceKey

    from airflow_provider_bitdance.storage import Folder

__all__ = ["LINKS", "StoredLink", "WaveSpeedLink", "show_predictions", "show_stored", "stored_page"]

PREDICTIONS = "https://wavespeed.ai/predictions"
"""All predictions of the last seven days (docs/what-are-predictions). A page for each is not documented."""

_AWS = "https://console.aws.amazon.com/s3/object/{bucket}?prefix={key}"
_GOOGLE = "https://storage.cloud.google.com/{bucket}/{key}"
_PAGES = {"s3": _AWS, "s3a": _AWS, "gs": _GOOGLE, "gcs": _GOOGLE}
"""Where a browser that is logged in finds an object, by the scheme of its URI."""


class _Link(BaseOperatorLink):
    """A link whose URL the operator learns while it runs."""

    def get_link(self, operator: Any, *, ti_key: TaskInstanceKey) -> str:
        """Return the URL that was shown, or nothing. Airflow calls this in the worker, after the task."""
        return str(operator.link_targets.get(self.name, ""))


class WaveSpeedLink(_Link):
    """The account's predictions on WaveSpeed's site."""

    name = "WaveSpeed predictions"


class StoredLink(_Link):
    """The stored image, or the manifest of a batch, where a browser can open it."""

    name = "Stored result"


LINKS = (WaveSpeedLink(), StoredLink())
"""Of every operator here. It keeps their URLs, by their names, in its ``link_targets``."""


def show_predictions(operator: Any, api_url: str, context: Context) -> None:
    """Show the link to WaveSpeed at once. None where the API is not WaveSpeed's own."""
    if api_url != DEFAULT_BASE_URL:
        return
    link = WaveSpeedLink()
    operator.link_targets[link.name] = PREDICTIONS
    try:
        context["ti"].xcom_push(key=link.xcom_key, value=PREDICTIONS)
    except Exception:  # a link is no reason to fail
        operator.log.debug("The link %s could not be shown yet", link.name, exc_info=True)


def show_stored(operator: Any, uri: str, folder: Folder) -> None:
    """Show the link to a stored file when this leg of the task ends. None where a browser cannot open it."""
    operator.link_targets[StoredLink.name] = stored_page(uri, folder.endpoint)


def stored_page(uri: str, endpoint: str = "") -> str:
    """Return where a browser finds a stored file; nothing where that is not known.

    :param endpoint: The store's own URL, if it is not its vendor's.
    """
    scheme, _, rest = uri.partition("://")
    host, _, path = rest.partition("/")
    host = host.rpartition("@")[2]
    if scheme in ("http", "https"):
        return f"{scheme}://{host}/{path}"
    if scheme not in _PAGES or endpoint:
        return ""
    return _PAGES[scheme].format(bucket=quote(host), key=quote(path))
