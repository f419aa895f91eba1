"""``@task.bitdance``: a function returns what to make, and it is called once.

Its return value is written into the job's plan. A resume after a deferral, a retry and a takeover follow the
plan and do not call the function again: it may be slow, and may return something else by then. The plan also
records whether it returned one request or a list, because their results differ.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import (
    DecoratedOperator,
    TaskDecorator,
    determine_kwargs,
    task_decorator_factory,
)

from airflow_provider_bitdance.exceptions import InputError
from airflow_provider_bitdance.operators.bitdance import BitDanceBatchOperator, BitDanceTextToImageOperator
from airflow_provider_bitdance.operators.validation import check_boolean, merged_inputs, rendered
from airflow_provider_bitdance.redaction import shorten
from airflow_provider_bitdance.wavespeed.image_request import ImageRequest
from airflow_provider_bitdance.wavespeed.prompt_enhancer import style_of

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_bitdance.engine import Estimate, Finished, JobContext, Policy, Wanted
    from airflow_provider_bitdance.hooks.bitdance import ConnectionExtra
    from airflow_provider_bitdance.records import Job, Journal
    from airflow_provider_bitdance.wavespeed.models import Model

__all__ = ["BitDanceDecoratedOperator", "bitdance_task"]

FOR_ONE = ("height", "width")
FOR_A_LIST = (
    "manifest_format",
    "max_failures",
    "max_in_flight",
    "max_unanswered",
    "on_item_failure",
    "prompt",
    "requests_per_minute",
    "variants",
)
IN_A_REQUEST = ("prompt", "size", "seed", "inputs")
RETURNS = "a prompt, a dict with prompt, size, seed and inputs, or a list of them"


class BitDanceDecoratedOperator(DecoratedOperator, BitDanceBatchOperator):
    """Makes the image or images that a function requests, and buys each once. About $0.01 an image.

    If the function returns a prompt, or a dict with ``prompt``, ``size``, ``seed`` and ``inputs``, the result
    is that of :class:`~airflow_provider_bitdance.operators.bitdance.BitDanceTextToImageOperator`. If it
    returns a list of items, as for :class:`~airflow_provider_bitdance.operators.batch.BitDanceBatchOperator`,
    the result is that of a batch. Returned texts are not templates. Set ``retries=2``.

    :meth:`estimate` always fails here, because the cost is unknown until the function has returned.

    .. code-block:: python

        @task.bitdance(output_path="s3://my_s3@my-bucket/covers/", size="16:9", retries=2)
        def cover(headline: str, ds: str) -> str:
            return f"A magazine cover about {headline}, {ds}"


        cover(headline="lighthouses")

    :param python_callable: The function. The first try calls it; a later try calls it again only if no plan
        was written. Its arguments are templated, and may be results of other tasks.
    :param output_path: As for the two operators. A list needs a folder: a path with a trailing slash.
        (templated)
    :param width: The width in pixels, for one request; give ``height`` with it, and no ``size``. (templated)
    :param height: The height in pixels, for one request; give ``width`` with it, and no ``size``. (templated)
    :param kwargs: The options of
        :class:`~airflow_provider_bitdance.operators.batch.BitDanceBatchOperator`, without ``items``. An
        option that does not apply to what the function returned fails the task before anything is bought.
    """

    custom_operator_name = "@task.bitdance"
    template_fields: Sequence[str] = (
        *DecoratedOperator.template_fields,
        *BitDanceTextToImageOperator.template_fields,
    )
    # An argument that ends like a template file's name is an argument.
    template_ext: Sequence[str] = ()
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **DecoratedOperator.template_fields_renderers,
        "prompt": "md",
    }
    kind_of_output: ClassVar[str] = ""
    are_items_rendered: ClassVar[bool] = False
    is_batch: bool = False

    def __init__(
        self, *, width: int | str | None = None, height: int | str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(items=None, **kwargs)
        if isinstance(self.prompt, str) and self.prompt.endswith(".prompt"):
            raise InputError(
                f"prompt is {self.prompt!r}: @task.bitdance does not read .prompt files",
                fix="Read the file in the function, or pass its items to a BitDanceBatchOperator",
            )
        self.width = width
        self.height = height
        given = {**kwargs, "width": width, "height": height}
        self._given = sorted(name for name, value in given.items() if value is not None)

    def estimate(self, context: Context) -> Estimate:
        """Refuse: what would be bought is known when the function has returned it.

        :raises InputError: Always.
        """
        raise InputError(
            f"The return value of {self._name} is unknown before the task runs",
            fix=(
                "Return the items from a @task and pass them to a BitDanceBatchOperator, which can estimate"
            ),
        )

    @property
    def _name(self) -> str:
        return f"{self.python_callable.__name__}()"

    def _wanted_or_planned(
        self, context: Context, journal: Journal, look_up: Callable[[], Model], *, resumed: bool
    ) -> list[Wanted]:
        """Call the function if there is no plan; a plan that exists is followed."""
        if journal.state.images:
            self.is_batch = journal.state.is_batch
            if not resumed:
                self.log.info("Following the plan of an earlier try; %s is not called again", self._name)
            return []
        self.items = self._ask(context)
        self.is_batch = not isinstance(self.items, str | Mapping)
        self._check_options()
        return self._wanted(journal.job, look_up())

    def _ask(self, context: Context) -> Any:
        arguments = determine_kwargs(self.python_callable, self.op_args, {**context, **self.op_kwargs})
        returned = self.python_callable(*self.op_args, **arguments)
        if not isinstance(returned, str | Mapping | Sequence) or isinstance(returned, bytes | bytearray):
            raise InputError(
                f"{self._name} returned a value of type {type(returned).__name__}", allowed=RETURNS
            )
        if not isinstance(returned, str) and not returned:
            raise InputError(
                f"{self._name} returned an empty value, so there is nothing to make", allowed=RETURNS
            )
        return returned

    def _users_frames(self, error: Exception) -> TracebackType | None:
        code, frames = getattr(self.python_callable, "__code__", None), error.__traceback__
        while frames is not None and frames.tb_frame.f_code is not code:
            frames = frames.tb_next
        return frames

    def _check_options(self) -> None:
        """Refuse an option that what was returned leaves without effect."""
        returned, refused = ("a list", FOR_ONE) if self.is_batch else ("one request", FOR_A_LIST)
        fix = "Omit the option" if self.is_batch else "Omit the option, or return a list"
        if wrong := [name for name in self._given if name in refused]:
            raise InputError(
                f"{self._name} returned {returned}, which does not allow {', '.join(wrong)}", fix=fix
            )

    def _policy(self, extra: ConnectionExtra) -> Policy:
        return replace(super()._policy(extra), is_batch=self.is_batch)

    def _output_folder(self, job: Job) -> str:
        # The same for one image and for a list: it leads to the journal, which says which of them it is.
        return self._destination(job).folder

    def _wanted(self, job: Job, model: Model) -> list[Wanted]:
        from airflow_provider_bitdance.engine import Wanted

        destination = self._destination(job)
        if not self.is_batch:
            request, style = self._request(model), style_of(self.enhance_prompt)
            return [Wanted(key="image", request=request, destination=destination, model=model, style=style)]
        if destination.named:
            raise InputError(
                f"{self._name} returned a list, but output_path is the file "
                f"{shorten(repr(self.output_path), 200)}",
                allowed="a folder, with a trailing slash",
            )
        return super()._wanted(job, model)

    def _request(self, model: Model) -> ImageRequest:
        """Return the one request: its own fields go before the options."""
        fields = {"prompt": self.items} if isinstance(self.items, str) else self.items
        if unknown := [str(name) for name in fields if name not in IN_A_REQUEST]:
            raise InputError(
                f"{self._name} returned a request with unknown fields: {shorten(', '.join(unknown))}",
                allowed=", ".join(IN_A_REQUEST),
                fix="To use keys and free columns, return a list",
            )
        own = {name: value for name, value in fields.items() if value is not None}
        sizes = {} if "size" in own else {"size": self.size, "width": self.width, "height": self.height}
        options = {"prompt": None, "seed": self.seed, **sizes}
        inputs = merged_inputs(rendered("inputs", self.inputs), own.pop("inputs", None))
        return ImageRequest.of(model=model, inputs=inputs, **{**options, **own})

    def _result(self, finished: Finished, job_context: JobContext) -> dict[str, Any]:
        if job_context.journal.state.is_batch:
            return super()._result(finished, job_context)
        return finished.results[0]


def bitdance_task(
    python_callable: Callable[..., Any] | None = None, *, multiple_outputs: bool = False, **kwargs: Any
) -> TaskDecorator:
    """Make a task of a function: ``@task.bitdance`` of a Dag file. See :class:`BitDanceDecoratedOperator`.

    :param multiple_outputs: Give each field of the result an XCom of its own as well, for
        ``cover()["uri"]``. Never guessed from the function's annotation: that is of what it returns.
    """
    check_boolean("multiple_outputs", multiple_outputs)
    return task_decorator_factory(
        python_callable=python_callable,
        multiple_outputs=multiple_outputs,
        decorated_operator_class=BitDanceDecoratedOperator,
        **kwargs,
    )
