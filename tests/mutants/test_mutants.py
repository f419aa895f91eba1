"""The list of mutations, and the parts of `make mutants` that need only a small package."""

from __future__ import annotations

import ast
import functools
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutants.__main__ import ALL_TESTS, is_enough, table
from tests.mutants.mutations import PACKAGE, ROOT, Mutation, MutationError, all_mutations
from tests.mutants.runner import Run, Verdict

MUTATIONS = all_mutations()
A_MUTATION = Mutation("money.py", "LIMIT = 3", "LIMIT = 4", "too much is spent", ("tests/test_money.py",))


@pytest.mark.parametrize("mutation", MUTATIONS, ids=str)
def test_what_a_mutation_changes_is_in_its_module_once_and_python_understands_the_change(
    mutation: Mutation,
) -> None:
    source, meaning = source_and_meaning(mutation.module)
    assert ast.dump(ast.parse(mutation.apply(source))) != meaning


@functools.cache
def source_and_meaning(module: str) -> tuple[str, str]:
    source = (ROOT / PACKAGE / module).read_text()
    return source, ast.dump(ast.parse(source))


def test_the_test_files_of_each_mutation_are_there() -> None:
    names = {name for mutation in MUTATIONS for name in (*mutation.tests, *ALL_TESTS)}
    assert [name for name in sorted(names) if not (ROOT / name.partition("::")[0]).exists()] == []


def test_no_change_is_listed_twice() -> None:
    changes = [(mutation.module, mutation.text, mutation.instead) for mutation in MUTATIONS]
    assert len(set(changes)) == len(changes)


@pytest.mark.parametrize("source", ["LIMIT = 5\n", "LIMIT = 3\nLIMIT = 3\n"])
def test_a_text_that_is_not_there_exactly_once_is_refused(source: str) -> None:
    with pytest.raises(MutationError, match=r"money\.py has this text \d times, and not once: 'LIMIT = 3'"):
        A_MUTATION.apply(source)


# The runner, on a package of one module

SMALL = {
    f"{PACKAGE}/__init__.py": "",
    f"{PACKAGE}/local/__init__.py": "",
    f"{PACKAGE}/local/pytest_plugin.py": "",
    f"{PACKAGE}/money.py": "LIMIT = 3\nUNUSED = 1\n\n\ndef spend():\n    return LIMIT\n",
    "tests/__init__.py": "",
    "tests/test_money.py": (
        f"from {PACKAGE}.money import spend\n\n\ndef test_three_are_spent():\n    assert spend() == 3\n"
    ),
    "pyproject.toml": "[tool.pytest.ini_options]\n",
}
CHANGES = {
    "noticed": ("LIMIT = 3", "LIMIT = 4"),
    "survives": ("UNUSED = 1", "UNUSED = 2"),
    "hangs": ("return LIMIT", "while True: pass"),
    "breaks": ("def spend():", "def spent():"),
}
PROGRAM = """
import json, sys
from pathlib import Path
from tests.mutants.mutations import Mutation
from tests.mutants.runner import run_all

root, seconds, *changes = sys.argv[1:]
mutations = [Mutation("money.py", *json.loads(change), ("tests/test_money.py",)) for change in changes]
runs = run_all(mutations, lambda mutation: mutation.tests, root=Path(root), seconds=float(seconds))
print(json.dumps({run.mutation.harm: [run.verdict.name, run.said] for run in runs}))
"""


def small_package(folder: Path) -> Path:
    for name, text in SMALL.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def played(folder: Path, *names: str, seconds: float = 60.0) -> dict[str, list[str]]:
    """Run mutations in a process of its own, for it forks; return what became of each."""
    changes = [json.dumps((*CHANGES[name], name)) for name in names]
    program = [sys.executable, "-c", PROGRAM, str(folder), str(seconds), *changes]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=True)
    verdicts: dict[str, list[str]] = json.loads(done.stdout)
    return verdicts


def test_a_change_is_noticed_where_a_test_fails_and_survives_where_none_does(tmp_path: Path) -> None:
    small_package(tmp_path)
    found = played(tmp_path, "noticed", "survives", "breaks")
    assert {name: verdict for name, (verdict, _) in found.items()} == {
        "noticed": "NOTICED",
        "survives": "SURVIVED",
        "breaks": "BROKEN",  # the tests cannot be imported: that is a mistake in the list
    }
    assert "assert 4 == 3" in found["noticed"][1]
    written = {
        str(path.relative_to(tmp_path)): path.read_text() for path in tmp_path.rglob("*.*") if path.is_file()
    }
    assert written == SMALL


def test_a_change_that_makes_a_test_hang_counts_as_noticed_and_its_process_is_stopped(tmp_path: Path) -> None:
    assert played(small_package(tmp_path), "hangs", seconds=3.0)["hangs"][0] == "TIMED_OUT"


# The figure


def runs(**verdicts: int) -> list[Run]:
    return [Run(A_MUTATION, Verdict[name], 1.0, "") for name, count in verdicts.items() for _ in range(count)]


@pytest.mark.parametrize(
    ("verdicts", "enough"),
    [
        ({"NOTICED": 20}, True),
        ({"NOTICED": 18, "TIMED_OUT": 1, "SURVIVED": 1}, True),
        ({"NOTICED": 18, "SURVIVED": 1}, False),
        ({"NOTICED": 99, "BROKEN": 1}, False),
    ],
)
def test_nineteen_of_twenty_have_to_be_noticed_and_all_have_to_run(
    verdicts: dict[str, int], enough: bool
) -> None:
    assert is_enough(runs(**verdicts)) is enough


def test_the_table_has_the_share_each_module_and_each_survivor_with_its_change() -> None:
    shown = table(runs(NOTICED=2, TIMED_OUT=1, SURVIVED=1))
    assert shown.splitlines()[1:3] == [f"{'money.py':<32}       3    4", f"{'all':<32}       3    4   75.0%"]
    assert "Noticed by a time-out: 1" in shown
    assert "SURVIVED: money.py: too much is spent\n    LIMIT = 3  →  LIMIT = 4" in shown
