"""The command line of the local service: ``python -m airflow_provider_bitdance.local``."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final, get_args

from airflow_provider_bitdance.local import faults
from airflow_provider_bitdance.local.service import WEEK, Options

ABOUT: Final = """\
A local service that speaks the WaveSpeed v3 API: images without a key, a network or a bill.

It answers the calls that a text-to-image client makes, draws a picture for every prompt (the picture
shows its prompt, size and seed), keeps a bill in play money, and goes wrong when it is asked to. It
listens on this computer only. Stop it with Ctrl-C; it remembers nothing.
"""

MANUAL: Final = """\
first steps:
  python -m airflow_provider_bitdance.local --port 8700 &
  curl -s http://127.0.0.1:8700/api/v3/wavespeed-ai/bitdance-14b/text-to-image \\
       -H 'Authorization: Bearer local-key' -d '{"prompt": "a lighthouse at dusk"}'
  curl -s http://127.0.0.1:8700/admin/bill

  In Airflow: a connection of type bitdance, host http://127.0.0.1:8700, password local-key.

the API, under /api/v3, with the key as bearer token:
  POST /wavespeed-ai/bitdance-14b/text-to-image  submit: prompt, size, seed. Costs $0.01 at once
  GET  /predictions/ID/result                    status and output URLs; also /predictions/ID
  POST /predictions                              history: page, page_size, model, status, created_*
  POST /predictions/delete                       delete: ids
  GET  /balance                                  credit left
  POST /model/price                              price: model_id, inputs
  GET  /outputs/ID/1.EXT                         the picture (not under /api/v3; no key)

ours, under /admin, without a key:
  GET  /bill          submitted, billed, refunded, completed, failed, in flight; USD
  GET  /predictions   each with its prompt, real seed, status and downloads
  GET  /requests      every request but those to /admin: method, path, time, status
  GET  /faults        the fault rules, and how often each applied
  POST /faults        add a rule        DELETE /faults   forget all rules
  POST /reset         forget everything

faults:
  A rule is a JSON object. "on" says where, "kind" says what, "times" how often (null: for ever),
  "match" for which prompts (a part of them; null: all). The first rule that matches wins. On submit
  one rule that shapes the prediction and one that spoils the answer may apply together. There,
  "after_create" says whether the task is made and charged before the answer is spoiled.

    {"on": "submit", "kind": "reset", "after_create": true, "times": 1}
    {"on": "submit", "kind": "latency", "seconds": 30, "match": "lighthouse"}
    {"on": "result", "kind": "status", "status": 429, "retry_after": 2, "times": 3}

"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the service until SIGINT or SIGTERM.

    :param arguments: of the command line, without the program's name.
    :return: exit status: 0 when stopped, 1 when it could not start.
    """
    parser = _parser()
    given = parser.parse_args(arguments)
    try:
        plan = faults.parse_plan(Path(given.faults).read_bytes()) if given.faults else []
    except (OSError, ValueError) as bad:
        parser.error(f"argument --faults: {bad}")
    try:
        from airflow_provider_bitdance.local.server import LocalService
    except ImportError as missing:
        print(f"{missing}. pip install 'airflow-provider-bitdance[local]'", file=sys.stderr)
        return 1
    try:
        local = LocalService(_options(given), host=given.host, port=given.port)
    except ValueError as bad:
        parser.error(f"argument --host: {bad}")
    for rule in plan:
        local.service.faults.add(rule)
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    try:
        local.start()
    except OSError as bad:
        reason = os.strerror(bad.errno) if bad.errno else bad
        print(f"cannot listen on {given.host}:{given.port}: {reason}", file=sys.stderr)
        return 1
    print(f"Local BitDance service on {local.url} (key: {local.api_key})", flush=True)
    ended.wait()
    local.stop()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_bitdance.local",
        description=ABOUT,
        epilog=MANUAL + _kinds(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_arguments(parser)
    return parser


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    usual, add = Options(), parser.add_argument
    add("--port", type=_port, default=0, metavar="N", help="to listen on; 0, the default, takes a free one")
    add("--host", default="127.0.0.1", help="loopback address to listen on (default: 127.0.0.1)")
    add("--api-key", default=usual.api_key, metavar="KEY", help="the key to accept (default: local-key)")
    add(
        "--latency",
        type=_latency,
        default=2.0,
        metavar="S|S-S",
        help="seconds an image takes: 2 (default) or 1-12",
    )
    add(
        "--balance",
        type=float,
        default=usual.balance_usd,
        metavar="USD",
        help="credit at the start (default: 100)",
    )
    add("--format", choices=("png", "jpeg", "webp"), default="png", help="of the pictures (default: png)")
    add(
        "--output-ttl",
        type=float,
        default=WEEK,
        metavar="S",
        help="seconds a picture stays (default: 7 days)",
    )
    add("--echo-inputs", action="store_true", help="show inputs in the history (the API does not)")
    add("--seed", type=int, default=0, metavar="N", help="of latencies and of seeds for -1 (default: 0)")
    add("--faults", metavar="FILE", help="JSON list of fault rules to start with")


def _options(given: argparse.Namespace) -> Options:
    return Options(
        api_key=given.api_key,
        latency=given.latency,
        balance_usd=given.balance,
        picture_format=given.format,
        output_ttl=given.output_ttl,
        echo_inputs=given.echo_inputs,
        seed=given.seed,
    )


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port; allowed: 0 to 65535")
    return int(text)


def _latency(text: str) -> float | tuple[float, float]:
    try:
        low, dash, high = text.partition("-")
        latency = (float(low), float(high if dash else low))
    except ValueError:
        latency = (-1.0, -1.0)
    if not 0 <= latency[0] <= latency[1] < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither seconds (2) nor a range (1-12)")
    return latency


def _kinds() -> str:
    """List the fault kinds from their classes, so that the manual cannot fall behind."""
    lines = ["kinds, where they may be, and their own keys with defaults:"]
    for kind in get_args(faults.AnyRule):
        fields = kind.model_fields
        keys = [name for name in fields if name not in faults.Rule.model_fields]
        keys.sort(key="after_create".__eq__)
        shown = (name if fields[name].is_required() else f"{name}={fields[name].default!r}" for name in keys)
        lines.append(
            f"  {get_args(fields['kind'].annotation)[0]} ({', '.join(get_args(fields['on'].annotation))})"
        )
        lines.append(f"      {' '.join(kind.__doc__.split())}")
        if keys:
            lines.append(f"      {', '.join(shown)}")
    return "\n".join(lines).replace("%", "%%")


if __name__ == "__main__":
    sys.exit(main())
