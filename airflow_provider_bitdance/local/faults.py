"""Faults on demand: the kinds of rules, and their check. ``fault_plan.py`` says which rule meets a request.

A rule names a point (``on``) and a kind. It applies to the next matching request, ``times`` times, or for
ever when ``times`` is null; with a ``probability`` below 1 the dice decide at each match. The first rule in
the plan that applies wins. A submit may meet two rules, for they do not exclude each other: one that decides
about the prediction (a :class:`PredictionFault`) and one that spoils the response (a :class:`ResponseFault`).
An :class:`Outage` comes before all of them, and before anything of the request is read.
To add a kind, write its class, add it to ``AnyRule``, and say in ``faulty_responses.py`` what it does.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, TypeAdapter, ValidationError, model_validator

ApiPoint = Literal["submit", "result", "history", "delete", "balance", "price", "models", "billing"]
Point = Literal[ApiPoint, "output"]

WITH_PROMPT: Final = frozenset({"submit", "result", "output"})
"""Points whose requests belong to one prediction."""

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Rule(BaseModel):
    """What all rules share: where, how often, and for which prompts."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    on: Literal[Point, "any"]
    kind: str
    times: PositiveInt | None = None
    probability: Annotated[float, Field(gt=0, le=1)] = 1.0
    match: Annotated[str, Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _match_needs_a_prompt(self) -> Self:
        if self.match is not None and self.on not in WITH_PROMPT:
            raise ValueError(f"match: a {self.on} request has no prompt to match; omit it")
        return self


class PredictionFault(Rule):
    """A rule that decides on submit how the prediction ends."""

    on: Literal["submit"]


class ResponseFault(Rule):
    """A rule that makes one response fail."""

    on: Point


class AnyResponseFault(ResponseFault):
    """A fault of any response, which on submit comes before or after the prediction is created and charged.

    The prediction may also be created this many seconds after the response: ``late``.
    """

    after_create: bool = False
    late: Seconds = 0.0

    @model_validator(mode="after")
    def _only_a_submit_creates(self) -> Self:
        for key in ("after_create", "late"):
            if key in self.model_fields_set and self.on != "submit":
                raise ValueError(f'{key}: only for on="submit"; other requests do not create predictions')
        if self.late and not self.after_create:
            raise ValueError("late: only with after_create; without it no prediction is created")
        return self


class Failed(PredictionFault):
    """The prediction fails when its time is up, and its charge is refunded.

    {prompt} in the error stands for the prompt, which moderation (code 1200) may quote.
    """

    kind: Literal["failed"]
    code: int = 1403
    error: str = "Task execution failed"


class NeverFinish(PredictionFault):
    """The prediction stays in processing."""

    kind: Literal["never_finish"]


class Nsfw(PredictionFault):
    """The prediction completes with has_nsfw_contents [true]."""

    kind: Literal["nsfw"]


class Latency(PredictionFault):
    """The prediction takes this many seconds."""

    kind: Literal["latency"]
    seconds: Seconds


class Status(AnyResponseFault):
    """An HTTP error: JSON envelope, a gateway's HTML page, or an empty body."""

    kind: Literal["status"]
    status: Annotated[int, Field(ge=400, le=599)]
    body: Literal["json", "html", "empty"] = "json"
    message: str | None = None
    retry_after: str | int | None = None


class Reset(AnyResponseFault):
    """The connection is reset without a response."""

    kind: Literal["reset"]


class Slow(AnyResponseFault):
    """The right response, this many seconds late. On submit the prediction is created first."""

    kind: Literal["slow"]
    seconds: Seconds
    after_create: bool = True


class Drip(ResponseFault):
    """The right response, a few bytes at a time over this many seconds. On submit the prediction is created
    first."""

    kind: Literal["drip"]
    seconds: Seconds


class Redirect(AnyResponseFault):
    """A redirect to any address."""

    kind: Literal["redirect"]
    url: Annotated[str, Field(min_length=1, pattern=r"^[\x21-\x7e]+$")]
    status: Literal[301, 302, 303, 307, 308] = 302


class TruncatedJson(ResponseFault):
    """HTTP 200 with the first half of the right JSON. On submit the prediction is created."""

    kind: Literal["truncated_json"]
    on: ApiPoint


class Envelope(AnyResponseFault):
    """HTTP 200 around an envelope whose code is not 200."""

    kind: Literal["envelope"]
    on: ApiPoint
    code: int = 500
    message: str = "Internal server error"


class Bare(ResponseFault):
    """The right data without an envelope. On submit the prediction is created."""

    kind: Literal["bare"]
    on: ApiPoint


class NoId(ResponseFault):
    """HTTP 200 without the prediction's id and urls. The prediction is created."""

    kind: Literal["no_id"]
    on: Literal["submit"]


class UnknownStatus(ResponseFault):
    """The prediction has a status that the API does not document."""

    kind: Literal["unknown_status"]
    on: Literal["result"]
    status: str = "queued"


class NullOutputs(ResponseFault):
    """A completed prediction is shown with outputs null. Other reads are neither changed nor counted."""

    kind: Literal["null_outputs"]
    on: Literal["result"]


class FailureCode(ResponseFault):
    """A prediction that failed or was flagged is shown in an envelope of this code, with HTTP 200.

    Other reads are neither changed nor counted.
    """

    kind: Literal["failure_code"]
    on: Literal["result"]
    code: int = 402


class NotFound(ResponseFault):
    """The first reads of each prediction get a 404, as may happen right after a submission."""

    kind: Literal["not_found"]
    on: Literal["result"]
    reads: PositiveInt = 1


class Truncated(ResponseFault):
    """Half of the image with the Content-Length of the whole; then the connection closes."""

    kind: Literal["truncated"]
    on: Literal["output"]


class NotWhole(ResponseFault):
    """Half of the image with a matching Content-Length."""

    kind: Literal["not_whole"]
    on: Literal["output"]


class WrongType(ResponseFault):
    """An HTML page with HTTP 200 instead of the image."""

    kind: Literal["wrong_type"]
    on: Literal["output"]
    media_type: Annotated[str, Field(pattern=r"^[a-z]+/[a-z0-9.+-]+$")] = "text/html"


class Oversized(ResponseFault):
    """A PNG signature followed by zeros, up to this many bytes, with or without a Content-Length."""

    kind: Literal["oversized"]
    on: Literal["output"]
    bytes: PositiveInt = 1_000_000_000
    declared: bool = False


class Bomb(ResponseFault):
    """A small PNG whose header says 30000x30000."""

    kind: Literal["bomb"]
    on: Literal["output"]


class Outage(Rule):
    """For this many seconds from the first request, every request gets a 503 or a connection reset.

    The service's clock counts them.
    """

    kind: Literal["outage"]
    seconds: Seconds
    response: Literal["503", "reset"] = "503"
    match: None = None


AnyRule = (
    Failed
    | NeverFinish
    | Nsfw
    | Latency
    | Status
    | Reset
    | Slow
    | Drip
    | Redirect
    | TruncatedJson
    | Envelope
    | Bare
    | NoId
    | UnknownStatus
    | NullOutputs
    | FailureCode
    | NotFound
    | Truncated
    | NotWhole
    | WrongType
    | Oversized
    | Bomb
    | Outage
)

_RULE: TypeAdapter[AnyRule] = TypeAdapter(Annotated[AnyRule, Field(discriminator="kind")])


def parse(rule: object) -> AnyRule:
    """Check one rule.

    :param rule: a JSON object, such as ``{"on": "result", "kind": "status", "status": 503, "times": 2}``.
    :raises ValueError: names what is wrong.
    """
    try:
        return _RULE.validate_python(rule)
    except ValidationError as bad:
        raise ValueError(_in_a_line(bad)) from None


def _in_a_line(bad: ValidationError) -> str:
    """Say in a line what pydantic says in many, such as ``slow.seconds: Field required``."""
    errors = bad.errors(include_url=False, include_input=False)
    return "; ".join(
        ": ".join(
            filter(None, (".".join(map(str, error["loc"])), error["msg"].removeprefix("Value error, ")))
        )
        for error in errors
    )
