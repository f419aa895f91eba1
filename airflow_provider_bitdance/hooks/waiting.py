"""Waiting for a prediction without records: what the hook does where it stores nothing."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from airflow_provider_bitdance.exceptions import (
    BitDanceError,
    InputError,
    PredictionTimeoutError,
    RateLimitError,
)
from airflow_provider_bitdance.polling.policy import MINUTE, PollPolicy, is_refusal
from airflow_provider_bitdance.redaction import shorten
from airflow_provider_bitdance.wavespeed.client import Client
from airflow_provider_bitdance.wavespeed.responses import Prediction

LONGEST_WAIT, LONGEST_INTERVAL = 7 * 24 * 3600, 3600
"""Seconds; WaveSpeed keeps an output for 7 days."""
IF_EXISTS, NSFW = ("reuse", "regenerate", "fail"), ("fail", "allow")


class NotWaitedForError(PredictionTimeoutError):
    """The hook keeps no records, so here a retry does not find the prediction again."""

    retry_helps = False
    retry_in_words = "get_prediction polls it again for free; generate buys another image."


@dataclass(frozen=True, slots=True)
class Wait:
    """How long a prediction is waited for, and how often it is polled.

    :param timeout: Seconds.
    """

    timeout: float
    poll: PollPolicy

    @classmethod
    def of(cls, timeout: float | str, poll_interval: float | str) -> Wait:
        """Check what a user gave: what is not finite would be waited for without an end.

        :raises InputError: It is no number of seconds, or too large.
        """
        interval = _seconds("poll_interval", poll_interval, at_most=LONGEST_INTERVAL)
        return cls(_seconds("timeout", timeout, at_most=LONGEST_WAIT), PollPolicy(interval=interval))

    def policy(self, *, nsfw: str, if_exists: str = "reuse") -> dict[str, Any]:
        """Return the fields of the engine's policy for an image that is stored.

        :raises InputError: One is none that is allowed.
        """
        for name, value, allowed in (("if_exists", if_exists, IF_EXISTS), ("nsfw", nsfw, NSFW)):
            if value not in allowed:
                raise InputError(f"{name} is {shorten(repr(value))}", allowed=", ".join(allowed))
        return {"timeout": self.timeout, "poll": self.poll, "nsfw": nsfw, "if_exists": if_exists}

    def until_ended(self, client: Client, prediction: Prediction) -> Prediction:
        """Return the prediction when it has ended.

        Not tenacity: it counts all attempts, and here only polls that fail one after another count.

        :raises PredictionTimeoutError: It has not ended in time, or polling failed.
        """
        start = time.monotonic()
        failures = 0
        failure: BitDanceError | None = None
        refused_since: float | None = None
        while not prediction.is_terminal:
            age = time.monotonic() - start
            if age >= self.timeout:
                outage = f"; the last poll failed: {failure.what}" if failure else ""
                raise NotWaitedForError(
                    f"Not done within {self.timeout:.0f} s: prediction {prediction.id}{outage}"
                )
            requested = failure.retry_after if isinstance(failure, RateLimitError) else None
            pause = self.poll.pause(age=age, draw=0.5, failures=failures, requested=requested)
            time.sleep(min(pause, self.timeout - age))
            try:
                prediction = client.get_prediction(prediction.id)
                failures, refused_since, failure = 0, None, None
            except BitDanceError as error:
                failures, failure, now = failures + 1, error, time.monotonic()
                refused_since = (
                    (now if refused_since is None else refused_since) if is_refusal(error) else None
                )
                # That the API does not know yet what it has just created passes within a minute, too.
                if refused_since is not None and now - refused_since >= MINUTE:
                    what = f"Polling prediction {prediction.id} failed: {error.what}"
                    raise NotWaitedForError(what) from error
        return prediction


def _seconds(name: str, value: float | str, *, at_most: int) -> float:
    """Check a number of seconds: what is not finite would be waited for without an end."""
    try:
        read = -1.0 if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        read = -1.0
    if not 0 <= read <= at_most:
        raise InputError(f"{name} is {shorten(repr(value))}", allowed=f"seconds, 0 to {at_most}")
    return read
