"""One product, drawn by two models, side by side on a sheet for a person to compare.

Each model is a task of its own, so that one that fails costs the other nothing. ``model`` is a path on
WaveSpeed. What a model takes beside prompt, size and seed goes into ``inputs``, here FLUX's number of steps:
an input that the model does not have, or a value out of its range, is refused before anything is bought.
BitDance costs about $0.01 an image, FLUX.1 Dev $0.012.

The last task builds the sheet, a web page with both images. It shows what each task returned: the model, the
seed to make the image again, the real size and the cost. Images and page go to ``BITDANCE_OUTPUT_PATH``, an
environment variable, or to /tmp/bitdance-images. Run it again for the same product, and nothing is bought;
trigger it with another product, and it makes another sheet.

``retries=2`` because Airflow's default is none, and then a killed worker leaves paid images uncollected until
somebody clears the task. A retry buys only what is missing.
"""

from __future__ import annotations

import os
from typing import Any

from airflow.sdk import ObjectStoragePath, Param, dag, task

from airflow_provider_bitdance.operators.bitdance import BitDanceTextToImageOperator

OUTPUT = os.environ.get("BITDANCE_OUTPUT_PATH", "/tmp/bitdance-images").rstrip("/")
FOLDER = f"{OUTPUT}/sheets/{{{{ params.product | replace(' ', '-') }}}}"


@dag(
    schedule=None,
    params={"product": Param("teapot", type="string", title="Product", pattern="^[a-z ]{1,40}$")},
    tags=["bitdance", "example"],
    doc_md=__doc__,
    default_args={"retries": 2},
)
def example_bitdance_models() -> None:
    """Make a sheet of one product by two models."""
    common: dict[str, Any] = {
        "prompt": "A product photo of a {{ params.product }} on a plain background, soft light",
        "size": "4:3",
        "seed": 7,
        "on_size_mismatch": "fail",
        "deferrable": True,
    }
    bitdance = BitDanceTextToImageOperator(task_id="bitdance", output_path=f"{FOLDER}/bitdance.png", **common)
    flux = BitDanceTextToImageOperator(
        task_id="flux",
        model="wavespeed-ai/flux-dev",
        inputs={"num_inference_steps": 28, "output_format": "png"},
        output_path=f"{FOLDER}/flux.png",
        **common,
    )

    @task
    def sheet(images: list[Any]) -> str:
        shown = [
            f'<figure><img src="{image["uri"].rpartition("/")[2]}" alt="{image["model"]}" height="400">'
            f"<figcaption>{image['model']}: {image['width']} x {image['height']} pixels, "
            f"seed {image['seed']}, ${image['estimated_cost_usd']}</figcaption></figure>"
            for image in images
        ]
        style = "<style>body { display: flex }</style>"
        file = ObjectStoragePath(f"{images[0]['uri'].rpartition('/')[0]}/index.html")
        file.write_text("\n".join(["<!doctype html>", "<title>Sheet</title>", style, *shown, ""]))
        return str(file)

    sheet([bitdance.output, flux.output])


example_bitdance_models()
