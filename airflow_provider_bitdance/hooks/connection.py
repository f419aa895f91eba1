"""What an Airflow connection of the type ``bitdance`` says, checked; errors name connection and field."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import PydanticCustomError

from airflow_provider_bitdance.exceptions import (
    APIError,
    AuthenticationError,
    BitDanceError,
    GarbledResponseError,
    InputError,
    TransportError,
)
from airflow_provider_bitdance.get_provider_info import MAX_IN_FLIGHT, MAX_REQUESTS_PER_MINUTE
from airflow_provider_bitdance.redaction import shorten
from airflow_provider_bitdance.storage.address import normalize
from airflow_provider_bitdance.wavespeed.models import BITDANCE_14B, is_path
from airflow_provider_bitdance.wavespeed.responses import MAX_PRICE
from airflow_provider_bitdance.wavespeed.settings import MAX_TIMEOUT, ClientSettings
from airflow_provider_bitdance.wavespeed.urls import DEFAULT_BASE_URL

if TYPE_CHECKING:
    from airflow.sdk import Connection


class ConnectionExtra(BaseModel):
    """The extra fields of a ``bitdance`` connection. An empty field has its default.

    :param max_in_flight: The most predictions in flight at once of a batch that does not set its own limit.
        ``None``: the batch adapts to what the account accepts.
    :param requests_per_minute: The most submissions in any minute of a batch that does not set its own limit.
        ``None``: no limit.
    :param price_usd: The price of one BitDance-14B image, in US dollars.
    :param model_prices: The price of one image in US dollars, by the model's path; also as JSON text. For a
        model whose price neither this nor the provider knows, the API quotes it.
    :param live_price: Whether to request the price of every model from the API before buying.
    :param timeout: Seconds for one HTTP request including its whole response.
    :param records_path: The folder of the journal and the receipts. Empty: as the operator's
        ``records_path`` describes.
    :param allow_http: Whether the key may be sent over plain http to hosts other than this machine.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    max_in_flight: int | None = Field(default=None, ge=1, le=MAX_IN_FLIGHT)
    requests_per_minute: int | None = Field(default=None, ge=1, le=MAX_REQUESTS_PER_MINUTE)
    price_usd: float = Field(default=0.01, ge=0, le=MAX_PRICE, allow_inf_nan=False)
    model_prices: dict[str, Annotated[float, Field(ge=0, le=MAX_PRICE, allow_inf_nan=False)]] = {}
    live_price: bool = False
    timeout: float = Field(default=60.0, gt=0, le=MAX_TIMEOUT, allow_inf_nan=False)
    records_path: str = ""
    allow_http: bool = False

    @field_validator("max_in_flight", "requests_per_minute", "price_usd", "timeout", mode="before")
    @classmethod
    def _is_no_boolean(cls, value: object) -> object:
        if isinstance(value, bool):
            raise PydanticCustomError("boolean", "a boolean, not a number")
        return value

    @field_validator("model_prices", mode="before")
    @classmethod
    def _is_json(cls, prices: object) -> object:
        try:
            found = json.loads(prices) if isinstance(prices, str) else prices
        except (ValueError, RecursionError):
            raise PydanticCustomError("json", "text that is not JSON") from None
        if not isinstance(found, dict) or any(isinstance(price, bool) for price in found.values()):
            raise PydanticCustomError("prices", "not an object that maps model paths to prices")
        if wrong := [path for path in found if not (isinstance(path, str) and is_path(path))]:
            raise PydanticCustomError("paths", f"{shorten(repr(wrong[0]))} is not a model's path")
        return found

    @property
    def prices(self) -> dict[str, float]:
        """Prices of one image in US dollars, by the model's path."""
        return {BITDANCE_14B: self.price_usd, **self.model_prices}

    @field_validator("records_path")
    @classmethod
    def _is_address(cls, path: str) -> str:
        try:
            return normalize(path.strip()) if path.strip() else ""
        except ValueError as error:
            raise PydanticCustomError("address", str(error)) from None

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
                f"{'.'.join(map(str, finding['loc']))} is {shorten(repr(finding['input']))}: {finding['msg']}"
                for finding in error.errors(include_url=False)
            )
            raise InputError(f"The extra cannot be used: {what}", fix="Correct the connection") from None


def unknown_fields(extra: dict[str, Any]) -> str:
    """Name the extra fields that have no effect, each with the known one that it may be a slip of.

    :return: A sentence; empty where there are none.
    """
    known = list(ConnectionExtra.model_fields)
    named = []
    for name in extra:
        if name not in known:
            near = get_close_matches(re.sub(r"\W", "_", name.lower()), known, n=1)
            named.append(shorten(repr(name)) + (f" (did you mean {near[0]}?)" if near else ""))
    return f"Unknown extra fields have no effect: {', '.join(named)}." if named else ""


def read_connection(
    connection: Connection, extra_fields: dict[str, Any]
) -> tuple[ClientSettings, ConnectionExtra]:
    """Turn a connection into what the client and the operators need.

    :param extra_fields: Its extra, read as JSON.
    :raises InputError: Names the connection and the field.
    """
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
    """Return the API's URL. Airflow splits a port off a URI whose host keeps its scheme."""
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


def explained(error: BitDanceError, base_url: Callable[[], str]) -> str:
    """Say what an error of a test of the connection means for its fields.

    :param base_url: Returns the API's URL; called only where the connection could be read.
    """
    status = error.status if isinstance(error, APIError) else 0
    if isinstance(error, AuthenticationError):
        why = f" ({error.what})" if status != 401 else ""
        return f"The API key was refused. Check it; a key works only after the first top-up.{why}"
    if isinstance(error, GarbledResponseError) or 300 <= status < 400 or status in (404, 405):
        return (
            f"{base_url()} is not the URL of a WaveSpeed API. Check the "
            f"host; if it is empty, {DEFAULT_BASE_URL} is used. ({error.what})"
        )
    if isinstance(error, TransportError):
        return (
            f"{base_url()} could not be reached. Check the host, and the "
            f"network and proxy of the machine that runs the test. ({error.what})"
        )
    allowed = f"Allowed: {error.allowed}" if error.allowed else ""
    return " ".join(f"{part.rstrip('.')}." for part in (error.what, allowed, error.fix) if part)
