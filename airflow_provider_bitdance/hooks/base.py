"""What the hook is made of that knows Airflow's connection: settings, clients, the test button."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseHook

from airflow_provider_bitdance.exceptions import BitDanceError
from airflow_provider_bitdance.get_provider_info import INTEGRATION
from airflow_provider_bitdance.hooks.connection import (
    ConnectionExtra,
    explained,
    read_connection,
    unknown_fields,
)
from airflow_provider_bitdance.wavespeed.client import AsyncClient, Client, ClientSettings

if TYPE_CHECKING:
    from airflow.sdk import Connection


class BitDanceBaseHook(BaseHook):
    """Reads the connection, and makes clients of it. Not for use in a Dag: its subclass talks to the API.

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

    def get_balance(self) -> float:
        """Return the account's balance in US dollars. Free."""
        with self.get_conn() as client:
            return client.get_balance().balance

    def test_connection(self) -> tuple[bool, str]:
        """Ask for the balance, which is free, and say in words what came back. For Airflow's test button."""
        try:
            balance = self.get_balance()
        except BitDanceError as error:
            return False, explained(error, lambda: self.settings.base_url)
        said = f"The key works. The balance is ${balance:.2f}."
        if balance <= 0:
            said = (
                f"The key works, but there is no credit: the balance is ${balance:.2f}. Top up the account."
            )
        if self._unknown:
            said += f" {self._unknown}"
        return balance > 0, said

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
