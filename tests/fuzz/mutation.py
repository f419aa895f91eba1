"""Mutations: what is done to valid inputs, to the structure of JSON and to bytes."""

from __future__ import annotations

import copy
import gzip
import json
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

TEXTS = (
    *(
        "",
        " ",
        "\x00",
        "a\nb",
        "\x1b[31mred\x1b[0m",
        "\u202egnp.exe",
        "\u200b",
        "\ufeff",
        "\ud800",
        "é" * 300,
    ),
    *("..", "../../outside/gone.txt", "/etc/passwd", "a/b", "a\\b", ".hidden", "x" * 300, "y" * 100_000),
    *("file:///etc/passwd", "file:///../..", "s3://someone@bucket/x", "http://169.254.169.254/latest/"),
    *("None", "null", "NaN", "-1", "1e999", "{{ ds }}", "{0.__class__}", "%00", "%2e%2e%2f", "a#b", "a?b"),
    *("9999-12-31T23:59:59Z", "2096-01-01T00:00:00+00:00", "0001-01-01T00:00:00+14:00", "not a date"),
    *("stored", "planned", "claimed", "completed", "failed", "image", "cover", "image/gif", "a" * 64),
)
NUMBERS = (
    *(0, -1, 1, 2, 255, 2**31, 2**63, -(2**63), 10**30, 10**400, 0.1, -0.0, 1e308, 1e-308),
    *(float("inf"), float("-inf"), float("nan"), 3_976_214_400, 1e15, 1e18),
)
DEEP = 20_000
"""Levels of nesting: more than Python's parser takes."""


def nested(levels: int) -> Any:
    value: Any = None
    for _ in range(levels):
        value = [value]
    return value


@cache
def values() -> SearchStrategy[Any]:
    """Return what is put in a value's place."""
    return st.one_of(
        st.sampled_from((None, True, False)),
        st.sampled_from(NUMBERS),
        st.sampled_from(TEXTS),
        st.text(max_size=20),
        st.integers(),
        st.sampled_from(([], {}, [None], {"": None}, [[]] * 1000, {"a": {"b": {"c": 1}}}, nested(200))),
    )


@st.composite
def mutated_json(draw: DrawFn, seeds: Sequence[bytes], *, most: int = 3, more: Sequence[Any] = ()) -> bytes:
    """Draw one of these JSON texts, changed in up to so many places, or in its bytes, or not at all.

    :param more: Values that are hostile at just this place, put in more often than others.
    """
    text = _pick(draw, seeds)
    kind = draw(_below(10))
    if kind == 0:
        return _change_bytes(draw, text)
    if kind == 1:
        return bytes(_pick(draw, _whole_texts(text)))
    value = json.loads(text)
    for _ in range(draw(_below(most + 1))):
        value = _change(draw, value, more)
    return json.dumps(value).encode("utf-8", "surrogatepass")


def _whole_texts(text: bytes) -> tuple[bytes, ...]:
    return (
        *(b"", b" ", b"null", b"[]", b"{}", b'"text"', b"1", b"NaN", b"\x00" * 64, b"\xef\xbb\xbf" + text),
        *(b"[" * DEEP, b'{"a":' * DEEP, b"[" * DEEP + b"]" * DEEP, text + text, text[:-1], text * 40),
        *(text.decode().encode("utf-16"), b"1" * 5000, b" " * 300_000 + text, text + b" " * 300_000),
        text[:1] + b'"deep": ' + b"[" * DEEP + b"]" * DEEP + b"," + text[1:],
    )


def _pick(draw: DrawFn, options: Sequence[Any]) -> Any:
    """Draw one of these; strategies are made once, for to make them costs more than to draw."""
    return options[draw(_below(len(options)))]


@cache
def _below(number: int) -> SearchStrategy[int]:
    return st.integers(0, number - 1)


def _change(draw: DrawFn, value: Any, more: Sequence[Any] = ()) -> Any:
    """Draw a change at one place of a JSON value."""
    value = copy.deepcopy(value)
    places = list(_places(value))
    if not places:
        return draw(values())
    holder, name = _pick(draw, places)
    change = _pick(draw, ("put", "put", "put", "drop", "add", "rename", "swap", "text"))
    if change == "put":
        holder[name] = _value_for(draw, holder[name], more)
    elif change == "drop":
        del holder[name]
    elif change == "add" and isinstance(holder, dict):
        holder[_pick(draw, (*TEXTS[:12], "format", "event", "id", "extra"))] = draw(values())
    elif change == "add":
        holder[name:name] = [copy.deepcopy(holder[name])] * _pick(draw, (1, 2, 50))
    elif change == "rename" and isinstance(holder, dict):
        holder[_pick(draw, ("id", "format", "ID", "", "x"))] = holder.pop(name)
    elif change == "text" and isinstance(holder[name], str):
        holder[name] = _change_text(draw, holder[name])
    else:
        other, there = _pick(draw, places)
        holder[name], other[there] = copy.deepcopy((other[there], holder[name]))
    return value


def _value_for(draw: DrawFn, value: Any, more: Sequence[Any]) -> Any:
    """Draw what is put in a value's place: often of its own kind, for others are soon refused."""
    kind = str if isinstance(value, str) else int | float
    alike = [each for each in more if isinstance(each, kind)]
    if alike and draw(_below(2)) == 0:
        return _pick(draw, alike)
    if draw(_below(2)) == 0 and isinstance(value, str | int | float):
        return _pick(draw, TEXTS if kind is str else NUMBERS)
    return draw(values())


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every place in a JSON value: what holds it, and its name or number there."""
    names = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for name in list(names):
        yield value, name
        yield from _places(value[name])


def _change_text(draw: DrawFn, text: str) -> str:
    at = draw(_below(len(text) + 1))
    piece = _pick(draw, _PIECES)
    return str(_pick(draw, (text[:at] + piece + text[at:], text[:at] + piece, piece + text[at:])))


@st.composite
def mutated_text(draw: DrawFn, seeds: Sequence[str], *, most: int = 2) -> str:
    """Draw one of these texts, with pieces put into it, or one that is hostile anyway."""
    kind = draw(_below(8))
    if kind == 0:
        return str(_pick(draw, TEXTS))
    if kind == 1:
        return draw(_ANY_TEXT)
    text = str(_pick(draw, seeds))
    for _ in range(draw(_below(most + 1))):
        text = _change_text(draw, text)
    return text


@st.composite
def mutated_bytes(draw: DrawFn, seeds: Sequence[bytes], *, most: int = 4) -> bytes:
    """Draw one of these, with bytes flipped, cut, doubled, put in or taken out, or as it is."""
    return _change_bytes(draw, bytes(_pick(draw, seeds)), most=most)


def _change_bytes(draw: DrawFn, data: bytes, *, most: int = 4) -> bytes:
    for _ in range(draw(_below(most + 1))):
        at = draw(_below(len(data) + 1))
        until = min(len(data), at + _pick(draw, (1, 2, 4, 8, 64, 1024)))
        piece = draw(_ANY_BYTES)
        change = _pick(draw, ("flip", "cut", "double", "put", "take"))
        if change == "cut":
            data = data[:at]
        elif change == "double":
            data = data[:until] + data[at:]
        elif change == "put":
            data = data[:at] + piece + data[at:]
        elif change == "take":
            data = data[:at] + data[until:]
        else:
            data = data[:at] + piece + data[at + len(piece) :]
    return data


_PIECES = (*TEXTS[:24], "#", "?", "//", "@", ":", "\\", "%", ".", "\r")
_ANY_TEXT = st.text(max_size=40)
_ANY_BYTES = st.one_of(
    st.sampled_from((b"", b"\x00", b"\xff", b"\xff\xff\xff\xff", b"\n", b'"', b",", b"\x00" * 4)),
    st.sampled_from((b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\x80", b"\r", b"\x7f\xff\xff\xff")),
    st.binary(max_size=8),
)


def packed(data: bytes, times: int = 1) -> bytes:
    """Return data as gzip, packed so many times."""
    for _ in range(times):
        data = gzip.compress(data, 9, mtime=0)
    return data
