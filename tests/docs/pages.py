"""Pages of the repository and docstrings as blocks: what is fenced or indented, where, in which language."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from textwrap import dedent

from markdown_it import MarkdownIt
from markdown_it.token import Token

import airflow_provider_bitdance

ROOT = Path(__file__).parents[2]
PACKAGE = Path(airflow_provider_bitdance.__file__).parent
FOR_DEVELOPERS = [ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md"]
PAGES = [ROOT / "README.md", *FOR_DEVELOPERS, *sorted(ROOT.glob("docs/**/*.md"))]


@dataclass(frozen=True, slots=True)
class Block:
    """A block of a page.

    :param page: The page's path in the repository.
    :param line: Of its opening fence, from 1.
    :param language: What stands at the fence; an indented block has none, and is text.
    :param section: The heading above it.
    :param name: Of the file that it is: what stands alone above it, as in `dags/cover.py`.
    """

    page: str
    line: int
    language: str
    text: str
    section: str = ""
    name: str = ""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """Return all blocks of a page, in their order."""
    tokens = MarkdownIt().parse(page.read_text())
    return [
        Block(
            page=page.relative_to(ROOT).as_posix(),
            line=token.map[0] + 1,
            language="text" if token.type == "code_block" else token.info.strip(),
            text=token.content,
            section=_section(tokens[:at]),
            name=_name_above(tokens[:at]),
        )
        for at, token in enumerate(tokens)
        if token.type in ("fence", "code_block") and token.map
    ]


def _section(before: list[Token]) -> str:
    headings = [text for token, text in pairwise(before) if token.type == "heading_open"]
    return headings[-1].content if headings else ""


def _name_above(before: list[Token]) -> str:
    match before[-3:]:
        case [_, Token(type="inline", children=[Token(type="code_inline", content=name)]), _]:
            return name
    return ""


def examples_of(module: Path) -> Iterator[Block]:
    """Yield the examples in the docstrings of a module, in their order."""
    for node in ast.walk(ast.parse(module.read_text())):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for example in EXAMPLE.finditer(ast.get_docstring(node, clean=False) or ""):
            before = example.string[: example.start("text")]
            yield Block(
                page=module.relative_to(PACKAGE.parent).as_posix(),
                line=getattr(node.body[0], "lineno", 1) + before.count("\n") - 1,
                language="python",
                text=dedent(example["text"]),
            )


EXAMPLE = re.compile(r"^( *)\.\. code-block:: python\n\n(?P<text>(?:\1 +.*\n|\n)+)", re.MULTILINE)
BLOCKS = [block for page in PAGES for block in blocks_of(page)]
EXAMPLES = [block for module in sorted(PACKAGE.rglob("*.py")) for block in examples_of(module)]
