"""How submit responses, results and the history repeat what was requested."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from airflow_provider_bitdance.local import Options
from airflow_provider_bitdance.local.echo import COMMON_DEFAULTS, EXPANSION, Echo
from tests.contract.local.caller import Caller, Clock, calling

SENT = {"prompt": "a lighthouse", "size": "1024*768"}
KNOWN = {**SENT, "seed": -1}
WAYS: dict[Echo, dict[str, object] | None] = {
    "none": None,
    "intact": SENT,
    "defaults": {**KNOWN, **COMMON_DEFAULTS},
    "size": {**KNOWN, "size": "1024x768"},
    "snapped": {**KNOWN, "size": "960*704"},
    "no_size": {"prompt": "a lighthouse", "seed": -1},
    "text_seed": {**KNOWN, "seed": "-1"},
    "no_seed": SENT,
    "cut": {**KNOWN, "prompt": "a ligh"},
    "expanded": {**KNOWN, "prompt": "a lighthouse" + EXPANSION},
}


def _item(caller: Caller, **query: object) -> dict[str, Any]:
    (item,) = caller.history(**query).json()["data"]["items"]
    return dict(item)


def test_a_submit_shows_the_inputs_with_all_defaults_and_nothing_else_does(caller: Caller) -> None:
    submitted = caller.ask(**SENT).json()["data"]
    assert submitted["input"] == WAYS["defaults"]
    assert list(submitted["input"])[:2] == ["prompt", "size"], "what was sent comes first"
    assert "prompt" not in caller.read(submitted["id"]).text + caller.history(include_inputs=True).text


@pytest.mark.parametrize("way", get_args(Echo))
def test_each_place_shows_the_inputs_in_its_own_way(clock: Clock, way: Echo) -> None:
    with calling(Options(history_echo=way, result_echo=way, submit_echo=way), clock) as caller:
        submitted = caller.ask(**SENT).json()["data"]
        for shown in (submitted, caller.data(submitted["id"]), _item(caller)):
            assert shown.get("input") == WAYS[way]


def test_the_history_may_show_them_under_another_key(clock: Clock) -> None:
    with calling(Options(history_echo="intact", history_inputs_key="inputs"), clock) as caller:
        caller.ask(**SENT)
        assert (_item(caller).get("input"), _item(caller)["inputs"]) == (None, SENT)


def test_the_history_may_show_them_only_where_the_request_says_so(clock: Clock) -> None:
    with calling(Options(history_echo="intact", include_inputs="needed"), clock) as caller:
        caller.ask(**SENT)
        assert _item(caller, include_inputs=True)["input"] == SENT
        assert "input" not in _item(caller, include_inputs=False)
        assert "input" not in _item(caller)


def test_the_flag_may_be_refused(clock: Clock) -> None:
    with calling(Options(include_inputs="refused"), clock) as caller:
        refused = caller.history(include_inputs=True)
        assert (refused.status_code, refused.json()["message"]) == (
            400,
            'invalid request body, Error at "/include_inputs": property "include_inputs" is unsupported',
        )
        assert caller.history().status_code == 200


@pytest.mark.parametrize(
    ("way", "shown"), [("snapped", {"image_size": "1:1"}), ("cut", {"prompt": "a "}), ("no_seed", {})]
)
def test_a_model_with_other_parameters_is_shown_with_those(
    clock: Clock, way: Echo, shown: dict[str, object]
) -> None:
    with calling(Options(submit_echo=way), clock) as caller:
        answer = caller.http.post("/api/v3/recraft-ai/recraft-v4/text-to-image", json={"prompt": "a fox"})
        assert answer.json()["data"]["input"] == {"prompt": "a fox", "image_size": "1:1", **shown}
