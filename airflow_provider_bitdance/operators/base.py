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
from airflow_provider_bitdance.operators.validation import text_of_path
from airflow_provider_bitdance.polling.policy import DEFAULT_POLL_INTERVAL, PollPolicy
from airflow_provider_bitdance.version_compat import REENTRY_SECONDS, SHORTEST_DEFERRAL
from airflow_provider_bitdance.wavespeed.models import BITDANCE_14B

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_bitdance.engine import Estimate, Policy
    from airflow_provider_bitdance.hooks.bitdance import ConnectionExtra


class BitDanceBaseOperator(EngineOperator):
    """Buys what is missing, waits, and stores. Not for use in a Dag: its subclasses say what is wanted.

    :param size: A preset (1:1, 16:9, 9:16, 4:3, 3:4, 3:2, 2:3) or ``"W*H"``, sides of 256 to 1536 pixels; in
        a batch of the rows that give none. Default 1024*1024. (templated)
    :param seed: 0 to 2147483647, or -1 for any: then one is drawn and recorded. In a batch of the rows that
        give none. (templated)
    :param model: The model's path on WaveSpeed. Of four the provider knows sizes, seed, inputs and price by
        itself (docs/reference/models.md); others are checked by the schema that the API has. (templated)
    :param inputs: The model's other inputs by name, such as ``{"guidance_scale": 5}``; checked before
        anything is bought. (templated)
    :param enhance_prompt: Have WaveSpeed's Prompt Enhancer rewrite each prompt first, $0.001 a text:
        ``"default"``, ``"artistic"``, ``"photographic"``, ``"technical"``, ``"anime"`` or ``"realistic"``.
        Each text is bought once and recorded; reuse goes by the prompt that you write. (templated)
    :param bitdance_conn_id: The connection with the API key.
    :param deferrable: Wait in the triggerer and not in the worker. Default: ``[operators]
        default_deferrable``.
    :param defer_after: Seconds to wait in the worker first. A deferral costs about 3 seconds.
    :param timeout: Seconds that one try waits, in a batch from its last purchases on. The next try waits for
        the same predictions.
    :param poll_interval: Seconds; the shortest pause between two polls of an image, which grows to 15. The
        first poll comes after 2 at the earliest. In a batch the pauses may be as short as a tenth of it.
    :param if_exists: ``"reuse"``: the same request at this destination is the result, free; another request
        is bought and replaces it. ``"regenerate"``: buy once per run, and again when the task is cleared.
        ``"fail"``: refuse.
    :param nsfw: What to do with an image that is flagged as not safe for work; it is paid for in any case.
        ``"fail"``: fail without retry. ``"skip"``: skip the task; tasks after it follow their trigger rule.
        ``"allow"``: store it.
    :param on_size_mismatch: What to do with an image that has another size than was requested; it is paid for
        and stored, and its result says ``size_differs``. ``"warn"``: log it. ``"fail"``: fail without retry.
    :param on_lost_response: What to do if the response to a purchase was lost and the account's history
        does not prove what became of it. ``"buy_again"``: buy again, at most three purchases a try; each
        lost one is reported as possibly paid. ``"fail"``: fail without retry, for a person to decide.
    :param max_cost_usd: The most that this task may spend until it is cleared, in US dollars: all tries, and
        what is possibly paid. More is refused before the first purchase. Default: no limit.
    :param check_balance: Ask for the account's balance before the first purchase, and refuse what it cannot
        pay for.
    :param retry_failed: Whether a retry buys an image again whose prediction failed. WaveSpeed refunds failed
        predictions. What was refused or moderated is never bought again by a retry.
    :param records_path: Where journal and receipts are stored. Default: the connection's, else ``[bitdance]
        records_path``, else ``.bitdance`` in the output folder. Every worker must see it. (templated)
    :param previews: How many of its images the tab "Images" of Airflow's UI shows, with small pictures that
        are kept in Airflow's database, 200 kB a task at most; 0 shows none. Default: ``[bitdance] previews``,
        which is 24. Of mapped tasks, the first so many show theirs.
    :param label: ``"iptc"``: write the IPTC's mark of AI-made media into the files that are stored from now
        on, about 580 bytes of XMP; no pixel changes, and no prompt goes into a file. ``"none"``: files stay
        as the model gave them. Default: ``[bitdance] label``, which is none.
    :param url_base: The http or https URL under which the output folder is published. Results, and the rows
        of a manifest, then have ``url``: this, the file's name, and ``?v=`` with the first 8 digits of the
        file's SHA-256, so that a replaced image is fetched anew. Default: none. (templated)
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
        max_cost_usd: float | None = None,
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
        """Count what is there for this task in this run, what it would buy, and what that costs.

        Spends nothing and writes nothing. For a task that runs before this one, which may ask a person:

        .. code-block:: python

            cover = BitDanceTextToImageOperator(task_id="cover", prompt="A fox", output_path="/data/covers/")


            @task
            def ask(**context) -> str:
                return str(cover.estimate(context))

        A task that is mapped with ``.expand`` has no such method:
        :func:`~airflow_provider_bitdance.operators.bitdance.estimate` takes it, and task groups.

        :param context: Of any task of the same Dag run; in a mapped group, of a task of that group.
        :raises InputError: The fields cannot be used, or are known in the task's mapped group only.
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
