"""What the user chose: the options that decide what is bought, what fails, and how long is waited."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

from airflow_provider_bitdance.exceptions import BitDanceError, NsfwError
from airflow_provider_bitdance.polling.policy import PollPolicy
from airflow_provider_bitdance.records import Failure, ImageState
from airflow_provider_bitdance.records.receipts import Receipt
from airflow_provider_bitdance.wavespeed.models import MODELS

IfExists = Literal["reuse", "regenerate", "fail"]
Nsfw = Literal["fail", "skip", "allow"]
OnSizeMismatch = Literal["warn", "fail"]
OnLostResponse = Literal["buy_again", "fail"]
OnItemFailure = Literal["finish_then_fail", "fail_fast", "tolerate"]
MAX_UNANSWERED = 8
"""Submissions without a recorded response at any time: so many a kill can lose."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What the user chose.

    :param timeout: Seconds that one try waits for its predictions, after the last purchase.
    :param defer_after: Seconds to wait in the worker before handing over; ``None`` waits to the end.
    :param break_even: The shortest time in seconds that a deferral takes; what comes sooner is waited for
        here.
    :param on_size_mismatch: What to do with an image of another size than was requested; it is stored.
    :param label: ``"iptc"``: write the mark of AI-made media into stored files.
    :param prices: What the connection says that one image costs, in US dollars, by the model's path.
    :param live_price: Use the price from the API, where it is not below the one that is known.
    :param max_cost_usd: What the job may spend at most, possibly paid submissions counted.
    :param check_balance: Ask for the account's balance before the first purchase.
    :param on_lost_response: What to do if a response was lost and the history proves nothing.
    :param retry_failed: Whether a next try buys an image again whose prediction failed.
    :param max_in_flight: Predictions in flight at once; ``None`` finds out what the account takes.
    :param requests_per_minute: Submissions in any minute; ``None`` is without limit.
    :param max_unanswered: Submissions without a recorded response at once: so many a kill can lose.
    :param is_batch: Failures of images, and what stops all, are returned and not raised.
    :param on_item_failure: What one failed image means to the others, and to the job.
    :param max_failures: With ``"tolerate"``: the most failures that are tolerated.
    """

    timeout: float = 600.0
    defer_after: float | None = None
    break_even: float = math.inf
    if_exists: IfExists = "reuse"
    nsfw: Nsfw = "fail"
    on_size_mismatch: OnSizeMismatch = "warn"
    label: Literal["iptc"] | None = None
    prices: Mapping[str, float] = field(default_factory=dict)
    live_price: bool = False
    max_cost_usd: float | None = None
    check_balance: bool = False
    on_lost_response: OnLostResponse = "buy_again"
    retry_failed: bool = True
    max_in_flight: int | None = None
    requests_per_minute: int | None = None
    max_unanswered: int = MAX_UNANSWERED
    is_batch: bool = False
    on_item_failure: OnItemFailure = "finish_then_fail"
    max_failures: int | None = None
    poll: PollPolicy = field(default_factory=PollPolicy)

    def price_of(self, model: str) -> float | None:
        """Return the price of one image that is known without the API: the connection's, or ours."""
        known = MODELS.get(model)
        return self.prices.get(model, known.price_usd if known else None)

    def allows(self, receipt: Receipt) -> bool:
        """Say whether a stored image may be the result."""
        return self.allows_nsfw(receipt) and self.allows_size(receipt)

    def allows_nsfw(self, receipt: Receipt) -> bool:
        """Say whether a stored image may be the result, flagged or not."""
        return not receipt.nsfw or self.nsfw == "allow"

    def allows_size(self, receipt: Receipt) -> bool:
        """Say whether a stored image may be the result with the size that it has."""
        return not receipt.is_other_size or self.on_size_mismatch == "warn"

    def allows_by_now(self, image: ImageState) -> bool:
        """Say whether an image can be stored that failed because the policy did not allow it then."""
        is_flagged = image.failure is Failure.NSFW and self.nsfw == "allow"
        is_of_other_size = image.failure is Failure.SIZE and self.on_size_mismatch == "warn"
        return is_flagged or is_of_other_size

    def may_buy_anew(self, image: ImageState, *, try_number: int) -> bool:
        """Say whether a try may buy an image whose prediction failed: in an earlier try, and not for good."""
        return self.retry_failed and image.failure is Failure.FAILED and image.failed_in_try != try_number

    def counted(self, failures: Mapping[str, BitDanceError]) -> dict[str, BitDanceError]:
        """Return the failures that count: with ``nsfw="skip"`` a flagged image fails nothing."""
        return {
            key: error
            for key, error in failures.items()
            if self.nsfw != "skip" or not isinstance(error, NsfwError)
        }

    def are_too_many(self, failures: Collection[object]) -> bool:
        """Say whether these are more failures than ``max_failures`` tolerates."""
        return self.max_failures is not None and len(failures) > self.max_failures
