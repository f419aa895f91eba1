"""The batch operator: up to ten thousand images in one task."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from airflow_provider_bitdance.exceptions import BitDanceError, InputError, ItemsFailedError, Paid
from airflow_provider_bitdance.get_provider_info import MAX_IN_FLIGHT, MAX_REQUESTS_PER_MINUTE
from airflow_provider_bitdance.hooks import object_storage
from airflow_provider_bitdance.operators.base import BitDanceBaseOperator
from airflow_provider_bitdance.operators.validation import (
    check_choice,
    checked_number,
    rendered_path,
)
from airflow_provider_bitdance.redaction import shorten
from airflow_provider_bitdance.storage import uri_of
from airflow_provider_bitdance.storage.naming import parse_destination
from airflow_provider_bitdance.storage.path_objects import text_of_path
from airflow_provider_bitdance.wavespeed.prompt_enhancer import style_of

if TYPE_CHECKING:
    from airflow_provider_bitdance.engine import Finished, JobContext, Policy, Wanted
    from airflow_provider_bitdance.hooks.bitdance import ConnectionExtra
    from airflow_provider_bitdance.manifest import ManifestRow
    from airflow_provider_bitdance.records import ImageState, Job
    from airflow_provider_bitdance.wavespeed.models import Model

FAILURES_SHOWN = 5
MOST_UNANSWERED = 64
MOST_VARIANTS = 16
_ROWS = re.compile(r"\s*(?:\[|\{(?![{%]))")
"""With this many, 200 a second are submitted to an API 300 ms away: more than WaveSpeed's Gold tier takes."""


class BitDanceBatchOperator(BitDanceBaseOperator):
    """Makes many images in one task, each bought once, and a manifest that lists them. About $0.01 an image.

    A retry buys only what is missing. An image is stored at ``output_path/<key>`` with the extension of its
    real format. The same request with the same key is bought once for all runs, unless ``if_exists`` says
    otherwise. Set ``retries=2``.

    For a single image use :class:`~airflow_provider_bitdance.operators.bitdance.BitDanceTextToImageOperator`.

    .. code-block:: python

        BitDanceBatchOperator(
            task_id="posters",
            items=[{"key": "p-17", "product": "teapot"}, {"key": "p-18", "product": "kettle"}],
            prompt="A poster of a {product}, studio light",
            output_path="s3://my_s3@my-bucket/posters/",
            max_cost_usd=1.00,
            retries=2,
        )

    The result is a small plain dict: ``manifest`` (its URI; read it with
    :func:`~airflow_provider_bitdance.manifest.read_manifest`), ``items``, ``stored``, ``reused``, ``failed``,
    ``size_differs``, ``possibly_paid``, ``prompts_possibly_paid``, ``estimated_cost_usd`` (of all that this
    task bought, failed images too). A batch that fails after it has written its manifest also leaves this
    result in XCom, for tasks with ``trigger_rule="all_done"``.

    :param items: A list of prompts, or of dicts with ``key``, ``prompt``, ``size``, ``seed``, ``inputs`` and
        columns of your own. Or the URI of a ``.csv``, ``.jsonl`` or ``.parquet`` file with such rows, in
        which ``inputs`` is JSON. If rows cannot be used, one error lists them before anything is bought.
        (templated)
    :param output_path: The folder for images and manifest: an absolute path or a URI that every worker can
        access. (templated)
    :param prompt: The prompt of every row: a template over the row's columns, such as ``"A {style} poster"``,
        or the name of a ``.prompt`` file with one. (templated)
    :param inputs: The model's other inputs by name, for every row. A text may be a template over the row's
        columns, such as ``{"style": "{style}"}``. A row's own inputs override these. (templated)
    :param variants: Images per row, 1 to 16, each with its own seed. With two or more, each row also gets a
        contact sheet, ``<key>-contact-sheet.jpg``.
    :param max_in_flight: The most predictions in flight at once. Default: the connection's limit; without one
        the batch adapts to what the account accepts.
    :param requests_per_minute: The most submissions in any minute. Default: the connection's limit; without
        one there is none.
    :param max_unanswered: The most submissions without a recorded response, 1 to 64. If the worker is
        killed, up to this many purchases may be lost, about $0.01 each. A higher number buys faster if the
        API is far away.
    :param on_item_failure: What to do if an image fails. ``"finish_then_fail"``: make the others, then fail.
        ``"fail_fast"``: buy nothing more and fail. ``"tolerate"``: succeed, and count the failures.
    :param max_failures: With ``"tolerate"``, the most failures with which the task succeeds. Default: any
        number.
    :param manifest_format: ``"jsonl"``, or ``"parquet"``, which needs pyarrow.
    :param check_balance: Whether to request the account's balance before the first purchase, and to fail if
        it does not cover the plan. Here it is on by default.
    :param nsfw: As for all operators, for each image. With ``"skip"``, a flagged image is omitted and does
        not count as a failure.
    :param kwargs: The options of :class:`~airflow_provider_bitdance.operators.base.BitDanceBaseOperator`.
    """

    template_fields: Sequence[str] = ("items", *BitDanceBaseOperator.template_fields)
    template_fields_renderers: ClassVar[dict[str, str]] = {"items": "json", "prompt": "md"}

    kind_of_output: ClassVar[str] = "folder"
    are_items_rendered: ClassVar[bool] = True
    max_unanswered: int

    def __init__(
        self,
        *,
        items: Any,
        output_path: str | PathLike[str],
        prompt: str | None = None,
        variants: int = 1,
        max_in_flight: int | None = None,
        requests_per_minute: int | None = None,
        max_unanswered: int = 8,
        on_item_failure: Literal["finish_then_fail", "fail_fast", "tolerate"] = "finish_then_fail",
        max_failures: int | None = None,
        manifest_format: Literal["jsonl", "parquet"] = "jsonl",
        check_balance: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(check_balance=check_balance, **kwargs)
        check_choice("on_item_failure", on_item_failure, ("finish_then_fail", "fail_fast", "tolerate"))
        check_choice("manifest_format", manifest_format, ("jsonl", "parquet"))
        self.max_in_flight = self.requests_per_minute = self.max_failures = None
        self.variants = int(checked_number("variants", variants, 1, MOST_VARIANTS, "images", whole=True))
        for name, value, least, most, unit in (
            ("max_in_flight", max_in_flight, 1, MAX_IN_FLIGHT, "predictions"),
            ("requests_per_minute", requests_per_minute, 1, MAX_REQUESTS_PER_MINUTE, "submissions"),
            ("max_unanswered", max_unanswered, 1, MOST_UNANSWERED, "submissions"),
            ("max_failures", max_failures, 0, 10_000, "images"),
        ):
            if value is not None or name == "max_unanswered":
                setattr(self, name, checked_number(name, value, least, most, unit, whole=True))
        if max_failures is not None and on_item_failure != "tolerate":
            raise InputError(
                'max_failures is set without on_item_failure="tolerate"', fix="Set both, or neither"
            )
        self.items = text_of_path("items", items, kind="file")
        self.output_path = self._output_template = text_of_path(
            "output_path", output_path, kind=self.kind_of_output
        )
        self.prompt = prompt
        self.on_item_failure = on_item_failure
        self.manifest_format = manifest_format

    def _output_folder(self, job: Job) -> str:
        path = rendered_path("output_path", self.output_path, kind="folder")
        return parse_destination(f"{str(path).strip().removesuffix('/')}/", default_stem="").folder

    def _wanted(self, job: Job, model: Model) -> list[Wanted]:
        from airflow_provider_bitdance.batch import checked_items, read_items
        from airflow_provider_bitdance.engine import Wanted

        folder = self._output_folder(job)
        _refuse_rows_as_text(self.items)
        rows = rendered_path("items", self.items, kind="file")
        if isinstance(rows, str):
            rows = read_items(object_storage.read_file(rows), name=rows.strip())
        style = style_of(self.enhance_prompt)
        items = checked_items(
            rows,
            prompt=self.prompt,
            size=self.size,
            seed=self.seed,
            model=model,
            inputs=self.inputs,
            style=style,
            variants=self.variants,
            is_rendered=self.are_items_rendered,
            is_published=self.url_base is not None,
        )
        return [
            Wanted(
                key=item.key,
                request=item.request,
                destination=parse_destination(f"{folder}/{item.key}", default_stem=""),
                columns=item.columns,
                variant_of=item.variant_of,
                model=model,
                style=style,
            )
            for item in items
        ]

    def _policy(self, extra: ConnectionExtra) -> Policy:
        return replace(
            super()._policy(extra),
            is_batch=True,
            max_in_flight=self.max_in_flight or extra.max_in_flight,
            max_unanswered=self.max_unanswered,
            requests_per_minute=self.requests_per_minute or extra.requests_per_minute,
            on_item_failure=self.on_item_failure,
            max_failures=self.max_failures,
        )

    def _result(self, finished: Finished, job_context: JobContext) -> dict[str, Any]:
        """Write the manifest and the contact sheets, and return where the manifest is, and counts."""
        from airflow_provider_bitdance.hooks import runtime
        from airflow_provider_bitdance.manifest import manifest_bytes, parquet_bytes
        from airflow_provider_bitdance.operators.contact_sheets import write_contact_sheets

        images = job_context.images
        rows = [_row(image, finished) for image in finished.images]
        name = f"{runtime.default_stem(job_context.journal.job)}.manifest.{self.manifest_format}"
        write = parquet_bytes if self.manifest_format == "parquet" else manifest_bytes
        images.replace(name, write(rows))
        write_contact_sheets(finished, job_context)
        bought = sum(_purchases(image, finished) * image.plan.estimated_cost_usd for image in finished.images)
        enhanced = [made for image in finished.images if (made := image.plan.enhancement) is not None]
        summary = {
            "manifest": uri_of(images, name),
            "items": len(rows),
            "stored": len(finished.stored),
            "reused": sum(result["reused"] for result in finished.results),
            "failed": len(finished.failures),
            "size_differs": sum(row.size_differs is True for row in rows),
            "possibly_paid": sum(row.possibly_paid for row in rows),
            "prompts_possibly_paid": sum(made.possibly_paid for made in enhanced),
            "estimated_cost_usd": round(bought + sum(made.estimated_cost_usd for made in enhanced), 6),
        }
        self.log.info("%(stored)d of %(items)d images stored, %(failed)d failed: %(manifest)s", summary)
        if summary["size_differs"] > 1:
            self.log.warning("%(size_differs)d of them differ in size from what was requested", summary)
        return summary

    def _failure(
        self, finished: Finished, job_context: JobContext, result: dict[str, Any]
    ) -> BitDanceError | None:
        return finished.stopped or _not_tolerated(finished, job_context, result)


def _not_tolerated(
    finished: Finished, job_context: JobContext, result: dict[str, Any]
) -> BitDanceError | None:
    """Return the error that says which images failed, if the policy is not to tolerate that."""
    from airflow_provider_bitdance.engine import with_charges

    policy = job_context.policy
    failures = policy.counted(finished.failures)
    tolerated = policy.on_item_failure == "tolerate" and not policy.are_too_many(failures)
    # What is paid for and not stored yet is not given up while there are tries left.
    collectable = any(error.retry_helps and error.paid is not Paid.NO for error in failures.values())
    if not failures or (tolerated and not (collectable and job_context.journal.owner.has_tries_left)):
        return None
    shown = "; ".join(f"{key}: {error.what}" for key, error in list(failures.items())[:FAILURES_SHOWN])
    more = f"; and {len(failures) - FAILURES_SHOWN} more" if len(failures) > FAILURES_SHOWN else ""
    others = "The others are stored; see" if finished.stored else "See"
    failed = ItemsFailedError(
        f"{len(failures)} of {len(finished.images)} images failed: {shorten(shown, 1000)}{more}",
        fix=f"{others} {result['manifest']} for each image",
    )
    if not any(error.retry_helps for error in failures.values()):
        failed = failed.with_verdict(retry=False)
    return with_charges(failed, job_context.journal.state)


def _purchases(image: ImageState, finished: Finished) -> int:
    """Return how many purchases of an image are this task's; of one that was adopted after a clear, one."""
    result = finished.stored.get(image.plan.key)
    is_adopted = result is not None and not result["reused"]
    return max(image.purchases, int(is_adopted))


def _row(image: ImageState, finished: Finished) -> ManifestRow:
    from airflow_provider_bitdance.batch import Item
    from airflow_provider_bitdance.manifest import manifest_row

    plan = image.plan
    item = Item(plan.key, plan.request, plan.columns, plan.variant_of)
    prompts: dict[str, Any] = {}
    if plan.enhancement is not None:
        prompts = {"prompt_asked": plan.prompt_asked, "prompt_sent": plan.request.prompt}
        prompts["prompts_possibly_paid"] = plan.enhancement.possibly_paid
    if plan.key in finished.stored:
        return manifest_row(item, status="stored", result={**finished.stored[plan.key], **prompts})
    known = finished.refused.get(plan.key) or {"possibly_paid": plan.possibly_paid + image.unconfirmed}
    known = {**known, **prompts}
    failure = finished.failures.get(plan.key)
    if failure is None:
        return manifest_row(item, status="missing", result=known)
    return manifest_row(item, status="failed", error=shorten(failure.what, 300), result=known)


def _refuse_rows_as_text(items: object) -> None:
    """Refuse rows that Airflow has rendered as text, as it does unless the Dag says otherwise.

    :raises InputError: They are such.
    """
    if isinstance(items, str) and _ROWS.match(items):
        raise InputError(
            f"items is text with rows in it: {shorten(repr(items))}",
            allowed="a list, or the path or URI of a file",
            fix="Pass the result of the other task itself, items=rows(), or set the Dag's "
            "render_template_as_native_obj=True",
        )
