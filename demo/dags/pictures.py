"""What the screenshots of the Images tab show: a batch with failures and reuse, mapped tasks, variants."""

from __future__ import annotations

import os
from datetime import datetime
from typing import Any

from airflow.sdk import chain, dag

from airflow_provider_bitdance.operators.bitdance import BitDanceBatchOperator, BitDanceTextToImageOperator

OUTPUT = os.environ["BITDANCE_OUTPUT_PATH"].rstrip("/")
THINGS = ("teapot", "kettle", "lamp", "chair", "mug", "vase", "clock", "basket")
COLOURS = ("red", "blue", "green", "ochre", "white", "black")
FAIL = (8, 21)
"""The rows whose prompts the service is told to fail."""


def products() -> list[dict[str, Any]]:
    """Return 48 rows, of which two fail."""
    names = [(colour, thing) for colour in COLOURS for thing in THINGS]
    return [
        {
            "key": f"{thing}-{colour}",
            "prompt": f"A {colour} {thing} {'in the dark' if number in FAIL else 'by a window'}",
        }
        for number, (colour, thing) in enumerate(names)
    ]


@dag(schedule=None, start_date=datetime(2026, 1, 1))
def pictures() -> None:
    """Make the first products, then all of them; covers, one a mapped task; and a poster to choose."""
    common: dict[str, Any] = {"output_path": f"{OUTPUT}/shop/", "size": "4:3", "max_cost_usd": 1.0}
    first = BitDanceBatchOperator(task_id="first", items=products()[:6], previews=0, **common)
    everything = BitDanceBatchOperator(
        task_id="products", items=products(), on_item_failure="tolerate", **common
    )
    BitDanceTextToImageOperator.partial(
        task_id="cover", output_path=f"{OUTPUT}/covers/", size="16:9", seed=7
    ).expand(prompt=["A fox in a birch forest", "A hare on a hill"])
    BitDanceBatchOperator(
        task_id="posters",
        items=[{"key": "tea-house", "prompt": "A poster for a tea house, bold shapes"}],
        variants=4,
        output_path=f"{OUTPUT}/posters/",
        size="3:4",
    )
    chain(first, everything)


pictures()
