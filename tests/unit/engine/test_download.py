"""Storing what a prediction gave: file, receipt, journal, in this order."""

from __future__ import annotations

import hashlib
import logging
from datetime import UTC, datetime
from typing import Any

import pytest

from airflow_provider_bitdance.engine import output, run_job
from airflow_provider_bitdance.engine.download import collect_output
from airflow_provider_bitdance.exceptions import (
    BitDanceError,
    ModerationError,
    NsfwError,
    OutputError,
    OutputExpiredError,
    OutputRefusedError,
    Paid,
    PredictionFailedError,
    PredictionGoneError,
    PredictionRefusedError,
)
from airflow_provider_bitdance.records import Failure, Intended, Planned, PlannedImage, Status, Submitted
from airflow_provider_bitdance.records.receipts import Receipt
from airflow_provider_bitdance.wavespeed.responses import Prediction
from tests.unit.support import (
    API_KEY,
    API_URL,
    OUTPUT,
    RECORDS,
    MemoryFolder,
    World,
    a_picture,
    a_plan,
    a_receipt,
    a_request,
    a_wanted,
    run,
)
from tests.wire import httpx

ADDRESS = a_wanted().destination
ONE_DAY = 86_400.0


@pytest.fixture
def world() -> World:
    return World(latency=0)


def resolving(
    world: World,
    *,
    age: float = 0.0,
    planned: PlannedImage | None = None,
    picture: bytes = b"",
    **context: Any,
) -> None:
    """Submit a planned image, let time pass, poll once and collect what came."""
    process = world.context(**context)
    made = world.api.create({"prompt": "a lighthouse at dawn"})
    made.picture = picture or made.picture
    process.journal.claim(
        world.clock.now + 600,
        world.clock.now,
        Planned(output=OUTPUT, images=(planned or a_plan(),)),
        Intended(keys=("image",)),
        Submitted(key="image", prediction_id=made.id),
    )
    world.clock.now += age

    async def poll_and_collect() -> None:
        prediction: Prediction = await process.client.get_prediction(made.id)
        await collect_output(process, process.journal.state.images["image"], prediction)

    run(poll_and_collect())


def receipt(world: World) -> Receipt | None:
    return world.context().receipts.find(ADDRESS)


def image(world: World) -> Any:
    return world.context().journal.state.images["image"]


def test_the_file_comes_before_the_receipt_and_the_receipt_before_the_journal(world: World) -> None:
    steps: list[str] = []
    resolving(world, step=steps.append)
    assert [step for step in steps if "before" in step][2:] == [
        "before download",
        "before replace cover.png",
        "before replace receipt",
        "before create 000002",
    ]


def test_the_stored_file_is_what_was_downloaded(world: World) -> None:
    resolving(world)
    assert world.images == {"cover.png": world.api.made["pred-1"].picture}
    assert image(world).status is Status.STORED


def test_the_receipt_tells_what_was_stored(world: World) -> None:
    world.api.next_changes = {"nsfw": True}
    resolving(world, age=12, nsfw="allow")
    found = receipt(world)
    data = world.images["cover.png"]
    assert found is not None
    assert image(world).receipt == world.context().receipts.uri(ADDRESS)
    assert found.model_dump(exclude={"writer"}) == {
        "format": 2,
        "uri": f"{OUTPUT}/cover.png",
        "file": "cover.png",
        "prediction_id": "pred-1",
        "request": a_plan().request.model_dump(),
        "seed_asked": 7,
        "fingerprint": a_plan().fingerprint,
        "width": 12,
        "height": 12,
        "size_differs": True,
        "media_type": "image/png",
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "nsfw": True,
        "inference_ms": 1234.5,
        "estimated_cost_usd": 0.01,
        "possibly_paid": 0,
        "reservation": 0,
        "submitted_at": datetime.fromtimestamp(world.clock.now - 12, UTC),
        "stored_at": datetime.fromtimestamp(world.clock.now, UTC),
    }


def test_the_receipt_says_what_is_possibly_paid_beside_its_prediction(world: World) -> None:
    resolving(world, planned=a_plan().model_copy(update={"possibly_paid": 2}))
    found = receipt(world)
    assert found is not None
    assert found.possibly_paid == 2


@pytest.mark.parametrize("size", ["256*256", "257*256"])
def test_the_receipt_says_whether_the_picture_has_the_size_that_was_asked(world: World, size: str) -> None:
    plan = a_plan().model_copy(update={"request": a_request(size=size)})
    resolving(world, planned=plan, picture=a_picture(side=256))
    found = receipt(world)
    assert found is not None
    assert found.size_differs is (size != "256*256")
    assert found.sha256_received is None


def test_a_prompt_that_was_sent_in_the_place_of_the_one_asked_is_in_the_receipt_with_it(world: World) -> None:
    resolving(world, planned=a_plan().model_copy(update={"prompt_asked": "as asked"}))
    found = receipt(world)
    assert found is not None
    assert (found.prompt_asked, found.request.prompt) == ("as asked", "a lighthouse at dawn")


def test_the_extension_is_that_of_what_came(world: World) -> None:
    world.api.extension = "webp"
    resolving(world)
    assert list(world.images) == ["cover.webp"]


def test_the_api_key_is_not_sent_to_the_host_of_the_output(world: World) -> None:
    resolving(world)
    (request,) = world.api.downloads
    assert API_KEY not in str(request.headers)


def stand(world: World, file: str) -> None:
    context = world.context()
    context.images.replace(file, b"old")
    context.receipts.write(ADDRESS, a_receipt(file=file, uri=f"{OUTPUT}/{file}", bytes=3))


def test_an_old_receipt_is_withdrawn_before_its_file_is_replaced(world: World) -> None:
    stand(world, "cover.png")
    steps: list[str] = []
    resolving(world, step=steps.append)
    assert [step for step in steps if "before" in step][3:] == [
        "before remove receipt",
        "before replace cover.png",
        "before replace receipt",
        "before create 000002",
    ]


def test_an_old_file_of_another_extension_is_taken_away_after_the_new_ones_receipt(world: World) -> None:
    stand(world, "cover.jpg")
    steps: list[str] = []
    resolving(world, step=steps.append)
    assert list(world.images) == ["cover.png"]
    assert steps.index("after replace receipt") < steps.index("before remove cover.jpg")


@pytest.mark.parametrize("records", [RECORDS, "mem://disk/records"])
@pytest.mark.parametrize("is_exclusive", [True, False])
def test_a_new_image_is_created_only_where_the_store_refuses_a_second(
    monkeypatch: pytest.MonkeyPatch, records: str, is_exclusive: bool
) -> None:
    """Else a process that slept would overwrite with it: it reads whose destination it is before."""
    if not is_exclusive:
        monkeypatch.setattr(MemoryFolder, "create", MemoryFolder.replace)
        monkeypatch.setattr(MemoryFolder, "is_exclusive", lambda _: False)
    steps: list[str] = []
    run(run_job(World().context(records=records, step=steps.append), [a_wanted()]))
    assert ("before create cover.png" in steps) is is_exclusive
    assert ("before replace cover.png" in steps) is not is_exclusive


def test_a_file_without_a_receipt_and_with_another_extension_is_not_touched(world: World) -> None:
    world.context().images.replace("cover.jpg", b"not ours")
    resolving(world)
    assert world.images["cover.jpg"] == b"not ours"


@pytest.mark.parametrize("is_there", [True, False])
def test_a_file_without_a_receipt_is_not_replaced_in_silence(
    world: World, is_there: bool, caplog: pytest.LogCaptureFixture
) -> None:
    if is_there:
        world.context().images.replace("cover.png", b"not ours")
    resolving(world)
    assert world.images == {"cover.png": world.api.made["pred-1"].picture}
    assert ("cover.png, a file without a receipt" in caplog.text) is is_there


def test_a_receipt_of_this_very_prediction_is_not_downloaded_again(world: World) -> None:
    data = a_picture(text="from the process before")
    context = world.context()
    context.images.replace("cover.png", data)
    context.receipts.write(ADDRESS, a_receipt(data, prediction_id="pred-1"))
    resolving(world)
    assert world.api.downloads == []
    assert world.images == {"cover.png": data}
    assert image(world).status is Status.STORED


def test_it_is_downloaded_again_when_its_file_is_gone(world: World) -> None:
    world.context().receipts.write(ADDRESS, a_receipt(prediction_id="pred-1"))
    resolving(world)
    assert world.images == {"cover.png": world.api.made["pred-1"].picture}


@pytest.mark.parametrize("policy", ["fail", "skip"])
def test_a_flagged_picture_is_not_stored(world: World, policy: str) -> None:
    world.api.next_changes = {"nsfw": True}
    with pytest.raises(NsfwError) as caught:
        resolving(world, nsfw=policy)
    assert caught.value.paid is Paid.YES
    assert (image(world).status, image(world).failure) == (Status.FAILED, Failure.NSFW)
    assert world.images == {}
    assert world.api.downloads == []


def test_a_flagged_picture_is_stored_where_that_is_allowed(world: World) -> None:
    world.api.next_changes = {"nsfw": True}
    resolving(world, nsfw="allow")
    assert list(world.images) == ["cover.png"]


ENDS: list[tuple[dict[str, Any], type[BitDanceError], Failure]] = [
    ({"status": "failed", "code": 5000}, PredictionFailedError, Failure.FAILED),
    ({"status": "failed"}, PredictionFailedError, Failure.FAILED),
    ({"status": "timeout"}, PredictionFailedError, Failure.FAILED),
    ({"status": "failed", "code": 1200}, ModerationError, Failure.MODERATED),
    ({"status": "failed", "error": "Sensitive content"}, ModerationError, Failure.MODERATED),
    ({"status": "failed", "code": 1400}, PredictionRefusedError, Failure.REFUSED),
    ({"status": "failed", "code": 1407}, PredictionRefusedError, Failure.REFUSED),
    ({"status": "cancelled"}, PredictionGoneError, Failure.GONE),
    ({"status": "deleted"}, PredictionGoneError, Failure.GONE),
]


@pytest.mark.parametrize(("changes", "error", "failure"), ENDS)
def test_an_end_without_a_picture_is_written_down_and_raised(
    world: World, changes: dict[str, Any], error: type[BitDanceError], failure: Failure
) -> None:
    world.api.next_changes = changes
    with pytest.raises(error) as caught:
        resolving(world)
    assert type(caught.value) is error
    assert (image(world).status, image(world).failure) == (Status.FAILED, failure)
    assert image(world).reason == caught.value.what


def test_completed_without_an_output_is_looked_at_again_by_the_next_try(world: World) -> None:
    world.api.on_poll = [
        httpx.Response(
            200, json={"code": 200, "data": {"id": "pred-1", "status": "completed", "outputs": []}}
        )
    ]
    with pytest.raises(OutputError, match="no output yet") as caught:
        resolving(world)
    assert caught.value.retry_helps
    assert image(world).status is Status.SUBMITTED


BAD_DOWNLOADS = {
    "503": lambda: httpx.Response(503),
    "404": lambda: httpx.Response(404),
    "time-out": lambda: httpx.ReadTimeout("x"),
    "cut": lambda: httpx.Response(200, content=a_picture()[:-30]),
    "HTML": lambda: httpx.Response(200, text="<html>"),
    "empty": lambda: httpx.Response(200),
}


@pytest.mark.parametrize("bad", BAD_DOWNLOADS.values(), ids=BAD_DOWNLOADS)
def test_a_download_that_fails_twice_is_tried_a_third_time(world: World, bad: Any) -> None:
    world.api.on_download = [bad(), bad()]
    resolving(world)
    assert world.clock.slept == [1, 3]
    assert world.images == {"cover.png": world.api.made["pred-1"].picture}


@pytest.mark.parametrize("bad", BAD_DOWNLOADS.values(), ids=BAD_DOWNLOADS)
def test_a_download_that_fails_three_times_ends_the_try_and_stays_collectable(world: World, bad: Any) -> None:
    world.api.on_download = [bad() for _ in range(3)]
    with pytest.raises(OutputError) as caught:
        resolving(world)
    assert (caught.value.retry_helps, caught.value.paid) == (True, Paid.YES)
    assert len(world.api.downloads) == 3
    assert image(world).status is Status.SUBMITTED
    assert world.images == {}


def test_an_error_is_not_its_own_cause(world: World) -> None:
    """Older versions of structlog, which writes Airflow's logs, would follow such a chain for ever."""
    world.api.on_download = [httpx.Response(503) for _ in range(3)]
    with pytest.raises(OutputError) as caught:
        resolving(world)
    assert caught.value.__cause__ is not caught.value


@pytest.mark.parametrize(
    ("age", "error"), [(6.9 * ONE_DAY, OutputError), (7.1 * ONE_DAY, OutputExpiredError)]
)
def test_an_output_that_cannot_be_had_after_seven_days_has_expired(
    world: World, age: float, error: type[BitDanceError]
) -> None:
    world.api.on_download = [httpx.Response(404) for _ in range(3)]
    with pytest.raises(OutputError) as caught:
        resolving(world, age=age)
    assert type(caught.value) is error


def test_an_old_output_that_is_still_there_is_stored(world: World) -> None:
    resolving(world, age=30 * ONE_DAY)
    assert list(world.images) == ["cover.png"]


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/x.png", "file:///etc/passwd", "https://"])
def test_an_address_that_is_not_allowed_is_not_tried(world: World, url: str) -> None:
    world.api.next_changes = {"outputs": [url]}
    with pytest.raises(OutputRefusedError) as caught:
        resolving(world)
    assert url not in str(caught.value)
    assert world.api.downloads == []
    assert world.clock.slept == []


def test_an_output_that_is_too_large_is_not_taken(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "largest_file", lambda model: 100)
    with pytest.raises(OutputRefusedError, match="too large"):
        resolving(world)
    assert world.images == {}


def test_a_download_that_takes_too_long_is_given_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "DOWNLOAD_SECONDS", 0.0)
    with pytest.raises(OutputError, match="took longer than"):
        resolving(world)


def test_neither_errors_nor_logs_show_the_outputs_address(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.api.on_download = [httpx.Response(503), httpx.ReadTimeout("x"), httpx.Response(503)]
    with caplog.at_level(logging.DEBUG), pytest.raises(OutputError) as caught:
        resolving(world)
    assert API_URL not in str(caught.value)
    assert "/outputs/" not in caplog.text


def test_what_follows_the_end_of_a_picture_is_kept_and_said_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    data = a_picture() + b"<html>"
    with caplog.at_level(logging.INFO):
        resolving(world, picture=data)
    assert world.images == {"cover.png": data}
    assert caplog.text.count("has 6 bytes after the end of its image") == 1


def test_a_picture_that_would_keep_the_decoder_busy_is_paid_for_and_not_fetched_again(world: World) -> None:
    with pytest.raises(OutputRefusedError, match="too many parts") as caught:
        resolving(world, picture=b"\xff\xd8" + b"\xff\xfe\0\2" * 20_000 + b"\xff\xd9")
    assert (caught.value.paid, len(world.api.downloads)) == (Paid.YES, 1)
    assert image(world).status is Status.FAILED


@pytest.mark.parametrize("end", [{}, {"status": "failed", "outputs": []}])
def test_an_end_that_shows_another_prompt_and_seed_is_neither_stored_nor_written_down(
    world: World, end: dict[str, Any]
) -> None:
    echo = {"prompt": "a harbour", "seed": 8, "size": "1024*1024"}

    def crossed(request: httpx.Request) -> httpx.Response:
        answer = world.api.polled(request).json()
        answer["data"] |= {"input": echo} | end
        return httpx.Response(200, json=answer)

    world.api.on_poll = [crossed]
    with pytest.raises(OutputError, match="shows a different prompt or seed than was bought") as caught:
        resolving(world)
    assert (caught.value.retry_helps, caught.value.paid) == (True, Paid.YES)
    assert (world.images, world.event_names[-1]) == ({}, "submitted")
