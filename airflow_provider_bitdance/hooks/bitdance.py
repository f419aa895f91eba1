"""The hook: reads an Airflow connection, and talks to the API for those who write their own ``@task``.

An image that it stores at an ``output_path`` is bought once and recorded, like an operator's
(``image_job.py``). Nothing else is recorded: what :meth:`BitDanceHook.submit` buys is bought again when the
task runs again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from importlib import import_module
from os import PathLike
from typing import Any, Literal, Required, TypedDict, Unpack, overload

from airflow_provider_bitdance.exceptions import BitDanceError, InputError, Paid
from airflow_provider_bitdance.get_provider_info import CONNECTION_FIELDS, UI_FIELD_BEHAVIOUR
from airflow_provider_bitdance.hooks.base import BitDanceBaseHook
from airflow_provider_bitdance.hooks.connection import ConnectionExtra
from airflow_provider_bitdance.hooks.model_lookup import find_model
from airflow_provider_bitdance.hooks.waiting import NotWaitedForError, Wait
from airflow_provider_bitdance.polling.policy import DEFAULT_POLL_INTERVAL
from airflow_provider_bitdance.wavespeed import protocol
from airflow_provider_bitdance.wavespeed.image_request import ImageRequest
from airflow_provider_bitdance.wavespeed.models import BITDANCE_14B, MAX_PROMPT
from airflow_provider_bitdance.wavespeed.prompt_enhancer import (
    check_echo,
    check_enhanced,
    enhanced_in,
    style_of,
)
from airflow_provider_bitdance.wavespeed.response_errors import failure_of
from airflow_provider_bitdance.wavespeed.responses import Prediction

__all__ = ["BitDanceHook", "ConnectionExtra"]

_NOT_WAITED_FOR_A_PROMPT = "get_prediction polls it again for free; enhance_prompt buys another one."
_PROMPT_PAID = {
    Paid.NO: "Nothing was charged for it.",
    Paid.POSSIBLY: "The prompt may have been charged.",
    Paid.YES: "The prompt is paid for.",
}


class ImageFields(TypedDict, total=False):
    """A request, with the arguments of :meth:`BitDanceHook.submit`."""

    prompt: Required[str]
    size: str | None
    width: int | str | None
    height: int | str | None
    seed: int | str
    model: str
    inputs: dict[str, Any] | None


class BitDanceHook(BitDanceBaseHook):
    """Talks to the WaveSpeedAI API with the key of an Airflow connection, in a plain ``@task``.

    Pass an ``output_path``, as below, for an image that has to be bought once. Without it, each call of
    :meth:`generate` buys an image. For a task that only makes an image, use
    :class:`~airflow_provider_bitdance.operators.bitdance.BitDanceTextToImageOperator`: it is shorter, can
    wait without occupying a worker, and shows the image in Airflow's UI.

    .. code-block:: python

        @task(retries=2)
        def cover(headline: str, ds: str) -> dict:
            return BitDanceHook().generate(prompt=headline, output_path=f"/data/covers/{ds}")

    :param bitdance_conn_id: The connection. Its password is the API key, its host the API's URL (default:
        https://api.wavespeed.ai); :class:`ConnectionExtra` describes its extra.
    :param transport: An ``httpx.AsyncBaseTransport`` to use instead of the network, for tests.
    """

    # Airflow 3.1 reads the form from the class itself, not from one that it inherits from.
    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return the form's labels for Airflow 3.1; later ones read the provider's metadata."""
        return {key.replace("-", "_"): value for key, value in UI_FIELD_BEHAVIOUR.items()}

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the form's extra fields for Airflow 3.1; later ones read the provider's metadata.

        It takes text, whole numbers and yes or no, and puts stand-ins where wtforms is not installed.
        """
        wtforms = import_module("wtforms")
        kinds = {"integer": wtforms.IntegerField, "boolean": wtforms.BooleanField}
        widgets = {}
        for name, field in CONNECTION_FIELDS.items():
            kind, default = field["schema"]["type"][0], field["schema"].get("default")
            text = {"label": field["label"], "description": field["description"]}
            if kind in kinds:
                widgets[name] = kinds[kind](**text, default=default)
            else:
                widgets[name] = wtforms.StringField(**text, default=str(default or ""))
        return widgets

    def submit(
        self,
        *,
        prompt: str,
        size: str | None = None,
        width: int | str | None = None,
        height: int | str | None = None,
        seed: int | str = -1,
        model: str = BITDANCE_14B,
        inputs: dict[str, Any] | None = None,
    ) -> Prediction:
        """Buy one image and return its prediction without waiting. Each call costs about $0.01.

        :param prompt: The text.
        :param size: A preset such as ``"16:9"``, or ``"W*H"``. Default: 1024*1024.
        :param width: The width in pixels, 256 to 1536; give ``height`` with it, and no ``size``.
        :param height: The height in pixels, 256 to 1536; give ``width`` with it, and no ``size``.
        :param seed: 0 to 2147483647, or -1 for any.
        :param model: The model's path on WaveSpeed. For a model that the provider does not know, its schema
            is requested first, free, once per process.
        :param inputs: The model's other inputs by name.
        :raises InputError: An argument cannot be used; nothing was sent.
        :raises BitDanceError: The submission failed. Its ``paid`` says whether the image may have been
            bought.
        """
        request = self._request(
            prompt=prompt, size=size, width=width, height=height, seed=seed, model=model, inputs=inputs
        )
        with self.get_conn() as client:
            return _with_input(client.submit(request), request)

    def get_prediction(self, prediction_id: str) -> Prediction:
        """Poll a prediction once. Free.

        :param prediction_id: The ``id`` of a prediction that :meth:`submit` returned.
        :raises InputError: It is not a prediction id.
        """
        from airflow_provider_bitdance.hooks.account import check_prediction_id

        check_prediction_id(prediction_id)
        with self.get_conn() as client:
            return client.get_prediction(prediction_id)

    @overload
    def generate(
        self,
        *,
        output_path: None = None,
        timeout: float = 600.0,
        poll_interval: float = DEFAULT_POLL_INTERVAL,
        **fields: Unpack[ImageFields],
    ) -> Prediction: ...

    @overload
    def generate(
        self,
        *,
        output_path: str | PathLike[str],
        timeout: float = 600.0,
        poll_interval: float = DEFAULT_POLL_INTERVAL,
        if_exists: Literal["reuse", "regenerate", "fail"] = "reuse",
        nsfw: Literal["fail", "allow"] = "fail",
        **fields: Unpack[ImageFields],
    ) -> dict[str, Any]: ...

    def generate(
        self,
        *,
        output_path: str | PathLike[str] | None = None,
        timeout: float = 600.0,
        poll_interval: float = DEFAULT_POLL_INTERVAL,
        if_exists: str = "reuse",
        nsfw: str = "fail",
        **fields: Unpack[ImageFields],
    ) -> Prediction | dict[str, Any]:
        """Buy one image, for about $0.01, and wait for it. With ``output_path``, store it and buy it once.

        Without ``output_path`` nothing is recorded: **each call buys an image**, also when the task is
        retried, and the returned output URL expires after 7 days. With ``output_path``, a retry of the task
        finds what was bought or stored, and the same request at the same path is free for all runs.

        :param fields: Prompt, size, width, height, seed, model and inputs, as for :meth:`submit`.
        :param output_path: The absolute path or URI of the image's file, one per image, on a store that every
            worker can access. A task that makes one image may pass a folder: text that ends with a slash.
        :param timeout: Seconds to wait.
        :param poll_interval: Seconds from the submission to the first poll, and the shortest pause.
        :param if_exists: As for the operators; ``"regenerate"`` buys once per run.
        :param nsfw: ``"fail"`` or ``"allow"``: what to do with a flagged image, which is paid for.
        :return: The prediction; with ``output_path``, the plain dict that the operator returns.
        :raises PredictionError: The prediction ended without an image.
        :raises PredictionTimeoutError: It has not ended in time, or polling failed. The error has its id.
        """
        wait = Wait.of(timeout, poll_interval)  # read first: a bad number costs nothing
        if output_path is not None:
            return self._generate_file(wait, output_path, if_exists, nsfw, self._request(**fields))
        if (if_exists, nsfw) != ("reuse", "fail"):
            raise InputError(
                "if_exists and nsfw have no effect without output_path", fix="Set output_path, too"
            )
        prediction = self.submit(**fields)
        with self.get_conn() as client:
            ended = wait.until_ended(client, prediction)
        if not ended.is_completed:
            raise failure_of(ended, prompt=fields["prompt"])
        return ended.model_copy(update={"input": ended.input or prediction.input})

    def save(
        self,
        prediction: Prediction,
        output_path: str | PathLike[str],
        *,
        request: Mapping[str, Any] | None = None,
        timeout: float = 600.0,
        nsfw: Literal["fail", "allow"] = "fail",
    ) -> dict[str, Any]:
        """Store the image of a prediction with its receipt, as the operator does. Free.

        Use it for an image that was bought without ``output_path``, or whose response was lost, within the 7
        days for which WaveSpeed keeps it. It waits if the prediction has not ended, and **replaces a
        different image at the path**. A second call for the same prediction returns the stored image. A
        cleared task reuses it, free, if it was saved where and as the task requests it, and buys it again if
        not. Tasks with ``enhance_prompt`` do not find it.

        :param prediction: From :meth:`submit`, :meth:`generate`, :meth:`get_prediction` or :meth:`history`.
        :param output_path: As for :meth:`generate`. For a task whose ``output_path`` is a folder, the file in
            it is ``<dag_id>.<task_id>.<run_id>``, in a batch ``<key>``. The receipt goes to the records path
            of the connection, then of ``[bitdance]``, then to ``.bitdance`` in the folder. If an operator
            sets ``records_path``, use a connection with that path.
        :param request: What was requested, with the arguments of :meth:`submit`. Needed if the API does not
            return it with the prediction. For a task, pass what the task requests: the whole rendered prompt;
            the size in any form (``"16:9"`` is ``"1280*720"``); ``model`` and ``inputs``; and ``seed`` only
            if the task or row sets one. Never pass a drawn seed.
        :param timeout: Seconds to wait.
        :param nsfw: As for :meth:`generate`.
        :return: The plain dict that the operator returns.
        :raises InputError: The request is unknown or not the prediction's, or another task makes this image.
        :raises PredictionError: The prediction ended without an image.
        """
        from airflow_provider_bitdance.hooks.image_job import save_image

        policy = Wait.of(timeout, DEFAULT_POLL_INTERVAL).policy(nsfw=nsfw)
        return save_image(self, prediction, request=request, output_path=output_path, policy=policy)

    def history(
        self, *, model: str = "", since: datetime | None = None, limit: int = 1000
    ) -> list[Prediction]:
        """Return the account's predictions of the past 7 days, newest first. Free.

        A new prediction may take some time to appear, so a missing one proves nothing. Predictions have their
        inputs if the API returns them.

        :param model: Return only predictions of this model, by its path. Default: all models.
        :param since: Return only predictions created since then; a time without a zone is UTC. Default: 7
            days ago.
        :param limit: The most predictions to return, 1 to 10,000. One request returns 100.
        """
        from airflow_provider_bitdance.hooks.account import read_predictions

        return read_predictions(self, model=model, since=since, limit=limit)

    def get_charges(self, *, since: datetime) -> float:
        """Return what the account has paid since a time, in US dollars: charges less refunds. Free.

        Of all its programs and models. WaveSpeed does not document how soon a charge is on the bill: what was
        bought in the past minutes may be missing. A failed prediction is refunded within 3 hours.

        :param since: A time without a zone is in UTC.
        :raises AuthenticationError: The key may not read the bill.
        :raises GarbledResponseError: Part of the bill could not be read.
        """
        from airflow_provider_bitdance.hooks.account import read_charges

        return read_charges(self, since=since)

    def delete(self, prediction_ids: Iterable[str]) -> int:
        """Delete predictions for good, and return how many were deleted. Free; nothing is refunded.

        **An image that is not stored yet is lost, although it is paid for**: a task that waits for it fails.
        A stored file that gets lost can no longer be fetched again. Stored files and receipts are not
        touched. Repeating a call is harmless: unknown and already deleted ids are ignored.

        :param prediction_ids: The ids. WaveSpeed advises against deleting predictions that are still running.
        :raises InputError: The list is empty, or one is not a prediction id.
        """
        from airflow_provider_bitdance.hooks.account import delete_predictions

        return delete_predictions(self, prediction_ids)

    def enhance_prompt(
        self,
        text: str,
        *,
        style: str = "default",
        timeout: float = 120.0,
        poll_interval: float = DEFAULT_POLL_INTERVAL,
    ) -> str:
        """Have WaveSpeed's Prompt Enhancer rewrite a prompt. Each call costs $0.001; nothing is recorded.

        :param text: The prompt.
        :param style: default, artistic, photographic, technical, anime or realistic.
        :param timeout: Seconds to wait.
        :param poll_interval: Seconds from the submission to the first poll, and the shortest pause between
            polls.
        :return: The enhanced prompt.
        :raises InputError: An argument cannot be used; nothing was sent.
        :raises PredictionError: The prediction ended without a text, or with a text that is not a prompt.
        :raises PredictionTimeoutError: The prediction has not ended in time. The error has its id.
        """
        wait = Wait.of(timeout, poll_interval)
        prompt, wanted_style = ImageRequest.of(prompt=text).prompt, style_of(style) or "default"
        try:
            with self.get_conn() as client:
                prediction = client.send(protocol.enhance(prompt, wanted_style))
                prediction = wait.until_ended(client, prediction)
            if not prediction.is_completed:
                raise failure_of(prediction, prompt=prompt)
            check_echo(prediction, requested=prompt, style=wanted_style)
            return check_enhanced(enhanced_in(prediction.outputs), requested=prompt, longest=MAX_PROMPT)
        except BitDanceError as error:
            words = _NOT_WAITED_FOR_A_PROMPT if isinstance(error, NotWaitedForError) else None
            paid = _PROMPT_PAID[error.paid]
            raise error.with_verdict(paid_in_words=paid, retry_in_words=words) from error.__cause__

    def _request(self, *, model: str = BITDANCE_14B, **fields: Any) -> ImageRequest:
        return ImageRequest.of(model=find_model(model, self), **fields)

    def _generate_file(
        self, wait: Wait, output_path: str | PathLike[str], if_exists: str, nsfw: str, request: ImageRequest
    ) -> dict[str, Any]:
        from airflow_provider_bitdance.hooks.image_job import generate_image

        model, policy = find_model(request.model, self), wait.policy(if_exists=if_exists, nsfw=nsfw)
        return generate_image(self, request, model=model, output_path=output_path, policy=policy)


def _with_input(prediction: Prediction, request: ImageRequest) -> Prediction:
    """Return a prediction that says what was requested, also where the API does not."""
    return prediction if prediction.input else prediction.model_copy(update={"input": request.body()})
