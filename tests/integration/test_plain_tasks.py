"""What plain tasks store through the hook is bought once, recorded, and found again by a retry."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from airflow_provider_bitdance.exceptions import InputError, NsfwError, PredictionGoneError
from airflow_provider_bitdance.hooks import image_job
from airflow_provider_bitdance.hooks.bitdance import BitDanceHook
from airflow_provider_bitdance.local import LocalService
from airflow_provider_bitdance.maintenance.scan import read_records
from airflow_provider_bitdance.operators.bitdance import BitDanceTextToImageOperator
from airflow_provider_bitdance.storage import LocalFolder
from tests.builders import context, posts

SIZE = "256*256"


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "images"


@pytest.fixture
def hook(local: LocalService) -> BitDanceHook:
    return BitDanceHook()


@pytest.fixture
def in_task(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what runs the lines below it as a try of a plain task."""

    @contextmanager
    def task(**ti: Any) -> Iterator[None]:
        with monkeypatch.context() as patch:
            patch.setattr(image_job, "get_current_context", lambda: context(**ti))
            yield

    return task


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Mock:
    """Return what the hook logs to: Airflow's own logger hands nothing on to pytest."""
    log = Mock()
    monkeypatch.setattr(BitDanceHook, "log", log)
    return log


def generate(hook: BitDanceHook, path: object, prompt: str = "A fox", **options: Any) -> dict[str, Any]:
    return hook.generate(prompt=prompt, size=SIZE, output_path=str(path), **options)


class Death(BaseException):
    """Of the process that makes an image."""


def dies(monkeypatch: pytest.MonkeyPatch, call: Callable[[], object]) -> None:
    """Have the process die right after its purchase."""

    def die(*_: object, **__: object) -> None:
        raise Death

    with monkeypatch.context() as patch:
        patch.setattr("airflow_provider_bitdance.polling.poller.Poller.add", die)
        with pytest.raises(Death):
            call()


def local_path(uri: str) -> Path:
    return Path(uri.removeprefix("file://"))


# In a task


def test_a_task_that_is_retried_finds_the_image_it_has_stored(
    hook: BitDanceHook, local: LocalService, output: Path, in_task: Any
) -> None:
    with in_task():
        first = generate(hook, output / "fox.png")
    with in_task(try_number=2):
        again = generate(hook, output / "fox.png")
    assert again == first
    assert local.bill().billed == 1
    assert local_path(first["uri"]) == output / "fox.png"
    assert local_path(first["receipt"]).is_file()


def test_a_task_that_died_after_its_purchase_collects_it_in_its_next_try(
    hook: BitDanceHook, local: LocalService, output: Path, in_task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with in_task():
        dies(monkeypatch, lambda: generate(hook, output / "fox"))
    with in_task(try_number=2):
        result = generate(hook, output / "fox")
    (task,) = local.predictions()
    assert (result["prediction_id"], posts(local)) == (task["id"], 1)


def test_several_images_of_a_task_have_a_journal_each(
    hook: BitDanceHook, local: LocalService, output: Path, in_task: Any
) -> None:
    for try_number in (1, 2):
        with in_task(try_number=try_number):
            found = [generate(hook, output / name, f"A {name}") for name in ("fox", "owl", "elk")]
    assert {local_path(result["uri"]).name for result in found} == {"fox.png", "owl.png", "elk.png"}
    assert local.bill().billed == 3
    records = read_records(LocalFolder(output, step=".bitdance"))
    assert records.findings == ()
    assert len({record.job.call for record in records.jobs}) == len(records.jobs) == 3
    assert {record.job.task_id for record in records.jobs} == {"image"}


def test_the_same_request_at_the_same_path_is_bought_once_in_a_try(
    hook: BitDanceHook, local: LocalService, output: Path, in_task: Any
) -> None:
    with in_task():
        assert generate(hook, output / "fox") == generate(hook, output / "fox")
    assert local.bill().billed == 1


def test_a_second_different_image_at_one_path_is_refused_before_it_is_bought(
    hook: BitDanceHook, local: LocalService, output: Path, in_task: Any
) -> None:
    with in_task():
        generate(hook, output / "fox")
        with pytest.raises(InputError, match=r"already requested a different image at .*images/fox"):
            generate(hook, output / "fox", "An owl")
    assert local.bill().billed == 1


def test_a_retry_whose_prompt_has_changed_follows_the_plan(
    hook: BitDanceHook, local: LocalService, output: Path, in_task: Any, log: Mock
) -> None:
    with in_task():
        first = generate(hook, output / "fox", "A fox at 12:00")
    with in_task(try_number=2):
        assert generate(hook, output / "fox", "A fox at 12:01") == first
    assert "Following the plan" in str(log.warning.call_args)
    assert local.bill().billed == 1


def test_mapped_tasks_and_runs_have_jobs_of_their_own(
    hook: BitDanceHook, local: LocalService, output: Path, in_task: Any
) -> None:
    uris = set()
    for ti in ({"map_index": 0}, {"map_index": 1}, {"run_id": "next", "map_index": 0}):
        with in_task(**ti):
            uris.add(generate(hook, f"{output}/")["uri"])
    assert local.bill().billed == len(uris) == 3


def test_another_run_reuses_a_named_file_of_the_same_request(
    hook: BitDanceHook, local: LocalService, output: Path, in_task: Any
) -> None:
    with in_task():
        first = generate(hook, output / "fox", seed=7)
    with in_task(run_id="next"):
        again = generate(hook, output / "fox", seed=7)
    assert again == {**first, "reused": True, "estimated_cost_usd": 0.0}
    with in_task(run_id="third"):
        assert not generate(hook, output / "fox", seed=7, if_exists="regenerate")["reused"]
    assert local.bill().billed == 2


def test_the_hook_and_the_operator_know_each_others_images(
    hook: BitDanceHook, local: LocalService, output: Path, in_task: Any
) -> None:
    with in_task():
        ours = generate(hook, output / "fox.png", seed=7)
    operator = BitDanceTextToImageOperator(
        task_id="image", prompt="A fox", seed=7, size=SIZE, output_path=f"{output}/fox.png"
    )
    theirs = operator.execute(context(run_id="next"))
    assert theirs["reused"]
    assert theirs.keys() == ours.keys()
    assert local.bill().billed == 1


def test_a_cleared_task_adopts_what_it_had_bought(
    hook: BitDanceHook, local: LocalService, output: Path, in_task: Any
) -> None:
    local.add_fault(on="submit", kind="latency", seconds=300, times=1)
    with in_task(), pytest.raises(Exception, match="within 60 s"):
        generate(hook, output / "fox", timeout=60)
    with in_task(try_number=2, max_tries=4):
        generate(hook, output / "fox")
    assert local.bill().billed == 1


def test_a_flagged_image_is_stored_only_where_that_is_allowed(
    hook: BitDanceHook, local: LocalService, output: Path, in_task: Any
) -> None:
    local.add_fault(on="submit", kind="nsfw")
    with in_task(), pytest.raises(NsfwError, match='set nsfw="allow"'):
        generate(hook, output / "fox")
    with in_task(run_id="next"):
        assert generate(hook, output / "fox", nsfw="allow")["nsfw"]


def test_a_result_goes_to_xcom_as_it_is(hook: BitDanceHook, output: Path, in_task: Any) -> None:
    with in_task():
        result = generate(hook, output / "fox")
    assert json.loads(json.dumps(result)) == result


# Outside of a task


def test_a_script_stores_with_a_receipt_and_reuses_it(
    hook: BitDanceHook, local: LocalService, output: Path
) -> None:
    first = generate(hook, output / "fox")
    again = generate(hook, output / "fox")
    assert again == {**first, "reused": True, "estimated_cost_usd": 0.0}
    assert local.bill().billed == 1
    assert list((output / ".bitdance" / "addresses").rglob("000001.json"))


def test_a_script_takes_over_what_a_dead_one_has_bought_when_its_time_is_over(
    hook: BitDanceHook, local: LocalService, output: Path
) -> None:
    local.add_fault(on="submit", kind="latency", seconds=300, times=1)
    with pytest.raises(Exception, match="within 60 s"):
        generate(hook, output / "fox", timeout=60)
    result = generate(hook, output / "fox")
    (task,) = local.predictions()
    assert result["prediction_id"] == task["id"]
    assert local.bill().billed == 1


def test_a_script_is_not_told_of_retries(hook: BitDanceHook, output: Path, log: Mock) -> None:
    generate(hook, output / "fox")
    assert log.warning.call_args_list == []


def test_a_script_has_to_name_the_file(hook: BitDanceHook, local: LocalService, output: Path) -> None:
    with pytest.raises(InputError, match="no task to name the file after"):
        generate(hook, f"{output}/")
    assert posts(local) == 0


# What is refused before anything is bought


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"output_path": "relative/fox.png"}, "not an absolute path"),
        ({"output_path": Path("/data/covers/")}, "path objects drop a trailing slash"),
        ({"output_path": "/data/{{ ds }}/fox.png"}, r"\{\{ ds \}\}, which was not rendered"),
        ({"output_path": "/data/fox", "if_exists": "always"}, "if_exists is 'always'"),
        ({"output_path": "/data/fox", "nsfw": "skip"}, "nsfw is 'skip'. Allowed: fail, allow"),
        ({"output_path": "/data/fox", "timeout": "soon"}, "timeout is 'soon'"),
        ({"if_exists": "fail"}, "no effect without output_path"),
    ],
    ids=str,
)
def test_what_cannot_be_used_is_refused_before_anything_is_bought(
    options: dict[str, Any], what: str, hook: BitDanceHook, local: LocalService
) -> None:
    with pytest.raises(InputError, match=what):
        hook.generate(prompt="A fox", **options)
    assert posts(local) == 0


def test_a_call_on_an_event_loop_is_refused_with_a_way_out(
    hook: BitDanceHook, local: LocalService, output: Path
) -> None:
    async def call() -> None:
        generate(hook, f"{output}/fox")

    with pytest.raises(InputError, match=r"asyncio\.to_thread"):
        asyncio.run(call())
    assert posts(local) == 0


# Saving


def test_what_was_bought_without_a_path_is_saved_with_its_receipt_free(
    hook: BitDanceHook, local: LocalService, output: Path, in_task: Any
) -> None:
    prediction = hook.submit(prompt="A fox", size=SIZE, seed=7)
    with in_task():
        result = hook.save(prediction, output / "fox.png")
        assert hook.save(prediction, output / "fox.png") == result
    assert (result["prediction_id"], result["seed"], result["estimated_cost_usd"]) == (prediction.id, 7, 0.01)
    assert (posts(local), local.bill().billed) == (1, 1)
    records = read_records(LocalFolder(output, step=".bitdance"))
    assert (records.findings, records.predictions) == ((), {prediction.id})
    with in_task(run_id="next"):
        assert generate(hook, output / "fox.png", seed=7)["reused"]


def test_a_second_prediction_replaces_the_first_at_its_path(
    hook: BitDanceHook, local: LocalService, output: Path, in_task: Any
) -> None:
    for try_number in (1, 2):
        with in_task(try_number=try_number):
            prediction = hook.submit(prompt="A fox", size=SIZE)
            result = hook.save(prediction, output / "fox.png")
            assert result["prediction_id"] == prediction.id
    assert len(list(output.glob("*.png"))) == 1


def test_a_prediction_of_the_history_is_saved_as_somebody_says_it_was_requested(
    hook: BitDanceHook, local: LocalService, output: Path
) -> None:
    bought = hook.submit(prompt="A fox", size=SIZE, seed=7)
    (listed,) = hook.history()
    assert listed.input is None
    with pytest.raises(InputError, match=r"does not return the request of prediction "):
        hook.save(listed, f"{output}/fox")
    request = {"prompt": "A fox", "size": SIZE, "seed": 7}
    assert hook.save(listed, f"{output}/fox", request=request)["prediction_id"] == bought.id


@pytest.mark.parametrize(
    ("echo", "request_", "what"),
    [
        ({"prompt": "A hen"}, {"prompt": "A fox"}, "another prompt than prediction .* with 'A hen'"),
        ({"prompt": "A fox", "seed": "8"}, {"prompt": "A fox", "seed": 7}, "another seed than .* with 8"),
    ],
)
def test_a_request_that_the_api_contradicts_is_refused(
    hook: BitDanceHook, output: Path, echo: dict[str, Any], request_: dict[str, Any], what: str
) -> None:
    prediction = hook.submit(prompt=echo["prompt"], size=SIZE).model_copy(update={"input": echo})

    with pytest.raises(InputError, match=what):
        hook.save(prediction, f"{output}/fox", request={"size": SIZE, **request_})
    assert not output.exists()


@pytest.mark.parametrize("echoed", [" A  red\nfox ", "A red", "A red fox, in high quality", None])
def test_a_request_whose_echo_was_trimmed_cut_or_extended_is_that_of_the_prediction(
    hook: BitDanceHook, output: Path, echoed: str | None
) -> None:
    bought = hook.submit(prompt="A red fox", size=SIZE, seed=7)
    prediction = bought.model_copy(update={"input": {"prompt": echoed, "seed": 7}})

    saved = hook.save(prediction, f"{output}/fox", request={"prompt": "A red fox", "size": SIZE})

    assert saved["prediction_id"] == bought.id


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda hook: hook.get_prediction(None), "None is not a prediction id"),
        (lambda hook: hook.get_prediction(""), "'' is not a prediction id"),
        (lambda hook: hook.delete([]), "prediction_ids is empty"),
        (lambda hook: hook.delete(["../x"]), "'../x' is not a prediction id"),
        (lambda hook: hook.save("80a3eb6e", "/data/fox"), "prediction is '80a3eb6e'. Allowed: a Prediction"),
        (lambda hook: hook.history(since="2026"), "since is '2026'. Allowed: a datetime"),
        (lambda hook: hook.get_charges(since=None), "since is None. Allowed: a datetime"),
        (lambda hook: hook.generate(prompt="A fox", poll_interval=True), "poll_interval is True"),
    ],
)
def test_an_argument_of_a_wrong_kind_is_named(
    hook: BitDanceHook, local: LocalService, call: Callable[[BitDanceHook], object], what: str
) -> None:
    with pytest.raises(InputError) as refused:
        call(hook)
    assert what in str(refused.value)
    assert posts(local) == 0


@pytest.mark.parametrize(("seed", "purchases"), [({}, 1), ({"seed": 7}, 2)], ids=["as requested", "as drawn"])
def test_a_task_without_a_seed_reuses_what_was_saved_without_one(
    hook: BitDanceHook, local: LocalService, output: Path, seed: dict[str, Any], purchases: int
) -> None:
    bought = hook.submit(prompt="A fox", size="1280*720", seed=7)
    request = {"prompt": "A fox", "size": "1280*720", **seed}
    hook.save(hook.get_prediction(bought.id), f"{output}/dag.image.run", request=request)
    operator = BitDanceTextToImageOperator(
        task_id="image", prompt="A fox", size="16:9", output_path=f"{output}/"
    )
    result = operator.execute(context())
    assert (result["prediction_id"] == bought.id, posts(local)) == (purchases == 1, purchases)


def test_a_prediction_that_has_failed_is_not_bought_again_by_saving_it(
    hook: BitDanceHook, local: LocalService, output: Path, in_task: Any
) -> None:
    local.add_fault(on="submit", kind="failed", times=1)
    prediction = hook.submit(prompt="A fox", size=SIZE)
    for try_number in (1, 2):
        with in_task(try_number=try_number), pytest.raises(Exception, match="failed"):
            hook.save(prediction, f"{output}/fox")
    assert posts(local) == 1
    hook.delete([prediction.id])


def test_a_deleted_prediction_cannot_be_saved(hook: BitDanceHook, local: LocalService, output: Path) -> None:
    prediction = hook.submit(prompt="A fox", size=SIZE)
    assert hook.delete([prediction.id]) == 1
    with pytest.raises(PredictionGoneError):
        hook.save(prediction, f"{output}/fox")
    assert posts(local) == 1


def test_a_plan_of_what_is_saved_has_no_seed_of_ours(hook: BitDanceHook, output: Path, in_task: Any) -> None:
    prediction = hook.submit(prompt="A fox", size=SIZE)
    with in_task():
        hook.save(prediction, f"{output}/fox")
    (record,) = read_records(LocalFolder(output, step=".bitdance")).jobs
    entry = json.loads(next((output / ".bitdance" / "jobs").rglob("000001.json")).read_text())
    (planned,) = (event for event in entry["events"] if event["event"] == "planned")
    assert planned["images"][0]["request"]["seed"] == -1
    assert record.job.call is not None
    assert record.job.call.endswith(prediction.id)


def test_what_another_task_is_making_is_not_replaced_by_what_is_saved(
    hook: BitDanceHook, output: Path, in_task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    prediction = hook.submit(prompt="A fox", size=SIZE)
    with in_task():
        dies(monkeypatch, lambda: generate(hook, f"{output}/fox", "An owl"))
    with in_task(run_id="next"), pytest.raises(InputError, match="making a different image"):
        hook.save(prediction, f"{output}/fox")


def test_what_is_saved_replaces_the_image_of_an_older_run(
    hook: BitDanceHook, output: Path, in_task: Any
) -> None:
    with in_task():
        generate(hook, f"{output}/fox", "An owl")
    prediction = hook.submit(prompt="A fox", size=SIZE)
    with in_task(run_id="next"):
        assert hook.save(prediction, f"{output}/fox")["prediction_id"] == prediction.id
    reservations = sorted((output / ".bitdance" / "addresses").rglob("*.json"))
    assert [json.loads(file.read_text())["writer"]["job"]["run_id"] for file in reservations] == [
        "run",
        "next",
    ]
