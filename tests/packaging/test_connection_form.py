"""The connection's form as the UI's API gives it, the test button, and the five ways on its page."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_bitdance.get_provider_info import CONNECTION_FIELDS, INTEGRATION
from airflow_provider_bitdance.hooks.bitdance import BitDanceHook
from airflow_provider_bitdance.hooks.connection import ConnectionExtra
from airflow_provider_bitdance.local import Options, running_service
from airflow_provider_bitdance.version_compat import AIRFLOW_VERSION

pytestmark = pytest.mark.usefixtures("airflow_db")

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "connection.md").read_text()
CONSOLE = re.findall(r"^```console\n(.*?)^```$", PAGE, re.M | re.S)
EXPORTS = [block for block in CONSOLE if block.startswith("export ")]
(ADD,) = (block for block in CONSOLE if "connections add" in block)
(IMPORT,) = (block for block in CONSOLE if "connections import" in block)
(FILE,) = re.findall(r"^```json\n(.*?)^```$", PAGE, re.M | re.S)

KEY = "wsk_your_key"
EXTRA = ConnectionExtra(max_in_flight=10, requests_per_minute=60, records_path="s3://my_s3@my-bucket/records")
FORM: dict[str, Any] = {
    **{name: field["schema"].get("default") for name, field in CONNECTION_FIELDS.items()},
    **EXTRA.model_dump(include={"max_in_flight", "requests_per_minute", "records_path"}),
}
"""The extra as the UI saves it: fields left alone have their defaults, or null."""


def connection(**fields: Any) -> dict[str, Any]:
    """Return a connection as the UI sends it."""
    extra = json.dumps({**FORM, **fields.pop("extra", {})})
    return {"connection_id": "bitdance_default", "conn_type": "bitdance", "extra": extra, **fields}


def button(**fields: Any) -> list[Any]:
    return ["api", "POST", "/api/v2/connections/test", connection(connection_id="not_saved", **fields)]


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Do everything for which Airflow's own code is asked, in one process."""
    folder = tmp_path_factory.mktemp("connection")
    (folder / "connections.json").write_text(FILE)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nobody = f"http://127.0.0.1:{listener.getsockname()[1]}"
    options = Options(api_key=KEY)
    with running_service(options) as service, running_service(Options(api_key=KEY, balance_usd=0)) as empty:
        address = {"host": "http://127.0.0.1", "port": int(service.url.rpartition(":")[2])}
        saved = connection(password="***", **address)
        steps = {
            "form": ["api", "GET", "/ui/connections/hook_meta", None],
            "right key": button(host=service.url, password=KEY),
            "wrong key": button(host=service.url, password="wsk_another_key"),
            "no network": button(host=nobody, password=KEY),
            "wrong address": button(host=f"{service.url}/elsewhere", password=KEY),
            "no credit": button(host=empty.url, password=KEY),
            "slip": button(host=service.url, password=KEY, extra={"recods_path": "/data"}),
            "wrong field": button(host=service.url, password=KEY, extra={"max_in_flight": 0}),
            "save": ["api", "POST", "/api/v2/connections", connection(password=KEY)],
            "the UI": ["read", "bitdance_default"],
            "remove": ["api", "DELETE", "/api/v2/connections/bitdance_default", None],
            "save with port": ["api", "POST", "/api/v2/connections", connection(password=KEY, **address)],
            "saved": ["api", "POST", "/api/v2/connections/test", saved],
            "remove it": ["api", "DELETE", "/api/v2/connections/bitdance_default", None],
            "add": ["cli", ADD],
            "airflow connections add": ["read", "bitdance_default"],
            "delete": ["cli", "airflow connections delete bitdance_default"],
            "import": ["cli", IMPORT],
            "airflow connections import": ["read", "bitdance_default"],
            "delete it": ["cli", "airflow connections delete bitdance_default"],
        }
        settings = {
            "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "no_proxy": "127.0.0.1",
        }
        done = subprocess.run(
            [sys.executable, str(Path(__file__).with_name("airflow_steps.py"))],
            input=json.dumps(steps),
            cwd=folder,
            env={**os.environ, **settings},
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr[-5000:]
    results: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return results


@pytest.fixture
def form(given: dict[str, Any]) -> dict[str, Any]:
    """Return what the UI builds the form from."""
    status, types = given["form"]
    assert status == 200
    (found,) = (each for each in types if each["connection_type"] == "bitdance")
    return dict(found)


def test_the_ui_offers_the_connection_type_by_its_name(form: dict[str, Any]) -> None:
    assert form["hook_name"] == INTEGRATION


def test_the_form_shows_key_and_address_and_hides_what_is_not_used(form: dict[str, Any]) -> None:
    standard = form["standard_fields"]

    assert standard["password"]["title"] == "API key"
    assert standard["host"]["title"] == "API address"
    assert standard["host"]["placeholder"] == "https://api.wavespeed.ai"
    assert standard["port"]["placeholder"] == "443"
    shown = {name for name, field in standard.items() if not (field and field["hidden"])}
    assert shown == {"description", "host", "port", "password"}


def test_the_form_shows_every_extra_field_in_order_and_no_other(form: dict[str, Any]) -> None:
    assert list(form["extra_fields"]) == list(CONNECTION_FIELDS)


@pytest.mark.parametrize("name", CONNECTION_FIELDS)
def test_an_extra_field_is_typed_and_has_label_help_and_default(name: str, form: dict[str, Any]) -> None:
    declared, shown = CONNECTION_FIELDS[name], form["extra_fields"][name]
    kind, default = declared["schema"]["type"][0], declared["schema"].get("default")
    if AIRFLOW_VERSION < (3, 2) and kind not in ("integer", "boolean"):
        kind, default = "string", str(default or "")

    assert shown["schema"]["type"] == [kind, "null"]
    assert (shown["schema"]["title"], shown["description"]) == (declared["label"], declared["description"])
    assert shown["value"] == default


@pytest.mark.parametrize(
    ("case", "works", "said"),
    [
        ("right key", True, r"The key works\. The balance is \$100\.00\."),
        ("no credit", False, r"The key works, but there is no credit: the balance is \$0\.00\. Top up .*"),
        ("wrong key", False, r"The API key was refused\. Check it; .*"),
        ("no network", False, r"http://127\.0\.0\.1:\d+ could not be reached\. .*\(.*Connection refused\)"),
        ("wrong address", False, r"http://.*/elsewhere is not the URL of a WaveSpeed API\. .*"),
        ("slip", True, r"The key works\. .*'recods_path' \(did you mean records_path\?\)\."),
        ("wrong field", False, r".*max_in_flight is 0: .* Correct the connection\."),
        # As the UI does it: without the key, which it does not know.
        ("saved", True, r"The key works\. .*"),
    ],
)
def test_the_test_button_says_what_is_wrong(case: str, works: bool, said: str, given: dict[str, Any]) -> None:
    status, answer = given[case]

    assert (status, answer["status"]) == (200, works), answer
    assert re.fullmatch(said, answer["message"])
    assert KEY not in answer["message"]


def test_the_page_tells_what_the_button_says(given: dict[str, Any]) -> None:
    rows = re.findall(r"^\| (.*?) \| (.*?) \|$", PAGE.partition("| what it finds")[2], re.M)[1:6]
    cases = ("right key", "no credit", "wrong key", "no network", "wrong address")

    def neutral(text: str) -> str:
        return re.sub(r"^http\S+|\$\d+\.\d\d", "…", text)

    assert [neutral(said) for _, said in rows] == [neutral(given[case][1]["message"]) for case in cases]


@pytest.mark.parametrize("way", ["the UI", "airflow connections add", "airflow connections import"])
def test_ways_into_the_database_give_the_same_connection(way: str, given: dict[str, Any]) -> None:
    assert given[way] == f"{KEY} ClientSettings(base_url='https://api.wavespeed.ai', api_key='***') {EXTRA!r}"


@pytest.mark.parametrize("export", EXPORTS, ids=["JSON", "URI"])
def test_ways_into_the_environment_give_the_same_connection(
    export: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "AIRFLOW_CONN_BITDANCE_DEFAULT"
    script = f'{export}printf %s "${name}"'
    value = subprocess.run(["bash", "-c", script], check=True, capture_output=True, text=True).stdout
    monkeypatch.setenv(name, value)

    hook = BitDanceHook()

    assert (hook.settings.api_key, hook.settings.base_url) == (KEY, "https://api.wavespeed.ai")
    assert hook.extra == EXTRA
