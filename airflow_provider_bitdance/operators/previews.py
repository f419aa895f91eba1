"""Pushes the preview of what a task made, for the Images tab. It is a help: no task fails for it."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import conf

from airflow_provider_bitdance.exceptions import BitDanceError
from airflow_provider_bitdance.preview import PREVIEW_KEY, Preview, PreviewImage
from airflow_provider_bitdance.preview.content import bounded, chosen
from airflow_provider_bitdance.preview.sheet import as_xcom, sheet_key
from airflow_provider_bitdance.redaction import shorten

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_bitdance.engine import Finished, JobContext
    from airflow_provider_bitdance.records import ImageState

DEFAULT_PREVIEWS, MOST_PREVIEWS = 24, 200


def previews_of(option: int | None, *, map_index: int) -> int:
    """Return how many images a task instance shows: of mapped ones only the first show theirs.

    :param option: What the task says; ``None``: ``[bitdance] previews`` of Airflow's settings.
    """
    limit = conf.getint("bitdance", "previews", fallback=DEFAULT_PREVIEWS) if option is None else option
    limit = max(0, min(limit, MOST_PREVIEWS))
    return limit if map_index < limit else 0


def push_preview(context: Context, finished: Finished, job: JobContext, log: Any) -> None:
    """Show what a task has made, failures too."""
    if job.thumbnails.limit:
        try:
            _push(context, PREVIEW_KEY, _preview(finished, job).as_xcom())
        except Exception:
            log.debug("Could not create the preview of the images", exc_info=True)


def push_failure(context: Context, error: BitDanceError, previews: int | None, log: Any) -> None:
    """Show why a task ended before it had anything to show.

    :param previews: The task's option.
    """
    try:
        ti = context["ti"]
        if previews_of(previews, map_index=-1 if ti.map_index is None else ti.map_index):
            image = PreviewImage(key=ti.task_id, status="failed", error=shorten(error.what, 300))
            _push(context, PREVIEW_KEY, Preview(total=1, failed=1, images=(image,)).as_xcom())
    except Exception:
        log.debug("Could not show the failure in the Images tab", exc_info=True)


def push_sheets(context: Context, job: JobContext, log: Any) -> None:
    """Have the contact sheets at hand for questions to a person, each in an XCom of its own."""
    try:
        for key, encoded in job.thumbnails.sheets.items():
            _push(context, sheet_key(key), as_xcom(encoded))
    except Exception:
        log.debug("Could not push the contact sheets to XCom", exc_info=True)


def _push(context: Context, key: str, value: dict[str, Any]) -> None:
    """Write an XCom into Airflow's database, past a backend that keeps values elsewhere: as links are."""
    from airflow.sdk.execution_time.xcom import XCom

    ti = context["ti"]
    if past_backend := getattr(XCom, "_set_xcom_in_db", None):
        at = {name: getattr(ti, name) for name in ("dag_id", "task_id", "run_id", "map_index")}
        past_backend(key=key, value=value, **at)
    else:
        ti.xcom_push(key=key, value=value)


def _preview(finished: Finished, job: JobContext) -> Preview:
    limit = job.thumbnails.limit
    shown = [image for image in finished.images if not _is_flagged(finished, image)]
    images = [_image(finished, image) for image in shown]
    stored = finished.results
    whole = Preview(
        total=len(finished.images),
        stored=len(stored),
        reused=sum(result["reused"] for result in stored),
        failed=len(finished.failures),
        missing=len(finished.images) - len(stored) - len(finished.failures),
        flagged=len(finished.images) - len(shown),
        cost_usd=round(job.journal.state.spent_usd, 6),
        possibly_paid=sum(image.unconfirmed for image in finished.images),
        images=tuple(chosen(images, limit)),
    )
    thumbnails = _with_stored(finished, job, [image.key for image in whole.images])
    pictured = (
        image.model_copy(update={"thumbnail": thumbnails.get(image.key, "")}) for image in whole.images
    )
    return bounded(whole.model_copy(update={"images": tuple(pictured)}), limit)


def _is_flagged(finished: Finished, image: ImageState) -> bool:
    result = finished.stored.get(image.plan.key)
    return bool(result and result["nsfw"])


def _image(finished: Finished, image: ImageState) -> PreviewImage:
    key, result = image.plan.key, finished.stored.get(image.plan.key)
    known: dict[str, Any] = {"key": key, "variant_of": image.plan.variant_of}
    if result is None:
        error = finished.failures.get(key)
        return PreviewImage(
            **known,
            status="failed" if error else "missing",
            error=shorten(error.what, 300) if error else None,
            possibly_paid=image.unconfirmed,
        )
    same = ("width", "height", "size_differs", "seed", "reused", "possibly_paid", "uri")
    return PreviewImage(
        **known,
        status="stored",
        cost_usd=result["estimated_cost_usd"],
        **{name: result[name] for name in same},
    )


def _with_stored(finished: Finished, job: JobContext, keys: list[str]) -> dict[str, str]:
    """Return the thumbnails of these images: those at hand, and of files that an earlier process stored."""
    from airflow_provider_bitdance.imaging.thumbnail import thumbnail_of_file

    found = {key: job.thumbnails.found[key] for key in keys if key in job.thumbnails.found}
    for key in keys:
        result = finished.stored.get(key)
        if key not in found and result is not None:
            data = job.images.read(result["uri"].rpartition("/")[2])
            if data and (made := thumbnail_of_file(data)):
                found[key] = b64encode(made).decode()
    return found
