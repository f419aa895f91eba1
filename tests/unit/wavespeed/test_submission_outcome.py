"""Which submissions may still arrive after their response was lost."""

from __future__ import annotations

import pytest

from airflow_provider_bitdance.exceptions import GarbledResponseError, LostResponseError, ServerError
from airflow_provider_bitdance.wavespeed.responses import as_reason
from airflow_provider_bitdance.wavespeed.submission_outcome import may_arrive


@pytest.mark.parametrize(
    ("status", "may"),
    [
        (302, False),
        (408, True),
        (460, True),
        (499, True),
        (500, False),
        (502, True),
        (504, True),
        (599, True),
        (1407, False),
    ],
)
def test_only_what_a_gateway_gave_up_may_still_arrive(status: int, may: bool) -> None:
    """A code above 599 is the envelope's own: the API has read the request."""
    assert may_arrive(ServerError("x", status=status)) is may


def test_what_a_broken_connection_carried_may_still_arrive_and_what_was_answered_may_not() -> None:
    assert may_arrive(LostResponseError("x"))
    assert not may_arrive(GarbledResponseError("x"))


def test_a_reason_that_is_nested_very_deep_is_none_and_no_crash_after_a_purchase() -> None:
    reason: object = "too deep"
    for _ in range(100_000):
        reason = {"error": reason}
    assert as_reason(reason) == ""
    assert as_reason({"error": {"message": "said"}}) == "said"
