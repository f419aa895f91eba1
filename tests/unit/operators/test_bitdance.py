"""The operator as Airflow calls it, against the local service, on a clock that moves when somebody sleeps."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import re
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.lineage import hook as lineage
from airflow.providers.common.compat.sdk import (
    DAG,
    AirflowFailException,
    AirflowSkipException,
    Stats,
    TaskDeferred,
)
from PIL import Image

from airflow_provider_bitdance import exceptions
from airflow_provider_bitdance.engine import Waiting
from airflow_provider_bitdance.local import LocalService, Options, running_service
from airflow_provider_bitdance.operators.bitdance import BitDanceTextToImageOperator
from airflow_provider_bitdance.operators.deferral import hand_over
from airflow_provider_bitdance.triggers.bitdance import BitDanceTrigger
from airflow_provider_bitdance.version_compat import AIRFLOW_VERSION, SHORTEST_DEFERRAL
from airflow_provider_bitdance.wavespeed.image_request import BITDANCE_14B
from tests.builders import API_KEY, connection_to, context, posts, trigger_again
from tests.unit.support import FakeClock

try:
    from airflow.sdk.lineage import HookLineageCollector
except ImportError:  # Airflow 3.1
    from airflow.lineage.hook import HookLineageCollector

PROMPT = "A lighthouse at dawn"
READY = {"reason": "ready", "ended": 1, "pending": 0}


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "images"


def operator(output: Path, **given: Any) -> BitDanceTextToImageOperator:
    arguments: dict[str, Any] = {
        "task_id": "image",
        "prompt": PROMPT,
        "size": "256*256",
        "output_path": f"{output}/",
        "retries": 2,
    }
    return BitDanceTextToImageOperator(**{**arguments, **given})


def deferred(operator: BitDanceTextToImageOperator, **ti: Any) -> TaskDeferred:
    """Execute until the operator hands over to the triggerer."""
    with pytest.raises(TaskDeferred) as handed_over:
        operator.execute(context(**ti))
    return handed_over.value


def event_of(trigger: BitDanceTrigger) -> dict[str, Any]:
    """Run a trigger as the triggerer does, from what Airflow keeps of it."""

    async def events() -> list[dict[str, Any]]:
        return [event.payload async for event in trigger_again(trigger).run()]

    (event,) = asyncio.run(events())
    return event


# What a Dag file gets wrong


@pytest.mark.parametrize(
    ("argument", "value", "allowed"),
    [
        ("if_exists", "always", "reuse, regenerate, fail"),
        ("if_exists", None, "reuse, regenerate, fail"),
        ("nsfw", "keep", "fail, skip, allow"),
        ("on_size_mismatch", "resize", "warn, fail"),
        ("defer_after", -1, "a number of seconds, 0 to 604800"),
        ("defer_after", "20", "a number of seconds, 0 to 604800"),
        ("defer_after", True, "a number of seconds, 0 to 604800"),
        ("timeout", 0, "a number of seconds, 1 to 604800"),
        ("timeout", None, "a number of seconds, 1 to 604800"),
        ("timeout", float("nan"), "a number of seconds, 1 to 604800"),
        ("timeout", float("inf"), "a number of seconds, 1 to 604800"),
        ("timeout", 1e15, "a number of seconds, 1 to 604800"),
        ("timeout", timedelta(minutes=10), "a number of seconds, 1 to 604800"),
        ("poll_interval", 0, "a number of seconds, 0.1 to 604800"),
        ("poll_interval", float("inf"), "a number of seconds, 0.1 to 604800"),
        ("on_lost_response", "retry", "buy_again, fail"),
        ("max_cost_usd", -1, "a number of US dollars, 0 to 1e+06"),
        ("max_cost_usd", "one", "a number of US dollars, 0 to 1e+06"),
        ("max_cost_usd", "nan", "a number of US dollars, 0 to 1e+06"),
        ("max_cost_usd", "snan", "a number of US dollars, 0 to 1e+06"),
        ("max_cost_usd", Decimal("sNaN"), "a number of US dollars, 0 to 1e+06"),
        ("max_cost_usd", True, "a number of US dollars, 0 to 1e+06"),
        ("deferrable", "False", "True or False, without quotes"),
        ("deferrable", "{{ params.deferrable }}", "True or False, without quotes"),
        ("check_balance", "no", "True or False, without quotes"),
        ("retry_failed", 0, "True or False, without quotes"),
        ("retry_failed", None, "True or False, without quotes"),
    ],
)
def test_a_wrong_argument_is_refused_when_the_dag_is_parsed(
    output: Path, argument: str, value: object, allowed: str
) -> None:
    with DAG("dag", schedule=None), pytest.raises(ValueError, match=r"A retry does not help\.") as refused:
        operator(output, **{argument: value})

    assert f"{argument} is {value!r}. Allowed: {allowed}" in str(refused.value)


@pytest.mark.parametrize("argument", ["prompt", "output_path"])
def test_what_has_no_default_has_to_be_given(output: Path, argument: str) -> None:
    given = {"task_id": "image", "prompt": PROMPT, "output_path": f"{output}/"}
    del given[argument]

    with pytest.raises(TypeError, match=argument):
        BitDanceTextToImageOperator(**given)


# What a template renders to

BAD_INPUTS = [
    ({"prompt": " \n"}, "prompt", r"' \n'", "at least one of them visible"),
    ({"prompt": ""}, "prompt", "''", "at least one of them visible"),
    ({"prompt": None}, "prompt", "None", "at least one of them visible"),
    ({"prompt": 42}, "prompt", "42", "at least one of them visible"),
    ({"prompt": {"text": "a"}}, "prompt", "{'text': 'a'}", "at least one of them visible"),
    ({"prompt": ["a"]}, "prompt", "['a']", "at least one of them visible"),
    ({"size": "large"}, "size", "'large'", "1:1, 16:9"),
    ({"size": "None"}, "size", "'None'", "1:1, 16:9"),
    ({"size": ""}, "size", "''", "1:1, 16:9"),
    ({"size": "1024"}, "size", "'1024'", "1:1, 16:9"),
    ({"size": "255*1024"}, "size", "'255*1024'", "256 to 1536"),
    ({"size": "1024*1537"}, "size", "'1024*1537'", "256 to 1536"),
    ({"size": "-512*512"}, "size", "'-512*512'", "256 to 1536"),
    ({"size": None, "width": 512}, "height", "missing", "together with width"),
    ({"size": None, "height": "512"}, "width", "missing", "together with height"),
    ({"size": None, "width": "wide", "height": 512}, "width", "'wide'", "256 to 1536"),
    ({"size": None, "width": 512, "height": 100}, "height", "100", "256 to 1536"),
    ({"size": None, "width": True, "height": 512}, "width", "True", "256 to 1536"),
    ({"size": "1:1", "width": 512, "height": 512}, "size", "'1:1'", "without size"),
    ({"size": "1:1", "width": 512}, "size", "'1:1'", "without size"),
    ({"seed": "abc"}, "seed", "'abc'", "-1 (any seed) to 2147483647"),
    ({"seed": ""}, "seed", "''", "-1 (any seed) to 2147483647"),
    ({"seed": True}, "seed", "True", "-1 (any seed) to 2147483647"),
    ({"seed": 1.5}, "seed", "1.5", "-1 (any seed) to 2147483647"),
    ({"seed": -2}, "seed", "-2", "-1 (any seed) to 2147483647"),
    ({"seed": 2**31}, "seed", "2147483648", "-1 (any seed) to 2147483647"),
    ({"model": "../x"}, "model", "'../x'", "path of a WaveSpeed text-to-image model"),
    ({"model": "predictions/../x"}, "model", "'predictions/../x'", "path of a WaveSpeed"),
    ({"model": "https://example.com/x"}, "model", "'https://example.com/x'", "path of a WaveSpeed"),
    ({"model": None}, "model", "None", "path of a WaveSpeed"),
    ({"output_path": ""}, "output_path", "''", "an absolute path or a URI"),
    ({"output_path": "  "}, "output_path", "''", "an absolute path or a URI"),
    ({"output_path": None}, "output_path", "'None'", "an absolute path or a URI"),
    ({"output_path": "images/"}, "output_path", "'images/'", "an absolute path or a URI"),
    ({"output_path": "covers:today/a"}, "output_path", "'covers:today/a'", "an absolute path or a URI"),
    ({"output_path": "/"}, "output_path", "'file:///'", "an absolute path or a URI"),
    ({"output_path": "/data/../images/"}, "output_path", "/data/../images/", "an absolute path or a URI"),
    ({"records_path": "records"}, "records_path", "'records'", "an absolute path or a URI"),
    ({"records_path": ["records"]}, "records_path", "['records']", "an absolute path or a URI"),
]


@pytest.mark.parametrize(
    ("given", "field", "shown", "allowed"), BAD_INPUTS, ids=lambda value: str(value)[:40]
)
def test_a_bad_input_fails_without_retry_before_any_request(
    local: LocalService, output: Path, given: dict[str, Any], field: str, shown: str, allowed: str
) -> None:
    with pytest.raises(AirflowFailException) as failed:
        operator(output, **given).execute(context())

    what, _, rest = str(failed.value).partition("Allowed: ")
    assert field in what
    assert shown in what
    assert allowed in rest
    assert rest.endswith("A retry does not help. Nothing was charged for it.")
    assert local.requests() == []
    assert not output.exists()


@pytest.mark.parametrize("folder", ["nowhere://bucket/images", "http://[images/a"])
def test_an_address_that_this_worker_cannot_open_fails_without_retry(
    local: LocalService, output: Path, folder: str
) -> None:
    with pytest.raises(AirflowFailException, match=re.escape(folder)) as failed:
        operator(output, output_path=f"{folder}/").execute(context())

    assert "Install the Airflow provider" in str(failed.value)
    assert local.requests() == []


@pytest.mark.parametrize("argument", ["output_path", "records_path"])
def test_a_file_address_with_two_slashes_is_no_absolute_path(
    local: LocalService, output: Path, argument: str
) -> None:
    with pytest.raises(
        AirflowFailException, match=rf"{argument} is 'file://data/images/x': not an absolute path"
    ) as failed:
        operator(output, **{argument: "file://data/images/x"}).execute(context())

    assert "file:///data/images" in str(failed.value)
    assert local.requests() == []


def test_a_long_prompt_is_cut_in_errors(local: LocalService, output: Path) -> None:
    with pytest.raises(AirflowFailException) as failed:
        operator(output, prompt=["long " * 100]).execute(context())

    assert "…" in str(failed.value)
    assert len(str(failed.value)) < 300


@pytest.mark.parametrize(
    ("given", "size"),
    [
        ({"size": None}, "1024*1024"),
        ({"size": "16:9"}, "1280*720"),
        ({"size": "512x768"}, "512*768"),
        ({"size": None, "width": "512", "height": 768}, "512*768"),
    ],
)
def test_every_way_to_say_a_size_is_sent_as_one(
    local: LocalService, output: Path, given: dict[str, Any], size: str
) -> None:
    assert operator(output, **given).execute(context())["size"] == size
    assert [made["size"] for made in local.predictions()] == [size]


# Templates


def test_all_that_says_what_is_bought_and_where_it_goes_is_templated(output: Path) -> None:
    task = operator(
        output,
        prompt="A lighthouse on {{ ds }}",
        output_path=f"{output}/{{{{ ds }}}}/",
        size="{{ side }}*{{ side }}",
        seed="{{ seed }}",
        model="{{ model }}",
        inputs={"strength": "{{ seed }}", "words": ["on {{ ds }}"]},
        enhance_prompt="{{ style }}",
        records_path="{{ records }}",
        url_base="https://cdn.example.com/{{ ds }}/",
        max_cost_usd="0.0{{ seed }}",
    )

    task.render_template_fields(
        {
            "ds": "2026-11-22",
            "side": 512,
            "seed": 7,
            "model": BITDANCE_14B,
            "records": "/records",
            "style": "anime",
        }
    )

    assert {name: getattr(task, name) for name in task.template_fields} == {
        "prompt": "A lighthouse on 2026-11-22",
        "output_path": f"{output}/2026-11-22/",
        "size": "512*512",
        "width": None,
        "height": None,
        "seed": "7",
        "model": BITDANCE_14B,
        "inputs": {"strength": "7", "words": ["on 2026-11-22"]},
        "enhance_prompt": "anime",
        "records_path": "/records",
        "url_base": "https://cdn.example.com/2026-11-22/",
        "max_cost_usd": "0.07",
    }


def test_inputs_may_be_rendered_and_be_json_text(local: LocalService, output: Path) -> None:
    given = {"strength": "{{ 1 / 2 }}", "output_format": "{{ format }}"}
    for name, inputs in (("object", given), ("text", '{"strength": "{{ 1 / 2 }}", "output_format": "webp"}')):
        task = operator(
            output,
            model="wavespeed-ai/flux-dev",
            size="512*512",
            inputs=inputs,
            output_path=f"{output}/{name}",
        )
        task.render_template_fields({"format": "webp"})
        task.execute(context(run_id=name))

    sent = [made.inputs.model_dump(exclude_unset=True) for made in local.service.predictions()]
    assert [(each["strength"], each["output_format"]) for each in sent] == [(0.5, "webp"), (0.5, "webp")]


@pytest.mark.parametrize(
    ("inputs", "found"),
    [
        ({"output_format": "{{ ds }}"}, "inputs has {{ ds }}, which was not rendered: '{{ ds }}'"),
        ({"a": {"b": ["{% if x %}"]}}, "inputs has {% if x %}, which was not rendered"),
        ("strength=1", "inputs is text that is not JSON: 'strength=1'"),
        ({"strength": 1}, "inputs.strength is not an input of this model: 1"),
    ],
)
def test_inputs_that_cannot_be_sent_fail_without_retry_before_any_request(
    local: LocalService, output: Path, inputs: object, found: str
) -> None:
    with pytest.raises(AirflowFailException) as failed:
        operator(output, inputs=inputs).execute(context())

    assert found in str(failed.value)
    assert posts(local) == 0


def test_width_and_height_may_be_rendered(local: LocalService, output: Path) -> None:
    task = operator(output, size=None, width="{{ 256 * 2 }}", height="{{ 256 }}", seed="{{ 40 + 2 }}")

    task.render_template_fields({})
    result = task.execute(context())

    assert (result["width"], result["height"], result["seed"]) == (512, 256, 42)


def test_a_prompt_file_is_rendered_and_its_last_newline_does_not_count(
    local: LocalService, output: Path, tmp_path: Path
) -> None:
    (tmp_path / "cover.prompt").write_text("\ufeffA {{ animal }} in a\nbirch forest\n", encoding="utf-8")
    with DAG("dag", schedule=None, template_searchpath=[str(tmp_path)]):
        task = operator(output, prompt="cover.prompt")

    task.resolve_template_files()
    task.render_template_fields({"animal": "fox"})
    task.execute(context())

    assert [made["prompt"] for made in local.predictions()] == ["A fox in a\nbirch forest"]


def test_a_prompt_is_shown_in_the_ui_as_text(output: Path) -> None:
    assert BitDanceTextToImageOperator.template_fields_renderers == {"prompt": "md"}


# One image


def test_the_result_is_the_documented_dict_of_plain_json(local: LocalService, output: Path) -> None:
    result = operator(output, seed=7).execute(context())

    (made,) = local.predictions()
    file = output / "dag.image.run.png"
    data = file.read_bytes()
    receipts = list(output.glob(".bitdance/receipts/*.json"))
    assert result == {
        "uri": f"file://{file}",
        "receipt": f"file://{receipts[0]}",
        "prediction_id": made["id"],
        "model": BITDANCE_14B,
        "size": "256*256",
        "width": 256,
        "height": 256,
        "size_differs": False,
        "media_type": "image/png",
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "seed": 7,
        "inference_ms": result["inference_ms"],
        "estimated_cost_usd": 0.01,
        "reused": False,
        "nsfw": False,
        "possibly_paid": 0,
        "prompts_possibly_paid": 0,
    }
    assert json.loads(json.dumps(result)) == result
    assert len(receipts) == 1


def test_the_docstring_names_what_the_result_holds_in_its_order(local: LocalService, output: Path) -> None:
    documented = BitDanceTextToImageOperator.__doc__ or ""
    named = re.findall(
        r"``(\w+)``", documented.partition("The result is a plain dict:")[2].partition("\n\n")[0]
    )

    assert list(operator(output).execute(context())) == named


def test_a_drawn_seed_is_the_one_that_was_sent(local: LocalService, output: Path) -> None:
    result = operator(output, seed=-1).execute(context())

    (made,) = local.predictions()
    assert made["seed_asked"] == made["seed"] == result["seed"] >= 0


def test_a_named_file_keeps_its_name_and_gets_the_extension_of_its_format(
    local: LocalService, output: Path
) -> None:
    result = operator(output, output_path=f"{output}/cover.jpg").execute(context())

    assert result["uri"] == f"file://{output}/cover.png"
    with Image.open(output / "cover.png") as image:
        assert image.format == "PNG"


def test_mapped_tasks_have_names_of_their_own(local: LocalService, output: Path) -> None:
    uris = {operator(output).execute(context(map_index=index))["uri"] for index in (0, 1)}

    assert uris == {f"file://{output}/dag.image.run.{index}.png" for index in (0, 1)}


@pytest.mark.parametrize("kind", [str, Path], ids=["text", "Path"])
def test_records_lie_where_the_operator_says(
    local: LocalService, output: Path, tmp_path: Path, kind: type
) -> None:
    result = operator(output, records_path=kind(tmp_path / "records")).execute(context())

    assert result["receipt"].startswith(f"file://{tmp_path}/records/receipts/")
    assert [path.name for path in output.iterdir()] == ["dag.image.run.png"]


def test_the_operator_outranks_the_connection_and_that_the_settings_for_the_records(
    local: LocalService, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def receipt(run_id: str, **given: Any) -> str:
        receipt = operator(output, **given).execute(context(run_id=run_id))["receipt"]
        return str(Path(receipt.removeprefix("file://")).relative_to(tmp_path).parts[0])

    beside = receipt("1")
    monkeypatch.setenv("AIRFLOW__BITDANCE__RECORDS_PATH", f"{tmp_path}/settings")
    of_settings = receipt("2")
    monkeypatch.setenv(
        "AIRFLOW_CONN_BITDANCE_DEFAULT", connection_to(local, records_path=f"{tmp_path}/connection")
    )
    of_connection = receipt("3")
    of_operator = receipt("4", records_path=f"{tmp_path}/operator")

    assert [beside, of_settings, of_connection, of_operator] == [
        "images",
        "settings",
        "connection",
        "operator",
    ]


# Deferral


def waits(local: LocalService, *, seconds: float) -> None:
    local.add_fault(on="submit", kind="latency", seconds=seconds)


def test_what_is_done_in_time_is_not_deferred(local: LocalService, output: Path) -> None:
    waits(local, seconds=15)

    assert operator(output, deferrable=True, defer_after=20).execute(context())["reused"] is False


def test_it_waits_in_the_worker_first(local: LocalService, output: Path, clock: FakeClock) -> None:
    waits(local, seconds=120)
    start = clock.now

    deferred(operator(output, deferrable=True, defer_after=20))

    assert start + 15 < clock.now <= start + 20


def test_the_poll_interval_is_the_time_to_the_first_look(
    local: LocalService, output: Path, clock: FakeClock
) -> None:
    start = clock.now

    operator(output, poll_interval=8).execute(context())

    assert [event.time - start for event in local.requests()] == [0, 8, 8]


def test_without_deferrable_it_waits_in_the_worker_to_the_end(
    local: LocalService, output: Path, clock: FakeClock
) -> None:
    waits(local, seconds=300)
    start = clock.now

    operator(output, deferrable=False, defer_after=1).execute(context())

    assert clock.now >= start + 300


def test_it_hands_over_the_prediction_and_the_times(
    local: LocalService, output: Path, clock: FakeClock
) -> None:
    waits(local, seconds=60)
    start = clock.now

    handed_over = deferred(operator(output, deferrable=True, defer_after=0, timeout=300, poll_interval=4))

    (made,) = local.predictions()
    assert isinstance(handed_over.trigger, BitDanceTrigger)
    assert handed_over.method_name == "execute_complete"
    assert not handed_over.kwargs
    assert handed_over.trigger.serialize()[1] == {
        "bitdance_conn_id": "bitdance_default",
        "pending": {made["id"]: start},
        "deadline": start + 300,
        "not_before": start + SHORTEST_DEFERRAL,
        "poll_interval": 4,
        "enough": 1,
    }


@pytest.mark.parametrize(
    ("to_buy", "deadline", "watched", "until"),
    [
        (0, 600, {"new": 1040.0}, 1096),
        (3, 600, {"old": 1000.0}, 1096),
        (0, 80, {"new": 1040.0}, 1080),
    ],
)
def test_where_it_is_known_when_the_images_end_it_is_back_then_and_looks_at_the_one_that_matters(
    output: Path, to_buy: int, deadline: int, watched: dict[str, float], until: float
) -> None:
    waiting = Waiting(
        pending={"new": 1040.0, "old": 1000.0},
        deadline=1000.0 + deadline,
        now=1000.0,
        enough=1 if to_buy else 2,
        resume_at=1100.0,
        to_buy=to_buy,
    )

    with pytest.raises(TaskDeferred) as handed_over:
        hand_over(operator(output), waiting)

    assert isinstance(handed_over.value.trigger, BitDanceTrigger)
    given = handed_over.value.trigger.serialize()[1]
    assert (given["pending"], given["enough"], given["deadline"]) == (watched, 1, until)
    assert given["not_before"] == 1000 + SHORTEST_DEFERRAL


@pytest.mark.parametrize(
    ("enough", "resume_at", "said"),
    [
        (0, 1046.0, "up to 42 s"),
        (0, 1000.0, f"up to {SHORTEST_DEFERRAL:.0f} s"),
        (1, 1000.0, "up to 600 s"),
        (1, 1100.0, "up to 96 s"),
    ],
)
def test_the_log_says_how_long_a_rest_is(
    output: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    enough: int,
    resume_at: float,
    said: str,
) -> None:
    monkeypatch.setattr(BitDanceTextToImageOperator, "log", logging.getLogger("bitdance.test"))
    pending = {"one": 990.0, "two": 990.0}
    waiting = Waiting(pending, 1600.0, 1000.0, enough, resume_at, to_buy=8, waits_for="It is night")

    with caplog.at_level("INFO"), pytest.raises(TaskDeferred):
        hand_over(operator(output), waiting)

    assert f"It is night: deferring for {said} with 8 images left. In flight: one, two" in caplog.text


def test_a_task_that_airflow_tells_to_stop_buys_nothing(local: LocalService, output: Path) -> None:
    task = operator(output)
    task.on_kill()

    with pytest.raises(exceptions.TaskKilledError):
        task.execute(context())

    assert posts(local) == 0


def test_what_was_made_is_one_output_of_hook_lineage(
    local: LocalService, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As OpenLineage's listener reads it, also where nothing was bought."""
    collector = HookLineageCollector()
    monkeypatch.setattr(lineage, "get_hook_lineage_collector", lambda: collector)

    result = operator(output).execute(context())

    (told,) = collector.collected_assets.outputs
    assert told.asset.uri == result["uri"]
    assert told.context.bitdance_conn_id == "bitdance_default"


def test_lineage_that_refuses_an_address_fails_no_task(
    local: LocalService, output: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuses(**_: object) -> None:
        raise ValueError("URI too long")

    monkeypatch.setattr(BitDanceTextToImageOperator, "log", logging.getLogger("bitdance.test"))
    monkeypatch.setattr(
        lineage, "get_hook_lineage_collector", lambda: SimpleNamespace(add_output_asset=refuses)
    )

    assert operator(output).execute(context())["uri"]
    assert "lineage does not accept this URI: URI too long" in caplog.text


def test_below_airflow_3_4_no_deferral_is_shorter_than_ten_seconds() -> None:
    needed = 0 if AIRFLOW_VERSION >= (3, 4) else 10

    assert needed == SHORTEST_DEFERRAL


@pytest.mark.parametrize("timeout", [2, 600, 7 * 24 * 3600])
def test_airflow_s_own_time_out_comes_after_the_trigger_s_last_event(
    local: LocalService, output: Path, clock: FakeClock, timeout: float
) -> None:
    waits(local, seconds=60)

    handed_over = deferred(operator(output, deferrable=True, defer_after=0, timeout=timeout))

    trigger = handed_over.trigger
    last_event = max(trigger.deadline, trigger.not_before)
    assert clock.now + handed_over.timeout.total_seconds() >= last_event + 30


def test_what_airflow_keeps_of_a_deferral_holds_no_key_prompt_or_address(
    local: LocalService, output: Path
) -> None:
    waits(local, seconds=60)

    trigger = deferred(operator(output, deferrable=True, defer_after=0)).trigger
    kept = json.dumps([trigger.serialize(), event_of(trigger)])

    assert not [secret for secret in (API_KEY, "lighthouse", "http", "://") if secret in kept]


def test_a_deferred_image_is_stored_on_resume_and_bought_once(local: LocalService, output: Path) -> None:
    waits(local, seconds=60)
    handed_over = deferred(operator(output, deferrable=True, defer_after=0))

    event = event_of(handed_over.trigger)
    result = operator(output, deferrable=True, defer_after=0).execute_complete(context(), event)

    assert event == READY
    assert (output / "dag.image.run.png").stat().st_size == result["bytes"]
    assert local.bill().billed == posts(local) == 1


def test_a_resume_does_what_was_planned_and_not_what_is_rendered_now(
    local: LocalService, output: Path, tmp_path: Path
) -> None:
    waits(local, seconds=60)
    records = {"records_path": f"{tmp_path}/records", "deferrable": True, "defer_after": 0}
    handed_over = deferred(operator(output, **records))

    now = operator(output, output_path=f"{tmp_path}/{{{{ now }}}}/", prompt="", size="nonsense", **records)
    now.output_path = f"{tmp_path}/elsewhere/"  # as Airflow renders it
    result = now.execute_complete(context(), event_of(handed_over.trigger))

    assert result["uri"] == f"file://{output}/dag.image.run.png"
    assert [made["prompt"] for made in local.predictions()] == [PROMPT]


def test_a_resume_before_the_image_is_ready_waits_on(
    local: LocalService, output: Path, clock: FakeClock
) -> None:
    waits(local, seconds=300)
    first = deferred(operator(output, deferrable=True, defer_after=0))
    clock.now += 30

    with pytest.raises(TaskDeferred) as again:
        operator(output, deferrable=True, defer_after=0).execute_complete(
            context(), {"reason": "unreachable", "ended": 0, "pending": 1}
        )

    assert again.value.trigger.pending == first.trigger.pending
    assert again.value.trigger.deadline == first.trigger.deadline
    assert posts(local) == 1


def test_a_deadline_raises_for_a_retry_that_collects_the_same_image(
    local: LocalService, output: Path
) -> None:
    waits(local, seconds=900)
    task = operator(output, deferrable=True, defer_after=0, timeout=600)
    event = event_of(deferred(task).trigger)

    with pytest.raises(exceptions.PredictionTimeoutError) as late:
        task.execute_complete(context(), event)
    again = deferred(task, try_number=2)
    result = task.execute_complete(context(try_number=2), event_of(again.trigger))

    assert event["reason"] == "deadline"
    assert "buys nothing" in str(late.value)
    assert result["prediction_id"] == local.predictions()[0]["id"]
    assert posts(local) == 1


@pytest.mark.parametrize(
    "event", [{"reason": "cancelled", "ended": 0, "pending": 1}, {"reason": ""}, {"status": "ready"}, {}]
)
def test_an_event_that_is_not_the_trigger_s_is_refused(
    local: LocalService, output: Path, event: dict[str, Any]
) -> None:
    waits(local, seconds=60)
    task = operator(output, deferrable=True, defer_after=0)
    deferred(task)
    local.service.log.clear()

    with pytest.raises(ValueError, match="event"):
        task.execute_complete(context(), event)

    assert local.requests() == []


def test_a_resume_whose_journal_is_gone_fails_without_buying(local: LocalService, output: Path) -> None:
    with pytest.raises(AirflowFailException, match="no journal of this task at") as failed:
        operator(output).execute_complete(context(), READY)

    assert f"{output}/.bitdance/jobs/dag/run/image/map=-1/generation=2" in str(failed.value)
    assert "render the same in every try" in str(failed.value)
    assert local.requests() == []


# Errors: does a retry help?


def fault(**rule: Any) -> dict[str, Any]:
    return rule


@pytest.mark.parametrize(
    ("rule", "error"),
    [
        (fault(on="submit", kind="status", status=500), exceptions.ServerError),
        (fault(on="submit", kind="status", status=429), exceptions.RateLimitError),
        (fault(on="submit", kind="reset"), exceptions.LostResponseError),
        (fault(on="submit", kind="no_id"), exceptions.GarbledResponseError),
        (fault(on="submit", kind="never_finish"), exceptions.PredictionTimeoutError),
        (fault(on="submit", kind="failed", code=5000), exceptions.PredictionFailedError),
        (fault(on="result", kind="status", status=503), exceptions.PredictionTimeoutError),
        (fault(on="output", kind="truncated"), exceptions.OutputError),
        (fault(on="output", kind="wrong_type"), exceptions.OutputError),
    ],
    ids=lambda value: "-".join(str(part) for part in value.values()) if isinstance(value, dict) else "",
)
def test_what_a_retry_may_mend_is_raised_as_it_is(
    local: LocalService, output: Path, rule: dict[str, Any], error: type[exceptions.BitDanceError]
) -> None:
    local.add_fault(**rule)

    with pytest.raises(exceptions.BitDanceError) as raised:
        operator(output).execute(context())

    assert type(raised.value) is error


@pytest.mark.parametrize(
    ("rule", "error"),
    [
        (fault(on="submit", kind="status", status=400), exceptions.RequestRefusedError),
        (fault(on="submit", kind="status", status=401), exceptions.AuthenticationError),
        (
            fault(on="submit", kind="status", status=400, message="Insufficient credits."),
            exceptions.InsufficientCreditError,
        ),
        (fault(on="submit", kind="failed", code=1200), exceptions.ModerationError),
        (fault(on="submit", kind="failed", code=1400), exceptions.PredictionRefusedError),
        (fault(on="submit", kind="nsfw"), exceptions.NsfwError),
        (fault(on="result", kind="status", status=403), exceptions.AuthenticationError),
        (fault(on="output", kind="bomb"), exceptions.OutputRefusedError),
    ],
    ids=lambda value: "-".join(str(part) for part in value.values()) if isinstance(value, dict) else "",
)
def test_what_no_retry_mends_fails_the_task_for_good(
    local: LocalService, output: Path, rule: dict[str, Any], error: type[exceptions.BitDanceError]
) -> None:
    local.add_fault(**rule)

    with pytest.raises(AirflowFailException) as failed:
        operator(output).execute(context())

    assert failed.value.__suppress_context__  # or Airflow's log has it twice; callbacks find it all the same
    assert type(failed.value.__context__) is error
    assert str(failed.value) == str(failed.value.__context__)
    assert posts(local) == 1


def test_an_existing_image_fails_the_task_where_the_dag_says_so(local: LocalService, output: Path) -> None:
    operator(output, output_path=f"{output}/cover").execute(context())

    with pytest.raises(AirflowFailException, match="already"):
        operator(output, output_path=f"{output}/cover", if_exists="fail").execute(context(run_id="next"))

    assert posts(local) == 1


def test_a_flagged_picture_skips_the_task_in_every_try_and_is_bought_once(
    local: LocalService, output: Path
) -> None:
    local.add_fault(on="submit", kind="nsfw")

    for try_number in (1, 2):
        with pytest.raises(AirflowSkipException, match="not safe for work"):
            operator(output, nsfw="skip").execute(context(try_number=try_number))

    assert local.bill().billed == posts(local) == 1
    assert list(output.glob("*.png")) == []


def test_a_flagged_picture_is_stored_where_it_is_allowed(local: LocalService, output: Path) -> None:
    local.add_fault(on="submit", kind="nsfw")

    result = operator(output, nsfw="allow").execute(context())

    assert result["nsfw"] is True
    assert (output / "dag.image.run.png").exists()


# Tries and generations


def test_a_retry_goes_on_with_the_image_that_was_bought(local: LocalService, output: Path) -> None:
    local.add_fault(on="output", kind="status", status=500, times=3)
    with pytest.raises(exceptions.OutputError):
        operator(output).execute(context(try_number=1))

    result = operator(output, prompt="Another prompt by now").execute(context(try_number=2))

    (made,) = local.predictions()
    assert result["prediction_id"] == made["id"]
    assert (result["reused"], result["estimated_cost_usd"]) == (False, 0.01)


def test_the_result_says_what_is_possibly_paid(local: LocalService, output: Path) -> None:
    local.add_fault(on="submit", kind="reset", after_create=True, times=1)

    assert operator(output).execute(context())["possibly_paid"] == 1
    assert local.bill().billed == 2


def test_a_user_may_decide_about_a_lost_response(local: LocalService, output: Path) -> None:
    local.add_fault(on="submit", kind="reset", after_create=True, times=1)

    with pytest.raises(AirflowFailException, match=r"may already have been bought.*A retry does not help"):
        operator(output, on_lost_response="fail").execute(context())

    assert local.bill().billed == 1


def test_more_than_the_budget_is_refused_before_anything_is_sent(local: LocalService, output: Path) -> None:
    with pytest.raises(AirflowFailException, match=r"cost about \$0\.01, but max_cost_usd is \$0\.005"):
        operator(output, max_cost_usd=0.005).execute(context())

    assert posts(local) == 0


@pytest.mark.parametrize("limit", ["0.005", " 5e-3 ", Decimal("0.005")])
def test_a_limit_may_be_text_or_a_decimal(local: LocalService, output: Path, limit: Any) -> None:
    with pytest.raises(AirflowFailException, match=r"cost about \$0\.01, but max_cost_usd is \$0\.005"):
        operator(output, max_cost_usd=limit).execute(context())

    assert operator(output, max_cost_usd="0.01").execute(context())["estimated_cost_usd"] == 0.01


@pytest.mark.parametrize("rendered", [None, "None", "", "a dime", "-1", [0.05]])
def test_a_limit_that_renders_to_no_amount_is_refused_before_anything_is_bought(
    local: LocalService, output: Path, rendered: object
) -> None:
    task = operator(output, max_cost_usd="{{ ti.xcom_pull('approve') }}")
    task.max_cost_usd = rendered

    with pytest.raises(AirflowFailException, match=r"max_cost_usd is .*Allowed: a number of US dollars"):
        task.execute(context())

    assert posts(local) == 0


def test_where_the_limit_is_gone_what_is_bought_is_stored_and_nothing_more_is_bought(
    local: LocalService, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    limited = {"max_cost_usd": "{{ ti.xcom_pull('approve') }}", "deferrable": True, "defer_after": 0}
    first = operator(output, **limited)
    first.max_cost_usd = "0.01"
    handed_over = deferred(first)
    second = operator(output, **limited)
    second.max_cost_usd = "None"

    result = second.execute_complete(context(), event_of(handed_over.trigger))

    assert Path(result["uri"].removeprefix("file://")).is_file()
    assert posts(local) == 1
    assert (
        "Storing what is already bought, and buying nothing more: max_cost_usd is 'None'"
        in capsys.readouterr().out
    )


def test_a_limit_that_is_gone_allows_no_second_purchase(local: LocalService, output: Path) -> None:
    local.add_fault(on="submit", kind="failed", times=1)
    limited = operator(output, max_cost_usd="{{ ti.xcom_pull('approve') }}")
    limited.max_cost_usd = 0.05
    with pytest.raises(exceptions.BitDanceError):
        limited.execute(context())
    limited.max_cost_usd = None

    with pytest.raises(AirflowFailException, match=r"max_cost_usd is \$0\.00"):
        limited.execute(context(try_number=2))

    assert posts(local) == 1


def test_more_than_the_balance_is_refused_before_anything_is_bought(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_service(Options(balance_usd=0.004)) as poor:
        monkeypatch.setenv("AIRFLOW_CONN_BITDANCE_DEFAULT", connection_to(poor))
        with pytest.raises(AirflowFailException, match=r"cost about \$0\.01, but the .* balance is \$0\.004"):
            operator(output, check_balance=True).execute(context())

        assert posts(poor) == 0


def test_the_price_is_the_apis_where_the_connection_asks_for_it(
    local: LocalService, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extra = {"live_price": True, "price_usd": 0.001}
    monkeypatch.setenv("AIRFLOW_CONN_BITDANCE_DEFAULT", connection_to(local, **extra))

    assert operator(output, max_cost_usd=0.01).execute(context())["estimated_cost_usd"] == 0.01


def test_a_failed_prediction_is_not_bought_anew_where_the_user_says_so(
    local: LocalService, output: Path
) -> None:
    local.add_fault(on="submit", kind="failed", times=1)

    with pytest.raises(AirflowFailException, match="retry_failed is off"):
        operator(output, retry_failed=False).execute(context())
    with pytest.raises(AirflowFailException, match="Clear the task"):
        operator(output, retry_failed=False).execute(context(try_number=2))

    assert local.bill().submitted == 1


def test_purchases_are_counted_in_airflows_metrics(
    local: LocalService, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[tuple[str, int, dict[str, str]]] = []
    monkeypatch.setattr(Stats, "incr", lambda name, count, *, tags: counted.append((name, count, tags)))

    operator(output).execute(context())

    tags = {"dag_id": "dag", "task_id": "image"}
    assert counted == [
        ("bitdance.bought", 1, tags),
        ("bitdance.estimated_cost_micro_usd", 10_000, tags),
        ("bitdance.stored", 1, tags),
    ]


def test_a_try_after_success_returns_the_same_and_asks_nothing(local: LocalService, output: Path) -> None:
    result = operator(output).execute(context(try_number=1))
    local.service.log.clear()

    assert operator(output).execute(context(try_number=2)) == result
    assert local.requests() == []


def test_a_cleared_task_reuses_the_image_of_the_same_request(local: LocalService, output: Path) -> None:
    bought = operator(output).execute(context(try_number=1, max_tries=2))

    # A clear sets max_tries to the tries so far plus retries.
    result = operator(output).execute(context(try_number=2, max_tries=3))

    assert result == {**bought, "reused": True, "estimated_cost_usd": 0.0}
    assert local.bill().billed == posts(local) == 1


def test_a_cleared_task_buys_what_is_asked_now_and_replaces_the_image(
    local: LocalService, output: Path
) -> None:
    operator(output).execute(context(try_number=1, max_tries=2))

    operator(output, prompt="A teapot").execute(context(try_number=2, max_tries=3))

    assert [made["prompt"] for made in local.predictions()] == [PROMPT, "A teapot"]
    assert [path.name for path in output.glob("*.png")] == ["dag.image.run.png"]


def test_a_cleared_task_asks_anew_after_a_permanent_failure(local: LocalService, output: Path) -> None:
    local.add_fault(on="submit", kind="failed", code=1200, times=1)
    with pytest.raises(AirflowFailException):
        operator(output).execute(context(try_number=1, max_tries=2))
    with pytest.raises(AirflowFailException):
        operator(output).execute(context(try_number=2, max_tries=2))
    assert posts(local) == 1

    assert operator(output).execute(context(try_number=3, max_tries=4))["reused"] is False


def test_regenerate_buys_once_a_generation(local: LocalService, output: Path) -> None:
    task = operator(output, if_exists="regenerate")

    for try_number, max_tries in ((1, 2), (2, 2), (3, 4), (4, 4)):
        task.execute(context(try_number=try_number, max_tries=max_tries))

    assert posts(local) == 2


def test_a_task_without_retries_has_generations_too(local: LocalService, output: Path) -> None:
    task = operator(output, retries=0, if_exists="regenerate")

    for try_number, max_tries in ((1, 0), (2, 1)):
        task.execute(context(try_number=try_number, max_tries=max_tries))

    assert posts(local) == 2


def test_retries_that_are_edited_while_a_task_waits_change_nothing(local: LocalService, output: Path) -> None:
    local.add_fault(on="submit", kind="latency", seconds=30)
    deferred(operator(output, deferrable=True, defer_after=0, retries=2))

    result = operator(output, retries=5).execute(context(try_number=2))

    assert (local.bill().billed, result["reused"]) == (1, False)


def test_a_resume_reads_its_plan_and_not_its_fields(
    local: LocalService, output: Path, clock: FakeClock
) -> None:
    fixed = {"records_path": f"{output}/records", "deferrable": True, "defer_after": 0}
    deferred(operator(output, **fixed))
    clock.now += 10

    resumed = operator(output, **{**fixed, "output_path": f"{output}/{{{{ folder }}}}/", "prompt": " "})
    resumed.output_path = "None"  # as Airflow renders it
    result = resumed.execute_complete(context(), READY)

    assert local.bill().billed == 1
    assert result["uri"].startswith(f"file://{output}/")


@pytest.mark.parametrize("prompt", ["a windmill", " "])
def test_a_retry_goes_on_with_its_plan_and_says_so_where_the_prompt_has_changed(
    local: LocalService, output: Path, prompt: str, capsys: pytest.CaptureFixture[str]
) -> None:
    local.add_fault(on="submit", kind="latency", seconds=30)
    deferred(operator(output, deferrable=True, defer_after=0))

    operator(output, prompt=prompt).execute(context(try_number=2))

    assert [made["prompt"] for made in local.predictions()] == [PROMPT]
    assert ("Following the plan" in capsys.readouterr().out) == (prompt != " ")


def test_a_resume_whose_output_path_was_changed_stores_nothing_elsewhere_and_says_so(
    local: LocalService, output: Path, tmp_path: Path, clock: FakeClock
) -> None:
    fixed = {"records_path": f"{tmp_path}/records", "deferrable": True, "defer_after": 0}
    deferred(operator(output, **fixed))
    clock.now += 10

    for changed, said in (
        ("elsewhere/", "output_path is now another folder"),
        ("None", "a part of it is None"),
    ):
        with pytest.raises(AirflowFailException, match=said) as caught:
            operator(output, output_path=f"{tmp_path}/{changed}", **fixed).execute_complete(context(), READY)
        assert "may have been charged" in str(caught.value)
    assert list(tmp_path.rglob("*.png")) == []
    assert operator(output, **fixed).execute_complete(context(), READY)["uri"].startswith(f"file://{output}/")


# Estimates


def test_an_estimate_says_what_the_task_would_do_and_spends_nothing(
    local: LocalService, output: Path
) -> None:
    asked = operator(output, prompt="Cover of {{ ds }}", seed=7)
    again = {**context(), "ds": "2026-11-22"}

    assert str(asked.estimate(again)) == "0 reused, 1 to buy, about $0.01"
    assert (local.requests(), output.exists()) == ([], False)
    assert asked.prompt == "Cover of {{ ds }}", "the operator itself stays as it was"

    operator(output, prompt="Cover of 2026-11-22", seed=7).execute(context())

    assert str(asked.estimate(again)) == "1 reused, 0 to buy, about $0.00"


def test_an_estimate_is_of_its_own_task_whoever_asks(local: LocalService, output: Path) -> None:
    operator(output).execute(context())
    other = context()
    other["ti"].task_id, other["ti"].map_index = "ask", 3

    assert operator(output).estimate(other).reuse == 1


def test_an_estimate_of_bad_input_says_what_is_allowed(local: LocalService, output: Path) -> None:
    with pytest.raises(exceptions.InputError, match="1:1, 16:9"):
        operator(output, size="huge").estimate(context())
