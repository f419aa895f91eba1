"""Tables of the docs that are made of the code are those that it makes now."""

from __future__ import annotations

import pytest

from tests.docs import tables

MADE = tables.made()


@pytest.mark.parametrize("name", MADE)
def test_a_table_is_that_of_the_code(name: str) -> None:
    assert tables.written()[name] == MADE[name], f"run: {tables.COMMAND}"


def test_every_flag_and_option_says_what_it_is_for() -> None:
    assert not any("| None |" in text or "|  |\n" in text for text in MADE.values())


def test_every_link_is_of_an_option() -> None:
    assert [
        name for name in tables.MORE_ABOUT if not any(f"[`{name}`]" in text for text in MADE.values())
    ] == []
