"""The state on disk: what a service that was killed at any moment knows when it is started again.

A kill is played by a copy: it leaves the files as they are, whatever the process still had in memory.
"""

from __future__ import annotations

import dataclasses
import random
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path

import pytest

from airflow_provider_bitdance.local.catalogue import MODELS
from airflow_provider_bitdance.local.database import StateError
from airflow_provider_bitdance.local.inputs import BillingQuery, Refused
from airflow_provider_bitdance.local.options import Options
from airflow_provider_bitdance.local.service import Service
from tests.unit.local.builders import BITDANCE, FLUX, Account

_copies = count()


def _options(path: Path) -> Options:
    return Options(
        state=path,
        latency="70%:1-20,30%:60-90",
        requests_per_minute=5,
        max_in_flight=4,
        above_limit="queue",
        history_lag="0-90",
        history_drop=0.2,
    )


def _life(account: Account, steps: int, dice: random.Random) -> Iterator[None]:
    """Do a bit of everything that changes the state, step by step."""
    service = account.service
    account.rule(on="submit", kind="failed", match="bad", probability=0.5)
    account.rule(on="submit", kind="never_finish", match="endless", times=1)
    account.rule(on="result", kind="not_found", probability=0.5)
    for _ in range(steps):
        account.move(dice.choice((0, 0.5, 7, 40)))
        match dice.randrange(4):
            case 0 | 1:
                prompt = dice.choice(("good", "bad", "endless", "päckchen \u2028 \x00 \n"))
                account.submit(prompt, dice.choice((BITDANCE, FLUX)))
            case 2:
                for task in service.predictions()[-2:]:
                    service.faults.for_response("result", prompt=task.inputs.prompt, reads=task.reads)
                    service.count_read(task)
            case 3 if dice.random() < 0.3:
                service.delete([task.id for task in service.predictions()[:2]])
        yield


def _known(service: Service) -> object:
    """Return all that can be seen from outside."""
    records, more = service.billing(BillingQuery(page_size=100))
    assert not more
    return (
        service.bill(),
        [dataclasses.asdict(task) for task in service.predictions()],
        [(record.billing_type, record.created_at, record.prediction.id) for record in records],
        [dataclasses.asdict(planned) for planned in service.faults.all()],
    )


def _state(account: Account) -> Path:
    assert account.service.options.state is not None
    return account.service.options.state


def _killed(account: Account, wal_bytes: int | None = None) -> Path:
    """Copy what a kill at this moment leaves on disk.

    :param wal_bytes: how much of the write-ahead log is there; None for all that was written.
    """
    state = _state(account)
    copy = state.with_name(f"copy-{next(_copies)}")
    shutil.copyfile(state, copy)
    wal = Path(f"{state}-wal").read_bytes()
    Path(f"{copy}-wal").write_bytes(wal[:wal_bytes])
    return copy


def _restarted(account: Account, wal_bytes: int | None = None) -> Account:
    options = dataclasses.replace(account.service.options, state=_killed(account, wal_bytes))
    return Account(options, now=account.now)


@pytest.mark.parametrize("seed", range(5))
def test_a_service_killed_after_any_step_knows_all_that_was_known(tmp_path: Path, seed: int) -> None:
    account = Account(_options(tmp_path / "state"))
    for _ in _life(account, 60, random.Random(seed)):
        again = _restarted(account)
        assert _known(again.service) == _known(account.service)
    account.move(1_000)
    again.move(1_000)
    assert _known(again.service) == _known(account.service)


def test_a_restarted_service_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    """The dice of latencies, seeds and faults, the limits' windows and the queue: all go on."""

    def drawn(account: Account) -> list[tuple[object, ...]]:
        tasks = account.service.predictions()
        return [(task.seed, task.admitted_at, task.due_at, task.listed_at, task.fault) for task in tasks]

    steady, killed = Account(_options(tmp_path / "steady")), Account(_options(tmp_path / "killed"))
    for number in range(20):
        for account in (steady, killed):
            if number in (0, 10):
                account.rule(on="submit", kind="failed", probability=0.5)
            account.submit()
            account.move(3)
        killed = _restarted(killed)
    assert drawn(killed) == drawn(steady)
    assert killed.service.bill() == steady.service.bill()
    assert len({fault for *_, fault in drawn(steady)}) > 1


def test_an_outage_and_a_late_prediction_outlast_a_kill(tmp_path: Path) -> None:
    account = Account(Options(state=tmp_path / "state"))
    account.rule(on="any", kind="outage", seconds=60)
    late = account.service.submit(BITDANCE, MODELS[BITDANCE].inputs(prompt="a lighthouse"), late=30)
    assert account.service.faults.outage("result", account.now)
    account.move(29.9)
    account = _restarted(account)
    assert account.service.bill().billed == 0
    account.move(0.1)
    assert account.service.bill().billed == 1
    again = account.service.find(late.id)
    assert again.inputs.model_dump(exclude_unset=True) == {"prompt": "a lighthouse"}
    assert account.service.faults.outage("result", account.now)
    account.move(30)
    assert account.service.faults.outage("result", account.now) is None


@pytest.mark.parametrize("seed", range(3))
def test_a_kill_within_a_write_leaves_what_was_known_before_it(tmp_path: Path, seed: int) -> None:
    """A log that ends anywhere holds the whole changes up to there, and no part of the next one."""
    account, dice = Account(_options(tmp_path / "state")), random.Random(seed)
    inputs = MODELS[BITDANCE].inputs.model_validate({"prompt": "a lighthouse"})
    wal = Path(f"{_state(account)}-wal")
    for _ in _life(account, 5, dice):
        pass
    for _ in range(4):
        before, written = _known(account.service), wal.stat().st_size
        account.service.submit(BITDANCE, inputs)
        size = wal.stat().st_size
        assert size > written
        cuts = [written, written + 1, size - 1, *dice.sample(range(written, size), 20)]
        assert all(_known(_restarted(account, cut).service) == before for cut in cuts)
        assert _known(_restarted(account, size).service) == _known(account.service) != before


def test_a_kill_while_the_file_is_made_leaves_an_empty_state(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.touch()
    account = Account(Options(state=path))
    account.submit()
    assert _restarted(account).service.bill().submitted == 1


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE predictions SET model = 'nobody/nothing'",
        "UPDATE predictions SET inputs = '{'",
        "UPDATE predictions SET inputs = '{}'",
        "UPDATE predictions SET price = 'much'",
        """UPDATE predictions SET fault = '{"on": "result", "kind": "reset"}'""",
        """INSERT INTO fault_rules (number, rule) VALUES (0, '{"on": "moon"}')""",
        "DROP TABLE refusals",
        "ALTER TABLE predictions DROP COLUMN reads",
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "state"
    Account(Options(state=path)).submit()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(damage)
        connection.commit()
    with pytest.raises(StateError, match=rf"^{path} is damaged: .*; delete it or choose another file$"):
        Account(Options(state=path))


@pytest.mark.parametrize("content", [b"my notes", b'{"event": "format", "version": 1}\n', b"x" * 5_000])
def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes"
    path.write_bytes(content)
    with pytest.raises(StateError, match=f"^{path} cannot be used as the state file: file is not a database"):
        Account(Options(state=path))
    assert path.read_bytes() == content


@pytest.mark.parametrize("statement", ["CREATE TABLE notes (text)", "PRAGMA user_version = 1"])
def test_another_programs_database_is_left_alone(tmp_path: Path, statement: str) -> None:
    path = tmp_path / "notes"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)
        connection.commit()
    content = path.read_bytes()
    with pytest.raises(StateError, match=f"^{path} is not a state file of this version"):
        Account(Options(state=path))
    assert path.read_bytes() == content


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="cannot be used as the state file: unable to open"):
        Account(Options(state=tmp_path / "nowhere" / "state"))


def test_a_refusal_is_remembered_and_so_is_a_reset(tmp_path: Path) -> None:
    account = Account(Options(state=tmp_path / "state", max_in_flight=1, latency=10))
    account.submit()
    with pytest.raises(Refused):
        account.submit()
    again = _restarted(account)
    assert (again.service.bill().refused, again.service.bill().submitted) == (1, 1)
    with pytest.raises(Refused):
        again.submit()
    again.service.reset()
    assert again.service.bill().submitted == 0
    assert _restarted(again).service.bill() == again.service.bill()


def test_a_result_that_is_read_after_the_deletion_does_no_harm(tmp_path: Path) -> None:
    account = Account(Options(state=tmp_path / "state"))
    task = account.submit()
    assert account.service.delete([task.id]) == 1
    account.service.count_read(task)
    assert account.service.delete([task.id]) == 0
    assert _known(_restarted(account).service) == _known(account.service)


def test_a_change_that_cannot_be_written_is_not_made(tmp_path: Path) -> None:
    path = tmp_path / "state"
    account = Account(Options(state=path))
    account.rule(on="submit", kind="nsfw")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE predictions")
    with pytest.raises(sqlite3.OperationalError):
        account.submit()
    assert account.service.bill().submitted == 0
    assert account.service.balance() == 100
