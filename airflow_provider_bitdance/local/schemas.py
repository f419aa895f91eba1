"""The API's response bodies. ``responses.py`` fills them in, and ``openapi.py`` describes them.

They are WaveSpeed's, as its documentation and its official clients show them. A key that only some responses
carry is ``NotRequired``.
"""

from __future__ import annotations

from typing import Generic, Literal, NotRequired, TypeVar

# Pydantic, which makes the OpenAPI schemas from these, wants this one below Python 3.12.
from typing_extensions import TypedDict

AnyData = TypeVar("AnyData")
Inputs = dict[str, object]


class Envelope(TypedDict, Generic[AnyData]):
    """What every API response is wrapped in."""

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
    inputs: NotRequired[Inputs]


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
