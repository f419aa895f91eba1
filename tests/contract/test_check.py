"""A check of the local service in each of its modes, over real sockets: the table says the right thing.

A mode is a row of :data:`MODES`. A new mode of the service is one more.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_bitdance.__main__ import FINDINGS, FINE, main
from airflow_provider_bitdance.check.account import PROMPT
from airflow_provider_bitdance.check.assumptions import ASSUMPTIONS
from airflow_provider_bitdance.check.verdicts import Verdict
from airflow_provider_bitdance.local import LocalService, Options, running_service
from airflow_provider_bitdance.wavespeed.client import Client, ClientSettings
from tests.builders import API_KEY, connection_to
from tests.unit.support import Busy, FakeClock, a_request

BALANCE = 73.1904
ECHO: dict[str, Any] = {"result_echo": "intact", "history_echo": "intact"}
OF_PURCHASES = frozenset(
    each.name for each in ASSUMPTIONS if each.name in ("amount", "stored", "responses", "submission")
) | frozenset(
    {
        *("known_at_once", "statuses", "duration", "history_shows", "history_by_model", "history_by_date"),
        *("history_as_listed", "history_filters", "echo", "exact_echo", "native_size", "preset_size"),
        *("free_size", "output", "extension", "billed", "charge", "balance", "deletion", "gone"),
    }
)
UNSEEN = frozenset({"records_shared"})
"""What no check of this service sees: its disk is this machine's, and its schema has no pixels."""
NO_ECHO = frozenset({"exact_echo"})
AFTER_FIRST = frozenset(
    {"preset_size", "free_size", "billed", "balance", "deletion", "gone", "output", "extension"}
)
"""What is not seen where the first image is not stored."""
UNWATCHED = frozenset(
    {
        *("known_at_once", "statuses", "duration", "history_shows", "history_by_model", "history_by_date"),
        *("history_as_listed", "history_filters", "echo", "exact_echo"),
    }
)
"""What is not seen where no response to a purchase names it."""


@dataclass(frozen=True)
class Mode:
    """How the service behaves, and what is to be said of it.

    :param name: For the test's id.
    :param options: Of the service.
    :param faults: Its fault rules.
    :param fails: The assumptions that do not hold.
    :param unseen: Those that are not seen, besides :data:`UNSEEN`.
    :param bought: How many images are billed.
    :param password: The key that the connection has.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    faults: tuple[dict[str, Any], ...] = ()
    fails: frozenset[str] | set[str] = frozenset()
    unseen: frozenset[str] | set[str] = frozenset()
    bought: int = 3
    password: str | None = None


def fault(on: str, kind: str, **more: Any) -> dict[str, Any]:
    return {"on": on, "kind": kind, **more}


MODES = [
    Mode("as documented", fails={"echo"}, unseen=NO_ECHO),
    Mode("inputs are echoed", ECHO),
    Mode("images take their time", {**ECHO, "latency": 40}, fails={"duration"}),
    Mode("jpeg", {**ECHO, "picture_format": "jpeg"}),
    Mode("one in flight, others are refused", {**ECHO, "max_in_flight": 1, "latency": 3}),
    Mode(
        "one in flight, others queue",
        {**ECHO, "max_in_flight": 1, "latency": 3, "above_limit": "queue"},
    ),
    Mode("the tier of a new account", {**ECHO, "tier": "bronze"}),
    Mode(
        "no credit",
        {"balance_usd": 0.0},
        fails={"credit", "amount"},
        unseen=OF_PURCHASES - {"amount"},
        bought=0,
    ),
    Mode(
        "too little credit",
        {"balance_usd": 0.02},
        fails={"amount"},
        unseen=OF_PURCHASES - {"amount"},
        bought=0,
    ),
    Mode(
        "a wrong key",
        fails={"key"},
        unseen={
            *("credit", "wrong_key", "unknown_prediction", "unknown_model", "quotes", "price", "catalogue"),
            *("inputs", "sides", "seeds", "history", "history_inputs", "bill", *OF_PURCHASES),
        },
        bought=0,
        password="another-key",
    ),
    Mode(
        "the catalogue is cut off",
        ECHO,
        (fault("models", "truncated_json"),),
        fails={"catalogue"},
        unseen={"inputs", "sides", "seeds"},
    ),
    Mode(
        "the catalogue is down",
        ECHO,
        (fault("models", "status", status=503, body="html"),),
        unseen={"catalogue", "inputs", "sides", "seeds"},
    ),
    Mode(
        "no price",
        ECHO,
        (fault("price", "envelope", code=404, message="model not found"),),
        fails={"quotes"},
        unseen={"price", *OF_PURCHASES},
        bought=0,
    ),
    Mode(
        "the history is forbidden",
        ECHO,
        (fault("history", "status", status=403),),
        fails={"history", "history_inputs", "history_shows"},
        unseen={"history_by_model", "history_by_date", "history_as_listed", "history_filters"},
    ),
    Mode(
        "the bill is forbidden",
        ECHO,
        (fault("billing", "status", status=403),),
        fails={"bill", "billed"},
        unseen={"charge"},
    ),
    Mode(
        "the first response is lost, and the history proves it",
        ECHO,
        (fault("submit", "reset", after_create=True, times=1),),
        unseen={*UNWATCHED, "submission"},
    ),
    Mode(
        "the first response is lost",
        {},
        (fault("submit", "reset", after_create=True, times=1),),
        fails={"stored", "responses"},
        unseen={"charge", *UNWATCHED, *AFTER_FIRST, "submission", "native_size"},
        bought=1,
    ),
    Mode(
        "the first response has no id",
        {},
        (fault("submit", "no_id", times=1),),
        fails={"stored", "responses", "submission"},
        unseen={"charge", *UNWATCHED, *AFTER_FIRST, "native_size"},
        bought=1,
    ),
    Mode(
        "submissions are refused",
        {},
        (fault("submit", "status", status=400, message="no"),),
        fails={"stored", "submission"},
        unseen={"charge", *UNWATCHED, *AFTER_FIRST, "native_size"},
        bought=0,
    ),
    Mode(
        "the prediction fails",
        ECHO,
        (fault("submit", "failed", times=1),),
        fails={"stored"},
        unseen={"charge", *AFTER_FIRST, "native_size"},
        bought=1,
    ),
    Mode(
        "the model refuses the size afterwards",
        ECHO,
        (fault("submit", "failed", code=1401, error="image size must be at least 9 pixels", times=1),),
        fails={"stored", "native_size"},
        unseen={"charge", *AFTER_FIRST},
        bought=1,
    ),
    Mode("an image is flagged", ECHO, (fault("submit", "nsfw", times=1),)),
    Mode(
        "the prediction never ends",
        ECHO,
        (fault("submit", "never_finish", times=1),),
        fails={"stored", "duration"},
        unseen={*AFTER_FIRST, "native_size"},
        bought=1,
    ),
    Mode(
        "a prediction is unknown at first",
        {**ECHO, "latency": 4},
        (fault("result", "not_found", reads=2),),
        fails={"known_at_once"},
    ),
    Mode(
        "a status that nobody knows",
        {**ECHO, "latency": 4},
        (fault("result", "unknown_status", times=1),),
        fails={"statuses"},
    ),
    Mode("no outputs yet", ECHO, (fault("result", "null_outputs", times=1),)),
    Mode(
        "the output is no image",
        ECHO,
        (fault("output", "wrong_type"),),
        fails={"stored", "output"},
        unseen={*(AFTER_FIRST - {"output"}), "native_size"},
        bought=1,
    ),
    Mode(
        "the output is forbidden",
        ECHO,
        (fault("output", "status", status=403),),
        fails={"stored", "output"},
        unseen={*(AFTER_FIRST - {"output"}), "native_size"},
        bought=1,
    ),
    Mode("half a download at first", ECHO, (fault("output", "truncated", times=1),)),
    Mode(
        "nothing can be deleted",
        ECHO,
        (fault("delete", "status", status=403),),
        fails={"deletion"},
        unseen={"gone"},
    ),
    Mode(
        "deletion is down",
        ECHO,
        (fault("delete", "status", status=503),),
        unseen={"deletion", "gone"},
    ),
]


LISTED = frozenset({"history_by_model", "history_by_date", "history_as_listed"})


def echoing(way: str) -> dict[str, Any]:
    return {"result_echo": way, "history_echo": way}


MODES += [
    Mode("the history lags", {**ECHO, "history_lag": 30}),
    Mode("the history lags for long", {**ECHO, "history_lag": 300}, fails={"history_shows"}, unseen=LISTED),
    Mode("the history shows nothing", {**ECHO, "history_drop": 1.0}, fails={"history_shows"}, unseen=LISTED),
    Mode(
        "the filter by model matches nothing",
        {**ECHO, "history_filter": "model"},
        fails={"history_by_model", "history_as_listed"},
    ),
    Mode(
        "the filter by date matches nothing",
        {**ECHO, "history_filter": "date"},
        fails={"history_by_date", "history_as_listed"},
    ),
    Mode("inputs are shown on request", {"history_echo": "intact", "include_inputs": "needed"}),
    Mode("inputs may not be requested", {**ECHO, "include_inputs": "refused"}, fails={"history_inputs"}),
    Mode("the history calls them inputs", {"history_echo": "intact", "history_inputs_key": "inputs"}),
    Mode("only results show inputs", {"result_echo": "intact"}),
    Mode("defaults are echoed, too", echoing("defaults")),
    *(
        Mode(f"the echo is ours, and altered: {way}", echoing(way), fails={"exact_echo"})
        for way in ("size", "no_size", "text_seed")
    ),
    *(
        Mode(f"the echo proves nothing: {way}", echoing(way), fails={"echo", "exact_echo"})
        for way in ("snapped", "no_seed", "cut", "expanded")
    ),
    *(Mode(f"{on} comes without an envelope", ECHO, (fault(on, "bare"),)) for on in ("submit", "result")),
    Mode(
        "small sizes fail afterwards",
        {**ECHO, "min_pixels": 1_000_000},
        fails={"stored", "preset_size", "free_size"},
        unseen={"balance"},
    ),
]


@dataclass(frozen=True)
class Shop:
    """A service in a mode, checked once.

    :ivar stranger: Id of a prediction that another program bought.
    """

    service: LocalService
    folder: Path

    def check(self, *arguments: str) -> tuple[int, dict[str, Any], str]:
        """Run the command; return its exit code, its report and the text of that."""
        file = self.folder / "report.json"
        given = ["check", "--output-path", f"{self.folder}/images", "--json", str(file), *arguments]
        code = main(given)
        text = file.read_text()
        return code, json.loads(text), text

    def buy_as_stranger(self) -> str:
        with Client(ClientSettings(API_KEY, base_url=self.service.url)) as client:
            return client.submit(a_request("A heron on the weir", seed=77123, size="256*256")).id


@pytest.fixture
def checked(
    clock: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Mode], tuple[Shop, int, dict[str, Any], str]]:
    """Return what checks a mode: with its shop, exit code, report and the text of that."""
    monkeypatch.setattr("airflow_provider_bitdance.check.run.ThreadPoolExecutor", Busy)
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")

    def run(mode: Mode) -> tuple[Shop, int, dict[str, Any], str]:
        options = Options(**({"api_key": API_KEY, "balance_usd": BALANCE} | mode.options))
        with running_service(options, clock=clock.time) as service:
            monkeypatch.setenv(
                "AIRFLOW_CONN_BITDANCE_DEFAULT", connection_to(service, password=mode.password)
            )
            for rule in mode.faults:
                service.add_fault(**rule)
            shop = Shop(service, tmp_path)
            return shop, *shop.check("--spend", "0.04")

    return run


def names(report: dict[str, Any], verdict: Verdict) -> set[str]:
    return {name for name, found in report["verdicts"].items() if found == verdict}


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
def test_the_table_of_a_mode(
    mode: Mode, checked: Callable[[Mode], tuple[Shop, int, dict[str, Any], str]]
) -> None:
    shop, code, report, text = checked(mode)

    assert names(report, Verdict.FAILS) == set(mode.fails)
    assert names(report, Verdict.NOT_SEEN) == {*mode.unseen, *UNSEEN}
    assert code == (FINDINGS if mode.fails else FINE)
    assert shop.service.bill().submitted == mode.bought
    assert shop.service.bill().cost_usd <= 0.04
    assert_discreet(text, shop.service)


def assert_discreet(text: str, service: LocalService) -> None:
    """Search a report for all that belongs to the account."""
    made = service.service._ledger.predictions.values()
    secrets = [
        *(
            API_KEY,
            "another-key",
            PROMPT,
            "A heron on the weir",
            service.url,
            f":{service.port}",
            "/outputs/",
        ),
        *("73.19", "73.16", "http:", "https:"),
        *(each.id for each in made),
        *(str(each.seed) for each in made),
    ]
    assert [secret for secret in secrets if secret.lower() in text.lower()] == []


def test_what_others_bought_is_neither_deleted_nor_reported(
    clock: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_bitdance.check.run.ThreadPoolExecutor", Busy)
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    options = Options(api_key=API_KEY, balance_usd=BALANCE, **ECHO)
    with running_service(options, clock=clock.time) as service:
        monkeypatch.setenv("AIRFLOW_CONN_BITDANCE_DEFAULT", connection_to(service))
        shop = Shop(service, tmp_path)
        stranger = shop.buy_as_stranger()

        code, _, text = shop.check("--spend", "0.04")

        assert code == FINE
        assert stranger in [each["id"] for each in service.predictions()]
        assert len(service.predictions()) == 3  # theirs, and two of the three that were bought
        assert_discreet(text, service)


def test_without_an_amount_nothing_is_bought(
    clock: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_bitdance.check.run.ThreadPoolExecutor", Busy)
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    with running_service(Options(api_key=API_KEY), clock=clock.time) as service:
        monkeypatch.setenv("AIRFLOW_CONN_BITDANCE_DEFAULT", connection_to(service))

        code, report, _ = Shop(service, tmp_path).check()

        assert code == FINE
        assert names(report, Verdict.NOT_SEEN) == {*OF_PURCHASES, *UNSEEN}
        assert service.bill().submitted == 0


def test_the_rows_know_what_needs_a_purchase() -> None:
    assert {each.name for each in ASSUMPTIONS} >= OF_PURCHASES
