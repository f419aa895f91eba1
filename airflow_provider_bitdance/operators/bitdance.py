"""The operators: what a Dag author writes."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

from airflow_provider_bitdance.operators.base import BitDanceBaseOperator
from airflow_provider_bitdance.operators.batch import BitDanceBatchOperator
from airflow_provider_bitdance.operators.estimating import estimate
from airflow_provider_bitdance.operators.validation import rendered
from airflow_provider_bitdance.preview.sheet import sheet_markdown
from airflow_provider_bitdance.storage.path_objects import text_of_path
from airflow_provider_bitdance.wavespeed.image_request import ImageRequest
from airflow_provider_bitdance.wavespeed.prompt_enhancer import style_of

if TYPE_CHECKING:
    from airflow_provider_bitdance.engine import Wanted
    from airflow_provider_bitdance.records import Job
    from airflow_provider_bitdance.wavespeed.models import Model

__all__ = ["BitDanceBatchOperator", "BitDanceTextToImageOperator", "estimate", "sheet_markdown"]


class BitDanceTextToImageOperator(BitDanceBaseOperator):
    """Makes one image from a prompt, stores it, and records it so that it is bought once. About $0.01.

    A retry continues where the last try stopped and buys nothing twice. The same request at the same
    ``output_path`` is bought once for all runs, unless ``if_exists`` says otherwise. Set ``retries=2``:
    Airflow's default is no retry, and if the worker is then killed, nobody collects the paid image.

    For hundreds of images use
    :class:`~airflow_provider_bitdance.operators.bitdance.BitDanceBatchOperator`: a mapped task for each image
    costs Airflow about a second.

    .. code-block:: python

        BitDanceTextToImageOperator(
            task_id="cover",
            prompt="A lighthouse at dawn, {{ ds }}",
            output_path="s3://my_s3@my-bucket/covers/{{ ds }}",
            size="16:9",
            retries=2,
        )

    The result is a plain dict: ``uri``, ``receipt``, ``prediction_id``, ``model``, ``size``, ``width``,
    ``height``, ``size_differs`` (from what was requested), ``media_type``, ``bytes``, ``sha256``, ``seed``,
    ``inference_ms``, ``estimated_cost_usd`` (0 for a reused image; its receipt has the price), ``reused``,
    ``nsfw``, ``possibly_paid`` (how many submissions whose response was lost may have been charged),
    ``prompts_possibly_paid`` (the same for its enhanced prompt).

    With ``url_base`` the result also has ``url``, after ``uri``.

    :param prompt: The text, or the name of a ``.prompt`` file. (templated)
    :param output_path: An absolute path or a URI that every worker can access. With a trailing slash it is a
        folder, and the file is named after Dag, task, run and map index. Without one it names the file; of a
        batch it is always the folder. The stored file gets the extension of its real format. (templated)
    :param width: The width in pixels; give ``height`` with it, and no ``size``. (templated)
    :param height: The height in pixels; give ``width`` with it, and no ``size``. (templated)
    :param kwargs: The options of :class:`~airflow_provider_bitdance.operators.base.BitDanceBaseOperator`.
    """

    template_fields: Sequence[str] = (*BitDanceBaseOperator.template_fields, "width", "height")

    def __init__(
        self,
        *,
        prompt: str,
        output_path: str | PathLike[str],
        width: int | str | None = None,
        height: int | str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.prompt = prompt
        self.output_path = self._output_template = text_of_path("output_path", output_path)
        self.width = width
        self.height = height

    def _wanted(self, job: Job, model: Model) -> list[Wanted]:
        from airflow_provider_bitdance.engine import Wanted

        request = ImageRequest.of(
            prompt=rendered("prompt", self.prompt),
            size=self.size,
            width=self.width,
            height=self.height,
            seed=self.seed,
            model=model,
            inputs=rendered("inputs", self.inputs),
        )
        style, destination = style_of(self.enhance_prompt), self._destination(job)
        return [Wanted(key="image", request=request, destination=destination, model=model, style=style)]

    def _most_images(self, wanted: list[Wanted]) -> float:
        return 1
