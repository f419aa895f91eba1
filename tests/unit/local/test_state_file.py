"""The state on disk: what a service that was killed at any moment knows when it is started again."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path

import pytest

from airflow_provider_bitdance.local.inputs import BillingQuery, Refused
from airflow_provider_bitdance.local.service import Options, Service
from airflow_provider_bitdance.local.state_file import DamagedStateError
from tests.unit.local.builders import BITDANCE, FLUX, Account

URL = "http://127.0.0.1:9/hook"


def _options(path: Path) -> Options:
    return Options(
        state=path,
        latency="70%:1-20,30%:60-90",
        requests_per_minute=5,
        max_in_flight=4,
        above_limit="queue",
        refund_after=30,
    )


def _life(account: Account, steps: int, dice: random.Random) -> None:
    """Do a bit of everything that changes the state."""
    service = account.service
    account.rule(on="submit", kind="failed", match="bad", probability=0.5)
    account.rule(on="submit", kind="never_finish", match="endless", times=1)
    account.rule(on="result", kind="not_found", probability=0.5)
    for _ in range(steps):
        account.move(dice.choice((0, 0.5, 7, 40)))
        match dice.randrange(6):
            case 0 | 1:
                prompt = dice.choice(("good", "bad", "endless", "päckchen \u2028 \n"))
                account.submit(prompt, dice.choice((BITDANCE, FLUX)), webhook=dice.choice((None, URL)))
            case 2:
                for task in service.predictions()[-2:]:
                    service.faults.spoiler("result", prompt=task.inputs.prompt, reads=task.reads)
                    service.count_read(task)
            case 3:
                for task in service.predictions()[:1]:
                    service.count_download(task)
            case 4:
                service.webhooks_due(account.now)
            case 5 if dice.random() < 0.3:
                service.delete([task.id for task in service.predictions()[:1]])


def _knows(service: Service) -> object:
    """All that can be seen from outside."""
    return (
        service.bill(),
        [dataclasses.asdict(task) for task in service.predictions()],
        service.billing(BillingQuery(page_size=100)),
        [planned.as_json() for planned in service.faults.all()],
    )


def _restarted(account: Account, options: Options | None = None) -> Account:
    return Account(options or account.service.options, now=account.now)


@pytest.mark.parametrize("seed", range(5))
def test_a_restarted_service_knows_all_that_was_known(tmp_path: Path, seed: int) -> None:
    account = Account(_options(tmp_path / "state"))
    _life(account, 60, random.Random(seed))
    again = _restarted(account)
    assert again.service.restored
    assert _knows(again.service) == _knows(account.service)
    account.move(1_000)
    again.move(1_000)
    assert again.service.webhooks_due(again.now) == account.service.webhooks_due(account.now)
    assert _knows(again.service) == _knows(account.service)


def test_a_restarted_service_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    """The dice of latencies, seeds and faults, the limits' windows and the queue: all go on."""

    def told(account: Account) -> list[tuple[object, ...]]:
        tasks = account.service.predictions()
        return [(task.seed, task.admitted_at, task.due_at, task.shape) for task in tasks]

    steady, killed = Account(_options(tmp_path / "steady")), Account(_options(tmp_path / "killed"))
    for number in range(20):
        for account in (steady, killed):
            if number in (0, 10):
                account.rule(on="submit", kind="failed", probability=0.5)
            account.submit()
            account.move(3)
        killed = _restarted(killed)
    assert told(killed) == told(steady)
    assert killed.service.bill() == steady.service.bill()
    assert len({shape for *_, shape in told(steady)}) > 1


@pytest.mark.parametrize("seed", range(3))
def test_a_kill_after_any_line_leaves_a_state_that_adds_up(tmp_path: Path, seed: int) -> None:
    account = Account(_options(tmp_path / "state"))
    _life(account, 60, random.Random(seed))
    lines = (tmp_path / "state").read_bytes().splitlines(keepends=True)
    assert len(lines) > 30
    for kept in range(len(lines) + 1):
        (tmp_path / "cut").write_bytes(b"".join(lines[:kept]))
        again = _restarted(account, _options(tmp_path / "cut"))
        bill = again.service.bill()
        records, more = again.service.billing(BillingQuery(page_size=100))
        assert not more
        kinds = [record.billing_type for record in records]
        assert (kinds.count("deduct"), kinds.count("refund")) == (bill.submitted, bill.refunded)
        assert bill.submitted == sum(b'"submit", "id"' in line for line in lines[:kept])
        assert bill.submitted == bill.completed + bill.failed + bill.in_flight
        assert again.service.restored == (kept > 1)
        again.submit("one more")
        assert _knows(_restarted(again).service) == _knows(again.service)


def test_a_last_line_that_was_not_written_to_its_end_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "state"
    account = Account(Options(state=path))
    account.submit()
    before = path.read_bytes()
    account.submit()
    whole = path.read_bytes()
    for kept in range(len(before), len(whole)):
        path.write_bytes(whole[:kept])
        again = _restarted(account)
        assert again.service.bill().submitted == 1
        assert path.read_bytes() == before


def test_a_kill_while_the_file_is_made_leaves_an_empty_state(tmp_path: Path) -> None:
    path = tmp_path / "state"
    Account(Options(state=path))
    header = path.read_bytes()
    for kept in range(len(header) + 1):
        path.write_bytes(header[:kept])
        assert not Account(Options(state=path)).service.restored
        assert path.read_bytes() == header


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"event": "paid"}',
        b'{"event": "read", "id": "unknown"}',
        b'{"event": "delete"}',
        b'{"event": "met", "number": 5, "applied": true}',
        b'{"event": "rule", "rule": {"on": "moon"}}',
        b'{"event": "submit", "id": "1", "model": "nobody/nothing"}',
        b"\xff",
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "state"
    account = Account(Options(state=path))
    account.submit()
    account.submit()
    header, first, second = path.read_bytes().splitlines(keepends=True)
    damaged = header + first + damage + b"\n" + second
    path.write_bytes(damaged)
    with pytest.raises(DamagedStateError, match=rf"^{path}, line 3: .*; repair the line or delete the file$"):
        _restarted(account)
    assert path.read_bytes() == damaged


@pytest.mark.parametrize("content", [b"my notes", b"my notes\n", b'{"event": "format", "version": 2}\n'])
def test_another_file_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes"
    path.write_bytes(content)
    with pytest.raises(DamagedStateError, match=f"^{path} is no state file of this version"):
        Account(Options(state=path))
    assert path.read_bytes() == content


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
    assert not _restarted(account).service.restored


def test_a_download_that_ends_after_the_deletion_does_no_harm(tmp_path: Path) -> None:
    account = Account(Options(state=tmp_path / "state"))
    task = account.submit()
    account.service.delete([task.id])
    account.service.count_download(task)
    account.service.count_read(task)
    assert _knows(_restarted(account).service) == _knows(account.service)


def test_a_change_that_cannot_be_written_is_not_made(tmp_path: Path) -> None:
    path = tmp_path / "state"
    account = Account(Options(state=path))
    path.unlink()
    with pytest.raises(FileNotFoundError):
        account.submit()
    assert account.service.bill().submitted == 0


def test_each_line_is_strict_json(tmp_path: Path) -> None:
    account = Account(_options(tmp_path / "state"))
    _life(account, 100, random.Random(4))

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    text = (tmp_path / "state").read_text(encoding="ascii")
    events = {json.loads(line, parse_constant=refuse)["event"] for line in text.splitlines()}
    assert {"format", "submit", "read", "download", "rule", "met", "told", "delete"} <= events
