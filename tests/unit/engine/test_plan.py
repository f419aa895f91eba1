"""What a job decides before any money moves."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from airflow_provider_bitdance.engine.context import MANY
from airflow_provider_bitdance.engine.plan import plan
from airflow_provider_bitdance.exceptions import InputError, RecordUnreadableError, StorageError
from airflow_provider_bitdance.records import Planned, Stored
from airflow_provider_bitdance.records.events import Event
from airflow_provider_bitdance.storage.naming import parse_destination
from airflow_provider_bitdance.wavespeed.models import BITDANCE_14B
from tests.unit.support import (
    API_HOST,
    OUTPUT,
    MemoryFolder,
    Step,
    World,
    a_job,
    a_picture,
    a_receipt,
    a_wanted,
    a_writer,
    run,
)

ELSEWHERE = "mem://private/records"
PICTURE = a_picture()


@pytest.fixture
def world() -> World:
    return World()


def planning(world: World, *wanted: Any, **context: Any) -> list[Event]:
    return run(plan(world.context(**context), list(wanted) or [a_wanted()]))


def stand(world: World, name: str = "cover", *, file: str | None = None, **changes: Any) -> None:
    """Have an image stand at an address, with its receipt."""
    context = world.context()
    file = file or f"{name}.png"
    context.images.replace(file, PICTURE)
    address = parse_destination(f"{OUTPUT}/{name}", default_stem="unused")
    context.receipts.write(address, a_receipt(PICTURE, file=file, **changes))


def the_plan(events: list[Event]) -> Planned:
    (found,) = [event for event in events if isinstance(event, Planned)]
    return found


def reused(events: list[Event]) -> list[str]:
    assert all(event.reused for event in events if isinstance(event, Stored))
    return [event.key for event in events if isinstance(event, Stored)]


def test_an_image_that_is_not_there_is_planned_and_not_reused(world: World) -> None:
    events = planning(world)
    assert reused(events) == []
    (image,) = the_plan(events).images
    assert (image.key, image.stem, image.extension) == ("image", "cover", "")
    assert the_plan(events).output == OUTPUT
    assert image.request == a_wanted().request


def test_a_seed_that_was_asked_for_is_kept(world: World) -> None:
    (image,) = the_plan(planning(world, a_wanted(seed=77))).images
    assert (image.seed_asked, image.request.seed) == (77, 77)


def test_any_seed_is_drawn_and_both_are_written_down(world: World) -> None:
    (image,) = the_plan(planning(world, a_wanted(seed=-1), drawn_seed=4242)).images
    assert (image.seed_asked, image.request.seed) == (-1, 4242)


def test_the_fingerprint_is_of_what_was_asked_and_not_of_the_drawn_seed(world: World) -> None:
    (one,) = the_plan(planning(world, a_wanted(seed=-1), drawn_seed=1)).images
    (other,) = the_plan(planning(world, a_wanted(seed=-1), drawn_seed=2)).images
    (asked,) = the_plan(planning(world, a_wanted(seed=1))).images
    assert one.fingerprint == other.fingerprint == a_wanted(seed=-1).request.fingerprint(API_HOST)
    assert one.fingerprint != asked.fingerprint


def test_the_connections_price_is_written_down(world: World) -> None:
    (image,) = the_plan(planning(world, prices={BITDANCE_14B: 0.025})).images
    assert image.estimated_cost_usd == 0.025


def test_the_same_request_at_the_same_address_is_reused(world: World) -> None:
    stand(world)
    events = planning(world)
    assert reused(events) == ["image"]
    assert [event.receipt for event in events if isinstance(event, Stored)] == [
        world.context().receipts.uri(a_wanted().destination)
    ]


@pytest.mark.parametrize("wanted", [a_wanted("another prompt"), a_wanted(seed=8), a_wanted(name="other")])
def test_another_request_or_another_address_is_bought(world: World, wanted: Any) -> None:
    stand(world)
    assert reused(planning(world, wanted)) == []


def test_regenerate_buys_what_is_there(world: World) -> None:
    stand(world)
    assert reused(planning(world, if_exists="regenerate")) == []


@pytest.mark.parametrize("file", ["cover.png", "cover.jpg", "cover.jpeg", "cover.webp"])
def test_fail_refuses_where_any_image_is_at_the_address_with_or_without_a_receipt(
    world: World, file: str
) -> None:
    world.context().images.replace(file, PICTURE)
    with pytest.raises(InputError, match="An image already exists at mem://disk/images/cover"):
        planning(world, if_exists="fail")


def test_fail_refuses_a_file_with_the_extension_that_was_written_in_capitals(world: World) -> None:
    world.context().images.replace("cover.PNG", PICTURE)
    with pytest.raises(InputError):
        planning(world, a_wanted(name="cover.PNG", named=True), if_exists="fail")


def test_fail_buys_where_nothing_is_there(world: World) -> None:
    assert reused(planning(world, if_exists="fail")) == []


@pytest.mark.parametrize("change", ["gone", "cut", "one byte"])
def test_a_receipt_whose_file_is_not_as_it_was_is_not_reused(
    world: World, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    stand(world)
    images = MemoryFolder(world.disk, OUTPUT)
    if change == "gone":
        images.remove("cover.png")
    else:
        images.replace("cover.png", PICTURE[:-1] + (b"" if change == "cut" else b"!"))
    assert reused(planning(world)) == []
    assert "is missing or has changed" in caplog.text


@pytest.mark.parametrize(
    ("made_by", "level"),
    [
        (a_job(), logging.INFO),
        (a_job(generation=3), logging.INFO),
        (a_job(run_id="run-0"), logging.WARNING),
        (a_job(dag_id="other"), logging.WARNING),
    ],
)
def test_an_image_of_another_run_is_reused_with_a_warning(
    world: World, made_by: Any, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    stand(world, writer=a_writer(job=made_by))
    with caplog.at_level(logging.INFO):
        assert reused(planning(world)) == ["image"]
    (record,) = [record for record in caplog.records if "Reusing" in record.getMessage()]
    assert record.levelno == level


def test_of_several_images_each_is_decided_for_itself(world: World) -> None:
    stand(world, "a")
    wanted = [a_wanted(key=name, name=name) for name in "ab"]
    events = planning(world, *wanted)
    assert [image.key for image in the_plan(events).images] == ["a", "b"]
    assert reused(events) == ["a"]


def test_a_receipt_that_cannot_be_read_stops_the_plan(world: World) -> None:
    stand(world)
    (path,) = [path for path in world.disk if "/receipts/" in path]
    world.disk[path] = b"{}"
    with pytest.raises(RecordUnreadableError):
        planning(world)


def refuses_images(name: str) -> None:
    if name.startswith("before create .bitdance-check"):
        raise StorageError("read only")


def test_where_the_records_lie_elsewhere_the_output_folder_has_to_prove_itself_first(world: World) -> None:
    with pytest.raises(StorageError, match="read only"):
        planning(world, records=ELSEWHERE, step=refuses_images)
    assert world.disk == {}


def test_the_check_of_the_output_folder_leaves_nothing(world: World) -> None:
    steps: list[str] = []
    planning(world, records=ELSEWHERE, step=steps.append)
    assert [step.split(" .")[0] for step in steps] == [
        "before create",
        "after create",
        "before create",
        "before remove",
        "after remove",
    ]
    assert world.disk == {}


@pytest.mark.parametrize("records", ["beside", "all reused"])
def test_the_check_is_left_out_where_it_would_prove_nothing(world: World, records: str) -> None:
    steps: list[str] = []
    step: Step = steps.append
    if records == "beside":
        planning(world, step=step)
    else:
        address = a_wanted().destination
        world.context().images.replace("cover.png", PICTURE)
        world.context(records=ELSEWHERE).receipts.write(address, a_receipt(PICTURE))
        assert reused(planning(world, records=ELSEWHERE, step=step)) == ["image"]
    assert steps == []


@pytest.mark.parametrize(
    ("generation", "try_number", "is_last"), [(0, 1, True), (2, 1, False), (2, 2, False), (2, 3, True)]
)
def test_a_purchase_planned_in_a_task_s_last_try_is_warned_of(
    world: World, caplog: pytest.LogCaptureFixture, generation: int, try_number: int, is_last: bool
) -> None:
    """Airflow's default is no retry, and then nobody comes back for what a killed worker has bought."""
    planning(world, job=a_job(generation=generation), try_number=try_number)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == is_last
    assert all("last try" in warning and "With retries=2" in warning for warning in warnings)


def test_where_nothing_is_bought_the_last_try_is_not_spoken_of(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    stand(world)
    assert reused(planning(world)) == ["image"]
    assert "last try" not in caplog.text


def test_of_many_one_whose_file_is_gone_is_bought_again(world: World) -> None:
    names = [f"image-{number}" for number in range(MANY + 1)]
    for name in names:
        stand(world, name)
    del world.disk[f"{OUTPUT}/image-3.png"]
    events = planning(world, *(a_wanted(key=name, name=name, named=True) for name in names))
    assert reused(events) == [name for name in names if name != "image-3"]
