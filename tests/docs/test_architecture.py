"""ARCHITECTURE.md and CONTRIBUTING.md name files, functions, rooms and make targets that exist."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from itertools import takewhile
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from tests.docs.pages import FOR_DEVELOPERS, PACKAGE, ROOT, blocks_of
from tests.packaging.test_imports import APART, LAYERS

ARCHITECTURE, CONTRIBUTING = FOR_DEVELOPERS
FILE = re.compile(r"(?P<path>[\w./-]+\.(?:py|md|toml|txt))(?::(?P<name>[\w.]+))?")
FOLDER = re.compile(r"[\w./-]+/")
NOT_THERE = {"CONTRIBUTING.md": {".demo/"}, "ARCHITECTURE.md": {"address_lock.py"}}
"""What a page names because it is made by a command, or because it is not there."""
QUESTIONS = (
    "How long to wait after a 429?",
    "Is an image bought at all?",
    "What happens to a purchase whose response was lost?",
    "When is the worker slot given back?",
    "What counts as the same request?",
    "Where does a file's name come from?",
    "Which predictions are polled next?",
    "How much may be spent?",
    "What may a retry buy again?",
    "How is a stored file checked?",
)


def code_of(page: Path) -> list[str]:
    """Return what a page shows as code within its text and its tables."""
    tokens = MarkdownIt().enable("table").parse(page.read_text())
    inner = [child for token in tokens for child in token.children or ()]
    return [child.content for child in inner if child.type == "code_inline"]


def named_files() -> Iterator[tuple[str, str, str]]:
    """Yield each page, path and name that it speaks of; the name is empty if it means the whole file."""
    for page in FOR_DEVELOPERS:
        for code in dict.fromkeys(code_of(page)):
            match = FILE.fullmatch(code)
            if match and match["path"] not in NOT_THERE[page.name]:
                yield page.name, match["path"], match["name"] or ""


def place_of(path: str) -> Path:
    """Return what a path means: in the repository, or else in the package."""
    return ROOT / path if (ROOT / path).exists() else PACKAGE / path


@cache
def defined_in(file: Path) -> set[str]:
    """Return what a file defines at its top level and in its classes, as ``name`` and ``Class.name``."""
    names: set[str] = set()

    def add(nodes: list[ast.stmt], prefix: str) -> None:
        for node in nodes:
            if isinstance(node, ast.ClassDef):
                names.add(prefix + node.name)
                add(node.body, f"{prefix}{node.name}.")
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                names.add(prefix + node.name)
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                named = (inner for target in targets for inner in ast.walk(target))
                names.update(prefix + inner.id for inner in named if isinstance(inner, ast.Name))

    add(ast.parse(file.read_text()).body, "")
    return names


def drawn_rooms() -> list[set[str]]:
    """Return the boxes of the diagram from the top down, each with its rooms."""
    (diagram,) = (block.text for block in blocks_of(ARCHITECTURE) if block.section == "The rooms")
    boxes = re.split(r"^\+-.*$", diagram, flags=re.M)
    rooms = [set(re.findall(r"^[| ]\s+(\w+)(?:/|\.py)\s+\|", box, flags=re.M)) for box in boxes]
    return [box for box in rooms if box]


def commands_of(page: Path) -> list[list[str]]:
    """Return the words after ``make`` in each command that a page shows."""
    shown = [*code_of(page), *(line for block in blocks_of(page) for line in block.text.splitlines())]
    return [command.split()[1:] for command in shown if command.startswith("make ")]


def targets() -> set[str]:
    """Return the targets of the Makefile that it shows in its help."""
    return set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), flags=re.M))


@pytest.mark.parametrize(("page", "path", "name"), sorted(set(named_files())))
def test_a_file_and_what_it_defines_exist(page: str, path: str, name: str) -> None:
    file = place_of(path)

    assert file.is_file()
    assert not name or name in defined_in(file)


def test_folders_exist() -> None:
    named = {(page, code) for page in FOR_DEVELOPERS for code in code_of(page) if FOLDER.fullmatch(code)}

    assert named
    assert [
        (page.name, code)
        for page, code in named
        if code not in NOT_THERE[page.name] and not place_of(code).is_dir()
    ] == []


def test_what_is_said_not_to_exist_does_not() -> None:
    names = {path.name for path in PACKAGE.rglob("*.py")}

    assert NOT_THERE["ARCHITECTURE.md"] & names == set()


def test_a_name_without_a_file_is_defined_in_one_that_the_page_names() -> None:
    files = {place_of(path) for _, path, _ in named_files() if path.endswith(".py")}
    defined = set().union(*map(defined_in, files))
    # Such as `ImageRequest.of`, of a class that the page has named with its file before.
    methods = [code for code in code_of(ARCHITECTURE) if re.fullmatch(r"[A-Z]\w*[a-z]\w*\.\w+", code)]

    assert methods
    assert [code for code in methods if code not in defined] == []


def test_every_room_is_in_its_layer_of_the_diagram() -> None:
    assert drawn_rooms() == [*LAYERS, APART - {""}]


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_page_says_where_a_decision_is_made_and_which_test_holds_it(question: str) -> None:
    (row,) = (line for line in ARCHITECTURE.read_text().splitlines() if line.startswith(f"| {question} |"))
    _, _, decided_in, tests, _ = (cell.strip() for cell in row.split("|"))

    assert FILE.search(decided_in)
    assert "`tests/" in tests


def test_the_formats_are_those_of_the_code() -> None:
    section = ARCHITECTURE.read_text().split("## What lies on disk")[1].split("\n## ")[0]
    rows = re.findall(r"^\| [\w ]+ \| `records/(\w+)\.py:(\w+)` \| [^|]+ \| (\d) \|", section, flags=re.M)
    records = [
        getattr(import_module(f"airflow_provider_bitdance.records.{module}"), name)
        for module, name, _ in rows
    ]

    assert len(rows) == 8
    assert [record.model_fields["format"].default for record in records] == [int(row[2]) for row in rows]


def test_every_make_target_that_a_page_names_exists() -> None:
    commands = [command for page in FOR_DEVELOPERS for command in commands_of(page)]
    named = {word for command in commands for word in takewhile(lambda word: "=" not in word, command)}

    assert named
    assert named - targets() == set()


def test_contributing_names_every_make_target() -> None:
    named = {word for command in commands_of(CONTRIBUTING) for word in command}

    assert targets() - {"help"} - named == set()


def test_the_source_distribution_holds_both_pages() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())

    assert {page.name for page in FOR_DEVELOPERS} <= set(
        project["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    )


@pytest.mark.parametrize("page", ["README.md", "docs/README.md"])
def test_the_pages_are_linked(page: str) -> None:
    text = (ROOT / page).read_text()

    assert [linked.name for linked in FOR_DEVELOPERS if f"{linked.name})" not in text] == []
