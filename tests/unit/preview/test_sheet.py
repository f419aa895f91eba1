"""The contact sheet of a question: its line of Markdown, and what is no picture of ours."""

from __future__ import annotations

from base64 import b64encode
from types import SimpleNamespace
from typing import Any

import pytest
from jinja2 import Environment
from jinja2.nativetypes import NativeEnvironment

from airflow_provider_bitdance.preview.sheet import MAX_SHEET, as_xcom, read_sheet, sheet_markdown


def a_webp(size: int = 100) -> bytes:
    return b"RIFF" + (size - 8).to_bytes(4, "little") + b"WEBPVP8 " + bytes(size - 16)


def encoded(data: bytes) -> dict[str, Any]:
    return as_xcom(b64encode(data).decode())


@pytest.mark.parametrize("environment", [Environment(), NativeEnvironment()], ids=["text", "native"])
def test_the_line_names_the_picture_of_a_row_whatever_signs_a_runs_id_has(environment: Environment) -> None:
    line = sheet_markdown("group.posters", "{{ params.name }}", map_index="{{ ti.map_index }}")
    known = {
        "dag": SimpleNamespace(dag_id="shop"),
        "run_id": "manual__2026-11-29T10:00:00+00:00 50%)",
        "params": {"name": "jazz-night"},
        "ti": SimpleNamespace(map_index=3),
    }
    address = (
        "bitdance/sheets/shop/manual__2026-11-29T10%3A00%3A00%2B00%3A00%2050%25%29/group.posters/3/jazz-night"
    )
    rendered = environment.from_string(line).render(known)
    assert rendered == f"[![Contact sheet]({address})]({address})"


def test_a_key_that_is_markup_stays_within_the_address() -> None:
    line = (
        Environment()
        .from_string(sheet_markdown("posters", "{{ key }}"))
        .render(dag=SimpleNamespace(dag_id="shop"), run_id="run", key=") ![x](https://evil.example/x.png")
    )
    address = "bitdance/sheets/shop/run/posters/-1/%29%20%21%5Bx%5D%28https%3A//evil.example/x.png"
    assert line == f"[![Contact sheet]({address})]({address})"


@pytest.mark.parametrize("size", [16, 100, MAX_SHEET])
def test_what_is_pushed_is_read_back(size: int) -> None:
    assert read_sheet(encoded(a_webp(size))) == a_webp(size)


@pytest.mark.parametrize(
    "value",
    [
        None,
        "text",
        [],
        {},
        encoded(b""),
        encoded(a_webp(MAX_SHEET + 1)),
        encoded(a_webp() + b"<script>alert(1)</script>"),
        encoded(a_webp()[:-1]),
        encoded(b"RIFF\x04\0\0\0WAVE"),
        encoded(b"\xff\xd8\xff\xe0" + bytes(99)),
        encoded(b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
        encoded(a_webp().replace(b"VP8 ", b"EXIF")),
        encoded(a_webp()) | {"format": 2},
        {"format": 1, "webp": a_webp()},
        {"format": 1, "webp": b64encode(a_webp()).decode() + "\n"},
        {"format": 1, "webp": f"!{b64encode(a_webp()).decode()}"},
        {"format": 1, "webp": b64encode(a_webp()).decode()[:-1]},
        {"format": 1, "webp": "é" * 8},
        {"format": 1, "webp": ["UklGRg=="]},
        {"format": 1, "media_type": "text/html", "webp": "PGI+"},
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_no_webp_of_that_size_is_no_sheet(value: object) -> None:
    assert read_sheet(value) is None
