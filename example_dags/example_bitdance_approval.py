"""A person approves before money is spent, and chooses before anything is published.

1. ``estimate`` calculates what the operator would do: how many images it would buy and what they cost. That
   costs nothing.
2. ``approve`` shows this to a person and waits. With "Reject", or with no decision for a day, the tasks after
   it are skipped and nothing is bought.
3. ``posters`` makes four variants of one poster, with different seeds, for about $0.04, and a contact sheet:
   one image that shows all four.
4. ``choose`` shows the contact sheet and waits for a person's choice, as long as it takes: the posters are
   stored and do not run away. Then ``publish`` copies the chosen one. The file says that it is AI-made
   (``label="iptc"``), as shops and search engines require.

Waiting for a person takes no worker. Decide in Airflow's UI, under "Required Actions". Trigger the Dag again
with the same name and prompt: the four posters are there, nothing is to buy.

Posters go to ``BITDANCE_OUTPUT_PATH``, an environment variable, or to /tmp/bitdance-images. The question
shows a small contact sheet, which the task ``posters`` keeps in Airflow's database, and says where the large
one is.

``retries=2`` because Airflow's default is none, and then a killed worker leaves paid images uncollected until
somebody clears the task. A retry buys only what is missing.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.hitl import ApprovalOperator, HITLOperator
from airflow.sdk import ObjectStoragePath, Param, chain, dag, get_current_context, task

from airflow_provider_bitdance.operators.bitdance import BitDanceBatchOperator, sheet_markdown

OUTPUT = os.environ.get("BITDANCE_OUTPUT_PATH", "/tmp/bitdance-images").rstrip("/")
VARIANTS = ["v1", "v2", "v3", "v4"]
NONE = "none of them"


@dag(
    schedule=None,
    params={
        "name": Param("jazz-night", type="string", title="Name of the poster", pattern="^[a-z0-9-]{1,40}$"),
        "prompt": Param("A poster for a jazz night, bold shapes", type="string", minLength=1),
    },
    tags=["bitdance", "example"],
    doc_md=__doc__,
    default_args={"retries": 2},
)
def example_bitdance_approval() -> None:
    """Ask, buy, ask again, publish."""
    folder = f"{OUTPUT}/posters"

    posters = BitDanceBatchOperator(
        task_id="posters",
        items=[{"key": "{{ params.name }}", "prompt": "{{ params.prompt }}", "size": "3:4"}],
        variants=len(VARIANTS),
        output_path=f"{folder}/",
        max_cost_usd=0.10,
        label="iptc",
        deferrable=True,
    )

    @task
    def estimate() -> str:
        return str(posters.estimate(get_current_context()))

    @task
    def publish(result: Any, answer: Any) -> str:
        from airflow.providers.common.compat.sdk import AirflowSkipException

        from airflow_provider_bitdance.manifest import read_manifest

        (choice,) = answer["chosen_options"]
        if choice == NONE:
            raise AirflowSkipException("No poster was chosen")
        chosen = read_manifest(result["manifest"])[VARIANTS.index(choice)]
        poster = ObjectStoragePath(str(chosen.uri))
        published = ObjectStoragePath(f"{folder}/published/{chosen.variant_of}{poster.suffix}")
        published.parent.mkdir(parents=True, exist_ok=True)
        published.write_bytes(poster.read_bytes())
        return str(published)

    cost = estimate()
    approve = ApprovalOperator(
        task_id="approve",
        subject="Buy the posters?",
        body=f"{{{{ params.prompt }}}}\n\n{cost}",
        response_timeout=timedelta(days=1),
        defaults=ApprovalOperator.REJECT,
    )
    sheet = sheet_markdown(posters.task_id, key="{{ params.name }}")
    choose = HITLOperator(
        task_id="choose",
        subject="Which poster is published?",
        body=f"{sheet}\n\n`{folder}/{{{{ params.name }}}}-contact-sheet.jpg`",
        options=[*VARIANTS, NONE],
    )
    chain(cost, approve, posters, choose, publish(posters.output, choose.output))


example_bitdance_approval()
