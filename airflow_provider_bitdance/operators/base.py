"""What all operators share: options, and the way from Airflow's context through the engine and back.

``execute`` and ``execute_complete`` do the same: read the journal, do what is missing. What a Dag file
imports from here stays cheap; the engine is imported when the task runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSkipException,
    BaseOperator,
    conf,
)

from airflow_provider_bitdance.clock import Clock
from airflow_provider_bitdance.exceptions import BitDanceError, InputError, NsfwError, StorageError
from airflow_provider_bitdance.links.bitdance import LINKS, show_predictions, show_stored
from airflow_provider_bitdance.operators.validation import check_choice, check_number, reason_of
from airflow_provider_bitdance.polling.policy import DEFAULT_POLL_INTERVAL, PollPolicy
from airflow_provider_bitdance.triggers.bitdance import BitDanceTrigger, Reason, some_of
from airflow_provider_bitdance.version_compat import REENTRY_SECONDS, SHORTEST_DEFERRAL

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_bitdance.engine import Estimate, Finished, JobContext, Policy, Waiting, Wanted
    from airflow_provider_bitdance.hooks.bitdance import BitDanceHook, ConnectionExtra
    from airflow_provider_bitdance.records import Job, Journal
    from airflow_provider_bitdance.storage import Folder
    from airflow_provider_bitdance.wavespeed.client import AsyncClient

__all__ = ["BitDanceBaseOperator"]

LONGEST_WAIT = 7 * 24 * 3600.0
"""Seconds; WaveSpeed keeps an output no longer."""
THREADS = 16
DEFERRAL_MARGIN = timedelta(seconds=60)
"""Airflow's own time-out of a deferral comes this much after ours, which has the better message."""


class BitDanceBaseOperator(BaseOperator):
    """Buys what is missing, waits, and stores. Not for use in a Dag: its subclasses say what is wanted.

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
    """

    is_batch: bool = False
    template_fields: Sequence[str] = ("records_path",)
    operator_extra_links = LINKS
    _is_killed: bool = False
    _notify_engine: Callable[[], object] = staticmethod(lambda: None)
    ui_color = "#e8e2f7"

    def __init__(
        self,
        *,
        bitdance_conn_id: str = "bitdance_default",
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        defer_after: float = 15.0,
        timeout: float = 600.0,
        poll_interval: float = DEFAULT_POLL_INTERVAL,
        if_exists: Literal["reuse", "regenerate", "fail"] = "reuse",
        nsfw: Literal["fail", "skip", "allow"] = "fail",
        on_lost_response: Literal["buy_again", "fail"] = "buy_again",
        max_cost_usd: float | None = None,
        check_balance: bool = False,
        retry_failed: bool = True,
        records_path: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_choice("if_exists", if_exists, ("reuse", "regenerate", "fail"))
        check_choice("nsfw", nsfw, ("fail", "skip", "allow"))
        check_choice("on_lost_response", on_lost_response, ("buy_again", "fail"))
        check_number("defer_after", defer_after, 0.0, LONGEST_WAIT, "seconds")
        check_number("timeout", timeout, 1.0, LONGEST_WAIT, "seconds")
        check_number("poll_interval", poll_interval, 0.1, LONGEST_WAIT, "seconds")
        if max_cost_usd is not None:
            check_number("max_cost_usd", max_cost_usd, 0.0, 1e6, "US dollars")
        self.bitdance_conn_id = bitdance_conn_id
        self.deferrable = deferrable
        self.defer_after = defer_after
        self.timeout = timeout
        self.poll_interval = poll_interval
        self.if_exists = if_exists
        self.nsfw = nsfw
        self.on_lost_response = on_lost_response
        self.max_cost_usd = max_cost_usd
        self.check_balance = check_balance
        self.retry_failed = retry_failed
        self.records_path = records_path
        self.link_targets: dict[str, str] = {}

    def execute(self, context: Context) -> Any:
        """Make what is wanted, or go on where the last try stopped.

        :raises AirflowFailException: No retry helps.
        :raises AirflowSkipException: The image is flagged, and ``nsfw="skip"``.
        :raises BitDanceError: A retry may help; the error says whether an image may be paid for.
        """
        return self._run(context, resumed=False)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Go on after a deferral. All that is needed is in the journal; the event is for the log.

        :param event: As :class:`BitDanceTrigger` sends it.
        :raises ValueError: It is not such an event.
        """
        reason = reason_of(event)
        why = "deadline reached" if reason is Reason.DEADLINE else reason
        self.log.info("Resumed after the deferral: %s, %s predictions ended", why, event.get("ended"))
        return self._run(context, resumed=True)

    def on_kill(self) -> None:
        """Buy nothing more. Airflow calls this in the midst of ``execute``, and soon ends the process."""
        self._is_killed = True
        with contextlib.suppress(RuntimeError):  # nothing runs any more
            self._notify_engine()

    def estimate(self, context: Context) -> Estimate:
        """Count what is there for this task in this run, what it would buy, and what that costs.

        Spends nothing and writes nothing. For a task that runs before this one, which may ask a person:

        .. code-block:: python

            cover = BitDanceTextToImageOperator(task_id="cover", prompt="A fox", output_path="/data/covers/")


            @task
            def ask(**context) -> str:
                return str(cover.estimate(context))

        :param context: Of any task of the same Dag run.
        :raises InputError: The fields cannot be used.
        """
        task = self.prepare_for_execution()
        task.render_template_fields(context)
        return task._estimate(context)

    def _estimate(self, context: Context) -> Estimate:
        from airflow_provider_bitdance.engine import estimate
        from airflow_provider_bitdance.hooks import object_storage
        from airflow_provider_bitdance.hooks.bitdance import BitDanceHook
        from airflow_provider_bitdance.operators import runtime

        hook = BitDanceHook(self.bitdance_conn_id)
        job = runtime.job_of(context).model_copy(update={"task_id": self.task_id, "map_index": -1})
        wanted = self._wanted(job)
        records, images = (
            self._open_records(job, hook),
            object_storage.open_folder(wanted[0].destination.folder),
        )

        async def run() -> Estimate:
            async with hook.new_async_client() as client:
                return await estimate(client, records, images, self._policy(hook.extra), wanted)

        return asyncio.run(run())

    @abstractmethod
    def _output_folder(self, job: Job) -> str:
        """Return where images go, as the fields say now."""

    @abstractmethod
    def _wanted(self, job: Job) -> list[Wanted]:
        """Return what the fields ask for now.

        :raises InputError: They cannot be used.
        """

    @abstractmethod
    def _result(self, finished: Finished, journal: Journal, images: Folder) -> Any:
        """Return what goes to XCom.

        :param journal: The job's, as this process wrote it.
        :param images: The output folder.
        """

    def _extra(self, result: Any) -> dict[str, Any]:
        """Return what an asset event says of the result: small, and without prompts."""
        return dict(result)

    def _run(self, context: Context, *, resumed: bool) -> Any:
        from airflow_provider_bitdance.operators import runtime

        try:
            result = self._run_engine(context, resumed=resumed)
        except NsfwError as error:
            if self.nsfw == "skip" and not self.is_batch:
                raise AirflowSkipException(str(error)) from None
            raise AirflowFailException(str(error)) from error
        except BitDanceError as error:
            if error.retry_helps:
                raise
            raise AirflowFailException(str(error)) from error
        runtime.set_asset_extra(context, self.outlets, self._extra(result))
        return result

    def _run_engine(self, context: Context, *, resumed: bool) -> Any:
        """Resolve connections and folders here, on the main thread and before there is an event loop:
        Airflow's filesystems and, on 3.1, its connections are not available elsewhere."""
        from airflow_provider_bitdance.engine import JobContext, Waiting
        from airflow_provider_bitdance.hooks import object_storage
        from airflow_provider_bitdance.hooks.bitdance import BitDanceHook
        from airflow_provider_bitdance.operators import runtime

        started_at = Clock().time()
        hook = BitDanceHook(self.bitdance_conn_id)
        show_predictions(self, hook.settings.base_url, context)
        owner = runtime.this_owner(context)
        records = self._open_records(owner.job, hook)
        journal = runtime.open_journal(
            records, owner, resumed=resumed, retries=self.retries or 0, log=self.log
        )
        wanted = self._wanted_or_planned(context, journal, resumed=resumed)
        images = object_storage.open_folder(journal.state.output or wanted[0].destination.folder)

        def new_context(client: AsyncClient) -> JobContext:
            return JobContext(
                client=client,
                journal=journal,
                records=records,
                images=images,
                policy=self._policy(hook.extra),
                log=self.log,
                started_at=started_at,
                run_started_at=runtime.run_start(context),
                count=runtime.counter(owner.job),
            )

        outcome = asyncio.run(self._run_job(hook, new_context, wanted))
        if isinstance(outcome, Waiting):
            self._hand_over(outcome)
        result = self._result(outcome, journal, images)
        if "uri" in result:
            show_stored(self, result["uri"], images)
        runtime.emit_lineage(hook, result["uri"] if "uri" in result else result["manifest"], self.log)
        return result

    async def _run_job(
        self, hook: BitDanceHook, new_context: Callable[[AsyncClient], JobContext], wanted: list[Wanted]
    ) -> Finished | Waiting:
        """Run the engine where ``on_kill`` reaches it."""
        from airflow_provider_bitdance.engine import run_job

        loop = asyncio.get_running_loop()
        # The default is four more than there are cores; ours wait for stores, and hardly compute.
        loop.set_default_executor(ThreadPoolExecutor(THREADS, "bitdance"))
        async with hook.new_async_client() as client:
            job_context = new_context(client)
            self._notify_engine = lambda: loop.call_soon_threadsafe(job_context.coordination.killed.set)
            if self._is_killed:
                job_context.coordination.killed.set()
            return await run_job(job_context, wanted)

    def _open_records(self, job: Job, hook: BitDanceHook) -> Folder:
        """Open the records path. Where one is set, the output path is not read again once there is a plan."""
        from airflow_provider_bitdance.hooks import object_storage

        return object_storage.open_folder(
            object_storage.records_path(self.records_path, hook.extra.records_path)
            or f"{self._output_folder(job)}/.bitdance"
        )

    def _wanted_or_planned(self, context: Context, journal: Journal, *, resumed: bool) -> list[Wanted]:
        """Return what is wanted. Where there is a plan, the fields may have rendered to anything."""
        if resumed:
            return []
        try:
            return self._wanted(journal.job)
        except (InputError, StorageError):
            if journal.state.images:
                return []
            raise

    def _policy(self, extra: ConnectionExtra) -> Policy:
        from airflow_provider_bitdance.engine import Policy

        return Policy(
            timeout=self.timeout,
            defer_after=self.defer_after if self.deferrable else None,
            break_even=SHORTEST_DEFERRAL + REENTRY_SECONDS if self.deferrable else math.inf,
            if_exists=self.if_exists,
            nsfw=self.nsfw,
            price_usd=None if extra.live_price else extra.price_usd,
            max_cost_usd=self.max_cost_usd,
            check_balance=self.check_balance,
            on_lost_response=self.on_lost_response,
            retry_failed=self.retry_failed,
            poll=PollPolicy(interval=self.poll_interval),
            is_batch=self.is_batch,
            **self._batch_policy(extra),
        )

    def _batch_policy(self, extra: ConnectionExtra) -> dict[str, Any]:
        """Return the part of the policy that only a batch has."""
        return {}

    def _hand_over(self, waiting: Waiting) -> NoReturn:
        left = max(waiting.deadline - waiting.now, SHORTEST_DEFERRAL)
        not_before, resume_at = waiting.now + SHORTEST_DEFERRAL, waiting.resume_at - REENTRY_SECONDS
        until = waiting.deadline
        if not waiting.enough:
            until = not_before = max(not_before, resume_at)
        elif waiting.resume_at > waiting.now:
            until = min(until, max(not_before, resume_at))
        seconds, in_flight = until - waiting.now, some_of(waiting.pending) or "none"
        if waiting.to_buy:
            rest = (
                "Rate limited by WaveSpeed: deferring for up to %.0f s with %d images "
                "left to submit. In flight: %s"
            )
            self.log.info(rest, seconds, waiting.to_buy, in_flight)
        else:
            self.log.info("Waiting in the triggerer for up to %.0f s: %s", seconds, in_flight)
        self.defer(
            trigger=BitDanceTrigger(
                bitdance_conn_id=self.bitdance_conn_id,
                pending=waiting.watched,
                deadline=until,
                not_before=not_before,
                poll_interval=self.poll_interval,
                enough=waiting.enough,
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=left) + DEFERRAL_MARGIN,
        )
