"""What can be said of the cluster without one: its table, its page, and what it says where parts lack."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from airflow.cli.cli_parser import get_parser
from airflow.configuration import conf

from tests.chaos import report
from tests.chaos.scene import Outcome
from tests.cluster import __main__ as command
from tests.cluster import services, walk
from tests.cluster.rows import LOST, ROWS
from tests.document import between


def measured() -> dict[str, Outcome]:
    """The outcomes that the document shows."""
    lines = between(command.COMMAND, report.DOCUMENT).splitlines()
    cells = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return {
        name: Outcome(*map(int, numbers[:6]), float(numbers[6]))
        for name, *numbers in (row for row in cells if len(row) == len(report.HEAD) + 1)
        if numbers[0].isdecimal()
    }


def test_the_table_is_of_the_rows_that_there_are() -> None:
    assert list(measured()) == [row.name for row in ROWS]


def test_what_was_measured_keeps_the_rules() -> None:
    outcomes = measured()
    broken = {row.name: row.broken_rules(outcomes[row.name]) for row in ROWS}
    assert [name for name, rules in broken.items() if rules] == []


def test_nothing_may_be_possibly_paid_where_no_process_dies_that_buys() -> None:
    may_lose = {row.name for row in ROWS if row.lost}
    assert {row.name for row in ROWS if "worker SIG" in row.name} - may_lose == {
        "worker SIGTERM, with time to finish"
    }
    assert all(row.lost <= 2 * LOST for row in ROWS)
    for name in (
        "nothing happens",
        "every task redelivered after 8 s",
        "Redis SIGKILL",
        "10 batches on one account",
    ):
        assert name not in may_lose


def test_where_programs_lack_the_command_says_how_to_install_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(services.shutil, "which", lambda _: None)
    monkeypatch.setattr(services.postgres, "programs", lambda: None)
    monkeypatch.setattr("sys.argv", ["tests.cluster"])

    assert command.main() == 2
    assert "apt-get install -y redis-server postgresql" in capsys.readouterr().err


def test_the_page_s_settings_are_settings_of_airflow_or_ours() -> None:
    settings, _ = walk.blocks()
    for line in settings.text.splitlines():
        name, _, value = line.partition("=")
        if name.startswith("AIRFLOW__"):
            _, section, option = name.lower().split("__")
            assert option in conf.configuration_description[section]["options"], name
        assert value


def test_the_page_has_ten_commands_which_airflow_takes() -> None:
    _, commands = walk.blocks()
    lines = commands.text.splitlines()
    assert len(lines) == 10
    for line in lines:
        for part in line.replace("&&", "&").split("&"):
            words = shlex.split(part)
            if words[:1] == ["airflow"] and words[1] != "celery":
                get_parser().parse_args(words[1:])


def test_the_page_is_followed_in_a_folder_of_its_own_on_free_ports(tmp_path: Path) -> None:
    ports = {port: f"1{port}" for port in walk.PORTS}
    typed = walk.script(tmp_path, ports, tmp_path / "x.whl")
    assert walk.FOLDER not in typed.replace(str(tmp_path), "")
    assert all(f"127.0.0.1:{free}" in typed for free in ports.values())
    assert "from airflow.sdk import dag" in typed
