"""The decorated task as Airflow calls it, against the local service, on a clock that moves by itself."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    DAG,
    AirflowFailException,
    AirflowSkipException,
    TaskDeferred,
)

from airflow_provider_bitdance import exceptions
from airflow_provider_bitdance.decorators.bitdance import (
    FOR_A_LIST,
    FOR_ONE,
    BitDanceDecoratedOperator,
    bitdance_task,
)
from airflow_provider_bitdance.local import LocalService
from airflow_provider_bitdance.local.pictures import labels
from airflow_provider_bitdance.manifest import read_manifest
from airflow_provider_bitdance.operators.bitdance import BitDanceBatchOperator, BitDanceTextToImageOperator
from tests.builders import context, posts
from tests.unit.support import FakeClock

FLUX = "wavespeed-ai/flux-dev"
READY = {"reason": "ready", "ended": 1, "pending": 0}
WAITS: dict[str, Any] = {"deferrable": True, "defer_after": 1}
ITEMS = [{"key": "p-0", "prompt": "A teapot", "seed": 1}, {"key": "p-1", "prompt": "A mug", "shelf": 4}]


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "images"


def decorated(function: Callable[..., Any], output: Path, *args: Any, **given: Any) -> Any:
    """Return the operator of a decorated function that is called with ``args``."""
    options = {"output_path": f"{output}/", "size": "256*256", "retries": 2, **given}
    operator = bitdance_task(**options)(function)(*args).operator
    assert isinstance(operator, BitDanceDecoratedOperator)
    return operator


def returning(value: object, output: Path, **given: Any) -> Any:
    """Return the operator of a function that returns ``value``."""

    def draw() -> Any:
        return value

    return decorated(draw, output, **given)


class Fickle:
    """A function that returns something else each time, as one does that reads the clock or draws lots."""

    def __init__(self, make: Callable[[int], object]) -> None:
        self.make = make
        self.numbers = count(1)
        self.calls = 0
        self.__name__ = "fickle"

    def task(self, output: Path, **given: Any) -> Any:
        def fickle() -> Any:
            self.calls += 1
            return self.make(next(self.numbers))

        return decorated(fickle, output, **given)


KINDS = {
    "a prompt": lambda number: f"A teapot {number}",
    "a request": lambda number: {"prompt": f"A teapot {number}", "seed": number},
    "a list of one": lambda number: [f"A teapot {number}"],
    "a list": lambda number: [{"key": f"p-{i}", "prompt": f"A teapot {number}"} for i in range(3)],
    "now a list, then a prompt": lambda number: ["A teapot 1"] if number == 1 else f"A teapot {number}",
    "now a prompt, then a list": lambda number: [f"A teapot {number}"] if number > 1 else "A teapot 1",
}
of_any_kind = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)


def deferred(operator: Any, **ti: Any) -> None:
    with pytest.raises(TaskDeferred):
        operator.execute(context(**ti))


def prompts(output: Path) -> list[str]:
    return sorted({labels(path.read_bytes()).prompt for path in output.glob("*.png")})


def is_manifest(result: dict[str, Any]) -> bool:
    return "manifest" in result


# What comes out


@pytest.mark.parametrize("returned", ["A teapot", {"prompt": "A teapot", "seed": 7}])
def test_one_request_gives_what_the_operator_for_one_image_gives(
    local: LocalService, output: Path, returned: object
) -> None:
    given: dict[str, Any] = {"output_path": f"{output}/cover.png", "seed": 7}

    result = returning(returned, output, **given).execute(context())

    operator = BitDanceTextToImageOperator(task_id="image", prompt="A teapot", size="256*256", **given)
    again = operator.execute(context(run_id="another"))
    assert again == {**result, "reused": True, "estimated_cost_usd": 0.0}
    assert prompts(output) == ["A teapot"]


@pytest.mark.parametrize("inputs", [{"strength": 1, "guidance_scale": "{scale}"}, '{"strength": 1}'])
def test_what_a_request_gives_as_inputs_goes_before_the_options(
    local: LocalService, output: Path, inputs: object
) -> None:
    returned = {"prompt": "A teapot", "inputs": {"guidance_scale": 5, "strength": None}}

    returning(returned, output, model=FLUX, size="512*512", inputs=inputs).execute(context())

    (made,) = local.service.predictions()
    sent = made.inputs.model_dump(exclude_unset=True)
    assert (sent["strength"], sent["guidance_scale"]) == (1.0, 5.0)


def test_inputs_of_a_list_are_filled_from_its_columns(local: LocalService, output: Path) -> None:
    items = [{"key": "a", "prompt": "A", "scale": 2}, {"key": "b", "prompt": "B", "scale": 9}]

    returning(items, output, model=FLUX, size="512*512", inputs={"guidance_scale": "{scale}"}).execute(
        context()
    )

    sent = {
        made.inputs.prompt: made.inputs.model_dump()["guidance_scale"] for made in local.service.predictions()
    }
    assert sent == {"A": 2.0, "B": 9.0}


def test_a_list_gives_what_the_batch_operator_gives(local: LocalService, output: Path) -> None:
    result = returning(ITEMS, output, seed=7).execute(context())

    batch = BitDanceBatchOperator(
        task_id="image", items=ITEMS, output_path=f"{output}/", size="256*256", seed=7
    )
    assert batch.execute(context(run_id="another")) == {
        **result,
        "manifest": result["manifest"].replace("run", "another"),
        "reused": 2,
        "estimated_cost_usd": 0.0,
    }
    rows = read_manifest(result["manifest"])
    assert [(row.key, row.columns) for row in rows] == [("p-0", {}), ("p-1", {"shelf": 4})]


def test_a_list_of_one_is_a_batch(local: LocalService, output: Path) -> None:
    assert returning(["A teapot"], output).execute(context())["items"] == 1


def test_any_sequence_is_a_list(local: LocalService, output: Path) -> None:
    assert returning(("A teapot", "A mug"), output).execute(context())["stored"] == 2


def test_the_fields_of_a_request_go_before_the_options(local: LocalService, output: Path) -> None:
    asked = {"prompt": "A teapot", "size": "512*256", "seed": 0}

    result = returning(asked, output, size=None, width=256, height=256, seed=7).execute(context())

    assert (result["size"], result["seed"]) == ("512*256", 0)


def test_a_request_without_a_size_has_that_of_the_options(local: LocalService, output: Path) -> None:
    asked = returning({"prompt": "A teapot", "size": None}, output, size=None, width=256, height=512)

    assert asked.execute(context())["size"] == "256*512"


def test_a_row_of_a_list_may_fill_the_prompt_of_the_options(local: LocalService, output: Path) -> None:
    returning([{"style": "paper-cut"}], output, prompt="A {style} fox").execute(context())

    assert prompts(output) == ["A paper-cut fox"]


def test_the_function_gets_its_arguments_and_the_context(local: LocalService, output: Path) -> None:
    def draw(what: str, ds: str | None = None, **rest: Any) -> str:
        return f"{what} of {ds} for {rest['ti'].run_id}"

    decorated(draw, output, "A teapot").execute({**context(), "ds": "2026-11-22"})

    assert prompts(output) == ["A teapot of 2026-11-22 for run"]


# The function is asked once


@of_any_kind
def test_a_resume_goes_on_with_what_the_function_returned_first(
    local: LocalService, output: Path, clock: FakeClock, make: Callable[[int], object]
) -> None:
    local.add_fault(on="submit", kind="latency", seconds=100)
    function = Fickle(make)
    deferred(function.task(output, **WAITS))
    clock.now += 100

    result = function.task(output, **WAITS).execute_complete(context(), READY)

    assert (function.calls, prompts(output)) == (1, ["A teapot 1"])
    assert is_manifest(result) == isinstance(make(1), list)
    assert local.bill().billed == posts(local) == len(list(output.glob("*.png")))


@of_any_kind
def test_a_retry_goes_on_with_what_the_function_returned_first(
    local: LocalService, output: Path, make: Callable[[int], object]
) -> None:
    local.add_fault(on="output", kind="status", status=500, times=9)
    function = Fickle(make)
    with pytest.raises((exceptions.OutputError, exceptions.ItemsFailedError)):
        function.task(output).execute(context(try_number=1))
    local.service.faults.clear()

    result = function.task(output).execute(context(try_number=2))

    assert (function.calls, prompts(output)) == (1, ["A teapot 1"])
    assert is_manifest(result) == isinstance(make(1), list)
    assert local.bill().billed == posts(local) == len(list(output.glob("*.png")))


def test_a_try_after_success_returns_the_same_and_asks_nobody(local: LocalService, output: Path) -> None:
    function = Fickle(KINDS["a list"])
    result = function.task(output).execute(context(try_number=1))

    assert function.task(output).execute(context(try_number=2)) == result
    assert function.calls == 1


def test_a_list_of_one_has_the_rules_of_a_list_when_it_comes_back(
    local: LocalService, output: Path, clock: FakeClock
) -> None:
    local.add_fault(on="submit", kind="latency", seconds=100)
    local.add_fault(on="output", kind="bomb")
    asked = returning(["A teapot"], output, on_item_failure="tolerate", **WAITS)
    deferred(asked)
    clock.now += 100

    result = returning("A mug", output, on_item_failure="tolerate", **WAITS).execute_complete(
        context(), READY
    )

    assert (result["items"], result["failed"]) == (1, 1)


def test_one_image_has_the_rules_of_one_when_it_comes_back(
    local: LocalService, output: Path, clock: FakeClock
) -> None:
    local.add_fault(on="submit", kind="latency", seconds=100)
    local.add_fault(on="output", kind="bomb")
    deferred(returning("A teapot", output, **WAITS))
    clock.now += 100

    with pytest.raises(AirflowFailException, match="The output has too many pixels"):
        returning(["A mug"], output, **WAITS).execute_complete(context(), READY)


def test_a_cleared_task_asks_the_function_anew(local: LocalService, output: Path) -> None:
    function = Fickle(KINDS["a prompt"])
    function.task(output).execute(context(try_number=1, max_tries=2))

    function.task(output).execute(context(try_number=2, max_tries=3))

    assert (function.calls, prompts(output)) == (2, ["A teapot 2"])


def test_a_function_that_fails_is_asked_again(local: LocalService, output: Path) -> None:
    def make(number: int) -> str:
        if number == 1:
            raise ConnectionError("no database")
        return "A teapot"

    function = Fickle(make)
    with pytest.raises(ConnectionError, match="no database"):
        function.task(output).execute(context(try_number=1))
    assert local.requests() == []

    function.task(output).execute(context(try_number=2))

    assert prompts(output) == ["A teapot"]


def test_a_function_may_skip_its_task(local: LocalService, output: Path) -> None:
    def draw() -> str:
        raise AirflowSkipException("nothing new today")

    with pytest.raises(AirflowSkipException, match="nothing new today"):
        decorated(draw, output).execute(context())

    assert local.requests() == []


def test_a_flagged_picture_skips_the_task_of_one_image(local: LocalService, output: Path) -> None:
    local.add_fault(on="submit", kind="nsfw")

    with pytest.raises(AirflowSkipException):
        returning("A teapot", output, nsfw="skip").execute(context())

    result = returning(["A teapot"], output, nsfw="skip").execute(context(run_id="another"))
    assert result["failed"] == 1


# What is refused, before anything is bought


def endless() -> Any:
    yield "A teapot"


REFUSED = [
    (None, r"draw\(\) returned a value of type NoneType\. Allowed: a prompt, a dict"),
    (5, "of type int"),
    (b"A teapot", "of type bytes"),
    ({"A teapot"}, "of type set"),
    (endless(), "of type generator"),
    ([], r"draw\(\) returned an empty value, so there is nothing to make"),
    ({}, "returned an empty value"),
    ("", "prompt is blank"),
    ({"seed": 7}, "prompt is NoneType"),
    (
        {"prompt": "A teapot", "key": "p-0"},
        "a request with unknown fields: key. Allowed: prompt, size, seed, inputs. To use keys",
    ),
    ({"prompt": "A teapot", "size": "huge"}, "size is neither"),
    ({"prompt": "A teapot", "inputs": "steps=3"}, "inputs is text that is not JSON: 'steps=3'"),
    ({"prompt": "A teapot", "inputs": {"steps": 3}}, "inputs.steps is not an input of this model"),
    ([None], "row 1: is of type NoneType"),
    (["A teapot", {"shelf": 4}], "row 2: has no prompt"),
]


@pytest.mark.parametrize(("returned", "said"), REFUSED, ids=lambda value: str(value)[:20])
def test_what_cannot_be_made_fails_the_task_without_a_retry(
    local: LocalService, output: Path, returned: object, said: str
) -> None:
    with pytest.raises(AirflowFailException, match=said) as failed:
        returning(returned, output).execute(context())

    assert "A retry does not help. Nothing was charged" in str(failed.value)
    assert (local.requests(), output.exists()) == ([], False)


@pytest.mark.parametrize(
    ("returned", "option", "value", "said"),
    [
        *(
            ("A teapot", option, value, f"returned one request, which does not allow {option}")
            for option, value in {
                "prompt": "A {style} teapot",
                "variants": 2,
                "max_in_flight": 5,
                "requests_per_minute": 60,
                "on_item_failure": "tolerate",
                "manifest_format": "parquet",
            }.items()
        ),
        (["A teapot"], "width", 256, "returned a list, which does not allow width"),
        (["A teapot"], "height", 256, "returned a list, which does not allow height"),
        ("A teapot", "output_path", "cover", "not an absolute path"),
    ],
)
def test_an_option_that_does_not_fit_what_is_returned_is_named(
    local: LocalService, output: Path, returned: object, option: str, value: object, said: str
) -> None:
    with pytest.raises(AirflowFailException, match=said):
        returning(returned, output, **{option: value}).execute(context())

    assert local.requests() == []


def test_a_list_is_refused_where_the_output_path_names_a_file(local: LocalService, output: Path) -> None:
    with pytest.raises(AirflowFailException, match="Allowed: a folder, with a trailing slash"):
        returning(["A teapot"], output, output_path=f"{output}/cover").execute(context())

    assert (local.requests(), output.exists()) == ([], False)


def test_every_option_of_a_batch_is_one_of_a_list() -> None:
    of_one, of_a_batch = (
        set(signature(operator.__init__).parameters)
        for operator in (BitDanceTextToImageOperator, BitDanceBatchOperator)
    )
    assert of_one - of_a_batch == set(FOR_ONE)
    # A prompt of one image is what the function returns; the balance may be checked for one as well.
    assert of_a_batch - of_one | {"prompt"} == {*FOR_A_LIST, "items", "check_balance"}


def test_a_wrong_option_is_refused_when_the_dag_is_parsed(output: Path) -> None:
    with DAG("dag", schedule=None), pytest.raises(exceptions.InputError, match="max_in_flight is 0"):
        returning("A teapot", output, max_in_flight=0)


def test_a_prompt_file_is_refused_and_not_bought_as_a_prompt(output: Path) -> None:
    with DAG("dag", schedule=None), pytest.raises(exceptions.InputError, match="does not read"):
        returning([{"key": "a"}], output, prompt="poster.prompt")


def test_an_output_path_is_required() -> None:
    with pytest.raises(TypeError, match="output_path"):
        bitdance_task(endless)()


def test_what_a_function_will_return_cannot_be_estimated(local: LocalService, output: Path) -> None:
    with pytest.raises(exceptions.InputError, match=r"The return value of draw\(\) is unknown"):
        returning("A teapot", output).estimate(context())


# XComs


@pytest.mark.parametrize("option", ["multiple_outputs", "deferrable", "check_balance", "retry_failed"])
def test_text_is_no_boolean(output: Path, option: str) -> None:
    def draw() -> str:
        return "A teapot"

    with pytest.raises(exceptions.InputError, match=f"{option} is 'False'. Allowed: True or False"):
        decorated(draw, output, **{option: "False"})


@pytest.mark.parametrize(("options", "unrolled"), [({}, False), ({"multiple_outputs": True}, True)])
def test_the_annotation_of_the_function_does_not_unroll_the_result(
    output: Path, options: dict[str, Any], unrolled: bool
) -> None:
    def draw() -> dict[str, Any]:
        return {"prompt": "A teapot"}

    assert decorated(draw, output, **options).multiple_outputs is unrolled


def test_a_fault_that_nobody_thought_of_keeps_all_frames(
    local: LocalService, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_bitdance.engine.run_job", None)
    with pytest.raises(TypeError) as failed:
        returning("A fox", output).execute(context())
    assert "_run_job" in [frame.name for frame in failed.traceback]
