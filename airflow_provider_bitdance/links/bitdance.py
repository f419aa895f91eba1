"""The links beside a task in Airflow's UI: to WaveSpeed, and to what the task stored.

The UI reads a link from XCom, to which Airflow writes it when the task ends or defers. :func:`show_links`
writes it at once, so that it is shown while the task runs. No link contains a key or an output's URL.
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

__all__ = [
    "LINKS",
    "ImagesLink",
    "StoredLink",
    "WaveSpeedLink",
    "show_links",
    "show_stored",
    "stored_page",
    "with_targets",
]

PREDICTIONS = "https://wavespeed.ai/predictions"
"""All predictions of the last seven days (docs/what-are-predictions). A page for each is not documented."""

IMAGES_TAB = "bitdance-task-instance"
"""What the plugin calls its tab in the URL of a task instance."""
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
    """The button "WaveSpeed predictions": the account's predictions on WaveSpeed's site."""

    name = "WaveSpeed predictions"


class StoredLink(_Link):
    """The button "Stored result": the stored image or the manifest, if a browser can open it."""

    name = "Stored result"


class ImagesLink(_Link):
    """The button "Images": the Images tab of this task instance, which shows what it stored."""

    name = "Images"


LINKS = (ImagesLink(), StoredLink(), WaveSpeedLink())
"""Of every operator here. It keeps their URLs, by their names, in its ``link_targets``."""


def with_targets(operator: Any) -> tuple[BaseOperatorLink, ...]:
    """Return the links of an operator that lead somewhere: Airflow writes an empty XCom for any other."""
    return tuple(link for link in LINKS if operator.link_targets.get(link.name))


def show_links(operator: Any, api_url: str, context: Context, *, with_images: bool) -> None:
    """Show the links that lead somewhere from the start: none to WaveSpeed where the API is not its own.

    :param with_images: The task shows its images in the tab.
    """
    if api_url == DEFAULT_BASE_URL:
        _show(operator, WaveSpeedLink(), PREDICTIONS, context)
    page = str(getattr(context["ti"], "log_url", "")).partition("?")[0]
    if with_images and page.startswith(("http://", "https://")):
        _show(operator, ImagesLink(), f"{page}/plugin/{IMAGES_TAB}", context)


def _show(operator: Any, link: _Link, url: str, context: Context) -> None:
    operator.link_targets[link.name] = url
    try:
        context["ti"].xcom_push(key=link.xcom_key, value=url)
    except Exception:  # a link is no reason to fail
        operator.log.debug("Could not publish the link %s yet", link.name, exc_info=True)


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
