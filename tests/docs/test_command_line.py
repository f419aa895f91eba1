"""docs/reference/cli.md has every command and every flag, with the words of the command line itself."""

from __future__ import annotations

from tests.docs import command_line


def test_the_page_has_what_the_commands_take() -> None:
    assert command_line.written() == command_line.made(), f"run: {command_line.COMMAND}"


def test_every_flag_says_what_it_is_for() -> None:
    assert "| None |" not in command_line.made()
