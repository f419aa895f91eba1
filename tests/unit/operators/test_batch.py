"""The batch operator as Airflow calls it, against the local service."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException, Asset, TaskDeferred
from airflow.sdk.execution_time.context import OutletEventAccessors

from airflow_provider_bitdance import exceptions
from airflow_provider_bitdance.decorators.bitdance import bitdance_task
from airflow_provider_bitdance.local import LocalService
from airflow_provider_bitdance.local.pictures import labels
from airflow_provider_bitdance.manifest import read_manifest
from airflow_provider_bitdance.operators.bitdance import BitDanceBatchOperator
from airflow_provider_bitdance.storage import LocalFolder
from tests.builders import context, posts
from tests.unit.support import FakeClock

PRODUCTS = [
    {"key": f"p-{number}", "product": name} for number, name in enumerate(("teapot", "kettle", "mug"))
]


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "posters"


def batch(output: Path, **given: Any) -> BitDanceBatchOperator:
    arguments: dict[str, Any] = {
        "task_id": "image",
        "items": PRODUCTS,
        "prompt": "A poster of a {product}",
        "size": "256*256",
        "output_path": f"{output}/",
        "retries": 2,
    }
    return BitDanceBatchOperator(**{**arguments, **given})


def shown(output: Path) -> dict[str, str]:
    return {path.stem: labels(path.read_bytes()).prompt for path in output.glob("*.png")}


def test_every_item_becomes_an_image_under_its_key(local: LocalService, output: Path) -> None:
    result = batch(output).execute(context())

    assert shown(output) == {item["key"]: f"A poster of a {item['product']}" for item in PRODUCTS}
    counts = {name: result[name] for name in ("items", "stored", "reused", "failed", "possibly_paid")}
    assert counts == {"items": 3, "stored": 3, "reused": 0, "failed": 0, "possibly_paid": 0}
    assert result["estimated_cost_usd"] == 0.03
    assert local.bill().billed == 3


def test_the_manifest_has_a_row_an_item_in_order_with_the_free_columns(
    local: LocalService, output: Path
) -> None:
    result = batch(output).execute(context())

    rows = read_manifest(result["manifest"])
    assert [(row.key, row.status, row.columns) for row in rows] == [
        (item["key"], "stored", {"product": item["product"]}) for item in PRODUCTS
    ]
    assert all(row.uri == f"file://{output}/{row.key}.png" for row in rows)


def test_the_result_stays_small_however_many_items_there_are(local: LocalService, output: Path) -> None:
    few = batch(output, items=PRODUCTS[:1]).execute(context())
    many = batch(output, items=[{"product": f"thing {number}"} for number in range(60)]).execute(
        context(run_id="many")
    )

    assert len(json.dumps(many)) < len(json.dumps(few)) + 20


def test_prompts_alone_are_items_and_the_same_prompts_are_bought_once(
    local: LocalService, output: Path
) -> None:
    asked = batch(output, items=["A teapot", "A kettle"], prompt=None, seed=7)
    asked.execute(context())
    again = batch(output, items=["A kettle", "A teapot", "A mug"], prompt=None, seed=7)

    result = again.execute(context(run_id="another"))

    assert (result["stored"], result["reused"], local.bill().billed) == (3, 2, 3)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("items.csv", "key,product\np-0,teapot\np-1,kettle\n"),
        ("items.jsonl", '{"key": "p-0", "product": "teapot"}\n{"key": "p-1", "product": "kettle"}\n'),
    ],
)
def test_items_may_lie_in_a_file(
    local: LocalService, output: Path, tmp_path: Path, name: str, text: str
) -> None:
    (tmp_path / name).write_text(text)

    result = batch(output, items=str(tmp_path / name)).execute(context())

    assert result["stored"] == 2
    assert shown(output) == {"p-0": "A poster of a teapot", "p-1": "A poster of a kettle"}


@pytest.mark.parametrize(
    "items", [[], "/nowhere/items.csv", "items.csv", None, {"a cat"}, [{"key": "a"}], ["", " "]]
)
def test_bad_items_fail_without_retry_before_any_request(
    local: LocalService, output: Path, items: Any
) -> None:
    with pytest.raises(AirflowFailException, match=r"A retry does not help\. Nothing was charged"):
        batch(output, items=items).execute(context())

    assert local.requests() == []
    assert not output.exists()


def test_every_bad_row_is_named_at_once(local: LocalService, output: Path) -> None:
    rows = [{"product": "mug", "size": "huge"}, {"product": "mug"}, {"seed": "x", "product": "pot"}, {}]

    with pytest.raises(AirflowFailException) as failed:
        batch(output, items=rows).execute(context())

    assert all(f"row {number}" in str(failed.value) for number in (1, 3, 4))
    assert "row 2" not in str(failed.value)


def test_one_failed_item_does_not_cost_the_others_and_a_retry_buys_only_what_is_missing(
    local: LocalService, output: Path
) -> None:
    local.add_fault(on="submit", kind="failed", match="kettle", times=1)
    with pytest.raises(
        exceptions.ItemsFailedError, match=r"1 of 3 images failed: p-1: .*only what is missing"
    ):
        batch(output).execute(context(try_number=1))
    assert set(shown(output)) == {"p-0", "p-2"}

    result = batch(output).execute(context(try_number=2))

    assert (result["stored"], result["failed"]) == (3, 0)
    assert local.bill().submitted == 4


def test_where_no_retry_can_help_the_task_fails_without_one(local: LocalService, output: Path) -> None:
    local.add_fault(on="submit", kind="failed", match="kettle", code=1200, error="sensitive")

    with pytest.raises(AirflowFailException, match="1 of 3 images failed"):
        batch(output).execute(context())

    rows = read_manifest(f"{output}/dag.image.run.manifest.jsonl")
    assert [row.status for row in rows] == ["stored", "failed", "stored"]
    assert "sensitive" in str(rows[1].error)


def test_failures_may_be_tolerated_and_are_counted(local: LocalService, output: Path) -> None:
    local.add_fault(on="submit", kind="failed", match="kettle", code=1200)

    result = batch(output, on_item_failure="tolerate").execute(context())

    assert (result["stored"], result["failed"]) == (2, 1)


def test_more_failures_than_tolerated_fail(local: LocalService, output: Path) -> None:
    local.add_fault(on="submit", kind="failed", code=1200)

    with pytest.raises(AirflowFailException):
        batch(output, on_item_failure="tolerate", max_failures=1).execute(context())


def test_fail_fast_buys_nothing_more_and_keeps_what_is_bought(local: LocalService, output: Path) -> None:
    local.add_fault(on="submit", kind="status", status=400, times=1)

    with pytest.raises(AirflowFailException, match=r"0 of 3 images are stored; the rest costs about \$0\.03"):
        batch(output, on_item_failure="fail_fast", max_in_flight=1).execute(context())

    assert posts(local) == 1


def test_more_than_the_balance_or_the_budget_is_refused_before_anything_is_bought(
    local: LocalService, output: Path
) -> None:
    with pytest.raises(AirflowFailException, match=r"3 images .* \$0\.03, but max_cost_usd is \$0\.02"):
        batch(output, max_cost_usd=0.02).execute(context())

    assert posts(local) == 0


def test_variants_have_keys_seeds_and_a_contact_sheet(local: LocalService, output: Path) -> None:
    result = batch(output, items=PRODUCTS[:2], variants=3).execute(context())

    rows = read_manifest(result["manifest"])
    assert [row.key for row in rows] == [f"p-{item}-v{variant}" for item in (0, 1) for variant in (1, 2, 3)]
    assert [row.variant_of for row in rows] == ["p-0"] * 3 + ["p-1"] * 3
    assert len({row.seed for row in rows}) == 6
    assert sorted(path.name for path in output.glob("*.jpg")) == [
        "p-0-contact-sheet.jpg",
        "p-1-contact-sheet.jpg",
    ]


def test_a_batch_defers_once_and_goes_on_with_its_plan(
    local: LocalService, output: Path, clock: FakeClock
) -> None:
    local.add_fault(on="submit", kind="latency", seconds=100)
    asked = batch(output, deferrable=True, defer_after=1)
    with pytest.raises(TaskDeferred) as handed_over:
        asked.execute(context())
    kwargs = handed_over.value.trigger.serialize()[1]
    assert len(kwargs["pending"]) == 3

    clock.now += 100
    again = batch(output, deferrable=True, defer_after=1, items=["Something else"], prompt=None)
    result = again.execute_complete(context(), {"reason": "ready", "ended": 3, "pending": 0})

    assert set(shown(output)) == {"p-0", "p-1", "p-2"}
    assert [row.columns for row in read_manifest(result["manifest"])] == [
        {"product": item["product"]} for item in PRODUCTS
    ]
    assert local.bill().billed == 3


def test_what_a_cleared_batch_has_adopted_is_in_its_cost_as_in_its_rows(
    local: LocalService, output: Path
) -> None:
    with pytest.raises(TaskDeferred):
        batch(output, deferrable=True, defer_after=0).execute(context())

    result = batch(output).execute(context(try_number=2, max_tries=4))

    rows = read_manifest(result["manifest"])
    assert result["estimated_cost_usd"] == sum(row.estimated_cost_usd or 0 for row in rows) == 0.03
    assert (result["reused"], local.bill().billed) == (0, 3)


def test_an_asset_event_tells_counts_cost_and_manifest(local: LocalService, output: Path) -> None:
    posters = Asset("posters")
    events = OutletEventAccessors()

    result = batch(output, outlets=[posters]).execute({**context(), "outlet_events": events})

    assert events[posters].extra == result


@pytest.mark.parametrize(
    ("argument", "value", "allowed"),
    [
        ("max_in_flight", 0, "a number of predictions, 1 to 1000"),
        ("variants", 0, "a number of images, 1 to 16"),
        ("variants", 17, "a number of images, 1 to 16"),
        ("variants", True, "a number of images, 1 to 16"),
        ("variants", "2", "a number of images, 1 to 16"),
        ("variants", None, "a number of images, 1 to 16"),
        ("max_unanswered", 0, "a number of submissions, 1 to 64"),
        ("max_unanswered", 65, "a number of submissions, 1 to 64"),
        ("max_unanswered", None, "a number of submissions, 1 to 64"),
        ("requests_per_minute", -1, "a number of submissions, 1 to 10000"),
        ("requests_per_minute", 2.5, "a number of submissions, 1 to 10000"),
        ("on_item_failure", "ignore", "finish_then_fail, fail_fast, tolerate"),
        ("manifest_format", "xml", "jsonl, parquet"),
    ],
)
def test_a_wrong_argument_is_refused_when_the_dag_is_parsed(
    output: Path, argument: str, value: object, allowed: str
) -> None:
    with DAG("dag", schedule=None), pytest.raises(exceptions.InputError) as refused:
        batch(output, **{argument: value})

    assert f"{argument} is {value!r}. Allowed: {allowed}" in str(refused.value)


@pytest.mark.parametrize("rows", ["[{'key': 'fox', 'prompt': 'A fox'}]", ' ["A fox"]', '{"key": "fox"}'])
def test_rows_that_airflow_has_rendered_as_text_are_refused_with_the_way_out(
    local: LocalService, output: Path, rows: str
) -> None:
    with pytest.raises(AirflowFailException) as refused:
        batch(output, items=rows).execute(context())

    assert "items is text with rows in it" in str(refused.value)
    assert "render_template_as_native_obj=True" in str(refused.value)
    assert local.bill().submitted == 0


def test_a_number_of_failures_needs_tolerance(output: Path) -> None:
    with pytest.raises(exceptions.InputError, match="max_failures is set without"):
        batch(output, max_failures=3)


def test_two_runs_that_want_the_same_key_for_different_images_do_not_mix(
    local: LocalService, output: Path
) -> None:
    batch(output).execute(context())
    result = batch(output, prompt="A drawing of a {product}").execute(context(run_id="another"))

    assert result["reused"] == 0
    assert shown(output)["p-0"] == "A drawing of a teapot"


@pytest.mark.parametrize("end", ["#", "?", "%23", " ", "\\", "."])
def test_batches_into_folders_that_differ_in_one_character_do_not_mix(
    local: LocalService, tmp_path: Path, end: str
) -> None:
    one, other = tmp_path / "C", tmp_path / f"C{end}"
    batch(one, items=PRODUCTS[:1]).execute(context())
    batch(other, items=PRODUCTS[:1], prompt="A drawing of a {product}").execute(context(run_id="another"))

    assert shown(one) == {"p-0": "A poster of a teapot"}
    assert shown(other) == {"p-0": "A drawing of a teapot"}
    assert batch(one, items=PRODUCTS[:1]).execute(context(run_id="third"))["reused"] == 1


@pytest.mark.parametrize("spelling", ["{}/./", "//{}//", "FILE://{}/", "{}/ \n", "{}"])
def test_spellings_of_one_folder_are_one_folder(local: LocalService, output: Path, spelling: str) -> None:
    batch(output, items=PRODUCTS[:1], seed=7).execute(context())
    path = spelling.format(output)

    result = batch(output, items=PRODUCTS[:1], seed=7, output_path=path).execute(context(run_id="another"))

    assert (result["reused"], local.bill().billed) == (1, 1)


def test_an_estimate_counts_what_is_there(local: LocalService, output: Path) -> None:
    batch(output, items=PRODUCTS[:2], seed=7).execute(context())

    said = str(batch(output, seed=7).estimate(context(run_id="another")))

    assert said.startswith("2 reused, 1 to buy, about $0.01")


def test_what_is_possibly_paid_is_reported_for_failed_images_too(local: LocalService, output: Path) -> None:
    local.add_fault(on="submit", kind="reset", after_create=True, match="kettle", times=1)
    local.add_fault(on="submit", kind="status", status=400, match="kettle")

    result = batch(output, on_item_failure="tolerate").execute(context())

    row = read_manifest(result["manifest"])[1]
    assert (row.status, row.possibly_paid, result["possibly_paid"]) == ("failed", 1, 1)
    assert local.bill().billed == 3


def test_what_was_possibly_paid_before_a_clear_is_reported_for_an_image_that_fails_after_it(
    local: LocalService, output: Path
) -> None:
    local.add_fault(on="submit", kind="reset", after_create=True, match="kettle", times=1)
    local.add_fault(on="submit", kind="status", status=400, match="kettle")
    asked = batch(output, on_item_failure="tolerate")
    asked.execute(context(try_number=1, max_tries=2))

    result = asked.execute(context(try_number=2, max_tries=3))

    row = read_manifest(result["manifest"])[1]
    assert (row.status, row.possibly_paid, result["possibly_paid"]) == ("failed", 1, 1)


def test_an_image_that_is_paid_for_and_not_stored_is_not_tolerated_away_while_there_are_tries(
    local: LocalService, output: Path
) -> None:
    local.add_fault(on="output", kind="status", status=503, match="kettle", times=3)
    asked = batch(output, on_item_failure="tolerate")

    with pytest.raises(exceptions.ItemsFailedError, match=r"p-1: .*503"):
        asked.execute(context(try_number=1))

    assert asked.execute(context(try_number=2))["stored"] == 3
    assert local.bill().billed == 3


def test_on_the_last_try_it_is_counted(local: LocalService, output: Path) -> None:
    local.add_fault(on="output", kind="status", status=503, match="kettle")

    result = batch(output, on_item_failure="tolerate").execute(context(try_number=3, max_tries=2))

    assert (result["stored"], result["failed"], result["estimated_cost_usd"]) == (2, 1, 0.03)


def test_a_batch_of_one_is_a_batch(local: LocalService, output: Path) -> None:
    local.add_fault(on="submit", kind="failed", code=1200)

    result = batch(output, items=PRODUCTS[:1], on_item_failure="tolerate").execute(context())

    assert (result["items"], result["failed"]) == (1, 1)


def test_a_batch_that_stops_early_leaves_a_manifest_with_what_is_missing(
    local: LocalService, output: Path
) -> None:
    local.add_fault(on="submit", kind="status", status=401, match="mug")

    with pytest.raises(AirflowFailException, match="of 3 images are stored"):
        batch(output, max_in_flight=1).execute(context())

    rows = read_manifest(f"{output}/dag.image.run.manifest.jsonl")
    assert [row.status for row in rows] == ["stored", "stored", "missing"]


# What a batch that fails leaves


class Pushed(dict[str, Any]):
    """A context whose task instance keeps the XComs of one try, as Airflow does: a new try begins without."""

    def __init__(self, **ti: Any) -> None:
        super().__init__(context(**ti))
        self.xcoms: dict[str, Any] = {}
        self["ti"].xcom_push = self._push

    def _push(self, key: str, value: Any) -> None:
        self.xcoms[key] = json.loads(json.dumps(value))

    @property
    def result(self) -> Any:
        return self.xcoms.get("return_value")


def counts_of(result: dict[str, Any]) -> tuple[int, int, int]:
    return result["items"], result["stored"], result["failed"]


@pytest.mark.parametrize(
    ("fault", "options", "counts"),
    [
        ({"kind": "failed"}, {}, (3, 2, 1)),
        ({"kind": "failed", "code": 1200}, {}, (3, 2, 1)),
        ({"kind": "failed", "code": 1200}, {"on_item_failure": "fail_fast"}, (3, 2, 1)),
        ({"kind": "failed", "code": 1200}, {"on_item_failure": "tolerate", "max_failures": 0}, (3, 2, 1)),
        ({"kind": "failed", "code": 1200}, {"retry_failed": False, "max_cost_usd": 0.03}, (3, 2, 1)),
        ({"kind": "status", "status": 401}, {}, (3, 2, 0)),
        ({"kind": "status", "status": 400, "message": "Insufficient credits"}, {}, (3, 2, 0)),
    ],
)
def test_a_batch_that_fails_leaves_its_result_for_tasks_that_run_all_the_same(
    local: LocalService, output: Path, fault: dict[str, Any], options: dict[str, Any], counts: Any
) -> None:
    local.add_fault(on="submit", match="mug", **fault)
    pushed = Pushed()

    with pytest.raises((AirflowFailException, exceptions.BitDanceError)):
        batch(output, max_in_flight=1, **options).execute(pushed)

    assert pushed.result["manifest"] == f"file://{output}/dag.image.run.manifest.jsonl"
    assert counts_of(pushed.result) == counts
    rows = read_manifest(pushed.result["manifest"])
    assert [row.key for row in rows if row.status == "stored"] == ["p-0", "p-1"]


def test_each_try_that_fails_leaves_its_own_result_and_one_that_succeeds_returns_it(
    local: LocalService, output: Path
) -> None:
    local.add_fault(on="submit", kind="failed", times=2)
    tries = [Pushed(try_number=number) for number in (1, 2)]

    with pytest.raises(exceptions.ItemsFailedError):
        batch(output).execute(tries[0])
    result = batch(output).execute(tries[1])

    assert counts_of(tries[0].result) == (3, 1, 2)
    assert (counts_of(result), tries[1].result) == ((3, 3, 0), None)
    assert result["manifest"] == tries[0].result["manifest"]


def test_a_batch_that_fails_after_a_deferral_leaves_its_result(local: LocalService, output: Path) -> None:
    local.add_fault(on="submit", kind="latency", seconds=30, match="teapot|kettle")
    local.add_fault(on="submit", kind="failed", match="mug")
    options: dict[str, Any] = {"deferrable": True, "defer_after": 0}
    first, resumed = Pushed(), Pushed()
    with pytest.raises(TaskDeferred):
        batch(output, **options).execute(first)

    with pytest.raises(exceptions.ItemsFailedError):
        batch(output).execute_complete(resumed, {"reason": "ready", "ended": 3, "pending": 0})

    assert first.result is None
    assert counts_of(resumed.result) == (3, 2, 1)


def test_a_batch_that_a_budget_stops_before_it_buys_has_no_result_to_leave(
    local: LocalService, output: Path
) -> None:
    pushed = Pushed()

    with pytest.raises(AirflowFailException, match="max_cost_usd"):
        batch(output, max_cost_usd=0.02).execute(pushed)

    assert pushed.result is None
    assert list(output.glob("*.manifest.jsonl")) == []


def test_a_batch_that_a_budget_stops_on_its_way_leaves_its_result(local: LocalService, output: Path) -> None:
    local.add_fault(on="submit", kind="reset", match="kettle", times=2)
    pushed = Pushed()

    with pytest.raises(AirflowFailException, match="max_cost_usd"):
        batch(output, max_in_flight=1, max_cost_usd=0.03).execute(pushed)

    assert counts_of(pushed.result)[0] == 3
    assert read_manifest(pushed.result["manifest"])[0].status == "stored"


def test_a_result_that_xcom_does_not_take_hides_no_error(
    local: LocalService, output: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BitDanceBatchOperator, "log", logging.getLogger("bitdance.test"))
    local.add_fault(on="submit", kind="failed", match="mug")

    with pytest.raises(exceptions.ItemsFailedError, match="1 of 3 images failed"):
        batch(output).execute(context())  # its task instance takes none

    assert "The result of the failed task could not be pushed to XCom" in caplog.text


def test_a_task_without_a_result_in_xcom_leaves_none_when_it_fails(local: LocalService, output: Path) -> None:
    local.add_fault(on="submit", kind="failed", match="mug")
    pushed = Pushed()

    with pytest.raises(exceptions.ItemsFailedError):
        batch(output, do_xcom_push=False).execute(pushed)

    assert pushed.result is None


def test_a_list_of_a_function_leaves_its_result_when_it_fails(local: LocalService, output: Path) -> None:
    @bitdance_task(task_id="image", output_path=f"{output}/", size="256*256")
    def made() -> list[str]:
        return ["A teapot", "A mug"]

    local.add_fault(on="submit", kind="failed", match="mug")
    pushed = Pushed()

    with pytest.raises(exceptions.ItemsFailedError):
        made().operator.execute(pushed)

    assert counts_of(pushed.result) == (2, 1, 1)


def test_flagged_pictures_may_be_left_out(local: LocalService, output: Path) -> None:
    local.add_fault(on="submit", kind="nsfw", match="kettle")

    result = batch(output, nsfw="skip").execute(context())

    assert (result["stored"], result["failed"], result["estimated_cost_usd"]) == (2, 1, 0.03)


def test_a_flagged_image_that_is_stored_already_fails_alone_and_is_not_bought_again(
    local: LocalService, output: Path
) -> None:
    local.add_fault(on="submit", kind="nsfw", match="kettle")
    batch(output, nsfw="allow").execute(context())

    result = batch(output, nsfw="skip").execute(context(run_id="another"))

    assert (result["stored"], result["failed"], result["reused"]) == (2, 1, 2)
    assert local.bill().billed == 3


def test_a_contact_sheet_is_made_anew_only_where_there_is_a_new_picture_or_no_sheet(
    local: LocalService, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch(output, variants=2).execute(context())
    (output / "p-0-contact-sheet.jpg").unlink()
    written: list[str] = []
    replace = LocalFolder.replace

    def seen(folder: LocalFolder, name: str, data: bytes) -> None:
        written.append(name)
        replace(folder, name, data)

    monkeypatch.setattr(LocalFolder, "replace", seen)
    changed = [*PRODUCTS[:2], {**PRODUCTS[2], "product": "cup"}]
    # The middle one has its sheet, and all that is on it is as it was.
    batch(output, items=changed, variants=2).execute(context(run_id="another"))

    assert [name for name in written if "contact-sheet" in name] == [
        "p-0-contact-sheet.jpg",
        "p-2-contact-sheet.jpg",
    ]


def test_a_retry_does_without_its_items_file_for_it_has_a_plan(
    local: LocalService, output: Path, tmp_path: Path
) -> None:
    local.add_fault(on="submit", kind="latency", seconds=30)
    file = tmp_path / "items.csv"
    file.write_text("key,product\na,fox\nb,owl\n")
    with pytest.raises(TaskDeferred):
        batch(output, items=str(file), deferrable=True, defer_after=0).execute(context())
    file.unlink()
    file.mkdir()  # a store that fails

    with pytest.raises(TaskDeferred):
        batch(output, items=str(file), deferrable=True, defer_after=0).execute(context(try_number=2))

    assert posts(local) == 2


def test_a_folder_is_not_taken_for_an_image_of_its_name(local: LocalService, output: Path) -> None:
    (output / "p-0").mkdir(parents=True)

    assert batch(output, if_exists="fail").execute(context())["stored"] == 3


def test_what_is_reused_and_what_is_replaced_is_told_in_sums(
    local: LocalService, output: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BitDanceBatchOperator, "log", logging.getLogger("bitdance.test"))
    items = [{"key": f"p-{number}", "product": f"teapot {number}"} for number in range(8)]
    batch(output, items=items).execute(context())
    items[0]["product"] = "kettle"
    caplog.clear()

    with caplog.at_level("INFO"):
        batch(output, items=items).execute(context(run_id="another"))

    told = {record.getMessage(): record.levelname for record in caplog.records}
    assert told["7 of 8 images are already stored or bought; they are not bought again"] == "INFO"
    assert (
        told["1 of 8 images were made for different requests; buying new images to replace them"] == "WARNING"
    )
    assert not [message for message in told if "Reusing" in message]


def test_a_contact_sheet_with_fewer_variants_is_made_anew(local: LocalService, output: Path) -> None:
    batch(output, items=PRODUCTS[:1], variants=3).execute(context())
    sheet = output / "p-0-contact-sheet.jpg"
    of_three = sheet.read_bytes()

    result = batch(output, items=PRODUCTS[:1], variants=2).execute(context(run_id="another"))

    assert result["reused"] == 2
    assert sheet.read_bytes() != of_three


def test_a_row_may_have_the_key_none(local: LocalService, output: Path) -> None:
    assert batch(output, items=[{"key": "None", "product": "teapot"}]).execute(context())["stored"] == 1


def test_a_named_pipe_in_the_place_of_a_contact_sheet_is_replaced(local: LocalService, output: Path) -> None:
    output.mkdir(parents=True)
    os.mkfifo(output / "p-0-contact-sheet.jpg")
    assert batch(output, items=PRODUCTS[:1], variants=2).execute(context())["stored"] == 2
    assert (output / "p-0-contact-sheet.jpg").read_bytes().startswith(b"\xff\xd8")


def test_numpys_numbers_are_options_like_pythons_own() -> None:
    numpy = pytest.importorskip("numpy")
    task = batch(
        Path("/data"),
        max_in_flight=numpy.int64(7),
        timeout=numpy.float32(60),
        max_cost_usd=numpy.float64(0.5),
        previews=numpy.int32(3),
    )
    given = (task.max_in_flight, task.timeout, task.max_cost_usd, task.previews)
    assert given == (7, 60.0, 0.5, 3)
    assert [type(value) for value in given] == [int, float, float, int]
