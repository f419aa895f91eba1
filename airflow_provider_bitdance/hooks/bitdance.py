"""The hook: reads an Airflow connection, and talks to the API for those who write their own ``@task``.

It keeps no records: an image that :meth:`BitDanceHook.submit` buys is bought again when the task is run
again. The operator is what remembers.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseHook
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from airflow_provider_bitdance.api.addresses import DEFAULT_BASE_URL
from airflow_provider_bitdance.api.answers import Prediction
from airflow_provider_bitdance.api.client import AsyncClient, Client, ClientSettings
from airflow_provider_bitdance.api.errors import (
    AuthenticationError,
    BitDanceError,
    GarbledAnswerError,
    InputError,
    NotFoundError,
    PredictionTimeoutError,
    RateLimitError,
    TransportError,
)
from airflow_provider_bitdance.api.models import BITDANCE_14B, ImageRequest
from airflow_provider_bitdance.api.protocol import failure_of
from airflow_provider_bitdance.api.text import shorten
from airflow_provider_bitdance.get_provider_info import INTEGRATION, UI_FIELD_BEHAVIOUR
from airflow_provider_bitdance.polling import DEFAULT_POLL_INTERVAL, PollSchedule

if TYPE_CHECKING:
    from airflow.sdk import Connection

__all__ = ["BitDanceHook", "ConnectionExtra"]


class ConnectionExtra(BaseModel):
    """The extra fields of a ``bitdance`` connection; a field left empty has its default.

    :param price_usd: Assumed price of one image in US dollars.
    :param live_price: Ask the API for the price before buying, instead.
    :param timeout: Seconds for one HTTP request.
    :param records_path: Where journal and receipts lie; empty: see the operator.
    :param allow_http: Send the key over plain http to hosts other than this machine.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    price_usd: float = Field(default=0.01, ge=0, allow_inf_nan=False)
    live_price: bool = False
    timeout: float = Field(default=60.0, gt=0, allow_inf_nan=False)
    records_path: str = ""
    allow_http: bool = False

    @classmethod
    def of(cls, extra: dict[str, Any]) -> ConnectionExtra:
        """Read the extra of a connection.

        :raises InputError: Names each field that is wrong.
        """
        if not isinstance(extra, dict):
            raise InputError("The extra is not a JSON object", fix="Correct the connection")
        given = {name: value for name, value in extra.items() if value not in (None, "")}
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            what = "; ".join(
                f"{finding['loc'][0]} is {shorten(repr(finding['input']))}: {finding['msg']}"
                for finding in error.errors(include_url=False)
            )
            raise InputError(f"The extra cannot be used: {what}", fix="Correct the connection") from None


class _NotWaitedForError(PredictionTimeoutError):
    """The hook keeps no records, so here a retry does not find the prediction again."""

    retry_helps = False
    retry_in_words = "get_prediction looks again for free; to generate again buys another image."


class BitDanceHook(BaseHook):
    """Talks to the WaveSpeedAI API with the key of an Airflow connection.

    For use in a plain ``@task``. Not for images that must be bought once: use
    :class:`~airflow_provider_bitdance.operators.bitdance.BitDanceTextToImageOperator`, which keeps records.

    .. code-block:: python

        @task
        def balance() -> float:
            return BitDanceHook().get_balance()

    :param bitdance_conn_id: The connection: its password is the API key, its host the API's address
        (default https://api.wavespeed.ai), its extra as :class:`ConnectionExtra` says.
    :param transport: An httpx transport instead of the network; for tests.
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

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return the form's labels for Airflow 3.1 and 3.2; 3.3 reads the provider's metadata."""
        return {key.replace("-", "_"): value for key, value in UI_FIELD_BEHAVIOUR.items()}

    @property
    def settings(self) -> ClientSettings:
        """Key and address, read from the connection once. Blocks on first use.

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

    def new_async_client(self) -> AsyncClient:
        """Return an async client. Read ``settings`` before there is an event loop: reading them blocks."""
        return AsyncClient(self.settings, transport=self._transport)

    async def get_async_conn(self) -> AsyncClient:
        """Return an async client, without blocking the event loop: for triggers."""
        if self._read is None:
            from airflow.providers.common.compat.connection import (
                get_async_connection,
                get_async_extra_dejson,
            )

            connection = await get_async_connection(self.bitdance_conn_id)
            self._read = _read(connection, await get_async_extra_dejson(connection))
        return self.new_async_client()

    def submit(
        self,
        *,
        prompt: str,
        size: str | None = None,
        width: int | str | None = None,
        height: int | str | None = None,
        seed: int | str = -1,
        model: str = BITDANCE_14B,
    ) -> Prediction:
        """Buy one image, about $0.01 at each call, and return its prediction without waiting.

        :param prompt: The text.
        :param size: A preset such as ``"16:9"`` or ``"W*H"``; default 1024*1024.
        :param width: Pixels, 256 to 1536, with ``height`` and instead of ``size``.
        :param height: Pixels, 256 to 1536, with ``width`` and instead of ``size``.
        :param seed: -1 (any) to 2147483647.
        :param model: The model's path on WaveSpeed.
        :raises InputError: Before anything is sent.
        :raises BitDanceError: See its ``paid``: the image may be bought all the same.
        """
        request = ImageRequest.of(
            prompt=prompt, size=size, width=width, height=height, seed=seed, model=model
        )
        with self.get_conn() as client:
            return client.submit(request)

    def get_prediction(self, prediction_id: str) -> Prediction:
        """Look at a prediction. Free.

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
        timeout: float = 600.0,
        poll_interval: float = DEFAULT_POLL_INTERVAL,
    ) -> Prediction:
        """Buy one image, about $0.01 at each call, and wait for it. Its output URL expires after 7 days.

        :param timeout: Seconds to wait.
        :param poll_interval: Seconds from the submission to the first look, and the shortest pause.
        :raises PredictionError: It ended without a picture.
        :raises PredictionTimeoutError: It is not done yet, or looking failed; the error names its id.
        """
        schedule, timeout = PollSchedule(interval=float(poll_interval)), float(timeout)
        prediction = self.submit(prompt=prompt, size=size, width=width, height=height, seed=seed, model=model)
        start = time.monotonic()
        failures, asked = 0, None
        with self.get_conn() as client:
            while not prediction.is_terminal:
                age = time.monotonic() - start
                if age >= timeout:
                    raise _NotWaitedForError(f"Not done within {timeout:.0f} s: prediction {prediction.id}")
                pause = schedule.pause(age=age, draw=0.5, failures=failures, asked=asked)
                time.sleep(min(pause, timeout - age))
                try:
                    prediction = client.get_prediction(prediction.id)
                    failures, asked = 0, None
                except BitDanceError as error:
                    failures += 1
                    asked = error.retry_after if isinstance(error, RateLimitError) else None
                    unknown_yet = isinstance(error, NotFoundError) and age < schedule.not_found_grace
                    if not (error.retry_helps or unknown_yet) or failures >= schedule.failures:
                        what = f"Looking at prediction {prediction.id} failed: {error.what}"
                        raise _NotWaitedForError(what) from error
        if not prediction.is_completed:
            raise failure_of(prediction, prompt=prompt)
        return prediction

    def get_balance(self) -> float:
        """Return the account's balance in US dollars. Free."""
        with self.get_conn() as client:
            return client.get_balance().balance

    def test_connection(self) -> tuple[bool, str]:
        """Ask for the balance, which is free, and say in words what came back."""
        try:
            balance = self.get_balance()
        except AuthenticationError as error:
            why = f" ({error.what})" if error.status != 401 else ""
            return False, f"The API key was refused. Check it; a key works only after the first top-up.{why}"
        except (NotFoundError, GarbledAnswerError) as error:
            return False, f"This is not the address of a WaveSpeed API. Check the host. ({error.what})"
        except TransportError as error:
            return False, f"The API could not be reached. Check the address and the network. ({error.what})"
        except BitDanceError as error:
            return False, str(error)
        return True, f"The key works. The balance is ${balance:.2f}."

    def _from_connection(self) -> tuple[ClientSettings, ConnectionExtra]:
        if self._read is None:
            connection = self.get_connection(self.bitdance_conn_id)
            self._read = _read(connection, connection.extra_dejson)
        return self._read


def _read(connection: Connection, extra_fields: dict[str, Any]) -> tuple[ClientSettings, ConnectionExtra]:
    """Turn a connection into what the client needs, with errors that name the connection."""
    try:
        extra = ConnectionExtra.of(extra_fields)
        settings = ClientSettings(
            connection.password or "",
            base_url=_address(connection),
            allow_http=extra.allow_http,
            timeout=extra.timeout,
        )
    except InputError as error:
        what = f"Connection {connection.conn_id!r}: {error.what}"
        raise InputError(what, allowed=error.allowed, fix=error.fix) from None
    return settings, extra


def _address(connection: Connection) -> str:
    """Return the API's address. Airflow splits a port off a URI whose host keeps its scheme."""
    host = (connection.host or "").strip()
    if not host:
        return DEFAULT_BASE_URL
    if "://" not in host:
        host = f"{connection.schema or 'https'}://{host}"
    scheme, _, rest = host.partition("://")
    name, slash, path = rest.partition("/")
    if connection.port and not re.search(r":\d+$", name):
        name = f"{name}:{connection.port}"
    return f"{scheme}://{name}{slash}{path}"
