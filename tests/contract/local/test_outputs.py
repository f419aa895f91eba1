"""The pictures over HTTP, whole and spoiled."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from airflow_provider_bitdance.local import Options, pictures
from tests.contract.local.caller import MODEL, Caller, Clock, calling, get
from tests.wire import httpx


def test_a_download_needs_no_key_and_is_byte_for_byte_what_draw_makes(caller: Caller) -> None:
    prediction_id = caller.submit("a lighthouse", size="384*256", seed=7)
    answer = get(caller.finish(prediction_id))
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    assert answer.content == pictures.draw(
        model=MODEL, prompt="a lighthouse", width=384, height=256, seed=7, media_type="image/png"
    )


@pytest.mark.parametrize(("picture_format", "name"), [("png", "PNG"), ("jpeg", "JPEG"), ("webp", "WEBP")])
def test_pictures_come_in_the_chosen_format_and_say_what_they_show(
    clock: Clock, picture_format: str, name: str
) -> None:
    prompt = "灯台 \N{ELECTRIC LIGHT BULB} at dusk"
    with calling(Options(picture_format=picture_format), clock) as caller:  # type: ignore[arg-type]
        url = caller.finish(caller.submit(prompt, size="256*320", seed=3))
        answer = get(url)
        assert url.endswith(f".{picture_format}")
        assert answer.headers["content-type"] == f"image/{picture_format}"
        with Image.open(io.BytesIO(answer.content)) as image:
            image.load()
            assert (image.format, image.size) == (name, (256, 320))
        said = pictures.labels(answer.content)
        assert (said.model, said.prompt, said.size, said.seed) == (MODEL, prompt, "256*320", 3)


def test_an_output_is_there_from_completion_until_its_prediction_is_gone(clock: Clock) -> None:
    with calling(Options(latency=4), clock) as caller:
        prediction_id = caller.submit(size="256*256")
        assert caller.http.get(f"/outputs/{prediction_id}/1.png").status_code == 404
        url = caller.finish(prediction_id)
        assert caller.http.get(url).status_code == 200
        assert caller.http.get(url.replace("/1.png", "/2.png")).status_code == 404
        clock.move(7 * 24 * 3600 - 4)
        assert caller.http.get(url).status_code == 200
        clock.move(1)
        assert caller.http.get(url).status_code == 404


def test_a_truncated_download_ends_before_its_content_length(caller: Caller) -> None:
    url = caller.finish(caller.submit(size="256*256"))
    caller.local.add_fault(on="output", kind="truncated", times=1)
    with pytest.raises(httpx.RemoteProtocolError):
        caller.http.get(url)
    assert caller.http.get(url).status_code == 200


def test_a_picture_that_is_not_whole_fits_its_content_length(caller: Caller) -> None:
    url = caller.finish(caller.submit(size="256*256"))
    whole = caller.http.get(url).content
    caller.local.add_fault(on="output", kind="not_whole")
    answer = caller.http.get(url)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    assert answer.content == whole[: len(whole) // 2]


def test_a_download_of_the_wrong_type_is_html(caller: Caller) -> None:
    url = caller.finish(caller.submit())
    caller.local.add_fault(on="output", kind="wrong_type", times=1)
    caller.local.add_fault(on="output", kind="wrong_type", media_type="image/png")
    honest, lying = caller.http.get(url), caller.http.get(url)
    assert honest.headers["content-type"].startswith("text/html")
    assert lying.headers["content-type"] == "image/png"
    assert honest.content == lying.content == b"<!doctype html>" + honest.content[15:]


@pytest.mark.parametrize("declared", [False, True])
def test_an_oversized_download_streams_as_much_as_asked(caller: Caller, declared: bool) -> None:
    url = caller.finish(caller.submit())
    caller.local.add_fault(on="output", kind="oversized", bytes=300_001, declared=declared)
    answer = caller.http.get(url)
    assert len(answer.content) == 300_001
    assert answer.content.startswith(b"\x89PNG\r\n\x1a\n")
    assert answer.headers.get("content-length") == ("300001" if declared else None)


def test_a_client_may_hang_up_on_an_oversized_download(caller: Caller) -> None:
    url = caller.finish(caller.submit())
    caller.local.add_fault(on="output", kind="oversized", bytes=10**12, times=1)
    with caller.http.stream("GET", url) as answer:
        next(answer.iter_raw())
    assert caller.http.get(url).status_code == 200


def test_a_bomb_promises_more_pixels_than_anyone_should_decode(caller: Caller) -> None:
    url = caller.finish(caller.submit())
    caller.local.add_fault(on="output", kind="bomb")
    answer = caller.http.get(url)
    assert len(answer.content) < 200
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(answer.content))


def test_a_download_may_be_redirected_refused_or_reset(caller: Caller) -> None:
    url = caller.finish(caller.submit())
    caller.local.add_fault(on="output", kind="redirect", url="http://169.254.169.254/latest", times=1)
    caller.local.add_fault(on="output", kind="status", status=403, body="html", times=1)
    caller.local.add_fault(on="output", kind="reset", times=1)
    redirected = caller.http.get(url)
    assert (redirected.status_code, redirected.headers["location"]) == (302, "http://169.254.169.254/latest")
    assert caller.http.get(url).status_code == 403
    with pytest.raises(httpx.ReadError):
        caller.http.get(url)


def test_a_dripping_download_arrives_whole(caller: Caller) -> None:
    url = caller.finish(caller.submit(size="256*256"))
    whole = caller.http.get(url).content
    caller.local.add_fault(on="output", kind="drip", seconds=0.2)
    with caller.http.stream("GET", url) as answer:
        drops = list(answer.iter_raw())
    assert len(drops) > 1
    assert b"".join(drops) == whole


def test_a_fast_picture_is_served_in_fast_mode(clock: Clock) -> None:
    with calling(Options(pictures="fast"), clock) as caller:
        answer = get(caller.finish(caller.submit("a lighthouse", size="384*256", seed=7)))
        assert answer.content == pictures.draw_fast(
            model=MODEL, prompt="a lighthouse", width=384, height=256, seed=7
        )


def test_a_picture_of_real_size_is_served_in_photo_mode(clock: Clock) -> None:
    with calling(Options(pictures="photo"), clock) as caller:
        answer = get(caller.finish(caller.submit("a lighthouse", size="384*256", seed=7)))
        assert answer.content == pictures.draw_photo(
            model=MODEL, prompt="a lighthouse", width=384, height=256, seed=7
        )


def test_a_model_may_choose_its_format(caller: Caller) -> None:
    answer = caller.http.post(
        "/api/v3/wavespeed-ai/flux-dev", json={"prompt": "x", "size": "256*256", "output_format": "webp"}
    )
    url = caller.finish(answer.json()["data"]["id"])
    assert (url[-7:], get(url).headers["content-type"]) == ("/1.webp", "image/webp")
