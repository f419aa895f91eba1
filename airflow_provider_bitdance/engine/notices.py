"""Notices: what happens to many purchases at once, said once. Lines that would repeat it are for DEBUG."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from typing import Any, Protocol

from airflow_provider_bitdance.records.receipts import Receipt
from airflow_provider_bitdance.redaction import some_of

CALM_SECONDS = 60.0
"""Seconds without a refusal after which a rate limit has ended: WaveSpeed's limits are by the minute."""


class Log(Protocol):
    """The part of a logger that the engine uses: Airflow's are not of one class."""

    def debug(self, message: str, /, *args: Any) -> Any:
        """Say what one of many images does."""

    def info(self, message: str, /, *args: Any) -> Any:
        """Say that something changed."""

    def warning(self, message: str, /, *args: Any) -> Any:
        """Say that something needs attention."""


class Notices:
    """Logs when a rate limit, an outage or a search for lost responses begins, and how it ends."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._refusals, self._refused_since, self._refused_at, self._accepted_at = 0, 0.0, 0.0, 0.0
        self._is_away = False
        self._searches = 0
        self._found: list[str] = []
        self._lost_usd: list[float] = []
        self._doubtful: dict[str, None] = {}
        self._reasons: dict[str, None] = {}
        self._retries: dict[type, float] = {}
        self._left_out: set[str] = set()
        self._is_unlabelled_said = False
        self._is_size_said = False

    def refused(self, what: str, *, now: float, wait: float) -> None:
        """Take note of a 429, and of the seconds until the next submission."""
        log = self._log.debug if self._refusals else self._log.info
        self._refused_since = self._refused_since if self._refusals else now
        self._refusals, self._refused_at, self._accepted_at = self._refusals + 1, now, 0.0
        log("%s. Submitting again in %.0f s", what, wait)

    def accepted(self, *, now: float, window: int | None, is_last: bool = False) -> None:
        """Take note that the account takes submissions.

        :param window: Predictions in flight that it takes at once, as 429s have shown; ``None`` if unknown.
        :param is_last: Nothing is left to be submitted.
        """
        self._accepted_at = self._accepted_at or now
        if not self._refusals or not (is_last or now - self._refused_at >= CALM_SECONDS):
            return
        self._log.info(
            "The account accepts submissions again after refusing %d in %.0f s%s",
            self._refusals,
            self._accepted_at - self._refused_since,
            f"; now at most {window} in flight" if window else "",
        )
        self._refusals = 0

    def not_sent(self, what: str, *, wait: float) -> None:
        """Take note that a submission did not reach the API."""
        log = self._log.debug if self._is_away else self._log.warning
        self._is_away = True
        log("%s. Submitting again in %.0f s", what, wait)

    def reached(self) -> None:
        """Take note that a submission reached the API."""
        if self._is_away:
            self._log.info("Submissions reach the API again")
        self._is_away = False

    def retried(self, error: Exception, what: str, *, now: float, wait: float, is_one_of_many: bool) -> None:
        """Take note of something free that failed and is tried again."""
        is_said = is_one_of_many and now < self._retries.get(type(error), 0.0) + CALM_SECONDS
        if not is_said:
            self._retries[type(error)] = now
        (self._log.debug if is_said else self._log.warning)("%s. Retrying in %.0f s", what, wait)

    def response_lost(self, what: str) -> None:
        """Take note that the response to a purchase was lost; a search follows."""
        log = self._log.debug if self._searches else self._log.warning
        log("%s. Searching the account's history for the prediction", what)

    @contextlib.contextmanager
    def search(self) -> Iterator[None]:
        """Search for a lost response: what the last of several searches at once has found is said for all."""
        self._searches += 1
        try:
            yield
        finally:
            self._searches -= 1
            if not self._searches:
                self._say_what_was_found()

    def left_out(self, what: str) -> None:
        """Take note of another task's entry that cannot be read, which each listing comes upon again."""
        log = self._log.debug if self._left_out else self._log.warning
        if what not in self._left_out:
            log("Searching without the record of another task, because it cannot be read: %s", what)
        self._left_out.add(what)

    def size_differs(self, receipt: Receipt) -> None:
        """Take note of an image of another size than was requested. A batch counts them at its end."""
        log = self._log.debug if self._is_size_said else self._log.warning
        self._is_size_said = True
        log(
            "%s has %d x %d pixels, but %s was requested. Result and receipt have size_differs; "
            'to fail instead, set on_size_mismatch="fail"',
            receipt.uri,
            receipt.width,
            receipt.height,
            receipt.request.size,
        )

    def not_labelled(self, why: str) -> None:
        """Take note of a file without the mark that the user wants. Of many only the first is logged."""
        log = self._log.debug if self._is_unlabelled_said else self._log.warning
        log("Stored an image as received, without the label for AI-generated media: %s", why)
        self._is_unlabelled_said = True

    def found(self, prediction_id: str) -> None:
        """Take note of a prediction that is proven to be that of a lost response."""
        self._found.append(prediction_id)

    def possibly_paid(self, cost_usd: float, reason: str, doubtful: Collection[str]) -> None:
        """Take note of a purchase of which nothing is proven.

        :param doubtful: Predictions that may be it.
        """
        self._lost_usd.append(cost_usd)
        self._doubtful.update(dict.fromkeys(doubtful))
        if not doubtful:
            self._reasons[reason] = None

    def _say_what_was_found(self) -> None:
        if self._found:
            self._log.info(
                "Lost responses: history or a note proves that %d created a prediction: %s",
                len(self._found),
                some_of(self._found),
            )
        if self._lost_usd:
            doubtful = list(self._doubtful)
            reasons = [*self._reasons, *([reason_of_doubt(len(doubtful))] if doubtful else [])]
            self._log.warning(
                "Lost responses: %d possibly paid, about $%.4g. %s%s",
                len(self._lost_usd),
                sum(self._lost_usd),
                ". ".join(reasons),
                f": {', '.join(doubtful)}" if doubtful else "",
            )
        self._found, self._lost_usd, self._doubtful, self._reasons = [], [], {}, {}


def reason_of_doubt(count: int) -> str:
    """Say that the account's history shows predictions that may be that of a lost response."""
    predictions = "a prediction" if count == 1 else f"{count} predictions"
    return f"The account's history shows {predictions} from that time that may be a lost one, without proof"
