"""Prices, credit, the bill, the billing records."""

from __future__ import annotations

from airflow_provider_bitdance.local import Options
from tests.contract.local.caller import MODEL, Caller, Clock, calling


def test_a_price_is_quoted(caller: Caller) -> None:
    answer = caller.http.post("/api/v3/model/price", json={"model_id": MODEL, "inputs": {"prompt": "x"}})
    price = {"model_id": MODEL, "price": 0.01, "discounted_price": 0.01, "currency": "USD"}
    assert answer.json()["data"] == price


def test_the_bill_adds_up(caller: Caller) -> None:
    caller.local.add_fault(on="submit", kind="failed", match="bad")
    caller.local.add_fault(on="submit", kind="never_finish", match="endless")
    for prompt in ("good", "good", "bad", "endless"):
        caller.submit(prompt)
    assert caller.http.get("/admin/bill").json() == {
        **{"submitted": 4, "billed": 4, "refunded": 0, "completed": 0, "failed": 0, "in_flight": 4},
        **{"cost_usd": 0.04, "balance_usd": 99.96, "refused": 0},
    }
    caller.clock.move(1_000)
    assert caller.http.get("/admin/bill").json() == {
        **{"submitted": 4, "billed": 3, "refunded": 1, "completed": 2, "failed": 1, "in_flight": 1},
        **{"cost_usd": 0.03, "balance_usd": 99.97, "refused": 0},
    }
    assert caller.http.get("/api/v3/balance").json()["data"] == {"balance": 99.97}


def test_without_credit_a_submit_is_refused_as_a_400_that_names_credits(clock: Clock) -> None:
    with calling(Options(balance_usd=0.02, latency=4), clock) as caller:
        caller.submit("one")
        caller.local.add_fault(on="submit", kind="failed", times=1)
        caller.submit("two, to be refunded")
        answer = caller.ask("three")
        assert answer.status_code == 400
        assert answer.json() == {
            "code": 400,
            "message": "Insufficient credits. Please top up your account to continue.",
            "data": None,
        }
        clock.move(5)
        caller.submit("three, after the refund")
        assert caller.local.bill().balance_usd == 0


def test_billing_records_tell_charges_and_refunds_by_prediction(caller: Caller) -> None:
    caller.local.add_fault(on="submit", kind="failed", match="bad")
    good, bad = caller.submit("good"), caller.submit("bad")
    caller.clock.move(5)
    found = caller.http.post("/api/v3/billings/search", json={"page": 1, "page_size": 10}).json()["data"]
    told = [(item["billing_type"], item["prediction"]["uuid"], item["price"]) for item in found["items"]]
    assert told == [("refund", bad, 0.01), ("deduct", bad, 0.01), ("deduct", good, 0.01)]
    assert found["items"][0]["order"] == found["items"][1]["order"] != found["items"][2]["order"]
    assert found["items"][0]["prediction"]["status"] == "failed"
    assert (found["page"], found["has_more"]) == (1, False)
    assert len({item["uuid"] for item in found["items"]}) == 3
    first = caller.http.post("/api/v3/billings/search", json={"page": 1, "page_size": 1}).json()["data"]
    assert (first["has_more"], first["items"]) == (True, found["items"][:1]), "uuids stay"


def test_above_the_limits_a_submit_is_refused_with_429_and_free(clock: Clock) -> None:
    with calling(Options(latency=4, max_in_flight=1), clock) as caller:
        caller.submit()
        answer = caller.ask()
        assert (answer.status_code, answer.json()["code"]) == (429, 429)
        assert answer.json()["message"] == "You have reached your concurrency limit"
        assert (caller.local.bill().billed, caller.local.bill().refused) == (1, 1)
