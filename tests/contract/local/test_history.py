"""The history, and how predictions leave it."""

from __future__ import annotations

from typing import Literal

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


def test_history_filters_by_model_status_and_time(caller: Caller) -> None:
    old = caller.submit()
    caller.clock.move(60)
    new = caller.submit()

    ids = caller.listed
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


def test_a_lag_shows_predictions_in_another_order_than_they_were_made_in(clock: Clock) -> None:
    with calling(Options(history_lag="0-90"), clock) as caller:
        made = [caller.submit() for _ in range(10)]
        shown: list[str] = []
        for _ in range(90):
            clock.move(1)
            shown += sorted(set(caller.listed()) - set(shown))
        assert sorted(shown) == sorted(made)
        assert shown != made
        assert caller.listed() == made[::-1], "what shows is sorted by the time at which it was made"


def test_a_lag_hides_a_prediction_from_the_history_and_not_from_its_id(clock: Clock) -> None:
    with calling(Options(history_lag=30), clock) as caller:
        prediction_id = caller.submit()
        clock.move(29)
        assert caller.listed() == []
        assert caller.data(prediction_id)["status"] == "completed"
        clock.move(1)
        assert caller.listed() == [prediction_id]


def test_a_share_of_the_predictions_never_shows_in_the_history(clock: Clock) -> None:
    def shown(seed: int) -> list[bool]:
        with calling(Options(history_drop=0.5, seed=seed), clock) as caller:
            made = [caller.submit() for _ in range(12)]
            clock.move(3600)
            assert caller.local.bill().billed == 12
            return [prediction_id in caller.listed() for prediction_id in made]

    first = shown(1)
    assert 0 < sum(first) < 12
    assert first == shown(1) != shown(2)


@pytest.mark.parametrize("broken", ["model", "date"])
def test_a_filter_may_match_nothing_while_the_other_one_works(
    clock: Clock, broken: Literal["model", "date"]
) -> None:
    filters = {"model": MODEL, "date": "2026-05-28T20:26:00Z"}
    with calling(Options(history_filter=broken), clock) as caller:
        prediction_id = caller.submit()
        found = {
            "model": caller.listed(model=filters["model"]),
            "date": caller.listed(created_after=filters["date"]),
        }
        assert found.pop(broken) == []
        assert list(found.values()) == [[prediction_id]]
        assert caller.listed() == [prediction_id]
