"""Every block of the repository's pages, and every example in a docstring, is run, or read by what really reads it.

A block that no rule knows fails.

| language | what is done with it |
| --- | --- |
| python | A page's blocks are one Dag file. Airflow parses it; each Dag, each loose task and each task that is only defined runs in ``dag.test()``, on the local service. |
| console | Each command is told by its first words: :data:`COMMANDS`. What it is said to print must be texts of the package. |
| json, ini | The hook, or what reads the settings, reads it. |
| text | A log or a result: each line must be a text of the package. Or a drawing: :data:`DRAWINGS`. With a name above, it is a file for the page's Dags. |
| {eval-rst} | Sphinx reads it, `make docs`: warnings are errors. |

What is followed to the letter by another test is in :data:`FOLLOWED`.
"""  # noqa: E501

from __future__ import annotations

import configparser
import json
import re
import shlex
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from airflow.cli.cli_parser import get_parser
from airflow.configuration import conf
from airflow.sdk import Connection
from packaging.requirements import Requirement

from airflow_provider_bitdance import __main__ as command_line
from airflow_provider_bitdance.get_provider_info import get_provider_info
from airflow_provider_bitdance.hooks import object_storage
from airflow_provider_bitdance.hooks.bitdance import BitDanceHook
from airflow_provider_bitdance.hooks.connection import read_connection
from airflow_provider_bitdance.local import LocalService
from airflow_provider_bitdance.local import __main__ as local_command_line
from demo.examples import ASKS_A_PERSON
from tests.builders import connection_to, load_dags
from tests.docs import messages, reader
from tests.docs.pages import BLOCKS, EXAMPLES, PAGES, ROOT, Block
from tests.docs.slack import running_slack
from tests.integration.test_dag_test import run_of

FOLLOWED = {
    ("docs/how-to/testing.md", ""): "tests/packaging/test_user_dag_test.py",
    ("README.md", "Your first image"): "tests/docs/test_first_image.py",
    ("ARCHITECTURE.md", "The rooms"): "tests/docs/test_architecture.py",
    ("docs/operations/celery.md", "Set up Celery from scratch"): "tests/cluster/walk.py",
}
"""Pages and sections that another test follows to the letter, command by command."""
DRAWINGS = ("<records path>/\n", "000001   claimed ")
"""How a text begins that shows files or steps and no output: test_records.py holds them against a run."""
DAY = datetime(2026, 11, 22, tzinfo=UTC)
OURS = [
    *EXAMPLES,
    *(block for block in BLOCKS if not {(block.page, ""), (block.page, block.section)} & FOLLOWED.keys()),
]


def of(*languages: str) -> Any:
    """Parametrize a test with the blocks of some languages."""
    return pytest.mark.parametrize("block", [block for block in OURS if block.language in languages], ids=str)


# Python


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the reader's folder: one for all pages, for a Dag of another file is another version of it."""
    folder = tmp_path_factory.mktemp("reader")
    reader.furnish(folder)
    return folder


@pytest.fixture
def stage(
    local: LocalService, airflow_db: None, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """Yield the reader's folder, with a connection and with the variables that pages speak of."""
    settings = connection_to(local, records_path=f"{folder}/records")
    monkeypatch.setenv("AIRFLOW_CONN_BITDANCE_DEFAULT", settings)
    for name in re.findall(r"var\.value\.(\w+)", "".join(page.read_text() for page in PAGES)):
        monkeypatch.setenv(f"AIRFLOW_VAR_{name.upper()}", f"{folder}/{name}")
    with running_slack() as slack:
        monkeypatch.setenv("AIRFLOW_CONN_SLACK_DEFAULT", slack.connection)
        yield folder
    assert all(file.startswith(b"\x89PNG") for file in slack.files)


def dags_of(page: str, folder: Path) -> list[Any]:
    """Parse the Python of a page as Airflow parses a Dag file, and return its Dags, the first one first."""
    blocks = [block for block in OURS if block.page == page]
    for block in blocks:
        if block.name:
            (folder / Path(block.name).name).write_text(reader.at_home(block.text, folder))
    # A page that looks at a prediction has an id that only its author's account knows.
    text = re.sub(r"\b[0-9a-f]{32}\b", bought, reader.as_dag_file(blocks, folder))
    name = re.sub(r"\W", "_", page.removesuffix(".md"))
    file = folder / f"page_{name}.py"
    file.write_text(text)
    bag = load_dags(str(file))
    reader.leave_all_dags()
    assert not bag.import_errors, "".join(bag.import_errors.values())
    assert set(re.findall(r"^@dag\b.*?^def (\w+)", text, re.M | re.S)) <= bag.dags.keys()
    with_tasks = [dag for dag in bag.dags.values() if dag.tasks]
    return sorted(with_tasks, key=lambda dag: text.find(f"def {dag.dag_id}("))


def bought(_: object) -> str:
    return BitDanceHook().submit(prompt="A fox").id


@pytest.mark.parametrize("page", sorted({block.page for block in OURS if block.language == "python"}))
def test_the_python_of_a_page_runs(page: str, stage: Path) -> None:
    for dag in dags_of(page, stage):
        asks_a_person = [task.task_id for task in dag.tasks if task.task_type in ASKS_A_PERSON]
        run = run_of(dag, logical_date=DAY, mark_success_pattern="|".join(asks_a_person) or None)
        assert run.state == "success", dag.dag_id


# Console


def target(words: list[str], stage: Path) -> None:
    """``make``: there is such a target. Which of them run where is said in .ci/run."""
    subprocess.run(["make", "--dry-run", *words[1:]], cwd=ROOT, check=True, capture_output=True)


def package(words: list[str], stage: Path) -> None:
    """``pip install``: this project and its extras, or what its constraints know."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    known = (ROOT / "constraints.txt").read_text()
    for requirement in map(Requirement, words[2:]):
        if requirement.name == project["name"]:
            assert requirement.extras <= project["optional-dependencies"].keys()
        else:
            assert re.search(rf"^{re.escape(requirement.name)}==", known, re.M), requirement


def airflow(words: list[str], stage: Path) -> None:
    """``airflow``: it runs, or its command line takes it where another test runs it or a scheduler has to."""
    given = get_parser().parse_args(words[1:])
    if words[1:3] in (["connections", "test"], ["pools", "set"]):
        given.func(given)


def provider(words: list[str], stage: Path) -> None:
    """``python -m airflow_provider_bitdance``: it runs, and nothing needs a look.

    A check of the local service finds that this shows no inputs, as its page says.
    """
    if words[2].endswith(".local"):
        local_command_line._parser().parse_args(words[3:])
        return
    is_check = words[3:4] == ["check"] and "--spend" in words
    # The reader's images are all in one folder, whatever folder of theirs a page names.
    given = [f"{stage}/" if before == "--output" else word for before, word in pairwise(words[2:])]
    assert command_line.main(given) == (command_line.FINDINGS if is_check else command_line.FINE)


COMMANDS: dict[str, Callable[[list[str], Path], None]] = {
    "make": target,
    "pip install": package,
    "airflow": airflow,
    "python -m airflow_provider_bitdance": provider,
}
"""What is done with a command, by its first words."""


def commands_of(block: Block) -> tuple[list[str], list[str]]:
    """Return the commands of a block, and the lines that it shows as their output."""
    text = block.text.replace("\\\n", " ")
    if not text.startswith("$ "):
        return [line for line in text.splitlines() if line], []
    lines = text.splitlines()
    return [line[2:] for line in lines if line[:2] == "$ "], [line for line in lines if line[:2] != "$ "]


@of("console")
def test_a_command_does_what_it_says(block: Block, stage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As the command line has it, which the commands that run here would set for all tests.
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    if block.text.startswith("export AIRFLOW_CONN_"):
        for name, value in exported_by(block).items():
            monkeypatch.setenv(name, value)
            assert BitDanceHook(name.removeprefix("AIRFLOW_CONN_").lower()).settings.api_key
        return
    commands, output = commands_of(block)
    for command in commands:
        words = shlex.split(command, comments=True)
        while words and (setting := re.fullmatch(r"AIRFLOW__([A-Z]+)__([A-Z_]+)=(.*)", words[0])):
            assert conf.has_option(setting[1].lower(), setting[2].lower()), words[0]
            monkeypatch.setenv(*words.pop(0).split("=", 1))
        rules = [rule for start, rule in COMMANDS.items() if " ".join(words).startswith(start)]
        assert rules, f"no rule for {command!r}"
        rules[0](words, stage)
    assert [line for line in output if line and not messages.is_said(line)] == []


def exported_by(block: Block) -> dict[str, str]:
    """Run a block in a shell, and return the connections that it leaves in the environment."""
    script = re.sub(r"<[^<>]*>", "wsk_your_key", block.text) + "\nenv -0"
    done = subprocess.run(["bash", "-ec", script], env={}, check=True, capture_output=True, text=True)
    pairs = (pair.partition("=") for pair in done.stdout.split("\0"))
    return {name: value for name, _, value in pairs if name.startswith("AIRFLOW_CONN_")}


# What is read


@of("json")
def test_json_is_of_connections(block: Block) -> None:
    for conn_id, fields in json.loads(block.text).items():
        connection = Connection.from_json(json.dumps(fields), conn_id=conn_id)
        assert connection.conn_type == BitDanceHook.conn_type
        read_connection(connection, connection.extra_dejson)


@of("ini")
def test_settings_are_known_and_taken(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = get_provider_info()["config"]
    parser = configparser.ConfigParser()
    parser.read_string(block.text)
    for section in parser.sections():
        for option in parser[section]:
            monkeypatch.setenv(f"AIRFLOW__{section.upper()}__{option.upper()}", parser[section][option])
            known = option in ours.get(section, {}).get("options", {}) or conf.has_option(section, option)
            assert known, f"[{section}] {option}"
        if "records_path" in parser[section]:
            assert object_storage.records_path(None, "") == parser[section]["records_path"]


@of("text")
def test_text_is_what_the_package_says(block: Block) -> None:
    if not block.name and not block.text.startswith(DRAWINGS):
        assert [line for line in block.text.splitlines() if line and not messages.is_said(line)] == []


# That nothing is left out


def test_every_block_has_a_rule() -> None:
    known = {"python", "console", "json", "ini", "text", "{eval-rst}"}

    assert [str(block) for block in OURS if block.language not in known] == []


def test_what_is_followed_elsewhere_is_followed() -> None:
    for (page, section), test in FOLLOWED.items():
        assert any(block.page == page and section in ("", block.section) for block in BLOCKS)
        assert Path(page).name in (ROOT / test).read_text()
