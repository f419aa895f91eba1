"""Estimates: of a task, of mapped tasks, and of task groups, which have no method of ours.

How many tasks ``.expand`` makes is known when the Dag is parsed for a list that is written there, and for the
result of another task only when that task has run.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Iterator, Sized
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import XComNotFound

from airflow_provider_bitdance.exceptions import InputError
from airflow_provider_bitdance.hooks import object_storage, runtime
from airflow_provider_bitdance.hooks.model_lookup import find_model
from airflow_provider_bitdance.operators.base import BitDanceBaseOperator
from airflow_provider_bitdance.operators.options import is_limit_unknown, limit_of
from airflow_provider_bitdance.operators.publishing import rendered_url_base

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_bitdance.engine import Estimate


def estimate(task: Any, context: Context) -> Estimate:
    """Count the images that a task, a mapped task or a task group would reuse and buy, and their cost.

    It spends nothing and writes nothing, and does not compare the sum with the tasks' ``max_cost_usd``.

    :param task: An operator of this package, the result of its ``.expand``, or a ``TaskGroup``, in which
        tasks of other kinds are ignored.
    :param context: The context of any task of the same Dag run. If tasks are mapped over a result, it has to
        run after the task that returns the result.
    :raises InputError: As for the operators' ``estimate``; or the number of mapped tasks is not known yet.
    """
    from airflow_provider_bitdance.engine import Estimate

    if isinstance(task, BitDanceBaseOperator):
        return task.estimate(context)
    if hasattr(task, "children"):
        parts = [estimate(child, context) for child in task.children.values() if _is_ours(child)]
    elif _is_ours(task):
        parts = list(_of_each_index(task, context))
    else:
        raise InputError(
            f"Cannot estimate {getattr(task, 'task_id', task)!r}",
            allowed="an operator of this package, the result of its .expand, or a task group",
        )
    return Estimate(
        reuse=sum(part.reuse for part in parts),
        buy=sum(part.buy for part in parts),
        cost_usd=sum(part.cost_usd for part in parts),
        prompts=sum(part.prompts for part in parts),
    )


def estimate_operator(operator: BitDanceBaseOperator, context: Context) -> Estimate:
    """Estimate one task that is not mapped itself.

    :raises InputError: The fields cannot be used, or are known in the task's mapped group only.
    """
    task = operator.prepare_for_execution()
    group, map_index = operator.get_closest_mapped_task_group(), -1
    if group is not None:
        map_index = runtime.job_of(context).map_index
        running = context.get("task")
        here = running.get_closest_mapped_task_group() if running is not None else None
        if map_index < 0 or group is not here:
            raise InputError(
                f"The fields of task {operator.task_id} are known only inside its mapped group "
                f"{group.group_id}",
                fix="Call estimate in a task of that group that runs before this one",
            )
    limit, task.max_cost_usd = task.max_cost_usd, None
    task.render_template_fields(context)
    with contextlib.suppress(XComNotFound):  # of a task that may run after this one, as an approval
        task.max_cost_usd = task.render_template(limit, context)
    return _estimate_rendered(task, context, map_index)


def _estimate_rendered(task: BitDanceBaseOperator, context: Context, map_index: int) -> Estimate:
    from airflow_provider_bitdance.engine import estimate
    from airflow_provider_bitdance.enhancer import missing_prompts, price_of
    from airflow_provider_bitdance.hooks.bitdance import BitDanceHook

    rendered_url_base(task.url_base)  # what the task would refuse nobody should approve
    task.max_cost_usd = None if is_limit_unknown(task) else limit_of(task)
    hook = BitDanceHook(task.bitdance_conn_id)
    job = runtime.job_of(context).model_copy(update={"task_id": task.task_id, "map_index": map_index})
    records = task._open_records(job, hook)
    wanted = task._wanted(job, find_model(task.model, hook))
    images = object_storage.open_folder(wanted[0].destination.folder)
    policy = task._policy(hook.extra)

    async def run() -> Estimate:
        async with hook.new_async_client() as client:
            images_only = await estimate(client, records, images, policy, wanted)
        prompts = await missing_prompts(records, wanted, hook.settings.host)
        cost = images_only.cost_usd + prompts * price_of(policy)
        return replace(images_only, prompts=prompts, cost_usd=cost)

    return asyncio.run(run())


def _is_ours(task: Any) -> bool:
    if hasattr(task, "children"):
        return True
    kind = getattr(task, "operator_class", type(task))
    return isinstance(kind, type) and issubclass(kind, BitDanceBaseOperator)


def _of_each_index(task: Any, context: Context) -> Iterator[Estimate]:
    """Estimate each task that a mapped one becomes, with its arguments as Airflow gives them to it."""
    if (group := task.get_closest_mapped_task_group()) is not None:
        raise _unknown(task, f"it is in the mapped group {group.group_id}")
    for index in range(_length(task, context)):
        own: Any = {**context, "ti": _AtIndex(context["ti"], index)}
        task.render_template_fields(own)  # puts the task of this index into its context
        yield _estimate_rendered(own["task"], context, index)


def _length(task: Any, context: Context) -> int:
    mapped = task._get_specified_expand_input().value
    lengths = []
    for value in mapped.values() if isinstance(mapped, dict) else [mapped]:
        known = value.resolve(context) if hasattr(value, "resolve") else value
        if not isinstance(known, Sized) or isinstance(known, str):
            raise _unknown(task, "it is mapped over the result of a task that has not run yet")
        lengths.append(len(known))
    return math.prod(lengths)


def _unknown(task: Any, why: str) -> InputError:
    return InputError(
        f"The number of mapped tasks of {task.task_id} is unknown: {why}",
        fix="Call estimate in a task that runs after that one, or inside the mapped group",
    )


class _AtIndex:
    """A task instance as another map index of another task sees it."""

    def __init__(self, ti: Any, map_index: int) -> None:
        self._ti = ti
        self.map_index = map_index

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ti, name)
