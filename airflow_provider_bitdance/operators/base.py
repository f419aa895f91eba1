"""The options that all operators share. How a task runs is in ``engine_operator.py``.

What a Dag file imports from here stays cheap; the engine is imported when the task runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from airflow.providers.common.compat.sdk import BaseOperatorLink, conf

from airflow_provider_bitdance.links.bitdance import LINKS
from airflow_provider_bitdance.operators.engine_operator import EngineOperator
from airflow_provider_bitdance.operators.options import check_options
from airflow_provider_bitdance.operators.publishing import text_of_url_base
from airflow_provider_bitdance.polling.policy import DEFAULT_POLL_INTERVAL, PollPolicy
from airflow_provider_bitdance.storage.path_objects import text_of_path
from airflow_provider_bitdance.version_compat import REENTRY_SECONDS, SHORTEST_DEFERRAL
from airflow_provider_bitdance.wavespeed.models import BITDANCE_14B

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_bitdance.engine import Estimate, Policy
    from airflow_provider_bitdance.hooks.bitdance import ConnectionExtra


class BitDanceBaseOperator(EngineOperator):
    """Base of the operators: buys missing images, waits for them and stores them. Use its subclasses in Dags.

    :param size: A preset (1:1, 16:9, 9:16, 4:3, 3:4, 3:2, 2:3) or ``"W*H"`` with sides of 256 to 1536 pixels.
        In a batch it applies to rows without a size of their own. Default: 1024*1024. (templated)
    :param seed: 0 to 2147483647, or -1 to draw a seed, which is then recorded. In a batch it applies to rows
        without a seed of their own. Default: -1. (templated)
    :param model: The model's path on WaveSpeed. The provider knows the sizes, seeds, inputs and prices of
        four models; it checks requests for any other against the schema that the API publishes. (templated)
    :param inputs: The model's other inputs by name, such as ``{"guidance_scale": 5}``. They are checked
        before anything is bought. (templated)
    :param enhance_prompt: The style in which WaveSpeed's Prompt Enhancer rewrites each prompt first, for
        $0.001 a text: ``"default"``, ``"artistic"``, ``"photographic"``, ``"technical"``, ``"anime"`` or
        ``"realistic"``. Each text is bought once and recorded. Images are reused by the prompt that you
        write, not by the enhanced one. Default: prompts are sent as they are. (templated)
    :param bitdance_conn_id: The connection with the API key.
    :param deferrable: Whether to wait in the triggerer instead of the worker. Default: ``[operators]
        default_deferrable``.
    :param defer_after: Seconds to wait in the worker before deferring. A deferral costs about 3 seconds.
    :param timeout: Seconds that one try may wait; in a batch, counted from its last purchase. The
        next try waits for the same predictions.
    :param poll_interval: The shortest pause between two polls of an image, in seconds; pauses grow to 15
        seconds. The first poll comes after 2 seconds at the earliest. In a batch, pauses may be as short as a
        tenth of this.
    :param if_exists: What to do if there is an image at the destination. ``"reuse"``: if it was made for the
        same request, it is the result, free; if not, buy a new image and replace it. ``"regenerate"``: buy
        once per run, and again when the task is cleared. ``"fail"``: fail.
    :param nsfw: What to do with an image that is flagged as not safe for work; it is paid for in any case.
        ``"fail"``: fail without a retry. ``"skip"``: skip the task; downstream tasks follow their trigger
        rule. ``"allow"``: store it.
    :param on_size_mismatch: What to do if an image differs in size from what was requested. It is paid for
        and stored in any case, and its result says ``size_differs``. ``"warn"``: log a warning. ``"fail"``:
        fail without a retry.
    :param on_lost_response: What to do if the response to a purchase was lost and the account's history does
        not prove what became of it. ``"buy_again"``: buy again, at most three purchases a try; each lost one
        is reported as possibly paid. ``"fail"``: fail without a retry, so that a person can decide.
    :param max_cost_usd: The most that this task may spend, in US dollars. All tries count, and what is
        possibly paid; clearing the task restarts the count. A plan that costs more fails before the first
        purchase. A number or numeric text, such as an earlier task's result; a template that renders
        anything else fails. Default: no limit. (templated)
    :param check_balance: Whether to request the account's balance before the first purchase, and to fail if
        it does not cover the plan.
    :param retry_failed: Whether a retry buys an image again if its prediction failed. WaveSpeed refunds
        failed predictions. A retry never buys again what WaveSpeed refused or moderated.
    :param records_path: The folder of the journal and the receipts, which every worker must be able to
        access. Default: that of the connection, then ``[bitdance] records_path``, then ``.bitdance`` in the
        output folder. (templated)
    :param previews: How many images of this task the Images tab of Airflow's UI shows. Their thumbnails are
        kept in Airflow's database, at most 200 kB per task; 0 shows none. If the task is mapped, the first
        task instances up to this number show theirs. Default: ``[bitdance] previews``, which is 24.
    :param label: ``"iptc"``: label newly stored files as AI-generated, in about 580 bytes of XMP metadata
        with IPTC's term for it. Pixels do not change, and no prompt is written into the file. ``"none"``:
        files stay as the model returned them. Default: ``[bitdance] label``, which is none.
    :param url_base: The http or https URL under which the output folder is published. Results and manifest
        rows then have a ``url``: this base, the file name, and ``?v=`` with the first 8 digits of the file's
        SHA-256, so that caches fetch a replaced image again. Default: none. (templated)
    """

    template_fields: Sequence[str] = (
        "prompt",
        "output_path",
        "size",
        "seed",
        "model",
        "inputs",
        "enhance_prompt",
        "records_path",
        "url_base",
        "max_cost_usd",
    )
    template_ext: Sequence[str] = (".prompt",)
    template_fields_renderers: ClassVar[dict[str, str]] = {"prompt": "md"}
    operator_extra_links: Sequence[BaseOperatorLink] = LINKS
    ui_color = "#e8e2f7"

    def __init__(
        self,
        *,
        size: str | None = None,
        seed: int | str = -1,
        model: str = BITDANCE_14B,
        inputs: dict[str, Any] | str | None = None,
        enhance_prompt: str | None = None,
        bitdance_conn_id: str = "bitdance_default",
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        defer_after: float = 15.0,
        timeout: float = 600.0,
        poll_interval: float = DEFAULT_POLL_INTERVAL,
        if_exists: Literal["reuse", "regenerate", "fail"] = "reuse",
        nsfw: Literal["fail", "skip", "allow"] = "fail",
        on_size_mismatch: Literal["warn", "fail"] = "warn",
        on_lost_response: Literal["buy_again", "fail"] = "buy_again",
        max_cost_usd: float | str | None = None,
        check_balance: bool = False,
        retry_failed: bool = True,
        records_path: str | None = None,
        previews: int | None = None,
        label: Literal["iptc", "none"] | None = None,
        url_base: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.size, self.seed, self.previews = size, seed, previews
        self._label = label  # Airflow's tasks have a label, which is their name in the UI
        self.model, self.inputs, self.enhance_prompt = model, inputs, enhance_prompt
        self.bitdance_conn_id = bitdance_conn_id
        self.deferrable, self.defer_after = deferrable, defer_after
        self.timeout, self.poll_interval = timeout, poll_interval
        self.if_exists, self.nsfw, self.on_size_mismatch = if_exists, nsfw, on_size_mismatch
        self.on_lost_response, self.retry_failed = on_lost_response, retry_failed
        self.max_cost_usd, self.check_balance = max_cost_usd, check_balance
        self.records_path = text_of_path("records_path", records_path, kind="folder")
        self.url_base = text_of_url_base(url_base)
        self.link_targets: dict[str, str] = {}
        check_options(self)

    def estimate(self, context: Context) -> Estimate:
        """Count the images that this task would reuse and buy in this run, and what they would cost.

        It spends nothing and writes nothing. Call it from a task that runs before this one, for example to
        let a person approve the cost:

        .. code-block:: python

            cover = BitDanceTextToImageOperator(task_id="cover", prompt="A fox", output_path="/data/covers/")


            @task
            def ask(**context) -> str:
                return str(cover.estimate(context))

        A task that is mapped with ``.expand`` does not have this method; pass it to
        :func:`~airflow_provider_bitdance.operators.bitdance.estimate`, which also accepts task groups.

        :param context: The context of any task of the same Dag run. For a task in a mapped group, that of a
            task in the same group.
        :raises InputError: The fields cannot be used, or are known only inside the task's mapped group.
        """
        from airflow_provider_bitdance.operators.estimating import estimate_operator

        return estimate_operator(self, context)

    def _policy(self, extra: ConnectionExtra) -> Policy:
        from airflow_provider_bitdance.engine import Policy
        from airflow_provider_bitdance.hooks.runtime import label_of

        return Policy(
            timeout=self.timeout,
            defer_after=self.defer_after if self.deferrable else None,
            break_even=SHORTEST_DEFERRAL + REENTRY_SECONDS if self.deferrable else math.inf,
            if_exists=self.if_exists,
            nsfw=self.nsfw,
            on_size_mismatch=self.on_size_mismatch,
            label=label_of(self._label),
            prices=extra.prices,
            live_price=extra.live_price,
            max_cost_usd=self.max_cost_usd,
            check_balance=self.check_balance,
            on_lost_response=self.on_lost_response,
            retry_failed=self.retry_failed,
            poll=PollPolicy(interval=self.poll_interval),
        )
