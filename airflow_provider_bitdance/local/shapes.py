"""The shapes of the API's answers. ``answers.py`` fills them in, and ``openapi.py`` describes them.

They are WaveSpeed's, as its documentation and its official clients show them. A key that only some answers
carry is ``NotRequired``.
"""

from __future__ import annotations

from typing import Generic, Literal, NotRequired, TypeVar

# Pydantic, which makes the OpenAPI schemas from these, wants this one below Python 3.12.
from typing_extensions import TypedDict

AnyData = TypeVar("AnyData")
Inputs = dict[str, object]


class Envelope(TypedDict, Generic[AnyData]):
    """What every API answer is wrapped in."""

    code: int
    message: str
    data: AnyData


class Error(TypedDict):
    """A response that is not 2xx."""

    code: int
    message: str
    data: None


class Urls(TypedDict):
    """Where to read a prediction's result."""

    get: str


class Timings(TypedDict):
    """Milliseconds."""

    inference: int


class Prediction(TypedDict):
    """A prediction at a moment."""

    id: str
    model: str
    status: Literal["created", "processing", "completed", "failed"]
    outputs: list[str]
    urls: Urls
    has_nsfw_contents: list[bool]
    created_at: str
    error: str
    executionTime: int
    timings: Timings
    code: NotRequired[int]
    input: NotRequired[Inputs]


class WebhookBody(TypedDict):
    """What a webhook brings: a prediction that ended, without an envelope."""

    id: str
    model: str
    input: Inputs
    outputs: NotRequired[list[str]]
    urls: Urls
    has_nsfw_contents: list[bool]
    status: Literal["completed", "failed"]
    created_at: str
    error: str
    executionTime: int
    timings: Timings


class History(TypedDict):
    """A page of predictions."""

    page: int
    items: list[Prediction]


class DeletedCount(TypedDict):
    """How many predictions were there to delete."""

    deleted_count: int


class Deleted(TypedDict):
    """The one prediction that was deleted."""

    id: str
    status: Literal["deleted"]


class Balance(TypedDict):
    """Credit left, in USD."""

    balance: float


class Price(TypedDict):
    """A quote, in USD."""

    model_id: str
    price: float
    discounted_price: float
    currency: str


class LegacyPrice(TypedDict):
    """A quote in its older form."""

    model_id: str
    unit_price: float
    currency: str


class Secret(TypedDict):
    """The secret that webhooks are signed with."""

    secret: str


# The key that says in which order a form shows the fields is no Python name.
RequestSchema = TypedDict(
    "RequestSchema",
    {"type": str, "properties": Inputs, "required": list[str], "x-order-properties": list[str]},
)


class ApiSchema(TypedDict):
    """How to call a model."""

    type: Literal["model_run"]
    method: Literal["POST"]
    server: str
    api_path: str
    request_schema: RequestSchema


class ApiSchemas(TypedDict):
    """The ways to call a model: one."""

    api_schemas: list[ApiSchema]


class Model(TypedDict):
    """An entry of the catalogue."""

    model_id: str
    name: str
    description: str
    type: str
    base_price: float
    api_schema: ApiSchemas


class BilledPrediction(TypedDict):
    """What a billing record was for."""

    uuid: str
    model_uuid: str
    status: str


class Order(TypedDict):
    """What a charge and its refund belong to."""

    uuid: str
    state: Literal["done"]
    price: float
    origin_price: float


class Billing(TypedDict):
    """A billing record, in USD."""

    uuid: str
    billing_type: Literal["deduct", "refund"]
    price: float
    created_at: str
    order: Order
    prediction: BilledPrediction


class Billings(TypedDict):
    """A page of billing records."""

    page: int
    has_more: bool
    items: list[Billing]


class ModelUsage(TypedDict):
    """What one model cost, in USD."""

    model_uuid: str
    model_type: str
    unit_price: float
    total_cost: float
    total_count: int
    last_used_date: str


class DailyModelUsage(TypedDict):
    """What one model cost on one day, in USD."""

    model_uuid: str
    amount: float
    count: int


class DailyUsage(TypedDict):
    """What one day cost, in USD."""

    date: str
    amount: float
    count: int
    models: list[DailyModelUsage]


class UsageSummary(TypedDict):
    """What a span cost, in USD."""

    total_cost: float
    total_requests: int
    success_requests: int


class Usage(TypedDict):
    """What was used in a span."""

    per_model_usage: list[ModelUsage]
    daily_usage: list[DailyUsage]
    summary: UsageSummary


class AdminPrediction(TypedDict):
    """A prediction with what the API keeps to itself."""

    id: str
    model: str
    prompt: str
    size: str
    seed_asked: int
    seed: int
    status: str
    created_at: str
    completed_at: str | None
    downloads: int


class AdminWebhook(TypedDict):
    """What became of a webhook."""

    id: str
    url: str
    status: Literal["pending", "delivered", "failed", "dropped"]
    attempts: int
    answer: int | str | None


# Each kind of rule has keys of its own; ``on``, ``kind`` and the two counts are in all of them.
AdminFault = dict[str, object]
