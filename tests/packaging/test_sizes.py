"""How large functions may be, and how many modules lie at the package's root.

Each ``if``, loop, ``except``, ``case``, conditional expression, row of ``and`` or of ``or`` and ``if`` of a
comprehension is a branch. Ruff's C901 (pyproject.toml) counts statements only, and has no rule for lines.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from textwrap import indent

import pytest

import airflow_provider_bitdance

PACKAGE = Path(airflow_provider_bitdance.__file__).parent
MOST_LINES, MOST_BRANCHES, MOST_AT_ROOT = 40, 12, 8

Function = ast.FunctionDef | ast.AsyncFunctionDef
BRANCHES = (
    *(ast.If, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.match_case, ast.IfExp, ast.BoolOp),
)


def lines(function: Function) -> int:
    first = min([function.lineno, *(decorator.lineno for decorator in function.decorator_list)])
    return (function.end_lineno or first) - first + 1


def branches(function: Function) -> int:
    """Return the branches of a function; those of functions within it count, too."""
    return sum(
        isinstance(node, BRANCHES) + (len(node.ifs) if isinstance(node, ast.comprehension) else 0)
        for node in ast.walk(function)
    )


@cache
def too_large() -> list[str]:
    """Return the functions above a limit, as ``name: size, place``."""
    return [
        f"{node.name}: {lines(node)} lines, {branches(node)} branches, {file}:{node.lineno}"
        for file in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, Function) and (lines(node) > MOST_LINES or branches(node) > MOST_BRANCHES)
    ]


def test_no_function_is_too_large() -> None:
    assert too_large() == []


def test_few_modules_lie_at_the_root() -> None:
    at_root = {file.stem for file in PACKAGE.glob("*.py")} - {"__init__", "__main__"}

    assert len(at_root) <= MOST_AT_ROOT, sorted(at_root)


@pytest.mark.parametrize(
    ("code", "count"),
    [
        ("pass", 0),
        ("if a: pass\nelif b: pass\nelse: pass", 2),
        ("for a in b: pass\nwhile a: pass", 2),
        ("try: pass\nexcept A: pass\nexcept B: pass\nfinally: pass", 2),
        ("match a:\n  case 1: pass\n  case _: pass", 2),
        ("a = b if c and d and e else f or g", 3),
        ("a = [b for b in c if b if c]", 2),
        ("def inner():\n  if a: pass", 1),
    ],
)
def test_every_way_to_branch_counts(code: str, count: int) -> None:
    (function,) = ast.parse(f"def outer():\n{indent(code, '  ')}").body

    assert isinstance(function, ast.FunctionDef)
    assert branches(function) == count


def test_decorators_and_docstrings_count_as_lines() -> None:
    (function,) = ast.parse('@a\n@b\ndef f():\n    """Says.\n\n    More.\n    """\n').body

    assert isinstance(function, ast.FunctionDef)
    assert lines(function) == 7
