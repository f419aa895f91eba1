"""What the package can say, read from its source: each text with its constant parts, and holes for the rest.

A page quotes a text with <...> where the code fills something in, and nowhere else. So a message that is
changed in the code breaks the page that explains it.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache

from airflow_provider_bitdance import exceptions
from tests.docs.pages import PACKAGE

ERRORS = {
    name: kind
    for name, kind in vars(exceptions).items()
    if isinstance(kind, type) and issubclass(kind, exceptions.BitDanceError)
}
"""The public errors, by name."""
HOLE = "\0"
LEAST_LETTERS = 8
"""A text with fewer of its own, or of one word, says nothing: it would fit everything."""
_VALUE = re.compile(r"\w+://\S+|\b[0-9a-f]{32}\b|\S*\d\S*|UTC")
_LABELS = {
    "jobs",
    "receipts",
    "and",
    "read",
    "finding",
    "since",
    "stored",
    "completed",
    "old",
    "in",
    "all",
    "covers",
    "run",
    "journal",
    "journals",
    "kept",
    "dag",
    "day",
    "images",
    "estimated",
    "usd",
    "possibly",
    "paid",
}
"""What stands beside values in a line of the command line's tables."""
_FILLED_IN = re.compile(
    r"'[^']*'|/\S+|A paper-cut fox in a birch forest|A lighthouse above the sea at dusk"
    r"|A teapot on a wooden table, soft morning light"
    r"|\b(covers|posters)\.cover\b|^(  )?covers\b(?!\.)"
    r"|should be less than or equal to|unexpected end of data"
)
"""Quotations, paths, the prompts and the Dags of the pages; what pydantic and the csv module say."""
_PERCENT = re.compile(r"%(?:\(\w+\))?[-+ #0]*\d*(?:\.\d+)?[sdrfg]")


@cache
def texts() -> frozenset[str]:
    """Return every text of the package; what is filled in is a hole."""
    nodes = (node for tree in _trees() for node in ast.walk(tree))
    return frozenset(text for node in nodes for text in _texts(node, {}) if text.strip())


@cache
def texts_by_error() -> dict[str, frozenset[str]]:
    """Return, by the name of its class, the texts with which each error is made."""
    found = defaultdict[str, set[str]](set)
    for tree in _trees():
        for function in ast.walk(tree):
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            names = dict(_assigned(function))
            for call in ast.walk(function):
                if isinstance(call, ast.Call) and call.args and (name := _name(call.func)) in ERRORS:
                    found[name].update(_texts(call.args[0], names))
    return {name: frozenset(said) for name, said in found.items()}


@cache
def warnings() -> frozenset[str]:
    """Return the texts of all warnings in a task's log."""
    calls = (node for tree in _trees() for node in ast.walk(tree) if isinstance(node, ast.Call) and node.args)
    return frozenset(
        text for call in calls if _name(call.func) == "warning" for text in _texts(call.args[0], {})
    )


def is_quoted(quote: str, said: frozenset[str]) -> bool:
    """Say whether a quotation with <...> in it is one of these texts."""
    holed = re.sub(r"<[^<>]*>", HOLE, quote).rstrip(".")
    return any(_pattern(text, f"{HOLE}?").fullmatch(holed) for text in said)


def is_said(line: str) -> bool:
    """Say whether a line of output has a text of the package, or only labels; and no word of anybody else."""
    had = [text for text in texts() if _pattern(text, ".+?").search(line)]
    words = _words(_VALUE.sub("", _FILLED_IN.sub("", line)))
    tells = any(map(_says_something, had)) or _words(_VALUE.sub("", line)) <= _LABELS
    return tells and words <= _LABELS | {word for text in had for word in _words(text)}


def _says_something(text: str) -> bool:
    return sum(map(str.isalpha, text)) >= LEAST_LETTERS and " " in text.replace(HOLE, "").strip()


def _words(text: str) -> set[str]:
    return set(re.findall(r"[A-Za-z]{2,}", text))


@cache
def _pattern(text: str, hole: str) -> re.Pattern[str]:
    return re.compile(hole.join(re.escape(part) for part in text.rstrip(".").split(HOLE)))


@cache
def _trees() -> tuple[ast.Module, ...]:
    return tuple(ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py")))


def _name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _assigned(function: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            yield node.targets[0].id, node.value


def _texts(node: ast.AST, names: dict[str, ast.expr]) -> Iterator[str]:
    """Yield what an expression can be, as far as it is text."""
    match node:
        case ast.Constant(value=str(text)):
            yield _PERCENT.sub(HOLE, text)
        case ast.JoinedStr(values=parts):
            yield "".join(part.value if isinstance(part, ast.Constant) else HOLE for part in parts)
        case ast.IfExp(body=one, orelse=other):
            yield from _texts(one, names)
            yield from _texts(other, names)
        case ast.BinOp(op=ast.Add(), left=left):
            for text in _texts(left, names):
                yield text
                yield text + HOLE
        case ast.Name(id=name) if name in names:
            yield from _texts(names[name], {})
