"""The command ``check`` as a program: its arguments, its exit codes, and what a kill in the middle leaves."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider_bitdance.__main__ import NOT_RUN, main
from airflow_provider_bitdance.check.machine import try_store
from airflow_provider_bitdance.local import LocalService, Options, running_service
from tests.builders import API_KEY, connection_to
from tests.s3 import S3Server

COMMAND = [sys.executable, "-m", "airflow_provider_bitdance"]


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalService]:
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    with running_service(Options(api_key=API_KEY, latency=2)) as service:
        monkeypatch.setenv("AIRFLOW_CONN_BITDANCE_DEFAULT", connection_to(service))
        yield service


def until(happened: object, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not happened():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def test_what_a_killed_check_has_paid_for_is_collected(service: LocalService, tmp_path: Path) -> None:
    arguments = ["check", "--spend", "0.04", "--output-path", f"{tmp_path}/images"]
    checking = subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    until(lambda: any((tmp_path / "images/.bitdance").glob("jobs/check/*/first/*/*/000002.json")))
    checking.kill()
    checking.communicate()
    assert service.bill().submitted == 1
    assert list((tmp_path / "images").glob("*.png")) == []

    reconcile = ["reconcile", "--all", "--json", "--records-path", f"{tmp_path}/images/.bitdance"]
    reconcile += ["--output", f"{tmp_path}/images"]
    until(lambda: service.bill().in_flight == 0)
    done = subprocess.run([*COMMAND, *reconcile], capture_output=True, text=True, check=True)

    (image,) = json.loads(done.stdout)["open_images"]
    assert (image["job"]["dag_id"], image["outcome"]) == ("check", "stored")
    assert len(list((tmp_path / "images").glob("*.png"))) == 1
    assert service.bill().submitted == 1


def test_the_program_prints_the_table_and_writes_the_file(service: LocalService, tmp_path: Path) -> None:
    arguments = ["check", "--records-path", f"{tmp_path}/records", "--json", f"{tmp_path}/check.json"]

    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=True)

    assert "assumptions hold, 0 do not;" in done.stdout.splitlines()[-1]
    assert json.loads((tmp_path / "check.json").read_text())["verdicts"]["key"] == "holds"
    assert API_KEY not in done.stdout + done.stderr
    assert service.bill().submitted == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--spend", "0.04"], "--output-path"),
        (["--spend", "5"], "at most 1"),
        (["--spend", "-1"], "at most 1"),
        (["--spend", "nan"], "at most 1"),
        (["--spend", "much"], "invalid float"),
        (["--output-path", "images"], "not an absolute path"),
        (["--records-path", "records"], "not an absolute path"),
        (["--output-path", "/tmp/x/", "--json", "/nowhere/check.json"], "--json"),
        (["--conn-id", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_is_sent(
    arguments: list[str], said: str, service: LocalService, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main(["check", *arguments])
    except SystemExit as ended:
        code = int(ended.code or 0)

    assert code == NOT_RUN
    assert said in capsys.readouterr().err
    assert service.requests() == []


def test_an_api_that_is_not_there_is_a_row_of_the_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    connection = {"conn_type": "bitdance", "host": "http://127.0.0.1:9", "password": API_KEY}
    monkeypatch.setenv("AIRFLOW_CONN_BITDANCE_DEFAULT", json.dumps(connection))

    assert main(["check"]) == 1
    out, err = capsys.readouterr()
    assert "The API accepts the key of the connection. (no connection to the API)" in out
    assert "Check the connection's host and the network." in err


def test_a_certificate_that_is_not_there_is_named(
    service: LocalService, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(os.environ, "SSL_CERT_FILE", "/nowhere/ca.pem")

    assert main(["check"]) == NOT_RUN
    assert "SSL_CERT_FILE" in capsys.readouterr().err


def test_a_check_that_is_interrupted_says_what_collects_its_purchases(
    service: LocalService, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("airflow_provider_bitdance.check.check", interrupted)

    with pytest.raises(SystemExit) as ended:
        main(["check"])

    assert ended.value.code == NOT_RUN
    assert "reconcile collects it" in capsys.readouterr().err


def test_a_real_s3_server_keeps_writers_apart(s3: S3Server) -> None:
    path = s3.new_path()

    store = try_store(s3.folder(f"{path}/records/"))

    assert (store.error, store.winners, store.is_exclusive, store.is_listed) == ("", 1, True, True)
    assert not store.is_local
    assert not any("check-" in name for name in s3.files(path))


def test_a_report_that_cannot_be_written_does_not_hide_the_table(
    service: LocalService,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)

    assert main(["check", "--json", str(tmp_path / "check.json")]) == 0
    out, err = capsys.readouterr()
    assert "No space left on device" in err
    assert "The API accepts the key of the connection." in out
