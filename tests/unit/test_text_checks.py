"""Characters that nobody sees, and templates that nobody rendered."""

from __future__ import annotations

import pytest

from airflow_provider_bitdance.text_checks import invisible_in, shows_nothing, unrendered_in


@pytest.mark.parametrize(
    "char",
    [
        *("\0", "\x1b", "\x9b", "\xad", "\u200b", "\u200c", "\u200d", "\u200e", "\u2028", "\u202e", "\u2060"),
        *("\u2066", "\ufeff", "\u3164", "\u115f", "\u180e", "\u2800", "\ufffa", "\U000e0041"),
    ],
)
def test_a_character_that_nobody_sees_is_named_by_its_code_point(char: str) -> None:
    assert invisible_in(f"a{char}b") == f"U+{ord(char):04X}"
    assert shows_nothing(f" {char}\n")


@pytest.mark.parametrize("text", ["", "plain", "Größe (cm)\t#1", "価格", "कीमत", "السعر", "❤️", "e\u0301"])
def test_what_a_person_sees_is_let_through(text: str) -> None:
    assert invisible_in(text) == ""


@pytest.mark.parametrize(
    "text",
    ["نمی\u200cخواهم", "क्\u200dष", "👩\u200d🎨", "\ufeffa", "1\u20e3", "\u200b."],  # noqa: RUF001
)
def test_a_text_with_anything_to_see_shows_something(text: str) -> None:
    assert not shows_nothing(text)


def test_accents_without_a_letter_show_nothing() -> None:
    assert shows_nothing("\u0301 \ufe0f")


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("A {{ ds }} b", "{{ ds }}"),
        ("{{ds}}", "{{ds}}"),
        ("{% if x %}a{% endif %}", "{% if x %}"),
        ("{{ a\n}}", "{{ a\n}}"),
        ("{{", ""),
        ("{a} {b}} {c", ""),
        ("50% {off}", ""),
    ],
)
def test_jinja_that_is_left_is_found(text: str, left: str) -> None:
    assert unrendered_in(text) == left
