"""The service's state without HTTP: money, limits, formats. The clock is moved by hand."""

from __future__ import annotations

import dataclasses
import math

import pytest

from airflow_provider_bitdance.local.inputs import Refused
from airflow_provider_bitdance.local.options import Options
from tests.unit.local.builders import BITDANCE, FLUX, FULL_MINUTE, Account


def _refusal(account: Account) -> Refused:
    with pytest.raises(Refused) as refusal:
        account.submit()
    return refusal.value


def _counts(account: Account, *names: str) -> tuple[float, ...]:
    bill = dataclasses.asdict(account.service.bill())
    return tuple(bill[name] for name in names)


def test_a_refusal_by_the_limits_charges_nothing_and_is_counted() -> None:
    account = Account(Options(max_in_flight=2, latency=10))
    account.submit()
    account.submit()
    refusal = _refusal(account)
    assert (refusal.status, refusal.message) == (429, "You have reached your concurrency limit")
    assert _counts(account, "submitted", "refused", "balance_usd") == (2, 1, 99.98)
    account.move(10)
    account.submit()
    assert _counts(account, "submitted", "refused") == (3, 1)


def test_a_refusal_by_the_rate_holds_until_the_minute_ends() -> None:
    account = Account(Options(requests_per_minute=3), now=FULL_MINUTE + 12.5)
    for _ in range(3):
        account.submit()
    refusal = _refusal(account)
    assert (refusal.status, refusal.message) == (429, "You have reached your rate limit")
    account.move(47.4)
    assert _refusal(account).status == 429
    account.move(0.1)
    account.submit()
    assert _counts(account, "submitted", "refused") == (4, 2)


def test_a_refusal_for_want_of_credit_takes_no_slot() -> None:
    account = Account(Options(max_in_flight=1, balance_usd=0.005, latency=10))
    assert [_refusal(account).status for _ in range(2)] == [400, 400]
    assert _counts(account, "submitted", "refused") == (0, 0)


def test_a_queued_task_is_charged_at_once_and_waits_as_created() -> None:
    account = Account(Options(tier="bronze", above_limit="queue", latency=10))
    tasks = [account.submit(f"prompt {number}") for number in range(4)]
    assert [task.admitted_at - FULL_MINUTE for task in tasks] == [0, 0, 60, 60]
    assert [task.due_at - FULL_MINUTE for task in tasks] == [10, 10, 70, 70]
    assert _counts(account, "cost_usd", "in_flight") == (0.04, 4)
    seen = []
    for seconds in (0, 1, 9, 49.9, 0.2, 1, 8.9):
        account.move(seconds)
        seen.append(tasks[3].status(account.now))
    assert seen == ["created"] * 5 + ["processing", "completed"]


def test_a_task_that_never_ends_holds_its_slot_even_when_it_was_deleted() -> None:
    account = Account(Options(max_in_flight=1, latency=1))
    account.rule(on="submit", kind="never_finish", times=1)
    endless = account.submit()
    account.move(3600)
    assert account.service.delete([endless.id, endless.id, "unknown"]) == 1
    assert _refusal(account).status == 429
    queue = Account(Options(max_in_flight=1, latency=1, above_limit="queue"))
    queue.rule(on="submit", kind="never_finish", times=1)
    queue.submit()
    behind = queue.submit()
    assert (behind.due_at, behind.status(queue.now + 1e9)) == (math.inf, "created")


def test_the_tier_is_of_no_account_by_default() -> None:
    account = Account(Options(latency=10))
    for _ in range(50):
        account.submit()
    assert _counts(account, "refused", "in_flight") == (0, 50)


def test_a_failure_is_refunded_when_it_is_due() -> None:
    account = Account(Options(latency=5))
    account.rule(on="submit", kind="failed", match="bad")
    account.submit("good")
    account.submit("bad")
    names = ("billed", "refunded", "completed", "failed", "cost_usd", "balance_usd")
    assert _counts(account, *names) == (2, 0, 0, 0, 0.02, 99.98)
    account.move(4.9)
    assert _counts(account, "billed", "refunded") == (2, 0)
    account.move(0.1)
    assert _counts(account, *names) == (1, 1, 1, 1, 0.01, 99.99)


def test_a_mixture_of_latencies_may_be_given_as_a_text() -> None:
    account = Account(Options(latency="50%:1-2,50%:30-40"))
    drawn = {round(task.due_at - task.created_at) for task in (account.submit() for _ in range(50))}
    assert drawn & {1, 2}
    assert drawn & set(range(30, 41))
    assert not drawn & set(range(3, 30))


@pytest.mark.parametrize(
    ("model", "options", "extension"),
    [
        (BITDANCE, Options(), "png"),
        (BITDANCE, Options(picture_format="webp"), "webp"),
        (FLUX, Options(), "jpeg"),
        (FLUX, Options(pictures="fast"), "png"),
    ],
)
def test_the_output_has_the_format_asked_for(model: str, options: Options, extension: str) -> None:
    account = Account(options)
    task = account.submit(model=model)
    assert account.service.output(task.id, f"1.{extension}") is task
    with pytest.raises(Refused, match="File not found"):
        account.service.output(task.id, "1.gif")


def test_fast_pictures_are_png_only() -> None:
    with pytest.raises(ValueError, match="fast images are PNG"):
        Options(pictures="fast", picture_format="jpeg")


def test_a_reset_forgets_limits_money_and_rules() -> None:
    account = Account(Options(max_in_flight=1, latency=10, balance_usd=0.01))
    account.rule(on="submit", kind="never_finish")
    account.submit()
    assert _refusal(account).status == 429
    account.service.reset()
    account.submit()
    assert _counts(account, "submitted", "refused") == (1, 0)
    assert account.service.faults.all() == []
