"""The client of the demo and the system tests: what it does where SQLite is locked."""

from __future__ import annotations

from typing import Any

import pytest

from demo import airflow_rest
from demo.airflow_rest import AirflowRest
from demo.http_json import RestError

STATEMENT = f"INSERT INTO dag_run ({', '.join(f'column_{number}' for number in range(100))})"
LOCKED = f'{{"detail": {{"statement": "{STATEMENT}", "orig_error": "database is locked"}}}}'
OF_A_BACKFILL = '{"detail": "Database is locked. Backfill creation is not supported on SQLite"}'
BROKEN = '{"detail": "Internal Server Error"}'


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return the list of what Airflow answers to writes, first to last; a text is that of a 500."""
    answers: list[Any] = []

    def send(method: str, url: str, *_: object) -> Any:
        if url.endswith("/auth/token"):
            return {"access_token": "token"}
        answer = answers.pop(0)
        if isinstance(answer, str):
            raise RestError(method, url, 500, answer)
        return answer

    monkeypatch.setattr(airflow_rest, "send", send)
    monkeypatch.setattr(airflow_rest.time, "sleep", lambda _: None)
    return answers


def test_a_write_is_sent_again_while_the_database_is_locked(answers: list[Any]) -> None:
    answers += [LOCKED, OF_A_BACKFILL, {"key": "subject"}]
    assert AirflowRest("http://127.0.0.1:1").post("/variables", {"key": "subject"}) == {"key": "subject"}


def test_a_database_that_stays_locked_is_an_error(answers: list[Any]) -> None:
    answers += [LOCKED] * 12
    with pytest.raises(RestError, match="INSERT INTO dag_run"):
        AirflowRest("http://127.0.0.1:1").patch("/dags/daily", {"is_paused": True})
    assert len(answers) == 4


def test_a_write_that_fails_otherwise_is_sent_once(answers: list[Any]) -> None:
    answers += [BROKEN, {}]
    with pytest.raises(RestError):
        AirflowRest("http://127.0.0.1:1").post("/variables", {"key": "subject"})
    assert len(answers) == 1
