"""What the account and the API say for nothing: key, balance, prices, schema, and three wrong requests.

None of the wrong requests can cost anything. A wrong key cannot be charged, to ask for a prediction is free,
and the unknown model is one that cannot be: its name is drawn, and the request has no prompt.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from airflow_provider_bitdance.check.observations import Account, Answer, Schema
from airflow_provider_bitdance.check.requests import Recorder, ask
from airflow_provider_bitdance.check.shapes import names_of
from airflow_provider_bitdance.clock import Clock
from airflow_provider_bitdance.wavespeed import protocol
from airflow_provider_bitdance.wavespeed.client import AsyncClient, ClientSettings, OnResponse
from airflow_provider_bitdance.wavespeed.image_request import ImageRequest
from airflow_provider_bitdance.wavespeed.models import BITDANCE_14B
from airflow_provider_bitdance.wavespeed.protocol import Call, Exchange
from airflow_provider_bitdance.wavespeed.responses import Balance, Prediction, Price
from airflow_provider_bitdance.wavespeed.urls import DEFAULT_BASE_URL

NewClient = Callable[[ClientSettings, OnResponse], AsyncClient]
PROMPT = "A red paper boat on a white table"
SIZES = ("1024*1024", "1280*720", "1000*700")
"""What is bought: a size that BitDance has, the one that "16:9" means here, and one that no list has."""
DOCUMENTED_PRICE = 0.01
HOUR = 3600.0
_CENT = 1e-9


@dataclass(frozen=True, slots=True)
class Figures:
    """Amounts in US dollars, which decide about purchases and are never published.

    :param quotes: By size.
    """

    balance: float | None = None
    quotes: Mapping[str, Price] = field(default_factory=dict)

    def highest(self, size: str) -> float:
        """Return what an image may cost at most: never less than WaveSpeed documents."""
        quote = self.quotes[size]
        return max(quote.price, quote.charged, DOCUMENTED_PRICE)


@dataclass(frozen=True, slots=True)
class AccountReader:
    """Asks for everything that is free.

    :param new_client: Makes a client that reports its responses.
    :param secrets: What must not be published; it grows.
    :param say: Takes a line about what was seen.
    """

    settings: ClientSettings
    new_client: NewClient
    secrets: set[str]
    clock: Clock
    say: Callable[[str], object]

    async def read(self) -> tuple[Account, Figures]:
        """Ask; where the first request fails, for nothing more."""
        recorder = Recorder(self.secrets)
        async with self.new_client(self.settings, recorder) as client:
            answer, balance = await ask(client, recorder, protocol.get_balance(), self.clock)
            account = Account(
                is_wavespeed=self.settings.base_url == DEFAULT_BASE_URL,
                balance=answer,
                has_credit=balance.balance > 0 if balance else None,
                skew=skew_of(recorder.last, self.clock.time()),
            )
            if not isinstance(balance, Balance):
                self.say(f"The balance cannot be read, so the check stops here. {recorder.error}")
                return account, Figures()
            self.say(f"The key works. The balance is ${balance.balance:.2f}.")
            account = await self._refusals(client, recorder, account)
            account = await self._catalogue(client, recorder, account)
            account = await self._lists(client, recorder, account)
            account, quotes = await self._prices(client, recorder, account)
            return account, Figures(balance.balance, quotes)

    async def _refusals(self, client: AsyncClient, recorder: Recorder, account: Account) -> Account:
        """Make three requests that have to be refused."""
        draw = secrets.token_hex(8)
        wrong = ClientSettings(
            f"wsk_not_a_key_{draw}",
            base_url=self.settings.base_url,
            allow_http=True,
            timeout=self.settings.timeout,
        )
        self.secrets.update((draw, wrong.api_key))
        stranger = Recorder(self.secrets)
        async with self.new_client(wrong, stranger) as another:
            wrong_key, _ = await ask(another, stranger, protocol.get_balance(), self.clock)
        known, _ = await ask(client, recorder, protocol.get_prediction(secrets.token_hex(16)), self.clock)
        path = f"{protocol.PREFIX}/wavespeed-ai/no-such-model-{draw}/text-to-image"
        submission: Call[Prediction] = Call("POST", path, Prediction, {})
        model, _ = await ask(client, recorder, submission, self.clock)
        return replace(account, wrong_key=wrong_key, unknown_prediction=known, unknown_model=model)

    async def _catalogue(self, client: AsyncClient, recorder: Recorder, account: Account) -> Account:
        answer, catalogue = await ask(client, recorder, protocol.list_models(), self.clock)
        items = catalogue.items if catalogue else ()
        schema = next((item.request_schema for item in items if item.model_id == BITDANCE_14B), None)
        return replace(
            account,
            catalogue=answer,
            models=len(items),
            schema=schema_of(schema, self.secrets) if schema else None,
        )

    async def _lists(self, client: AsyncClient, recorder: Recorder, account: Account) -> Account:
        plain = protocol.list_predictions(include_inputs=False)
        history, _ = await ask(client, recorder, plain, self.clock)
        with_inputs, _ = await ask(client, recorder, protocol.list_predictions(), self.clock)
        since = datetime.fromtimestamp(self.clock.time() - HOUR, UTC)
        bill, _ = await ask(client, recorder, protocol.search_billings(start_time=since), self.clock)
        return replace(account, history=history, history_with_inputs=with_inputs, bill=bill)

    async def _prices(
        self, client: AsyncClient, recorder: Recorder, account: Account
    ) -> tuple[Account, dict[str, Price]]:
        answers: list[Answer] = []
        quotes: dict[str, Price] = {}
        for request in requests():
            answer, price = await ask(client, recorder, protocol.get_price(request), self.clock)
            answers.append(answer)
            if price is not None:
                quotes[request.size or ""] = price
        figures = quotes.values()
        known = replace(
            account,
            prices=tuple(answers),
            is_documented_price=all(abs(price.charged - DOCUMENTED_PRICE) < _CENT for price in figures)
            if quotes
            else None,
            has_discount=any(price.charged != price.price for price in figures) if quotes else None,
        )
        return known, quotes


def requests() -> list[ImageRequest]:
    """Return what is bought, if anything is; the engine draws the seeds."""
    return [ImageRequest.of(prompt=PROMPT, size=size) for size in SIZES]


def skew_of(exchange: Exchange | None, now: float) -> float | None:
    """Return the seconds by which the API's clock is ahead, if it says the time. An HTTP date has no parts
    of a second."""
    try:
        date = parsedate_to_datetime(exchange.headers.get("date", "")) if exchange else None
        return round(date.timestamp() - now, 1) if date else None
    except (TypeError, ValueError, OverflowError):
        return None


def schema_of(schema: Mapping[str, Any], hidden: set[str]) -> Schema:
    """Describe the JSON schema of the model's inputs."""
    properties = schema.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    size, seed = (
        found if isinstance(found := properties.get(name), dict) else {} for name in ("size", "seed")
    )
    additional, required = schema.get("additionalProperties"), schema.get("required")
    required = [name for name in required if isinstance(name, str)] if isinstance(required, list) else []
    return Schema(
        inputs=names_of(properties, hidden),
        required=names_of(required, hidden),
        additional=additional if isinstance(additional, bool) else None,
        size_type=size["type"] if size.get("type") in ("string", "integer", "object", "array") else "",
        smallest=_whole(size.get("minimum")),
        largest=_whole(size.get("maximum")),
        has_default_size=size["default"] == SIZES[0] if "default" in size else None,
        lowest_seed=_whole(seed.get("minimum")),
        highest_seed=_whole(seed.get("maximum")),
    )


def _whole(value: object) -> int | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**53
    return int(value) if is_number else None  # type: ignore[call-overload]
