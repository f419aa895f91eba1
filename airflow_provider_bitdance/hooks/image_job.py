"""Images of plain tasks: each image that a function stores through the hook is a job of its own.

A task may call the hook for many images, so each has its journal, found by the image's destination: a retry
that calls again with the same ``output_path`` finds what was bought. Outside of a task nothing has an
identity that comes back, so each call is a new job there. What a dead one has bought is taken over by the
next call for the same image, as from any other task, when the dead one's time is over.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from airflow.providers.common.compat.sdk import get_current_context

from airflow_provider_bitdance.clock import Clock
from airflow_provider_bitdance.engine import Finished, JobContext, Policy, Wanted, run_job
from airflow_provider_bitdance.engine.proof import contradicted
from airflow_provider_bitdance.engine.saving import save_prediction
from airflow_provider_bitdance.exceptions import InputError
from airflow_provider_bitdance.hooks import runtime
from airflow_provider_bitdance.hooks.model_lookup import find_model
from airflow_provider_bitdance.hooks.object_storage import RECORDS_FOLDER, open_folder, records_path
from airflow_provider_bitdance.records import Job, Journal, Owner
from airflow_provider_bitdance.records.owner import OUTSIDE
from airflow_provider_bitdance.redaction import shorten
from airflow_provider_bitdance.storage.naming import Destination, parse_destination
from airflow_provider_bitdance.storage.path_objects import text_of_path
from airflow_provider_bitdance.text_checks import unrendered_in
from airflow_provider_bitdance.wavespeed.image_request import ImageRequest
from airflow_provider_bitdance.wavespeed.loop_thread import LoopThread
from airflow_provider_bitdance.wavespeed.models import BITDANCE_14B, Model
from airflow_provider_bitdance.wavespeed.responses import Prediction

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_bitdance.hooks.bitdance import BitDanceHook

KEY = "image"
Result = dict[str, Any]


def generate_image(
    hook: BitDanceHook,
    request: ImageRequest,
    *,
    model: Model,
    output_path: str | PathLike[str],
    policy: Mapping[str, Any],
) -> Result:
    """Buy one image, store it, and record it; or find it bought or stored. Blocks.

    :param policy: Fields of :class:`~airflow_provider_bitdance.engine.Policy`.
    :return: The plain dict that the operator returns.
    """
    job_context, wanted = _open(hook, request, model, output_path, policy)
    return _run(job_context, lambda: run_job(job_context, [wanted]), hook)


def save_image(
    hook: BitDanceHook,
    prediction: Prediction,
    *,
    request: Mapping[str, Any] | None,
    output_path: str | PathLike[str],
    policy: Mapping[str, Any],
) -> Result:
    """Store the image of a prediction that was bought without a journal. Free; blocks.

    :param request: What was requested, where the prediction does not say it.
    :return: The plain dict that the operator returns.
    """
    if not isinstance(prediction, Prediction):
        raise InputError(
            f"prediction is {shorten(repr(prediction))}",
            allowed="a Prediction, as get_prediction and history return it",
        )
    model = find_model((request or {}).get("model") or prediction.model or BITDANCE_14B, hook)
    asked = request_of(prediction, request, model)
    # Another image at this place is replaced, and a prediction that has failed is not bought again.
    fixed = {"if_exists": "regenerate", "retry_failed": False}
    job_context, wanted = _open(hook, asked, model, output_path, {**policy, **fixed}, saves=prediction.id)
    return _run(job_context, lambda: save_prediction(job_context, wanted, prediction), hook)


def request_of(prediction: Prediction, given: Mapping[str, Any] | None, model: Model) -> ImageRequest:
    """Return what a prediction was requested with: as given, else as the API or the hook says.

    :raises InputError: Nobody says it, it is none that this model takes, or the API says another one.
    """
    if given is not None:
        request = ImageRequest.of(**{"prompt": None, **given, "model": model})
        _check_is_of(prediction, request)
        return request
    said = prediction.input or {}
    if not said.get("prompt"):
        raise InputError(
            f"The API does not return the request of prediction {prediction.id}",
            allowed='request={"prompt": …, "size": …, "seed": …}, as it was sent',
        )
    size = said.get(model.sizes.field) if model.sizes else None
    inputs = {name: value for name, value in said.items() if name in model.inputs.properties}
    return ImageRequest.of(
        prompt=said["prompt"], size=size, seed=said.get("seed", -1), model=model, inputs=inputs
    )


def _check_is_of(prediction: Prediction, request: ImageRequest) -> None:
    """Refuse a request that the prediction was not made for: its receipt would be untrue."""
    for name, said in contradicted(prediction, request).items():
        raise InputError(
            f"request has another {name} than prediction {prediction.id}, which was made with "
            f"{shorten(repr(said))}",
            allowed="what was requested; without request, what the API returns",
        )


def _open(
    hook: BitDanceHook,
    request: ImageRequest,
    model: Model,
    output_path: str | PathLike[str],
    policy: Mapping[str, Any],
    *,
    saves: str = "",
) -> tuple[JobContext, Wanted]:
    """Resolve connection, folders and journal, before there is an event loop.

    :param saves: Id of the prediction that is stored; each is a job of its own.
    :raises InputError: The path cannot be used, or this try has made another image there.
    """
    _check_no_event_loop()
    started_at, task_context = Clock().time(), _task_context()
    job = runtime.job_of(task_context) if task_context is not None else _job_outside()
    destination = _destination(output_path, job, is_task=task_context is not None)
    call = ".".join(filter(None, (destination.record_name, saves)))
    owner = _owner(task_context, job.model_copy(update={"call": call}))
    own_records = f"{destination.folder}/{RECORDS_FOLDER}"
    records = open_folder(records_path(None, hook.extra.records_path) or own_records)
    journal = runtime.open_journal(records, owner, resumed=False, retries=None, log=hook.log)
    wanted = Wanted(key=KEY, request=request, destination=destination, model=model)
    _check_is_first(journal, wanted, hook.settings.host)
    output = runtime.planned_output(journal, template=output_path, rendered=lambda: destination.folder)
    job_context = JobContext(
        client=hook.new_async_client(),
        journal=journal,
        records=records,
        images=open_folder(output or destination.folder),
        policy=_policy(hook, policy),
        log=hook.log,
        started_at=started_at,
        most_images=1,
        models=frozenset({request.model}),
        **_of_task(task_context, job),
    )
    return job_context, wanted


def _policy(hook: BitDanceHook, fields: Mapping[str, Any]) -> Policy:
    extra = hook.extra
    return Policy(prices=extra.prices, live_price=extra.live_price, label=runtime.label_of(None), **fields)


def _of_task(task_context: Context | None, job: Job) -> dict[str, Any]:
    if task_context is None:
        return {}
    return {"run_started_at": runtime.run_start(task_context), "count": runtime.counter(job)}


def _task_context() -> Context | None:
    """Return the context of the task that runs in this process; nothing outside of one."""
    try:
        return get_current_context()
    except RuntimeError:
        return None


def _job_outside() -> Job:
    return Job(dag_id=OUTSIDE, run_id=uuid4().hex, task_id=OUTSIDE, map_index=-1, generation=0)


def _owner(task_context: Context | None, job: Job) -> Owner:
    if task_context is not None:
        return runtime.this_owner(task_context).model_copy(update={"job": job})
    return Owner(job=job, try_number=1, host=socket.gethostname(), pid=os.getpid(), token=uuid4().hex)


def _destination(output_path: str | PathLike[str], job: Job, *, is_task: bool) -> Destination:
    """Return where the image goes.

    :raises InputError: It is no address, has a template in it, or is a folder and nothing gives a name.
    """
    text = text_of_path("output_path", output_path)
    if left := unrendered_in(str(text)):
        raise InputError(
            f"output_path has {shorten(left)}, which was not rendered: {shorten(repr(text))}",
            fix="Format the text in Python: Airflow does not render the arguments of a function call",
        )
    destination = parse_destination(text, default_stem=runtime.default_stem(job))
    if not (destination.named or is_task):
        raise InputError(
            f"output_path is the folder {shorten(repr(text))}, but there is no task to name the file after",
            allowed='the path of a file, such as "/data/images/fox.png"',
        )
    return destination


def _check_is_first(journal: Journal, wanted: Wanted, api_host: str) -> None:
    """Refuse a second, different image at one destination in one try: a retry could not make both.

    :raises InputError: It is one.
    """
    image, last = journal.state.images.get(KEY), journal.state.owner
    if image is None or last is None or not last.is_of_same_try(journal.owner):
        return
    if image.plan.fingerprint != wanted.fingerprint(api_host):
        where = shorten(wanted.destination.identity, 200)
        raise InputError(
            f"This task has already requested a different image at {where}",
            allowed="one image per output_path of a task",
            fix="Give each image its own file path",
        )


def _check_no_event_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise InputError(
        "This call blocks until the image is stored, but an event loop is running in this thread",
        fix="Call it in a thread: await asyncio.to_thread(hook.generate, …)",
    )


def _run(job_context: JobContext, start: Callable[[], Awaitable[Any]], hook: BitDanceHook) -> Result:
    """Run the engine on an event loop of its own; what interrupts the task cancels it."""

    async def run() -> Any:
        return await start()

    thread = LoopThread(job_context.client.aclose)
    try:
        outcome = thread.run(run())
    finally:
        thread.close()
    assert isinstance(outcome, Finished), "nothing is deferred here"
    result = outcome.results[0]
    runtime.emit_lineage(hook, result["uri"], hook.log)
    return result
