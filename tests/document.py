"""What a command writes into a document of docs/, between two marks that name the command."""

from __future__ import annotations

from pathlib import Path


def marks(command: str) -> tuple[str, str]:
    return f"<!-- made by {command}: begin -->", f"<!-- made by {command}: end -->"


def between(command: str, document: Path) -> str:
    """Return what the command wrote."""
    return _split(command, document)[1].strip("\n")


def write_between(command: str, text: str, document: Path) -> None:
    """Replace what the command wrote; all else in the document stays."""
    begin, end = marks(command)
    before, _, after = _split(command, document)
    document.write_text(f"{before}{begin}\n{text}\n{end}{after}")


def _split(command: str, document: Path) -> tuple[str, str, str]:
    begin, end = marks(command)
    before, rest = document.read_text().split(begin)
    inside, after = rest.split(end)
    return before, inside, after
