"""How a task runs: the way from Airflow's context through the engine and back. Options are in ``base.py``.

``execute`` and ``execute_complete`` do the same: read the journal, do what is missing. What a Dag file
imports from here stays cheap; the engine is imported when the task runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from abc import abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSkipException,
    BaseOperator,
)

from airflow_provider_bitdance.clock import Clock
from airflow_provider_bitdance.exceptions import BitDanceError, InputError, NsfwError
from airflow_provider_bitdance.hooks import object_storage
from airflow_provider_bitdance.hooks.model_lookup import find_model
from airflow_provider_bitdance.links.bitdance import show_links, show_stored, with_targets
from airflow_provider_bitdance.operators.deferral import hand_over
from airflow_provider_bitdance.operators.options import limit_of
from airflow_provider_bitdance.operators.previews import (
    previews_of,
    push_failure,
    push_preview,
    push_sheets,
)
from airflow_provider_bitdance.operators.progress_row import ProgressRow
from airflow_provider_bitdance.operators.publishing import rendered_url_base, with_urls
from airflow_provider_bitdance.operators.validation import reason_of, rendered_path
from airflow_provider_bitdance.preview.collector import Thumbnails
from airflow_provider_bitdance.storage.naming import Destination, parse_destination
from airflow_provider_bitdance.triggers.bitdance import Reason

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_bitdance.engine import Finished, JobContext, Policy, Waiting, Wanted
    from airflow_provider_bitdance.hooks.bitdance import BitDanceHook, ConnectionExtra
    from airflow_provider_bitdance.records import Job, Journal
    from airflow_provider_bitdance.storage import Folder
    from airflow_provider_bitdance.wavespeed.models import Model

THREADS = 48
"""For calls of stores, which wait more than they compute: 32 images are stored at once, and 8 are bought."""


class EngineOperator(BaseOperator):
    """Buys what is missing, waits, and stores. Its subclasses have the options, and say what is wanted."""

    bitdance_conn_id: str
    max_cost_usd: Any
    model: str
    nsfw: Literal["fail", "skip", "allow"]
    output_path: str
    previews: int | None
    records_path: Any
    url_base: Any
    _output_template: object = ""
    _is_killed: bool = False
    _is_shown: bool = False
    _notify_engine: Callable[[], object] = staticmethod(lambda: None)

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

    def _destination(self, job: Job) -> Destination:
        """Return where the image of a task that makes one goes, as the fields say now."""
        from airflow_provider_bitdance.hooks import runtime

        path = rendered_path("output_path", self.output_path)
        return parse_destination(path, default_stem=runtime.default_stem(job))

    def _output_folder(self, job: Job) -> str:
        return self._destination(job).folder

    @abstractmethod
    def _wanted(self, job: Job, model: Model) -> list[Wanted]:
        """Return what the fields ask for now.

        :param model: What is known of the model that they name.
        :raises InputError: They cannot be used.
        """

    @abstractmethod
    def _policy(self, extra: ConnectionExtra) -> Policy:
        """Return what the options say.

        :param extra: The fields of the connection.
        """

    def _result(self, finished: Finished, job_context: JobContext) -> dict[str, Any]:
        """Return what goes to XCom, and into the event of an asset: small, and without prompts."""
        return finished.results[0]

    def _failure(
        self, finished: Finished, job_context: JobContext, result: dict[str, Any]
    ) -> BitDanceError | None:
        """Return why the task fails although it has a result: of one image there is one or the other."""
        return None

    def _run(self, context: Context, *, resumed: bool) -> dict[str, Any]:
        try:
            return self._run_engine(context, resumed=resumed)
        except BitDanceError as error:
            if not self._is_shown:
                push_failure(context, error, self.previews, self.log)
            # It says all that the user needs: Airflow would log each of its causes with all frames.
            self.log.debug("Traceback of the failure", exc_info=True)
            raise self._for_airflow(error).with_traceback(self._users_frames(error)) from None
        except Exception as error:
            # A fault of ours keeps all frames; of what the user's code raises, ours would come first.
            error.__traceback__ = self._users_frames(error) or error.__traceback__
            raise
        finally:
            self.operator_extra_links = with_targets(self)

    def _for_airflow(self, error: BitDanceError) -> Exception:
        """Return an error in the class by which Airflow decides whether it retries the task."""
        if error.retry_helps:
            return error
        if self.nsfw == "skip" and isinstance(error, NsfwError):
            return AirflowSkipException(str(error))
        return AirflowFailException(str(error))

    def _users_frames(self, error: Exception) -> TracebackType | None:
        """Return the part of an error's traceback that begins in code of the user, if it comes from there."""
        return None

    def _run_engine(self, context: Context, *, resumed: bool) -> dict[str, Any]:
        """Resolve connections and folders here, on the main thread and before there is an event loop:
        Airflow's filesystems and, on 3.1, its connections are not available elsewhere."""
        from airflow_provider_bitdance.engine import JobContext, Waiting
        from airflow_provider_bitdance.hooks import runtime
        from airflow_provider_bitdance.hooks.bitdance import BitDanceHook

        started_at, hook = Clock().time(), BitDanceHook(self.bitdance_conn_id)
        owner = runtime.this_owner(context)
        previews = previews_of(self.previews, map_index=owner.job.map_index)
        show_links(self, hook.settings.base_url, context, with_images=previews > 0)
        records = self._open_records(owner.job, hook)
        retries = self.retries or 0
        journal = runtime.open_journal(records, owner, resumed=resumed, retries=retries, log=self.log)
        if not journal.state.images:  # where there is a plan, its images are stored first
            self._checked_url_base(journal)
        self.max_cost_usd = self._limit(journal)
        look_up = partial(find_model, self.model, hook, records)
        wanted = self._wanted_or_planned(context, journal, look_up, resumed=resumed)
        output = runtime.planned_output(
            journal, template=self._output_template, rendered=lambda: self._output_folder(owner.job)
        )
        job_context = JobContext(
            client=hook.new_async_client(),
            journal=journal,
            records=records,
            images=object_storage.open_folder(output or wanted[0].destination.folder),
            policy=self._policy(hook.extra),
            log=self.log,
            started_at=started_at,
            run_started_at=runtime.run_start(context),
            most_images=self._most_images(wanted),
            models=frozenset(item.request.model for item in wanted) or None,
            count=runtime.counter(owner.job),
            thumbnails=Thumbnails(previews),
            show_progress=ProgressRow(context.get("task_state_store"), self.log).show,
        )
        if isinstance(outcome := asyncio.run(self._run_job(job_context, wanted)), Waiting):
            hand_over(self, outcome)
        return self._finish(context, hook, outcome, job_context)

    def _finish(
        self, context: Context, hook: BitDanceHook, finished: Finished, job_context: JobContext
    ) -> dict[str, Any]:
        """Tell Airflow what was made and where it is: preview, link, lineage, the events of assets.

        :return: What goes to XCom.
        :raises BitDanceError: The task fails although something was made. Its result is in XCom all the same.
        """
        from airflow_provider_bitdance.hooks import runtime

        self._is_shown = True
        push_preview(context, finished, job_context, self.log)
        finished = with_urls(finished, self._checked_url_base(job_context.journal))
        result = self._result(finished, job_context)
        push_sheets(context, job_context, self.log)
        uri = result["uri"] if "uri" in result else result["manifest"]
        show_stored(self, uri, job_context.images)
        if error := self._failure(finished, job_context, result):
            if self.do_xcom_push:
                runtime.push_result(context, result, self.log)
            raise error
        runtime.emit_lineage(hook, uri, self.log)
        runtime.set_asset_extra(context, self.outlets, result)
        return result

    def _checked_url_base(self, journal: Journal) -> str:
        """Return the base of the images' URLs.

        :raises InputError: It cannot be used.
        """
        from airflow_provider_bitdance.engine import with_charges

        try:
            return rendered_url_base(self.url_base)
        except InputError as error:
            raise with_charges(error, journal.state) from None

    def _limit(self, journal: Journal) -> float | None:
        """Return what the task may spend.

        :raises InputError: It is no amount, and there is no plan. Where there is one, what is bought is
            stored, and nothing more is bought.
        """
        try:
            return limit_of(self)
        except InputError as error:
            if not journal.state.images:
                raise
            self.log.warning("Storing what is already bought, and buying nothing more: %s", error.what)
            return 0.0

    async def _run_job(self, job_context: JobContext, wanted: list[Wanted]) -> Finished | Waiting:
        """Run the engine where ``on_kill`` reaches it."""
        from airflow_provider_bitdance.engine import run_job
        from airflow_provider_bitdance.enhancer import enhance_prompts

        loop, killed = asyncio.get_running_loop(), job_context.coordination.killed
        # The default is four more than there are cores; ours wait for stores, and hardly compute.
        loop.set_default_executor(ThreadPoolExecutor(THREADS, "bitdance"))
        async with job_context.client:
            self._notify_engine = lambda: loop.call_soon_threadsafe(killed.set)
            if self._is_killed:
                killed.set()
            if not job_context.journal.state.images:
                wanted = await enhance_prompts(job_context, wanted)
            return await run_job(job_context, wanted)

    def _open_records(self, job: Job, hook: BitDanceHook) -> Folder:
        """Open the records path. Where one is set, the output path is not read again once there is a plan."""
        return object_storage.open_folder(
            object_storage.records_path(
                rendered_path("records_path", self.records_path, kind="folder"), hook.extra.records_path
            )
            or f"{self._output_folder(job)}/{object_storage.RECORDS_FOLDER}"
        )

    def _wanted_or_planned(
        self, context: Context, journal: Journal, look_up: Callable[[], Model], *, resumed: bool
    ) -> list[Wanted]:
        """Return what is wanted. Where there is a plan, the fields may have rendered to anything.

        A resume that only waits and stores needs none of it.
        """
        if resumed and not journal.state.has_purchases_left:
            return []
        try:
            return self._wanted(journal.job, look_up())
        except BitDanceError:
            if journal.state.images:
                return []
            raise

    def _most_images(self, wanted: list[Wanted]) -> float:
        """Return how many images the task requests now; infinite where that is not known."""
        return len(wanted) or math.inf
