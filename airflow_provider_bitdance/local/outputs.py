"""The output files, under ``/outputs``: no key is asked for, as WaveSpeed's CDN asks for none."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from airflow_provider_bitdance.local import faults, pictures
from airflow_provider_bitdance.local.inputs import ImageInputs
from airflow_provider_bitdance.local.openapi import DescribedApp
from airflow_provider_bitdance.local.prediction import Prediction
from airflow_provider_bitdance.local.service import Service
from airflow_provider_bitdance.local.spoiled import spoiled

MEDIA_TYPES: Final[dict[str, pictures.MediaType]] = {
    "png": "image/png",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
}
NEED_PICTURE: Final = (faults.Slow, faults.Drip, faults.Truncated, faults.NotWhole)
"""Faults that send the picture or some of it."""


class Outputs:
    """The endpoint of ``/outputs``."""

    def __init__(self, service: Service) -> None:
        self.service = service

    def add_to(self, app: DescribedApp) -> None:
        """Add the route."""
        app.add(
            "GET",
            "/outputs/{prediction_id}/{name}",
            self.output,
            summary="The picture of a prediction",
            content=tuple(MEDIA_TYPES.values()),
            refuses=(404,),
        )

    # Not async: FastAPI runs it on a thread, so that drawing does not hold up the API.
    def output(self, prediction_id: str, name: str) -> Response:
        """Answer ``GET /outputs/{prediction_id}/{name}``."""
        task = self.service.output(prediction_id, name)
        assert isinstance(task.inputs, ImageInputs)
        rule = self.service.faults.spoiler("output", prompt=task.inputs.prompt)
        if rule is None:
            self.service.count_download(task)
            return self._picture(task, task.inputs)
        picture = self._picture(task, task.inputs) if isinstance(rule, NEED_PICTURE) else Response()
        return spoiled(rule, lambda: picture)

    def _picture(self, task: Prediction, inputs: ImageInputs) -> Response:
        media_type = MEDIA_TYPES[task.picture_format]
        width, height = inputs.sides()
        if self.service.options.pictures == "fast":
            picture = pictures.draw_fast(
                model=task.model, prompt=inputs.prompt, width=width, height=height, seed=task.seed
            )
        else:
            picture = pictures.draw(
                model=task.model,
                prompt=inputs.prompt,
                width=width,
                height=height,
                seed=task.seed,
                media_type=media_type,
            )
        return Response(picture, media_type=media_type)
