"""The hook: reads an Airflow connection, and talks to the API for those who write their own ``@task``.

It keeps no records: an image that :meth:`BitDanceHook.submit` buys is bought again when the task is run
again. The operator is what remembers.
"""

from __future__ import annotations

import time
from importlib import import_module
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseHook

from airflow_provider_bitdance.exceptions import (
    APIError,
    AuthenticationError,
    BitDanceError,
    GarbledResponseError,
    InputError,
    Paid,
    PredictionTimeoutError,
    RateLimitError,
    TransportError,
)
from airflow_provider_bitdance.get_provider_info import CONNECTION_FIELDS, INTEGRATION, UI_FIELD_BEHAVIOUR
from airflow_provider_bitdance.hooks.connection import ConnectionExtra, read_connection, unknown_fields
from airflow_provider_bitdance.hooks.model_lookup import find_model
from airflow_provider_bitdance.polling.policy import DEFAULT_POLL_INTERVAL, MINUTE, PollPolicy, is_refusal
from airflow_provider_bitdance.redaction import shorten
from airflow_provider_bitdance.wavespeed import protocol
from airflow_provider_bitdance.wavespeed.client import AsyncClient, Client, ClientSettings
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
from airflow_provider_bitdance.wavespeed.urls import DEFAULT_BASE_URL

if TYPE_CHECKING:
    from airflow.sdk import Connection

__all__ = ["BitDanceHook", "ConnectionExtra"]


class _NotWaitedForError(PredictionTimeoutError):
    """The hook keeps no records, so here a retry does not find the prediction again."""

    retry_helps = False
    retry_in_words = "get_prediction polls it again for free; generate buys another image."


_NOT_WAITED_FOR_A_PROMPT = "get_prediction polls it again for free; enhance_prompt buys another one."
_PROMPT_PAID = {
    Paid.NO: "Nothing was charged for it.",
    Paid.POSSIBLY: "The prompt may have been charged.",
    Paid.YES: "The prompt is paid for.",
}


class BitDanceHook(BaseHook):
    """Talks to the WaveSpeedAI API with the key of an Airflow connection.

    For use in a plain ``@task``. Not for images that must be bought once: use
    :class:`~airflow_provider_bitdance.operators.bitdance.BitDanceTextToImageOperator`, which keeps records.

    .. code-block:: python

        @task
        def balance() -> float:
            return BitDanceHook().get_balance()

    :param bitdance_conn_id: The connection: its password is the API key, its host the API's URL
        (default https://api.wavespeed.ai), its extra as :class:`ConnectionExtra` says.
    :param transport: An ``httpx.AsyncBaseTransport`` instead of the network; for tests.
    """

    conn_name_attr = "bitdance_conn_id"
    default_conn_name = "bitdance_default"
    conn_type = "bitdance"
    hook_name = INTEGRATION

    def __init__(self, bitdance_conn_id: str = default_conn_name, *, transport: Any = None) -> None:
        super().__init__()
        self.bitdance_conn_id = bitdance_conn_id
        self._transport = transport
        self._read: tuple[ClientSettings, ConnectionExtra] | None = None
        self._unknown = ""

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

    @property
    def settings(self) -> ClientSettings:
        """Key and URL, read from the connection once. Blocks on first use.

        :raises InputError: A field of the connection cannot be used.
        """
        return self._from_connection()[0]

    @property
    def extra(self) -> ConnectionExtra:
        """The connection's extra fields, read once. Blocks on first use."""
        return self._from_connection()[1]

    def get_conn(self) -> Client:
        """Return a sync client. Close it, or use it in a ``with`` statement."""
        return Client(self.settings, transport=self._transport)

    def new_async_client(self, *, is_reader: bool = False) -> AsyncClient:
        """Return an async client. Read ``settings`` before there is an event loop: reading them blocks.

        :param is_reader: It only polls predictions.
        """
        return AsyncClient(self.settings, transport=self._transport, is_reader=is_reader)

    async def get_async_conn(self) -> AsyncClient:
        """Return an async client, without blocking the event loop: for triggers."""
        await self.read_connection()
        return self.new_async_client()

    async def read_connection(self) -> None:
        """Read the connection without blocking the event loop, so that ``settings`` and ``extra`` are there.

        :raises InputError: A field of the connection cannot be used.
        """
        if self._read is None:
            from airflow.providers.common.compat.connection import (
                get_async_connection,
                get_async_extra_dejson,
            )

            connection = await get_async_connection(self.bitdance_conn_id)
            self._read = self._checked(connection, await get_async_extra_dejson(connection))

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
        request = ImageRequest.of(
            prompt=prompt,
            size=size,
            width=width,
            height=height,
            seed=seed,
            model=find_model(model, self),
            inputs=inputs,
        )
        with self.get_conn() as client:
            return client.submit(request)

    def get_prediction(self, prediction_id: str) -> Prediction:
        """Poll a prediction once. Free.

        :param prediction_id: As :meth:`submit` returned it.
        """
        with self.get_conn() as client:
            return client.get_prediction(prediction_id)

    def generate(
        self,
        *,
        prompt: str,
        size: str | None = None,
        width: int | str | None = None,
        height: int | str | None = None,
        seed: int | str = -1,
        model: str = BITDANCE_14B,
        inputs: dict[str, Any] | None = None,
        timeout: float = 600.0,
        poll_interval: float = DEFAULT_POLL_INTERVAL,
    ) -> Prediction:
        """Buy one image, about $0.01 at each call, and wait for it. Its output URL expires after 7 days.

        :param timeout: Seconds to wait.
        :param poll_interval: Seconds from the submission to the first poll, and the shortest pause.
        :raises PredictionError: It ended without an image.
        :raises PredictionTimeoutError: It is not done yet, or polling failed; the error names its id.
        """
        # Read before the image is bought: a bad number costs nothing.
        policy = PollPolicy(interval=_seconds("poll_interval", poll_interval, at_most=3600))
        timeout = _seconds("timeout", timeout, at_most=7 * 24 * 3600)
        prediction = self.submit(
            prompt=prompt, size=size, width=width, height=height, seed=seed, model=model, inputs=inputs
        )
        with self.get_conn() as client:
            prediction = _poll_until_ended(client, prediction, policy, timeout)
        if not prediction.is_completed:
            raise failure_of(prediction, prompt=prompt)
        return prediction

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
        policy = PollPolicy(interval=_seconds("poll_interval", poll_interval, at_most=3600))
        timeout = _seconds("timeout", timeout, at_most=7 * 24 * 3600)
        prompt, wanted_style = ImageRequest.of(prompt=text).prompt, style_of(style) or "default"
        try:
            with self.get_conn() as client:
                prediction = client.send(protocol.enhance(prompt, wanted_style))
                prediction = _poll_until_ended(client, prediction, policy, timeout)
            if not prediction.is_completed:
                raise failure_of(prediction, prompt=prompt)
            check_echo(prediction, requested=prompt, style=wanted_style)
            return check_enhanced(enhanced_in(prediction.outputs), requested=prompt, longest=MAX_PROMPT)
        except BitDanceError as error:
            words = _NOT_WAITED_FOR_A_PROMPT if isinstance(error, _NotWaitedForError) else None
            paid = _PROMPT_PAID[error.paid]
            raise error.with_verdict(paid_in_words=paid, retry_in_words=words) from error.__cause__

    def get_balance(self) -> float:
        """Return the account's balance in US dollars. Free."""
        with self.get_conn() as client:
            return client.get_balance().balance

    def test_connection(self) -> tuple[bool, str]:
        """Ask for the balance, which is free, and say in words what came back. For Airflow's test button."""
        try:
            balance = self.get_balance()
        except BitDanceError as error:
            return False, self._explained(error)
        said = f"The key works. The balance is ${balance:.2f}."
        if balance <= 0:
            said = (
                f"The key works, but there is no credit: the balance is ${balance:.2f}. Top up the account."
            )
        if self._unknown:
            said += f" {self._unknown}"
        return balance > 0, said

    def _explained(self, error: BitDanceError) -> str:
        """Say what an error of a test means for the connection's fields."""
        status = error.status if isinstance(error, APIError) else 0
        if isinstance(error, AuthenticationError):
            why = f" ({error.what})" if status != 401 else ""
            return f"The API key was refused. Check it; a key works only after the first top-up.{why}"
        if isinstance(error, GarbledResponseError) or 300 <= status < 400 or status in (404, 405):
            return (
                f"{self.settings.base_url} is not the URL of a WaveSpeed API. Check the "
                f"host; if it is empty, {DEFAULT_BASE_URL} is used. ({error.what})"
            )
        if isinstance(error, TransportError):
            return (
                f"{self.settings.base_url} could not be reached. Check the host, and the "
                f"network and proxy of the machine that runs the test. ({error.what})"
            )
        allowed = f"Allowed: {error.allowed}" if error.allowed else ""
        return " ".join(f"{part.rstrip('.')}." for part in (error.what, allowed, error.fix) if part)

    def _from_connection(self) -> tuple[ClientSettings, ConnectionExtra]:
        if self._read is None:
            connection = self.get_connection(self.bitdance_conn_id)
            self._read = self._checked(connection, connection.extra_dejson)
        return self._read

    def _checked(
        self, connection: Connection, extra_fields: dict[str, Any]
    ) -> tuple[ClientSettings, ConnectionExtra]:
        read = read_connection(connection, extra_fields)
        self._unknown = unknown_fields(extra_fields)
        if self._unknown:
            self.log.warning("Connection %r: %s", connection.conn_id, self._unknown)
        return read


def _seconds(name: str, value: float | str, *, at_most: int) -> float:
    """Check a number of seconds: what is not finite would be waited for without an end."""
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = -1.0
    if not 0 <= seconds <= at_most:
        raise InputError(f"{name} is {shorten(repr(value))}", allowed=f"seconds, 0 to {at_most}")
    return seconds


def _poll_until_ended(
    client: Client, prediction: Prediction, policy: PollPolicy, timeout: float
) -> Prediction:
    """Return the prediction when it has ended.

    Not tenacity: it counts all attempts, and here only polls that fail one after another count.

    :raises PredictionTimeoutError: It has not ended in time, or polling failed.
    """
    start = time.monotonic()
    failures = 0
    failure: BitDanceError | None = None
    refused_since: float | None = None
    while not prediction.is_terminal:
        age = time.monotonic() - start
        if age >= timeout:
            outage = f"; the last poll failed: {failure.what}" if failure else ""
            raise _NotWaitedForError(f"Not done within {timeout:.0f} s: prediction {prediction.id}{outage}")
        requested = failure.retry_after if isinstance(failure, RateLimitError) else None
        pause = policy.pause(age=age, draw=0.5, failures=failures, requested=requested)
        time.sleep(min(pause, timeout - age))
        try:
            prediction = client.get_prediction(prediction.id)
            failures, refused_since, failure = 0, None, None
        except BitDanceError as error:
            failures, failure, now = failures + 1, error, time.monotonic()
            refused_since = (now if refused_since is None else refused_since) if is_refusal(error) else None
            # That the API does not know yet what it has just created passes within a minute, too.
            if refused_since is not None and now - refused_since >= MINUTE:
                what = f"Polling prediction {prediction.id} failed: {error.what}"
                raise _NotWaitedForError(what) from error
    return prediction
