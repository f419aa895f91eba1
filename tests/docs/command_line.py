"""The tables of docs/reference/cli.md: ``python -m tests.docs.command_line`` writes them from the parsers."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from airflow_provider_bitdance import __main__ as command_line
from tests.docs.pages import ROOT
from tests.document import between, write_between

PAGE = ROOT / "docs" / "reference" / "cli.md"
COMMAND = "python -m tests.docs.command_line"


def made() -> str:
    """Return each command with its options, as Markdown."""
    return "\n\n".join(_sections(command_line._parser()))


def written() -> str:
    """Return what the page has."""
    return between(COMMAND, PAGE)


def _sections(parser: argparse.ArgumentParser) -> Iterator[str]:
    inner = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not inner:
        yield f"## `{parser.prog.partition('bitdance ')[2]}`\n\n{parser.description}\n\n{_table(parser)}"
    for action in inner:
        for command in action.choices.values():
            yield from _sections(command)


def _table(parser: argparse.ArgumentParser) -> str:
    rows = ["| flag | meaning |", "| --- | --- |"]
    for action in parser._actions:
        if action.dest != "help":
            flags = ", ".join(action.option_strings) or action.dest
            value = action.metavar or ("|".join(map(str, action.choices)) if action.choices else "")
            shown = f"{flags} {value}".strip().replace("|", "\\|")
            rows.append(f"| `{shown}` | {action.help} |")
    return "\n".join(rows)


if __name__ == "__main__":
    sys.stdout.write(f"{PAGE}\n")
    write_between(COMMAND, made(), PAGE)
