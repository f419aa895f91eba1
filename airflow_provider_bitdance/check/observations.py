"""Observations: what a check has seen, as plain values that may be published.

Nothing here belongs to an account: no key, prompt, id, URL or amount. Only truths, counts, seconds, sizes and
names. ``None`` and an empty text mean "not seen". The JSON of a check is these classes, field by field.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from airflow_provider_bitdance.check.shapes import Shape


class Refusal(StrEnum):
    """Why nothing, or nothing more, was bought."""

    NO_STORE = "a folder cannot be used"
    NO_BALANCE = "the balance cannot be read"
    NO_PRICE = "the API quotes no price"
    ABOVE_AMOUNT = "the price is above --spend"
    ABOVE_BALANCE = "the price is above the balance"
    FIRST_FAILED = "the first purchase failed"
    CHARGED_MORE = "the API charged more than it quoted"


@dataclass(frozen=True, slots=True)
class Answer:
    """What one request came to.

    :param error: The class of our error that it is read as; empty where it went well.
    :param outcome: What the engine would make of it if it were a purchase.
    :param seconds: From the request to the end of the response.
    """

    error: str = ""
    outcome: str = ""
    seconds: float = 0.0
    shape: Shape = field(default_factory=Shape)

    @property
    def is_good(self) -> bool:
        """Whether the response was there, and as documented."""
        return not self.error


@dataclass(frozen=True, slots=True, kw_only=True)
class Versions:
    """What runs."""

    provider: str
    airflow: str
    python: str
    httpx: str
    is_supported: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """What the environment says of proxies and certificates.

    :param variables: Names of those that are set.
    :param uses_proxy: Requests to the API go through one.
    :param has_ignored_bundle: A CA bundle is set for other programs, and none for this one.
    """

    variables: tuple[str, ...] = ()
    uses_proxy: bool = False
    has_ignored_bundle: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """One store, as this machine sees it.

    :param is_local: A path of this machine; other workers see it if it is a mount of theirs, too.
    :param error: The class of the error with which a write, read, listing or deletion failed.
    :param is_exclusive: The store refuses a second file of one name.
    :param winners: Of several writers that created one file at once, so many succeeded.
    :param is_listed: A new file is in a listing at once.
    """

    is_local: bool
    error: str = ""
    is_exclusive: bool = False
    winners: int = 0
    is_listed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """What the catalogue says of the model's inputs.

    :param inputs: Names of the inputs.
    :param required: Of those, the ones without which a request is refused.
    :param additional: Whether it allows inputs that it does not name; ``None`` where it does not say.
    :param smallest: Pixels of a side; likewise ``largest``.
    :param lowest_seed: Likewise ``highest_seed``.
    """

    inputs: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    additional: bool | None = None
    size_type: str = ""
    smallest: int | None = None
    largest: int | None = None
    has_default_size: bool | None = None
    lowest_seed: int | None = None
    highest_seed: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What can be asked without buying.

    :param has_credit: The balance is above nothing.
    :param skew: Seconds by which the API's clock is ahead of this machine's.
    :param catalogue: Answer of the list of models.
    :param schema: Of the model; ``None`` where the catalogue does not have it.
    :param prices: Answers, one for each size.
    :param is_documented_price: The quote is one cent for each size.
    :param has_discount: The quote names a discounted price that is another.
    """

    is_wavespeed: bool = False
    balance: Answer | None = None
    has_credit: bool | None = None
    skew: float | None = None
    wrong_key: Answer | None = None
    unknown_prediction: Answer | None = None
    unknown_model: Answer | None = None
    catalogue: Answer | None = None
    models: int = 0
    schema: Schema | None = None
    prices: tuple[Answer, ...] = ()
    is_documented_price: bool | None = None
    has_discount: bool | None = None
    history: Answer | None = None
    history_with_inputs: Answer | None = None
    bill: Answer | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Echo:
    """Whether and how the API repeats the inputs of a purchase.

    :param field: ``input`` or ``inputs``; empty where there is none.
    :param is_ours: It proves that the prediction is ours: prompt and seed are those that were sent.
    :param is_exact: All that was sent is there with the same values and types.
    :param extra: Names of inputs that were not sent.
    """

    field: str = ""
    is_ours: bool = False
    is_exact: bool = False
    extra: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """One way to list the history after a purchase.

    :param shown_after: Seconds from the purchase to the first listing that shows it; ``None``: none did.
    :param listings: How many there were.
    :param error: The class of the last error.
    """

    shown_after: float | None = None
    listings: int = 0
    error: str = ""
    echo: Echo | None = None
    shape: Shape = field(default_factory=Shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Polling:
    """What polls of the first purchase showed.

    :param first: Answer of the first poll, right after the purchase.
    :param unknown: Polls that did not know the prediction.
    :param known_after: Seconds until one did.
    :param statuses: In the order in which they were seen.
    :param ended_after: Seconds from the purchase to the first poll that shows its end.
    """

    first: Answer | None = None
    unknown: int = 0
    known_after: float | None = None
    statuses: tuple[str, ...] = ()
    ended_after: float | None = None
    echo: Echo | None = None
    shape: Shape = field(default_factory=Shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """How an output was fetched.

    :param host: Of WaveSpeed's outputs, which is public.
    :param redirects: How many there were.
    :param is_extension_right: The extension in its URL is that of its real format.
    """

    status: int = 0
    host: str = ""
    is_https: bool = False
    redirects: int = 0
    media_type: str = ""
    headers: tuple[str, ...] = ()
    is_extension_right: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Purchase:
    """One image that was bought.

    :param requested: Size as ``W*H``.
    :param response: Answer to the submission.
    :param status: In that response.
    :param error: Why the image is not stored, as the class of our error.
    :param is_paid: By that error: ``no``, ``possibly`` or ``yes``.
    :param width: Of the real image, pixels; likewise ``height``.
    :param charges: Rows of the bill that are about it.
    :param is_charged_as_quoted: They come to what was quoted.
    """

    requested: str
    response: Answer | None = None
    status: str = ""
    echo: Echo | None = None
    error: str = ""
    is_paid: str = ""
    width: int | None = None
    height: int | None = None
    media_type: str = ""
    bytes: int = 0
    output: Output | None = None
    charges: int = 0
    is_charged_as_quoted: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """What was bought, and what could be seen of it.

    :param refused: Why nothing, or nothing more, was bought.
    :param excludes_model: A listing for another model does not show the purchase; likewise
        ``excludes_date`` of one from tomorrow on.
    :param bill: Answer of the bill after the purchases.
    :param is_balance_right: The balance fell by what was quoted for all that was bought.
    :param deletion: Answer to the deletion of one of the purchases.
    :param deleted: How many it deleted.
    :param after_deletion: Answer to a poll of it.
    :param status_after_deletion: What that poll showed.
    """

    refused: Refusal | None = None
    purchases: tuple[Purchase, ...] = ()
    polling: Polling | None = None
    listings: dict[str, Listing] = field(default_factory=dict)
    excludes_model: bool | None = None
    excludes_date: bool | None = None
    bill: Answer | None = None
    is_balance_right: bool | None = None
    deletion: Answer | None = None
    deleted: int | None = None
    after_deletion: Answer | None = None
    status_after_deletion: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observations:
    """All that one check has seen.

    :param spending: ``None`` where nothing was to be bought.
    """

    versions: Versions
    environment: Environment
    account: Account
    records: Store | None = None
    images: Store | None = None
    spending: Spending | None = None
