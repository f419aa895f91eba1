"""Runs a check: resolves connection and stores, asks, buys what is allowed, and judges what was seen."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from airflow_provider_bitdance.check import machine
from airflow_provider_bitdance.check.account import PROMPT, AccountReader, NewClient
from airflow_provider_bitdance.check.assumptions import judge_all
from airflow_provider_bitdance.check.observations import Account, Observations, Refusal, Spending
from airflow_provider_bitdance.check.spending import Spender
from airflow_provider_bitdance.check.verdicts import Verdict
from airflow_provider_bitdance.clock import Clock
from airflow_provider_bitdance.exceptions import InputError
from airflow_provider_bitdance.hooks import object_storage
from airflow_provider_bitdance.hooks.bitdance import BitDanceHook
from airflow_provider_bitdance.redaction import shorten
from airflow_provider_bitdance.storage import Folder
from airflow_provider_bitdance.storage.naming import parse_destination
from airflow_provider_bitdance.wavespeed.client import AsyncClient, ClientSettings

THREADS = 8
FORMAT = 1
"""Version of the JSON of a report."""
MOST_SPENT = 1.0
"""US dollars: a slip of the pen must not be expensive."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a check has seen."""

    seen: Observations

    @property
    def needs_attention(self) -> bool:
        """Whether an assumption does not hold."""
        return any(verdict is Verdict.FAILS for _, verdict, _ in judge_all(self.seen))

    def as_json(self) -> dict[str, Any]:
        """Return verdicts and observations as plain values, fit to be published."""
        verdicts = {assumption.name: verdict.value for assumption, verdict, _ in judge_all(self.seen)}
        return {"format": FORMAT, "verdicts": verdicts, "observations": asdict(self.seen)}


@dataclass(frozen=True, slots=True)
class Check:
    """One check, with its handles passed in.

    :param records: Where journals and receipts are; ``None`` if no path is known. Likewise ``images``.
    :param output: URI of the output folder, which ``images`` is.
    :param amount: US dollars that may be spent at most; 0 buys nothing.
    :param say: Takes a line about what happens.
    """

    settings: ClientSettings
    records: Folder | None
    images: Folder | None
    output: str
    amount: float
    say: Callable[[str], object]
    new_client: NewClient = lambda settings, on_response: AsyncClient(settings, on_response=on_response)
    clock: Clock = field(default_factory=Clock)

    def run(self) -> Report:
        """Look at the machine and its stores, then ask and buy."""
        seen = Observations(
            versions=machine.versions(),
            environment=machine.environment(self.settings.base_url),
            account=Account(),
            records=machine.try_store(self.records) if self.records else None,
            images=machine.try_store(self.images) if self.images else None,
        )
        is_usable = not any(store and store.error for store in (seen.records, seen.images))
        account, spending = asyncio.run(self._ask_in_threads(is_usable=is_usable))
        return Report(replace(seen, account=account, spending=spending))

    async def _ask_in_threads(self, *, is_usable: bool) -> tuple[Account, Spending | None]:
        # The engine's stores block in threads, as in a task: the default is four more than there are cores.
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(THREADS, "bitdance"))
        return await self._ask(is_usable=is_usable)

    async def _ask(self, *, is_usable: bool) -> tuple[Account, Spending | None]:
        """Ask for what is free, and buy what is allowed.

        :param is_usable: What is bought can be recorded and stored.
        """
        secrets = {self.settings.api_key, PROMPT}
        reader = AccountReader(self.settings, self.new_client, secrets, self.clock, self.say)
        account, figures = await reader.read()
        if not self.amount or self.records is None or self.images is None:
            return account, None
        if not is_usable:
            self.say(f"Nothing is bought: {Refusal.NO_STORE}.")
            return account, Spending(refused=Refusal.NO_STORE)
        spender = Spender(
            settings=self.settings,
            new_client=self.new_client,
            secrets=secrets,
            records=self.records,
            images=self.images,
            output=self.output,
            amount=self.amount,
            figures=figures,
            skew=account.skew or 0.0,
            clock=self.clock,
            say=self.say,
        )
        return account, await spender.spend()


def check(
    *,
    conn_id: str = "bitdance_default",
    records_path: str = "",
    output_path: str = "",
    spend: float = 0.0,
    json_file: str = "",
    say: Callable[[str], object],
) -> Report:
    """Check the API, the account and this machine. Free, unless ``spend`` allows purchases. Blocks.

    :param conn_id: The connection with the API key.
    :param records_path: Where journals and receipts are. Default: the connection's, else that of the
        settings, else ``.bitdance`` in the output folder.
    :param output_path: A folder for images. Default: ``check`` in the records path.
    :param spend: US dollars that may be spent at most; 0 buys nothing.
    :param json_file: A file for the report as JSON; made before anything is bought.
    :param say: Takes a line about what happens.
    :raises InputError: An argument, the connection or a path cannot be used. Nothing was bought.
    """
    _check_amount(spend)
    hook = BitDanceHook(conn_id)
    records, output = _paths(
        object_storage.records_path(records_path, hook.extra.records_path), output_path, is_needed=spend > 0
    )
    if json_file:
        _make_file(Path(json_file))
    return Check(
        settings=hook.settings,
        records=object_storage.open_folder(records) if records else None,
        images=object_storage.open_folder(output) if output else None,
        output=output,
        amount=spend,
        say=say,
    ).run()


def _check_amount(spend: float) -> None:
    if not (math.isfinite(spend) and 0 <= spend <= MOST_SPENT):
        raise InputError(f"--spend is {spend}", allowed=f"US dollars, at most {MOST_SPENT:g}; 0.04 is enough")


def _paths(records: str, output: str, *, is_needed: bool) -> tuple[str, str]:
    """Return the records path and the output folder; empty where neither is known."""
    if not records and not output:
        if is_needed:
            raise InputError(
                "No folder is set for the images to be bought",
                allowed="--output-path, an absolute path or a URI",
                fix="Pass the folder in which your tasks will store images",
            )
        return "", ""
    output = output or f"{records.rstrip('/')}/check"
    folder = parse_destination(f"{output.rstrip('/')}/", default_stem="check").folder
    return records.rstrip("/") or f"{folder}/{object_storage.RECORDS_FOLDER}", folder


def _make_file(path: Path) -> None:
    """Make the report's file, so that nothing is bought where it cannot be written."""
    try:
        path.open("a").close()
    except OSError as error:
        raise InputError(
            f"The file {shorten(repr(str(path)))} cannot be written: {error.strerror}",
            fix="Pass --json a file in an existing folder",
        ) from None
