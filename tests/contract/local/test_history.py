"""The history, and how predictions leave it."""

from __future__ import annotations

import pytest

from airflow_provider_bitdance.local import Options
from tests.contract.local.caller import MODEL, Caller, Clock, calling


def test_history_lists_newest_first_in_pages_and_shows_no_inputs(caller: Caller) -> None:
    ids = [caller.submit(f"prompt {number}") for number in range(5)]
    assert [item["id"] for item in caller.history().json()["data"]["items"]] == ids[::-1]
    second = caller.history(page=2, page_size=2)
    assert second.json()["data"]["page"] == 2
    assert [item["id"] for item in second.json()["data"]["items"]] == [ids[2], ids[1]]
    assert caller.history(page=9).json()["data"]["items"] == []
    assert "prompt" not in second.text


def test_history_shows_inputs_as_asked_when_told_to(clock: Clock) -> None:
    with calling(Options(echo_inputs=True), clock) as caller:
        caller.submit("a lighthouse", size="512*512")
        (item,) = caller.history().json()["data"]["items"]
        assert item["input"] == {"prompt": "a lighthouse", "size": "512*512", "seed": -1}


def test_history_filters_by_model_status_and_time(caller: Caller) -> None:
    old = caller.submit()
    caller.clock.move(60)
    new = caller.submit()

    def ids(**query: object) -> list[str]:
        return [item["id"] for item in caller.history(**query).json()["data"]["items"]]

    assert ids(model=MODEL) == [new, old]
    assert ids(model="other/model") == []
    assert ids(status="completed") == [old]
    assert ids(status="created") == [new]
    assert ids(created_after="2026-05-28T20:27:00Z") == [new]
    assert ids(created_before="2026-05-28T22:27:00.123456789+02:00") == [old]
    assert ids(created_after="2026-05-28T20:26:00", created_before="2026-05-28T20:27:00") == [old]


@pytest.mark.parametrize(
    "query",
    [
        {"page": 0},
        {"page_size": 0},
        {"page_size": 101},
        {"page": None},
        {"page": 10**30},
        {"status": "done"},
        {"created_after": "yesterday"},
        {"created_after": 5},
    ],
)
def test_a_bad_history_query_is_refused(caller: Caller, query: dict[str, object]) -> None:
    assert caller.history(**query).status_code == 400


def test_predictions_are_gone_after_seven_days(caller: Caller) -> None:
    prediction_id = caller.submit()
    caller.clock.move(7 * 24 * 3600 + 1)
    assert caller.read(prediction_id).status_code == 404
    assert caller.history().json()["data"]["items"] == []
    assert caller.local.bill().billed == 1


def test_deleted_predictions_are_gone_and_unknown_ids_ignored(caller: Caller) -> None:
    kept, deleted = caller.submit(), caller.submit()
    answer = caller.http.post("/api/v3/predictions/delete", json={"ids": [deleted, "unknown"]})
    assert answer.json()["data"] == {"deleted_count": 1}
    assert caller.read(deleted).status_code == 404
    assert [item["id"] for item in caller.history().json()["data"]["items"]] == [kept]


def test_one_prediction_is_deleted_by_its_own_path(caller: Caller) -> None:
    prediction_id = caller.submit()
    answer = caller.http.delete(f"/api/v3/predictions/{prediction_id}")
    assert answer.json()["data"] == {"id": prediction_id, "status": "deleted"}
    assert caller.http.delete(f"/api/v3/predictions/{prediction_id}").status_code == 404
    assert caller.read(prediction_id).status_code == 404


def test_results_show_inputs_only_when_told_to(caller: Caller, clock: Clock) -> None:
    assert "input" not in caller.data(caller.submit("a lighthouse"))
    with calling(Options(echo_inputs=True), clock) as other:
        shown = other.data(other.submit("a lighthouse", seed=7))
        assert shown["input"] == {"prompt": "a lighthouse", "size": "1024*1024", "seed": 7}
