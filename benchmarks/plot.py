"""The comparison as a picture: bars for each way, written as SVG without any library."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from statistics import median

from benchmarks.measure import Figures

WIDTH, LABEL, BAR, GAP = 800, 250, 18, 8
OURS, OTHERS = "#6d4bc3", "#b9b3cc"
STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#222}.title{font-weight:600}"
    "@media(prefers-color-scheme:dark){text{fill:#ddd}}"
)
PANELS: dict[str, Callable[[Figures], float]] = {
    "Wall seconds": lambda run: run.wall,
    "Slot-seconds an image": lambda run: (run.slot_seconds or 0) / max(1, run.stored),
    "Looks at the API an image": lambda run: run.polls,
    "Seconds from completion to the stored file": lambda run: run.kept,
}


def svg(runs: dict[str, list[Figures]]) -> str:
    """Draw the ways that made many images.

    :param runs: By "way, N images".
    """
    many = {name: found for name, found in runs.items() if not name.endswith(", 1 image")}
    parts, y = [], 10
    for title, figure in PANELS.items():
        y += 20
        parts.append(f'<text class="title" x="0" y="{y}">{title}, {_images(many)}</text>')
        y += GAP
        figures = {name: median(figure(run) for run in found) for name, found in many.items()}
        for name, value in figures.items():
            parts.append(_bar(name.partition(", ")[0], value, max(figures.values()), y))
            y += BAR + GAP
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" height="{y}">'
    return "\n".join([head, f"<style>{STYLE}</style>", *parts, "</svg>", ""])


def _bar(way: str, value: float, largest: float, y: int) -> str:
    width = max(1.0, (WIDTH - LABEL - 70) * value / (largest or 1))
    colour = OURS if way == "this provider" else OTHERS
    middle = y + BAR - 5
    return (
        f'<text x="0" y="{middle}">{escape(way)}</text>'
        f'<rect x="{LABEL}" y="{y}" width="{width:.1f}" height="{BAR}" fill="{colour}"/>'
        f'<text x="{LABEL + width + 6:.1f}" y="{middle}">{value:.3g}</text>'
    )


def _images(many: dict[str, list[Figures]]) -> str:
    return next(iter(many)).partition(", ")[2]
