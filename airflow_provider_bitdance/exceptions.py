"""Every error of this package, and what each one says about retries and money.

Each error answers two questions: *does a retry help?* (``retry_helps``) and *may the image be paid for?*
(``paid``). If no retry can help, operators raise ``AirflowFailException`` with the same message. Nothing in
the package decides by the text of a message.

::

    BitDanceError
    ├── InputError                  no retry · not paid      also a ValueError
    ├── APIError                                             the API responded, and refused
    │   ├── AuthenticationError     no retry · not paid      401, 403
    │   ├── InsufficientCreditError no retry · not paid      400 "Insufficient credits"
    │   ├── RequestRefusedError     no retry · not paid      400 and every other 4xx
    │   ├── NotFoundError           no retry · not paid      404
    │   │   └── UnknownPathError    no retry · not paid      404 that is not the API's
    │   ├── RateLimitError          retry    · not paid      429
    │   └── ServerError             retry    · possibly      5xx, redirects, unknown envelope codes
    ├── BudgetError                 no retry · not paid      more than max_cost_usd, or than the balance
    ├── UnconfirmedPurchaseError    no retry · possibly      a lost response, and on_lost_response="fail"
    ├── TransportError                                       no usable response arrived
    │   ├── NotSentError            retry    · not paid      no connection, so the request never left
    │   ├── LostResponseError       retry    · possibly      sent, but the response was lost
    │   └── GarbledResponseError    retry    · possibly      a response that is not the API's
    │       └── ResponseTooLargeError retry  · possibly      more bytes than such a response may have
    ├── PredictionError                                      the prediction ended without an image
    │   ├── PredictionFailedError   retry    · refunded by WaveSpeed, so counted as not paid
    │   ├── PredictionRefusedError  no retry · possibly      the service refused the input
    │   ├── ModerationError         no retry · possibly      content moderation
    │   │   └── NsfwError           no retry · paid          the image itself is flagged
    │   ├── EnhancedPromptError     no retry · paid          what the Prompt Enhancer returned is not a prompt
    │   └── PredictionGoneError     no retry · possibly      cancelled, deleted, unknown to the API
    ├── ItemsFailedError            retry    · possibly      some images of a batch failed
    ├── PredictionTimeoutError      retry    · paid          a retry polls again and buys nothing
    ├── TaskKilledError             retry    · not paid      Airflow stopped the task
    ├── OutputError                 retry    · paid          the download failed or is not a whole image
    │   ├── OutputRefusedError      no retry · paid          unsafe: too large, a bomb, a private IP address
    │   ├── SizeMismatchError       no retry · paid          stored, but of another size than requested
    │   └── OutputExpiredError      no retry · paid          older than WaveSpeed's 7 days
    └── RecordError                                          the journal or a receipt
        ├── RecordUnreadableError   no retry · possibly      damaged, or not what the journal says
        │   └── RecordNewerError    retry    · possibly      written by a newer version of this package
        ├── StorageError            retry    · not paid      the store could not be read or written
        │   └── UnsafeFileError     no retry · not paid      a link, a folder, a device, or too large
        ├── DestinationBusyError    retry    · not paid      another task is making the same image
        └── FencedError             retry    · not paid      another process has taken over this job

``paid`` of a GET is always ``NO``: "possibly" in the table applies to submissions.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar, Self

from airflow_provider_bitdance.redaction import masked, printable


class Paid(StrEnum):
    """Whether the image that an error is about may have been charged."""

    NO = "no"
    POSSIBLY = "possibly"
    YES = "yes"


_PAID_IN_WORDS = {
    Paid.NO: "Nothing was charged for it.",
    Paid.POSSIBLY: "The image may have been charged.",
    Paid.YES: "The image is paid for.",
}


class BitDanceError(Exception):
    """Base of all errors of this package. Errors are immutable: :meth:`with_verdict` returns a changed copy.

    :param what: What was wrong, as a sentence.
    :param allowed: What is allowed instead.
    :param fix: What to do about it.
    :param paid: Whether the image may be paid for. Default: the class's ``default_paid``.
    """

    retry_helps: bool = False
    default_paid: ClassVar[Paid] = Paid.NO
    retry_in_words: str = ""
    paid_in_words: str = ""

    def __init__(
        self, what: str, *, allowed: str | None = None, fix: str | None = None, paid: Paid | None = None
    ) -> None:
        what = printable(masked(what))
        super().__init__(what)
        self.what = what
        self.allowed = allowed
        self.fix = fix
        self.paid = self.default_paid if paid is None else paid

    def __setattr__(self, name: str, value: object) -> None:
        # Python itself sets dunder attributes, such as the traceback.
        if not name.startswith("__") and (name in self.__dict__ or hasattr(type(self), name)):
            raise AttributeError(
                f"{name} is already set: errors are immutable, with_verdict() returns a copy"
            )
        super().__setattr__(name, value)

    def with_verdict(
        self,
        *,
        paid: Paid | None = None,
        retry: bool | None = None,
        retry_in_words: str | None = None,
        paid_in_words: str | None = None,
        what: str | None = None,
    ) -> Self:
        """Return a copy with another verdict on money or on a retry, or with another message.

        :param paid: Whether the image may be paid for. Its usual sentence replaces the old one, unless
            ``paid_in_words`` gives another.
        :param retry: Whether a retry helps. Its usual sentence replaces the old one, unless
            ``retry_in_words`` gives another.
        """
        if retry is not None and retry_in_words is None:
            retry_in_words = ""
        if paid is not None and paid_in_words is None:
            paid_in_words = ""
        verdict = {
            "paid": paid,
            "paid_in_words": paid_in_words,
            "retry_helps": retry,
            "retry_in_words": retry_in_words,
            "what": what,
        }
        known = self.__dict__ | {name: said for name, said in verdict.items() if said is not None}
        known["what"] = printable(masked(known["what"]))
        copy = type(self).__new__(type(self), known["what"])
        copy.__dict__.update(known)
        copy.__cause__, copy.__suppress_context__ = self.__cause__, self.__suppress_context__
        return copy.with_traceback(self.__traceback__)

    def __str__(self) -> str:
        retry = self.retry_in_words or ("A retry may help." if self.retry_helps else "A retry does not help.")
        allowed = f"Allowed: {self.allowed}" if self.allowed else ""
        parts = (self.what, allowed, self.fix, retry, self.paid_in_words or _PAID_IN_WORDS[self.paid])
        return " ".join(_sentence(part) for part in parts if part)


class InputError(BitDanceError, ValueError):
    """An operator argument, an item or a field of the connection cannot be used."""


class APIError(BitDanceError):
    """The API responded with an error.

    :param status: The HTTP status, or the code in the response's JSON if that one reports the error.
    """

    def __init__(self, what: str, *, status: int, fix: str | None = None, paid: Paid | None = None) -> None:
        super().__init__(what, fix=fix, paid=paid)
        self.status = status


class AuthenticationError(APIError):
    """The API key is missing, wrong, or not allowed to do this (401, 403)."""


class InsufficientCreditError(APIError):
    """The account cannot pay; WaveSpeed says so with HTTP 400."""


class RequestRefusedError(APIError):
    """The API refused the request (400 and other 4xx): no prediction was created."""


class NotFoundError(APIError):
    """The API knows no such model or prediction (404)."""


class UnknownPathError(NotFoundError):
    """Nothing is at this path (404, not in the API's JSON). It proves nothing about predictions."""


class RateLimitError(APIError):
    """Too many requests, or too many predictions in flight (429): no prediction was created.

    :param retry_after: Seconds to wait, as the API requests; ``None`` if it does not.
    """

    retry_helps = True

    def __init__(self, what: str, *, retry_after: float | None = None, fix: str | None = None) -> None:
        super().__init__(what, status=429, fix=fix)
        self.retry_after = retry_after


class ServerError(APIError):
    """The API failed (5xx), redirected, or responded with a code that its documentation does not name."""

    retry_helps = True
    default_paid = Paid.POSSIBLY


class BudgetError(BitDanceError):
    """The images still to be bought cost more than ``max_cost_usd`` or the account's balance allows."""


class UnconfirmedPurchaseError(BitDanceError):
    """The response to a purchase was lost without proof of its outcome, and ``on_lost_response="fail"``."""

    default_paid = Paid.POSSIBLY


class TransportError(BitDanceError):
    """No usable response arrived."""

    retry_helps = True
    default_paid = Paid.POSSIBLY


class NotSentError(TransportError):
    """No connection was made, so the request certainly never left this machine."""

    default_paid = Paid.NO


class LostResponseError(TransportError):
    """The request was sent, at least in part, and no response was read."""


class GarbledResponseError(TransportError):
    """A successful response that is not what the API documents: not JSON, or without data or an id."""


class ResponseTooLargeError(GarbledResponseError):
    """A successful response with more bytes than one of its kind may have."""


class PredictionError(BitDanceError):
    """The prediction ended without an image."""

    default_paid = Paid.POSSIBLY


class PredictionFailedError(PredictionError):
    """WaveSpeed failed to make the image. It refunds failed predictions within 3 hours (refund policy)."""

    retry_helps = True
    default_paid = Paid.NO
    retry_in_words = "A retry buys the image again; WaveSpeed refunds failed predictions."


class PredictionRefusedError(PredictionError):
    """WaveSpeed refused the input after it had created the prediction (codes 1400 to 1402, 1407)."""


class ModerationError(PredictionError):
    """Content moderation refused the prompt."""


class NsfwError(ModerationError):
    """The image is flagged as not safe for work, and ``nsfw`` is not ``"allow"``."""

    default_paid = Paid.YES


class EnhancedPromptError(PredictionError):
    """The Prompt Enhancer returned something other than a prompt: empty, too long, or with a URL in it."""

    default_paid = Paid.YES


class PredictionGoneError(PredictionError):
    """Somebody cancelled or deleted the prediction, or the API no longer knows it."""


class ItemsFailedError(BitDanceError):
    """Some images of a batch failed; the others are stored. A retry helps if it helps any of them."""

    retry_helps = True
    default_paid = Paid.POSSIBLY
    retry_in_words = "A retry buys only what is missing."


class PredictionTimeoutError(BitDanceError):
    """The prediction did not end in time. WaveSpeed continues it; its output stays collectable for 7 days."""

    retry_helps = True
    default_paid = Paid.YES
    retry_in_words = "A retry polls the same prediction again and buys nothing."


class OutputError(BitDanceError):
    """The output could not be downloaded, or is not a whole PNG, JPEG or WebP image."""

    retry_helps = True
    default_paid = Paid.YES
    retry_in_words = "A retry downloads it again and buys nothing."


class OutputRefusedError(OutputError):
    """The output is not safe to use: too large, a decompression bomb, or at a forbidden IP address."""

    retry_helps = False
    retry_in_words = ""


class SizeMismatchError(OutputError):
    """The stored image differs in size from what was requested, and ``on_size_mismatch="fail"``."""

    retry_helps = False
    retry_in_words = ""


class OutputExpiredError(OutputError):
    """The output is older than the 7 days for which WaveSpeed keeps it."""

    retry_helps = False
    retry_in_words = ""


class RecordError(BitDanceError):
    """The journal or a receipt could not be used."""


class RecordUnreadableError(RecordError):
    """A record is damaged, or breaks the format's rules."""

    default_paid = Paid.POSSIBLY


class RecordNewerError(RecordUnreadableError):
    """A record is intact, but a newer version of this package wrote it."""

    retry_helps = True
    retry_in_words = "A retry helps if it runs on an upgraded worker."


class StorageError(RecordError):
    """The store that holds records or images could not be read or written."""

    retry_helps = True


class UnsafeFileError(StorageError):
    """A link, a folder, a device or a file that is too large is in the place of a file: it is not read."""

    retry_helps = False


class DestinationBusyError(RecordError):
    """Another task is making the same image at the same destination, and has not stored it yet."""

    retry_helps = True


class TaskKilledError(BitDanceError):
    """Airflow stopped the task. The journal has what it bought."""

    retry_helps = True
    retry_in_words = "A retry, or a clear, waits for what is already bought and buys only the rest."


class FencedError(RecordError):
    """Another process of the same job has claimed the journal; this one must do nothing more."""

    retry_helps = True
    retry_in_words = "A retry reads the journal and continues from there."


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."
