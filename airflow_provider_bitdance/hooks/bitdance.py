"""The hook: reads an Airflow connection, and talks to the API for those who write their own ``@task``.

What it stores at an ``output_path`` is bought once and recorded, as an operator's image (``image_job.py``).
All else keeps no records: what :meth:`BitDanceHook.submit` buys is bought again when the task runs again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from os import PathLike
from typing import Any, Literal, Required, TypedDict, Unpack, overload

from airflow_provider_bitdance.exceptions import BitDanceError, InputError, Paid
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
from airflow_provider_bitdance.wavespeed.protocol import failure_of
from airflow_provider_bitdance.wavespeed.responses import Prediction

__all__ = ["BitDanceHook", "ConnectionExtra"]

_NOT_WAITED_FOR_A_PROMPT = "get_prediction polls it again for free; enhance_prompt buys another one."
_PROMPT_PAID = {
    Paid.NO: "Nothing was charged for it.",
    Paid.POSSIBLY: "The prompt may have been charged.",
    Paid.YES: "The prompt is paid for.",
}


class ImageFields(TypedDict, total=False):
    """What is requested of a model, as :meth:`BitDanceHook.submit` has it."""

    prompt: Required[str]
    size: str | None
    width: int | str | None
    height: int | str | None
    seed: int | str
    model: str
    inputs: dict[str, Any] | None


class BitDanceHook(BitDanceBaseHook):
    """Talks to the WaveSpeedAI API with the key of an Airflow connection.

    For use in a plain ``@task``. An image that must be bought once needs an ``output_path``, as here; without
    one, each call of :meth:`generate` buys. For a task that only makes an image,
    :class:`~airflow_provider_bitdance.operators.bitdance.BitDanceTextToImageOperator` is shorter, can wait
    without a worker, and shows the image in Airflow's UI.

    .. code-block:: python

        @task(retries=2)
        def cover(headline: str, ds: str) -> dict:
            return BitDanceHook().generate(prompt=headline, output_path=f"/data/covers/{ds}")

    :param bitdance_conn_id: The connection: its password is the API key, its host the API's URL
        (default https://api.wavespeed.ai), its extra as :class:`ConnectionExtra` says.
    :param transport: An ``httpx.AsyncBaseTransport`` instead of the network; for tests.
    """

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
        """Buy one image, about $0.01 at each call, and return its prediction without waiting.

        :param prompt: The text.
        :param size: A preset such as ``"16:9"`` or ``"W*H"``; default 1024*1024.
        :param width: Pixels, 256 to 1536, with ``height`` and instead of ``size``.
        :param height: Pixels, 256 to 1536, with ``width`` and instead of ``size``.
        :param seed: -1 (any) to 2147483647.
        :param model: The model's path on WaveSpeed. One that the provider does not know costs a free request
            for its schema, once a process.
        :param inputs: The model's other inputs.
        :raises InputError: Before anything is sent.
        :raises BitDanceError: See its ``paid``: the image may be bought all the same.
        """
        request = self._request(
            prompt=prompt, size=size, width=width, height=height, seed=seed, model=model, inputs=inputs
        )
        with self.get_conn() as client:
            return _with_input(client.submit(request), request)

    def get_prediction(self, prediction_id: str) -> Prediction:
        """Poll a prediction once. Free.

        :param prediction_id: As :meth:`submit` returned it.
        """
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
        """Buy one image, about $0.01, and wait for it; with an ``output_path``, store it and buy it once.

        Without ``output_path`` nothing is recorded: **each call buys**, a retry's too, and the output URL of
        what it returns expires after 7 days. With it, a retry of the task finds what was bought or stored,
        and the same request at the same path is the result for all runs, free.

        :param fields: Prompt, size, width, height, seed, model and inputs, as for :meth:`submit`.
        :param output_path: Absolute path or URI of a file that every worker sees, one for each image. In a
            task it may be a folder, with a slash at its end, for one image: its name is made from the task.
        :param timeout: Seconds to wait.
        :param poll_interval: Seconds from the submission to the first poll, and the shortest pause.
        :param if_exists: As for the operators; ``"regenerate"`` buys once per run.
        :param nsfw: ``"fail"`` or ``"allow"``: what to do with an image that is flagged; it is paid for.
        :return: The prediction; with an ``output_path`` the plain dict that the operator returns.
        :raises PredictionError: It ended without an image.
        :raises PredictionTimeoutError: It is not done yet, or polling failed; the error names its id.
        """
        wait = Wait.of(timeout, poll_interval)  # read first: a bad number costs nothing
        if output_path is not None:
            return self._generate_file(wait, output_path, if_exists, nsfw, self._request(**fields))
        if (if_exists, nsfw) != ("reuse", "fail"):
            raise InputError("if_exists and nsfw are of no use without output_path", fix="Set it, too")
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
        """Store the image of a prediction with its receipt, as the operator does. Free; waits if need be.

        For what was bought without an ``output_path``, in the 7 days for which WaveSpeed keeps it. Another
        image at that path is replaced. Called again for the same prediction, it finds the image stored.

        :param prediction: As :meth:`submit`, :meth:`generate`, :meth:`get_prediction` or :meth:`history`
            returned it.
        :param output_path: As for :meth:`generate`.
        :param request: What was requested, as for :meth:`submit`; needed where the API does not say it, which
            it need not after :meth:`get_prediction` and :meth:`history`.
        :param timeout: Seconds to wait.
        :param nsfw: As for :meth:`generate`.
        :return: The plain dict that the operator returns.
        :raises InputError: Nobody knows what was requested, or another task makes an image there.
        :raises PredictionError: It ended without an image.
        """
        from airflow_provider_bitdance.hooks.image_job import save_image

        wait = Wait.of(timeout, DEFAULT_POLL_INTERVAL)
        model = find_model((request or {}).get("model") or prediction.model or BITDANCE_14B, self)
        policy = wait.policy(nsfw=nsfw)
        return save_image(
            self, prediction, request=request, model=model, output_path=output_path, policy=policy
        )

    def history(
        self, *, model: str = "", since: datetime | None = None, limit: int = 1000
    ) -> list[Prediction]:
        """Return predictions of the account, newest first: those of the past 7 days. Free.

        One that was just made may not be there yet, so what is missing proves nothing. Inputs are there where
        the API shows them.

        :param model: Of this model only, by its path; default: of all.
        :param since: Made since then only; a time without a zone is in UTC. Default: 7 days ago.
        :param limit: The most that are returned, 1 to 10,000. The API gives 100 at a request.
        """
        from airflow_provider_bitdance.hooks.account import read_predictions

        return read_predictions(self, model=model, since=since, limit=limit)

    def delete(self, prediction_ids: Iterable[str]) -> int:
        """Delete predictions for good, and return how many there were. Free, and refunds nothing.

        **What is not stored yet is lost, though it is paid for**: a task that waits for it fails, and a
        stored file that is lost can no longer be fetched again. Stored files and receipts stay. To call it
        again is harmless: unknown ids are ignored, and so are those that an earlier call has deleted.

        :param prediction_ids: Their ids. Of predictions that run still, WaveSpeed advises against it.
        :raises InputError: There is none, or one is no id of a prediction.
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
        """Have WaveSpeed's Prompt Enhancer rewrite a prompt, $0.001 at each call. It keeps no records.

        :param text: The prompt.
        :param style: default, artistic, photographic, technical, anime or realistic.
        :param timeout: Seconds to wait.
        :param poll_interval: Seconds from the submission to the first poll, and the shortest pause.
        :raises InputError: Before anything is sent.
        :raises PredictionError: It ended without a text, or with one that is no prompt.
        :raises PredictionTimeoutError: It is not done yet; the error names its id.
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
