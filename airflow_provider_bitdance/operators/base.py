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
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSkipException,
    BaseOperator,
    BaseOperatorLink,
    conf,
)

from airflow_provider_bitdance.clock import Clock
from airflow_provider_bitdance.exceptions import (
    BitDanceError,
    InputError,
    NsfwError,
)
from airflow_provider_bitdance.hooks import object_storage
from airflow_provider_bitdance.hooks.model_lookup import find_model
from airflow_provider_bitdance.links.bitdance import LINKS, show_links, show_stored, with_targets
from airflow_provider_bitdance.operators.deferral import hand_over
from airflow_provider_bitdance.operators.options import check_options
from airflow_provider_bitdance.operators.previews import (
    previews_of,
    push_failure,
    push_preview,
    push_sheets,
)
from airflow_provider_bitdance.operators.progress_row import ProgressRow
from airflow_provider_bitdance.operators.publishing import rendered_url_base, text_of_url_base, with_urls
from airflow_provider_bitdance.operators.validation import reason_of, rendered_path, text_of_path
from airflow_provider_bitdance.polling.policy import DEFAULT_POLL_INTERVAL, PollPolicy
from airflow_provider_bitdance.preview.collector import Thumbnails
from airflow_provider_bitdance.storage.naming import Destination, parse_destination
from airflow_provider_bitdance.triggers.bitdance import Reason
from airflow_provider_bitdance.version_compat import REENTRY_SECONDS, SHORTEST_DEFERRAL
from airflow_provider_bitdance.wavespeed.models import BITDANCE_14B

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_bitdance.engine import Estimate, Finished, JobContext, Policy, Waiting, Wanted
    from airflow_provider_bitdance.hooks.bitdance import BitDanceHook, ConnectionExtra
    from airflow_provider_bitdance.records import Job, Journal
    from airflow_provider_bitdance.storage import Folder
    from airflow_provider_bitdance.wavespeed.models import Model

THREADS = 16


class BitDanceBaseOperator(BaseOperator):
    """Buys what is missing, waits, and stores. Not for use in a Dag: its subclasses say what is wanted.

    :param size: A preset (1:1, 16:9, 9:16, 4:3, 3:4, 3:2, 2:3) or ``"W*H"``, sides of 256 to 1536 pixels; in
        a batch of the rows that give none. Default 1024*1024. (templated)
    :param seed: 0 to 2147483647, or -1 for any: then one is drawn and recorded. In a batch of the rows that
        give none. (templated)
    :param model: The model's path on WaveSpeed. Of four the provider knows sizes, seed, inputs and price by
        itself (docs/models); any other is checked by the schema that the API has of it. (templated)
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
    output_path: str
    _output_template: object = ""
    _is_killed: bool = False
    _is_shown: bool = False
    _notify_engine: Callable[[], object] = staticmethod(lambda: None)

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

        A task that is mapped with ``.expand`` has no such method:
        :func:`~airflow_provider_bitdance.operators.bitdance.estimate` takes it, and task groups.

        :param context: Of any task of the same Dag run; in a mapped group, of a task of that group.
        :raises InputError: The fields cannot be used, or are known in the task's mapped group only.
        """
        from airflow_provider_bitdance.operators.estimating import estimate_operator

        return estimate_operator(self, context)

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
            self.log.debug("Where it failed", exc_info=True)
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
        outcome = asyncio.run(self._run_job(job_context, wanted))
        if isinstance(outcome, Waiting):
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
