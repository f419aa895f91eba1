"""The command line without a service: every option arrives, wrong ones are refused by name."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from airflow_provider_bitdance.local import faults, limits, manual
from airflow_provider_bitdance.local.__main__ import _options, _parser, main
from airflow_provider_bitdance.local.catalogue import MODELS
from airflow_provider_bitdance.local.options import Options

GIVEN = (
    *("--api-key", "k", "--latency", "80%:1-2,20%:9", "--balance", "5", "--pictures", "fast"),
    *("--api-latency", "0.3"),
    *("--min-pixels", "9", "--submit-echo", "none", "--result-echo", "intact", "--history-echo", "no_seed"),
    *("--history-inputs-key", "inputs", "--include-inputs", "needed", "--history-lag", "0-90"),
    *("--history-drop", "0.1", "--history-filter", "date"),
    *("--seed", "7", "--tier", "gold", "--requests-per-minute", "11"),
    *("--max-in-flight", "12", "--above-limit", "queue", "--state", "state.sqlite"),
)


def test_every_option_arrives() -> None:
    options = _options(_parser().parse_args(GIVEN))
    assert options == Options(
        api_key="k",
        latency="80%:1-2,20%:9",
        api_latency=0.3,
        balance_usd=5.0,
        pictures="fast",
        min_pixels=9,
        submit_echo="none",
        result_echo="intact",
        history_echo="no_seed",
        history_inputs_key="inputs",
        include_inputs="needed",
        history_lag="0-90",
        history_drop=0.1,
        history_filter="date",
        seed=7,
        tier="gold",
        requests_per_minute=11,
        max_in_flight=12,
        above_limit="queue",
        state=Path("state.sqlite"),
    )
    assert _options(_parser().parse_args(["--format", "webp"])).picture_format == "webp"
    defaults = dataclasses.asdict(Options())
    same = [name for name, value in dataclasses.asdict(options).items() if value == defaults[name]]
    assert same == ["picture_format"], "give each new option another value here"


def test_without_options_it_is_a_service_of_two_seconds() -> None:
    assert _options(_parser().parse_args([])) == Options(latency="2")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("--latency", "80%:1,10%:2"),
        ("--api-latency", "-1"),
        ("--api-latency", "inf"),
        ("--balance", "nan"),
        ("--balance", "much"),
        ("--tier", "platinum"),
        ("--requests-per-minute", "0"),
        ("--max-in-flight", "1.5"),
        ("--history-lag", "90-0"),
        ("--history-drop", "1.1"),
        ("--history-filter", "none"),
        ("--submit-echo", "loud"),
        ("--above-limit", "wait"),
        ("--pictures", "none"),
        ("--state", "/nonexistent/state"),
    ],
)
def test_a_wrong_value_is_refused_by_name(capsys: pytest.CaptureFixture[str], name: str, value: str) -> None:
    with pytest.raises(SystemExit) as end:
        main([name, value])
    assert end.value.code == 2
    assert f"argument {name}: " in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["fast", "photo"])
def test_pictures_for_load_in_another_format_are_refused(
    capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    with pytest.raises(SystemExit):
        main(["--pictures", kind, "--format", "jpeg"])
    assert f"argument --pictures: {kind} images are PNG" in capsys.readouterr().err


def test_the_help_is_a_manual_that_fits_the_screen() -> None:
    help_text = _parser().format_help()
    assert max(map(len, help_text.splitlines())) <= manual.WIDTH
    assert "%%" not in help_text
    for model in MODELS.values():
        assert f"{model.id}  ${model.price}" in help_text
    for name, tier in limits.TIERS.items():
        assert re.search(rf"{name} +{tier.per_minute} +{tier.in_flight}$", help_text, re.M)


def test_the_examples_of_the_manual_are_taken() -> None:
    lines = [line.strip() for line in manual.text().splitlines()]
    options = [line.split() for line in lines if line.startswith("--")]
    assert len(options) >= 6
    for given in options:
        _options(_parser().parse_args(given))
    rules = [line for line in lines if line.startswith('{"on"')]
    assert len([faults.parse(json.loads(rule)) for rule in rules]) >= 3
