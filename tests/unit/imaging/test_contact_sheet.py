"""One picture with all variants, for a person to choose from."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from io import BytesIO

import pytest
from PIL import Image, ImageChops, ImageFont, ImageStat

from airflow_provider_bitdance.imaging import contact_sheet as module
from airflow_provider_bitdance.imaging.contact_sheet import SIDE, contact_sheet, small_sheet

COLOURS = ("red", "lime", "blue", "magenta", "cyan")


def a_picture(
    colour: str = "red", size: tuple[int, int] = (640, 640), kind: str = "PNG", mode: str = "RGB"
) -> bytes:
    file = BytesIO()
    Image.new("RGB", size, colour).convert(mode).save(file, kind)
    return file.getvalue()


def sheet(pictures: list[tuple[str, bytes]]) -> Image.Image:
    return Image.open(BytesIO(contact_sheet(pictures)))


def colours_in(image: Image.Image) -> list[str]:
    """Return the colours of the pictures on a sheet, by row and then by column."""
    found = []
    for colour in COLOURS:
        difference = ImageChops.difference(image, Image.new("RGB", image.size, colour)).convert("L")
        if box := difference.point(lambda level: 255 if level < 20 else 0).getbbox():
            # JPEG moves an edge by a pixel or two.
            found.append((box[1] // 50, box[0], colour))
    return [colour for _, _, colour in sorted(found)]


def test_all_pictures_are_there_in_their_order() -> None:
    pictures = [(f"cat-v{n}\nseed {n}", a_picture(colour)) for n, colour in enumerate(COLOURS)]
    image = sheet(pictures)
    assert image.format == "JPEG"
    assert colours_in(image) == list(COLOURS)


@pytest.mark.parametrize(
    ("count", "columns", "rows"),
    [(1, 1, 1), (2, 2, 1), (3, 3, 1), (4, 2, 2), (5, 3, 2), (8, 4, 2), (9, 3, 3), (16, 4, 4)],
)
def test_the_grid_is_as_square_as_it_can_be_and_not_higher_than_wide(
    count: int, columns: int, rows: int
) -> None:
    one = sheet([("a\nb", a_picture())])
    gap = module._GAP
    image = sheet([("a\nb", a_picture())] * count)
    assert image.size == (gap + columns * (one.width - gap), gap + rows * (one.height - gap))


@pytest.mark.parametrize("size", [(1536, 1024), (1024, 1536), (1536, 256), (300, 300)])
def test_a_thumbnail_keeps_its_shape_and_is_never_larger_than_the_picture(size: tuple[int, int]) -> None:
    thumbnail = module._thumbnail(a_picture(size=size))
    assert thumbnail is not None
    longest = min(SIDE, max(size))
    assert max(thumbnail.size) == longest
    assert thumbnail.width / thumbnail.height == pytest.approx(size[0] / size[1], rel=0.01)


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        ("PNG", "RGB"),
        ("PNG", "RGBA"),
        ("PNG", "P"),
        ("PNG", "L"),
        ("JPEG", "RGB"),
        ("JPEG", "CMYK"),
        ("WEBP", "RGB"),
    ],
)
def test_every_kind_of_picture_is_shown(kind: str, mode: str) -> None:
    thumbnail = module._thumbnail(a_picture("white", kind=kind, mode=mode))
    assert thumbnail is not None
    assert thumbnail.mode == "RGB"
    assert min(ImageStat.Stat(thumbnail).mean) > 250


def test_what_is_transparent_shows_the_ground() -> None:
    file = BytesIO()
    Image.new("RGBA", (400, 400), (255, 0, 0, 0)).save(file, "PNG")
    assert colours_in(sheet([("a", file.getvalue())])) == []


@pytest.mark.parametrize("damaged", [b"", b"no picture", a_picture()[:200], a_picture(size=(4097, 4097))])
def test_a_picture_that_cannot_be_shown_leaves_its_place_to_the_others(damaged: bytes) -> None:
    image = sheet([("a", a_picture("red")), ("b", damaged), ("c", a_picture("blue"))])
    assert colours_in(image) == ["red", "blue"]
    assert image.size == sheet([("a", a_picture())] * 3).size


def test_a_sheet_of_damaged_pictures_is_a_sheet() -> None:
    assert sheet([("a", b""), ("b", b"")]).width > 400


def test_labels_differ_where_keys_or_seeds_differ() -> None:
    sheets = {
        contact_sheet([(label, a_picture())]) for label in ("a-v1\nseed 1", "a-v2\nseed 1", "a-v1\nseed 2")
    }
    assert len(sheets) == 3


def test_a_long_label_is_cut_in_its_middle_to_the_width_of_its_picture() -> None:
    font = ImageFont.load_default(20)
    key = "k" * 50 + "-" + "m" * 45 + "-v3"
    cut = module._fitted(key, font, 300)
    assert font.getlength(cut) <= 300
    assert cut.startswith("kkk")
    assert cut.endswith("-v3")
    assert "..." in cut
    assert module._fitted("short-v1", font, 300) == "short-v1"


def test_the_same_pictures_give_the_same_bytes() -> None:
    pictures = [("a\nseed 1", a_picture("red")), ("b\nseed 2", a_picture("blue", kind="JPEG"))]
    assert contact_sheet(pictures) == contact_sheet(pictures)


def test_a_generators_files_are_held_one_at_a_time() -> None:
    size = 20 * 2**20

    def files() -> Iterator[tuple[str, bytes]]:
        for number in range(16):
            yield f"v{number}", a_picture(size=(64, 64)) + bytes(size)

    tracemalloc.start()
    contact_sheet(files())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 6 * size


def test_no_pictures_make_no_sheet() -> None:
    with pytest.raises(ValueError, match="needs an image"):
        contact_sheet([])


@pytest.mark.parametrize("count", [1, 16])
def test_a_small_sheet_is_within_its_bound_even_of_noise(count: int) -> None:
    file = BytesIO()
    Image.effect_noise((512, 512), 90).convert("RGB").save(file, "JPEG")
    made = small_sheet(contact_sheet([("v\nseed 1", file.getvalue())] * count), limit=150_000)
    assert 0 < len(made) <= 150_000
    with Image.open(BytesIO(made)) as image:
        assert image.format == "WEBP"


def test_a_sheet_that_would_not_be_small_is_none() -> None:
    assert small_sheet(contact_sheet([("v", a_picture())]), limit=100) == b""


def test_a_small_sheet_shows_the_same_in_pictures_of_384_pixels() -> None:
    whole = contact_sheet([(f"v{n}\nseed {n}", a_picture(colour)) for n, colour in enumerate(COLOURS)])
    with Image.open(BytesIO(small_sheet(whole, limit=150_000))) as small, Image.open(BytesIO(whole)) as image:
        assert small.size == tuple(side * 384 // 512 for side in image.size)
        assert sorted(colours_in(small.convert("RGB"))) == sorted(COLOURS)


@pytest.mark.parametrize("damaged", [b"", b"no picture", a_picture()[:200], a_picture(size=(4097, 4097))])
def test_of_what_is_no_picture_there_is_no_small_sheet(damaged: bytes) -> None:
    assert small_sheet(damaged, limit=150_000) == b""
