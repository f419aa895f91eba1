"""The operator: what a Dag author writes. It reads the task's context and hands over to the engine.

``execute`` and ``execute_complete`` do the same: read the journal, do what is missing. What a Dag file
imports from here stays cheap; the engine is imported when the task runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NoReturn

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSkipException,
    BaseOperator,
    conf,
)

from airflow_provider_bitdance.api.errors import BitDanceError, InputError, NsfwError, shorten
from airflow_provider_bitdance.api.models import BITDANCE_14B, ImageRequest
from airflow_provider_bitdance.names import ImageAddress, image_address
from airflow_provider_bitdance.polling import DEFAULT_POLL_INTERVAL, PollSchedule
from airflow_provider_bitdance.triggers.bitdance import BitDanceTrigger, Reason
from airflow_provider_bitdance.version_compat import SHORTEST_DEFERRAL

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_bitdance.engine import Finished, Policy, Waiting, Wanted
    from airflow_provider_bitdance.journal import Writer

__all__ = ["BitDanceTextToImageOperator"]

LONGEST_WAIT = 7 * 24 * 3600.0
"""Seconds; WaveSpeed keeps an output no longer."""
DEFERRAL_MARGIN = timedelta(seconds=60)
"""Airflow's own time-out of a deferral comes this much after ours, which has the better message."""


class BitDanceTextToImageOperator(BaseOperator):
    """Makes one image from a prompt, stores it, and records it so that it is bought once. About $0.01.

    A retry goes on where the last try stopped: it buys nothing that was bought. The same request at the same
    ``output_path`` is bought once for all runs, unless ``if_exists`` says otherwise. Set ``retries=2``:
    Airflow's default is none, and then a killed worker leaves a paid image uncollected.

    Not for hundreds of images, one mapped task each: a task and its deferral cost Airflow about a second.

    .. code-block:: python

        BitDanceTextToImageOperator(
            task_id="cover",
            prompt="A lighthouse at dawn, {{ ds }}",
            output_path="s3://my_s3@my-bucket/covers/{{ ds }}",
            size="16:9",
            retries=2,
        )

    The result is a plain dict: ``uri``, ``receipt``, ``prediction_id``, ``model``, ``size``, ``width``,
    ``height``, ``media_type``, ``bytes``, ``sha256``, ``seed``, ``inference_ms``, ``estimated_cost_usd``,
    ``reused``, ``nsfw``, ``possibly_paid`` (lost submissions that may have been charged).

    :param prompt: The text, or the name of a ``.prompt`` file. (templated)
    :param output_path: Absolute path or URI that every worker sees. With a slash at its end it is a folder,
        and the name is made from Dag, task, run and map index; without one it names the file. The stored
        extension is that of the real format. (templated)
    :param size: A preset (1:1, 16:9, 9:16, 4:3, 3:4, 3:2, 2:3) or ``"W*H"``, sides of 256 to 1536 pixels.
        Default 1024*1024. (templated)
    :param width: Pixels, together with ``height`` and instead of ``size``. (templated)
    :param height: Pixels, together with ``width`` and instead of ``size``. (templated)
    :param seed: 0 to 2147483647, or -1 for any: then one is drawn and recorded. (templated)
    :param model: The model's path on WaveSpeed. (templated)
    :param bitdance_conn_id: The connection with the API key.
    :param deferrable: Wait in the triggerer and not in the worker. Default: ``[operators]
        default_deferrable``.
    :param defer_after: Seconds to wait in the worker first. A deferral costs about 3 seconds.
    :param timeout: Seconds that one try waits for the image. The next try waits for the same image.
    :param poll_interval: Seconds to the first look and the shortest pause between looks; it grows to 15.
    :param if_exists: ``"reuse"``: the same request at this address is the result, free; another request is
        bought and replaces it. ``"regenerate"``: buy once per run, and again when the task is cleared.
        ``"fail"``: refuse.
    :param nsfw: What to do with a picture that is flagged as not safe for work; it is paid for in any case.
        ``"fail"``: fail without retry. ``"skip"``: skip the task; tasks after it follow their trigger rule.
        ``"allow"``: store it.
    :param records_path: Where journal and receipts lie. Default: the connection's, else ``[bitdance]
        records_path``, else ``.bitdance`` in the output folder. Every worker must see it. (templated)
    """

    template_fields: Sequence[str] = (
        "prompt",
        "output_path",
        "size",
        "width",
        "height",
        "seed",
        "model",
        "records_path",
    )
    template_ext: Sequence[str] = (".prompt",)
    template_fields_renderers: ClassVar[dict[str, str]] = {"prompt": "md"}
    ui_color = "#e8e2f7"

    def __init__(
        self,
        *,
        prompt: str,
        output_path: str,
        size: str | None = None,
        width: int | str | None = None,
        height: int | str | None = None,
        seed: int | str = -1,
        model: str = BITDANCE_14B,
        bitdance_conn_id: str = "bitdance_default",
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        defer_after: float = 20.0,
        timeout: float = 600.0,
        poll_interval: float = DEFAULT_POLL_INTERVAL,
        if_exists: Literal["reuse", "regenerate", "fail"] = "reuse",
        nsfw: Literal["fail", "skip", "allow"] = "fail",
        records_path: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        _check_choice("if_exists", if_exists, ("reuse", "regenerate", "fail"))
        _check_choice("nsfw", nsfw, ("fail", "skip", "allow"))
        _check_seconds("defer_after", defer_after, at_least=0.0)
        _check_seconds("timeout", timeout, at_least=1.0)
        _check_seconds("poll_interval", poll_interval, at_least=0.1)
        self.prompt = prompt
        self.output_path = output_path
        self.size = size
        self.width = width
        self.height = height
        self.seed = seed
        self.model = model
        self.bitdance_conn_id = bitdance_conn_id
        self.deferrable = deferrable
        self.defer_after = defer_after
        self.timeout = timeout
        self.poll_interval = poll_interval
        self.if_exists = if_exists
        self.nsfw = nsfw
        self.records_path = records_path

    def execute(self, context: Context) -> dict[str, Any]:
        """Make the image, or go on where the last try stopped.

        :raises AirflowFailException: No retry helps.
        :raises AirflowSkipException: The picture is flagged, and ``nsfw="skip"``.
        :raises BitDanceError: A retry may help; the error says whether the image may be paid for.
        """
        return self._advance(context, resumed=False)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Go on after a deferral. All that is needed is in the journal; the event is for the log.

        :param event: As :class:`BitDanceTrigger` sends it.
        :raises ValueError: It is not such an event.
        """
        reason = _reason_of(event)
        self.log.info("Back from the triggerer: %s, %s ended", reason, event.get("ended"))
        return self._advance(context, resumed=True)

    def _advance(self, context: Context, *, resumed: bool) -> dict[str, Any]:
        from airflow_provider_bitdance.engine import Waiting

        try:
            outcome = self._run_engine(context, resumed=resumed)
        except NsfwError as error:
            if self.nsfw == "skip":
                raise AirflowSkipException(str(error)) from None
            raise AirflowFailException(str(error)) from error
        except BitDanceError as error:
            if error.retry_helps:
                raise
            raise AirflowFailException(str(error)) from error
        if isinstance(outcome, Waiting):
            self._hand_over(outcome)
        return outcome.results[0]

    def _run_engine(self, context: Context, *, resumed: bool) -> Finished | Waiting:
        """Resolve connections and folders here, on the main thread and before there is an event loop:
        Airflow's filesystems and, on 3.1, its connections cannot be had elsewhere."""
        from airflow_provider_bitdance.engine import Bench, Clock, advance
        from airflow_provider_bitdance.hooks.bitdance import BitDanceHook
        from airflow_provider_bitdance.operators import workplace

        started_at = Clock().time()
        hook = BitDanceHook(self.bitdance_conn_id)
        writer = workplace.this_process(context)
        # Where a records path is set, output_path is not read again once there is a plan.
        records = workplace.open_folder(
            workplace.records_path(self.records_path, hook.extra.records_path)
            or f"{self._address(writer).folder}/.bitdance"
        )
        journal = workplace.open_journal(
            records, writer, resumed=resumed, retries=self.retries or 0, log=self.log
        )
        planned = journal.state.output
        wanted = [] if resumed else self._wanted(writer, planned=bool(planned))
        images = workplace.open_folder(planned or wanted[0].address.folder)

        async def run() -> Finished | Waiting:
            async with hook.new_async_client() as client:
                bench = Bench(
                    client=client,
                    journal=journal,
                    records=records,
                    images=images,
                    policy=self._policy(hook.extra.price_usd),
                    log=self.log,
                    started_at=started_at,
                )
                return await advance(bench, wanted)

        return asyncio.run(run())

    def _wanted(self, writer: Writer, *, planned: bool) -> list[Wanted]:
        """Return what the fields ask for now. Where there is a plan, they may have rendered to anything."""
        from airflow_provider_bitdance.engine import Wanted

        try:
            request = ImageRequest.of(
                prompt=self.prompt,
                size=self.size,
                width=self.width,
                height=self.height,
                seed=self.seed,
                model=self.model,
            )
            return [Wanted(key="image", request=request, address=self._address(writer))]
        except InputError:
            if planned:
                return []
            raise

    def _address(self, writer: Writer) -> ImageAddress:
        from airflow_provider_bitdance.operators import workplace

        return image_address(self.output_path, default_stem=workplace.default_stem(writer.job))

    def _policy(self, price_usd: float) -> Policy:
        from airflow_provider_bitdance.engine import Policy

        return Policy(
            timeout=self.timeout,
            defer_after=self.defer_after if self.deferrable else None,
            if_exists=self.if_exists,
            nsfw=self.nsfw,
            price_usd=price_usd,
            poll=PollSchedule(interval=self.poll_interval),
        )

    def _hand_over(self, waiting: Waiting) -> NoReturn:
        left = max(waiting.deadline - waiting.now, SHORTEST_DEFERRAL)
        self.log.info("Waiting in the triggerer for at most %.0f s: %s", left, ", ".join(waiting.pending))
        self.defer(
            trigger=BitDanceTrigger(
                bitdance_conn_id=self.bitdance_conn_id,
                pending=waiting.pending,
                deadline=waiting.deadline,
                not_before=waiting.now + SHORTEST_DEFERRAL,
                poll_interval=self.poll_interval,
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=left) + DEFERRAL_MARGIN,
        )


def _reason_of(event: dict[str, Any]) -> Reason:
    """Read the trigger's event; a triggerer of another version may send what this one does not know."""
    try:
        return Reason(event["reason"])
    except (KeyError, TypeError, ValueError):
        raise ValueError(
            f"The event of the trigger is {shorten(repr(event))}. Allowed: a reason of {', '.join(Reason)}. "
            "Install one version of airflow-provider-bitdance on all workers and triggerers. "
            "A retry goes on with the same prediction and buys nothing."
        ) from None


def _check_choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InputError(f"{name} is {value!r}", allowed=", ".join(allowed))


def _check_seconds(name: str, value: object, *, at_least: float) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number and at_least <= value <= LONGEST_WAIT):  # type: ignore[operator]  # a number
        raise InputError(
            f"{name} is {value!r}", allowed=f"a number of seconds, {at_least:g} to {LONGEST_WAIT:g}"
        )
