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

It serves the requests that a text-to-image client makes, draws a picture for every prompt (the
picture shows its prompt, size and seed), keeps a bill in play money, and fails on demand. It
listens on this computer only and calls nobody. Stop it with Ctrl-C. Without --state it remembers
nothing.
"""

_FIRST_STEPS: Final = """\
first steps:
  python -m airflow_provider_bitdance.local --port 8700 &
  curl -s http://127.0.0.1:8700/api/v3/wavespeed-ai/bitdance-14b/text-to-image \\
       -H 'Authorization: Bearer local-key' -d '{"prompt": "a lighthouse at dusk"}'
  curl -s http://127.0.0.1:8700/admin/bill

  In Airflow: a connection of type bitdance, host http://127.0.0.1:8700, password local-key.
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
  GET  /outputs/ID/1.EXT           the picture (not under /api/v3; no key)
  GET  /openapi.json               all of this as OpenAPI (not under /api/v3; no key)
"""

_ADMIN: Final = """\
ours, under /admin, without a key:
  GET  /bill          submitted, billed, refunded, refused, completed, failed, in flight; USD
  GET  /predictions   each with its prompt, real seed and status
  GET  /requests      every request but those to /admin: method, path, time, status
  POST /faults        add a fault rule
  POST /reset         forget everything, fault rules too
"""

_LATENCY: Final = """\
latency:
  Seconds from start to end: one number, a range, or ranges with shares that add up to 100%.

    --latency 2
    --latency 1-12
    --latency 80%:4.5-5.5,20%:36-44
"""

_INPUTS: Final = """\
inputs that are shown:
  A submit response repeats the inputs, with the defaults. Whether results and the history do so is
  not documented, so here they do not unless an option says HOW:

    none        not at all
    intact      as they were sent, and nothing else
    defaults    with all defaults, also those of parameters that have no effect here
    size        1024x1024 instead of 1024*1024
    snapped     another size: the next smaller multiples of 64
    no_size     without the size
    text_seed   the seed as a text
    no_seed     without the seed
    cut         the first half of the prompt
    expanded    the prompt with more words at its end

  The history shows them under "input", or under "inputs" with --history-inputs-key inputs. A
  request may have "include_inputs": true. With --include-inputs needed only such a request is shown
  inputs, and with --include-inputs refused it gets HTTP 400.

    --history-echo intact --history-inputs-key inputs --include-inputs needed
    --result-echo defaults --submit-echo none
"""

_HISTORY: Final = """\
history:
  With a lag a prediction shows in the history only so many seconds after it was made: one number, a
  range, or a mixture as for --latency, drawn for each, so that they may show in another order. A
  share of them never shows. With --history-filter model a request that names a model finds nothing,
  with --history-filter date one that has "created_after". Results are not concerned.

    --history-lag 0-90
    --history-drop 0.1 --history-filter date
"""

_LIMITS: Final = """\
limits:
  There are none by default. --tier sets the published ones, and numbers go before a tier's. The
  rate is counted in windows that begin with each minute of the clock; every task counts as one.
  Above a limit a submit is refused with HTTP 429 and costs nothing, or, with --above-limit queue,
  it is accepted and charged and stays "created" until both limits admit it, first come, first
  served. A prediction that never ends keeps its place in flight for ever, and a deleted one until
  its end.

    --tier bronze --above-limit queue
    --max-in-flight 3 --requests-per-minute 10
"""

_MONEY: Final = """\
money:
  A submit is charged at once, a failure refunded at once. Without enough credit a submit is
  refused with HTTP 400, as WaveSpeed does. With --min-pixels an image of a smaller size is accepted
  and charged, and fails and is refunded: so some models respond to a size that they do not have.

    --min-pixels 1048576
"""

_STATE: Final = """\
state:
  With --state FILE, an SQLite database, every change is committed before its response is sent. A
  service that is killed and started again with the same options goes on where it was:
  predictions, money, limits, fault rules and how often each applied. The list of requests is not
  kept. One service a file; POST /admin/reset empties it.

    --state /tmp/bitdance.sqlite --port 8700
"""

_FAULTS: Final = """\
faults:
  A rule is a JSON object for POST /admin/faults. "on" says where, "kind" says what, "times" how
  often (null: for ever), "match" for which prompts (a part of them; null: all), "probability" in
  what share of the matching requests (default: 1). The first rule that applies wins. On submit one
  rule that decides about the prediction and one that spoils the response may apply together.
  There, "after_create" says whether the task is made and charged before the response is spoiled,
  and "late" that this happens only after so many seconds. An outage comes before all other rules.

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
    yield "models, USD per task, and the parameters that count:"
    for model in MODELS.values():
        yield f"  {model.id}  ${model.price}"
        yield from _wrapped(", ".join(model.inputs.model_fields), 6)


def _tiers() -> Iterator[str]:
    yield "    tier      tasks a minute    in flight"
    for name, tier in limits.TIERS.items():
        yield f"    {name:10}{tier.per_minute:14}{tier.in_flight:13}"


def _kinds() -> Iterator[str]:
    yield "kinds, where they may be, and their own keys with defaults:"
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
