"""What ``python -m airflow_provider_bitdance.local --help`` says besides the options.

Models, tiers and fault kinds are listed from the code, so that the manual cannot fall behind it.
"""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import wrap
from typing import Final, get_args

from airflow_provider_bitdance.local import faults, limits
from airflow_provider_bitdance.local.catalogue import MODELS

WIDTH: Final = 100

ABOUT: Final = """\
A local service that speaks the WaveSpeed v3 API: images without a key, a network or a bill.

It serves the requests of a text-to-image client, draws an image for every prompt (the image shows
its prompt, size and seed), keeps a bill in play money, and fails on demand. It listens only on this
computer and sends no requests. Stop it with Ctrl-C. Without --state it keeps nothing.
"""

_FIRST_STEPS: Final = """\
first steps:
  python -m airflow_provider_bitdance.local --port 8700 &
  curl -s http://127.0.0.1:8700/api/v3/wavespeed-ai/bitdance-14b/text-to-image \\
       -H 'Authorization: Bearer local-key' -d '{"prompt": "a lighthouse at dusk"}'
  curl -s http://127.0.0.1:8700/admin/bill

  In Airflow, use a connection of type bitdance, host http://127.0.0.1:8700, password local-key.
"""

_API: Final = """\
the API, under /api/v3, with the key as bearer token:
  POST /MODEL                      submit; charged at once
  GET  /predictions/ID/result      status and output URLs; without /result: 404, in plain text
  POST /predictions                history of 7 days: page, page_size, model, status, created_*,
                                   include_inputs
  POST /predictions/delete         delete: ids; one also as DELETE /predictions/ID
  GET  /models                     the models and their parameters
  POST /model/price                price: model_id, inputs
  GET  /balance                    credit left
  POST /billings/search            charges and refunds: page, page_size, billing_type, ...
  GET  /outputs/ID/1.EXT           the image (not under /api/v3; no key)
  GET  /openapi.json               all of this as OpenAPI (not under /api/v3; no key)
"""

_ADMIN: Final = """\
additions of this service, under /admin, without a key:
  GET  /bill          submitted, billed, refunded, refused, completed, failed, in flight; USD
  GET  /predictions   each with its prompt, real seed and status
  GET  /requests      every request except those to /admin: method, path, time, status
  POST /faults        add a fault rule
  POST /reset         forget everything, including fault rules
"""

_LATENCY: Final = """\
latency:
  Seconds from start to end: one number, a range, or ranges with shares that add up to 100%.

    --latency 2
    --latency 1-12
    --latency 80%:4.5-5.5,20%:36-44
"""

_INPUTS: Final = """\
echoed inputs:
  A submit response echoes the inputs, with the defaults. WaveSpeed does not document whether
  results and the history do so; here they do only if an option says HOW:

    none        not at all
    intact      exactly as they were sent
    defaults    with all defaults, also of parameters that have no effect here
    size        1024x1024 instead of 1024*1024
    snapped     with a different size: the next smaller multiples of 64
    no_size     without the size
    text_seed   with the seed as text
    no_seed     without the seed
    cut         with the first half of the prompt
    expanded    with words added to the prompt

  The history echoes them under "input", or under "inputs" with --history-inputs-key inputs. A
  request may have "include_inputs": true. With --include-inputs needed, only such a request gets
  inputs; with --include-inputs refused, it gets HTTP 400.

    --history-echo intact --history-inputs-key inputs --include-inputs needed
    --result-echo defaults --submit-echo none
"""

_HISTORY: Final = """\
history:
  With --history-lag, the history shows a prediction only so many seconds after its creation: a
  number, a range or a mixture as for --latency. Each prediction draws its own lag, so they may
  appear in another order. With --history-drop, it never shows this share of predictions. With the
  option --history-filter model, a request that names a model finds nothing; with date, one that has
  "created_after" finds nothing. These options do not affect results.

    --history-lag 0-90
    --history-drop 0.1 --history-filter date
"""

_LIMITS: Final = """\
limits:
  By default there are none. --tier sets the limits that WaveSpeed publishes; the other options
  override them. Submissions are counted per minute of the clock. Above a limit, a submission is
  refused with HTTP 429 and costs nothing. With --above-limit queue it is accepted and charged
  instead, and stays "created" until both limits admit it, first come, first served. A prediction
  that never ends counts as in flight until a reset; a deleted one counts until its end.

    --tier bronze --above-limit queue
    --max-in-flight 3 --requests-per-minute 10
"""

_MONEY: Final = """\
money:
  A submission is charged at once, and a failure is refunded at once. Without enough credit a
  submission is refused with HTTP 400, as by WaveSpeed. With --min-pixels, a smaller image is
  accepted and charged, then fails and is refunded, like an unsupported size with some models.

    --min-pixels 1048576
"""

_STATE: Final = """\
state:
  With --state FILE, an SQLite database, every change is committed before its response is sent. A
  service that is killed and started again with the same options keeps its predictions, money,
  limits and fault rules with their counts, but not the list of requests. Use one file per service;
  POST /admin/reset empties it.

    --state /tmp/bitdance.sqlite --port 8700
"""

_FAULTS: Final = """\
faults:
  A rule is a JSON object for POST /admin/faults with these keys:

    on            the kind of request
    kind          the fault, see below
    times         how often it applies (null: always)
    match         a part of the prompts to which it applies (null: all prompts)
    probability   the share of matching requests to which it applies (default: 1)
    after_create  on submit: whether the prediction is created and charged before the response fails
    late          with after_create: seconds until it is created

  The first rule that applies wins. On submit, one rule for the prediction and one for the response
  may apply together. An outage overrides all other rules.

    {"on": "submit", "kind": "reset", "after_create": true, "times": 1}
    {"on": "submit", "kind": "latency", "seconds": 30, "match": "lighthouse"}
    {"on": "submit", "kind": "status", "status": 504, "after_create": true, "late": 20}
    {"on": "result", "kind": "status", "status": 429, "retry_after": 2, "probability": 0.1}
    {"on": "any", "kind": "outage", "seconds": 120}
"""


def text() -> str:
    """Write the manual."""
    chapters = (
        _FIRST_STEPS,
        _API,
        "\n".join(_models()) + "\n",
        _ADMIN,
        _INPUTS,
        _HISTORY,
        _LATENCY,
        _LIMITS + "\n" + "\n".join(_tiers()) + "\n",
        _MONEY,
        _STATE,
        _FAULTS,
        "\n".join(_kinds()),
    )
    return "\n".join(chapters)


def _models() -> Iterator[str]:
    yield "models, USD per prediction, and the parameters with an effect:"
    for model in MODELS.values():
        yield f"  {model.id}  ${model.price}"
        yield from _wrapped(", ".join(model.inputs.model_fields), 6)


def _tiers() -> Iterator[str]:
    yield "    tier      per minute        in flight"
    for name, tier in limits.TIERS.items():
        yield f"    {name:10}{tier.per_minute:14}{tier.in_flight:13}"


def _kinds() -> Iterator[str]:
    yield "kinds of faults, the requests to which they apply, and their own keys with defaults:"
    for kind in get_args(faults.AnyRule):
        fields = kind.model_fields
        keys = [name for name in fields if name not in faults.Rule.model_fields]
        keys.sort(key=("after_create", "late").__contains__)
        shown = (name if fields[name].is_required() else f"{name}={fields[name].default!r}" for name in keys)
        points = ", ".join(get_args(fields["on"].annotation))
        yield from _wrapped(f"{get_args(fields['kind'].annotation)[0]} ({points})", 2)
        yield from _wrapped(kind.__doc__, 6)
        yield from _wrapped(", ".join(shown), 6)


def _wrapped(paragraph: str, indent: int) -> list[str]:
    return wrap(
        " ".join(paragraph.split()),
        WIDTH,
        initial_indent=" " * indent,
        subsequent_indent=" " * max(indent, 6),
    )
