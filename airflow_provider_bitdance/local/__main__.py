"""The command line of the local service: ``python -m airflow_provider_bitdance.local``."""

from __future__ import annotations

import argparse
import math
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from airflow_provider_bitdance.local import latency, limits, manual
from airflow_provider_bitdance.local.database import StateError
from airflow_provider_bitdance.local.echo import Echo
from airflow_provider_bitdance.local.inputs import PictureFormat
from airflow_provider_bitdance.local.options import HistoryFilter, IncludeInputs, InputsKey, Options, Pictures


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the service until SIGINT or SIGTERM.

    :param arguments: of the command line, without the program's name.
    :return: exit status: 0 when stopped, 1 when it could not start.
    """
    parser = _parser()
    given = parser.parse_args(arguments)
    try:
        options = _options(given)
    except ValueError as bad:
        parser.error(f"argument --pictures: {bad}")
    try:
        from airflow_provider_bitdance.local.server import LocalService
    except ImportError as missing:
        print(f"{missing}. Run pip install 'airflow-provider-bitdance[local]'", file=sys.stderr)
        return 1
    try:
        local = LocalService(options, port=given.port)
    except StateError as bad:
        parser.error(f"argument --state: {bad}")
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    try:
        local.start()
    except OSError as bad:
        reason = os.strerror(bad.errno) if bad.errno else bad
        print(f"Cannot listen on 127.0.0.1:{given.port}: {reason}", file=sys.stderr)
        return 1
    print(f"Local BitDance service on {local.url} (key: {local.api_key})", flush=True)
    ended.wait()
    local.stop()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_bitdance.local",
        description=manual.ABOUT,
        epilog=manual.text(),
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, width=manual.WIDTH),
    )
    _add_address(parser)
    _add_pictures(parser)
    _add_account(parser)
    _add_inputs(parser)
    _add_history(parser)
    _add_memory(parser)
    return parser


def _add_address(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("address").add_argument
    add("--port", type=_port, default=0, metavar="N", help="port to listen on (default: 0, any free port)")
    add("--api-key", default=Options().api_key, metavar="KEY", help="API key to accept (default: local-key)")
    add(
        "--api-latency",
        type=_amount,
        default=0.0,
        metavar="S",
        help="seconds of each request's round trip (default: 0)",
    )


def _add_pictures(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("images").add_argument
    add(
        "--latency",
        type=_latency,
        default="2",
        metavar="S",
        help="seconds an image takes, see below (default: 2)",
    )
    add(
        "--format",
        dest="picture_format",
        choices=get_args(PictureFormat),
        default="png",
        help="file format (default: png)",
    )
    add(
        "--pictures",
        choices=get_args(Pictures),
        default="drawn",
        help="for load tests, without text, PNG only: fast (one colour) or photo (1 MB) (default: drawn)",
    )
    add("--min-pixels", type=_count, metavar="N", help="smaller images fail after submission")


def _add_account(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("account").add_argument
    add(
        "--balance",
        dest="balance_usd",
        type=_amount,
        default=100.0,
        metavar="USD",
        help="credit at the start (default: 100)",
    )
    add("--tier", choices=get_args(limits.Tier), help="published limits, see below (default: none)")
    add(
        "--requests-per-minute", type=_count, metavar="N", help="predictions per minute; overrides the tier's"
    )
    add("--max-in-flight", type=_count, metavar="N", help="predictions in flight; overrides the tier's")
    add(
        "--above-limit",
        choices=get_args(limits.AboveLimit),
        default="refuse",
        help="what to do (default: refuse)",
    )


def _add_inputs(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("echoed inputs, see below").add_argument
    for where, default in (("submit", "defaults"), ("result", "none"), ("history", "none")):
        add(
            f"--{where}-echo",
            choices=get_args(Echo),
            default=default,
            metavar="HOW",
            help=f"how a {where} response echoes inputs (default: {default})",
        )
    add(
        "--history-inputs-key",
        choices=get_args(InputsKey),
        default="input",
        help="their key (default: input)",
    )
    add(
        "--include-inputs",
        choices=get_args(IncludeInputs),
        default="ignored",
        help="effect of this flag of a history request (default: ignored)",
    )


def _add_history(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("history, see below").add_argument
    add(
        "--history-lag",
        type=_latency,
        default=0.0,
        metavar="S",
        help="seconds until the history shows a prediction (default: 0)",
    )
    add(
        "--history-drop",
        type=_share,
        default=0.0,
        metavar="SHARE",
        help="share of predictions that it never shows, 0 to 1 (default: 0)",
    )
    add(
        "--history-filter",
        choices=get_args(HistoryFilter),
        default="honest",
        help="broken filter, which matches nothing (default: honest, all filters work)",
    )


def _add_memory(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("randomness and state").add_argument
    add("--seed", type=int, default=0, metavar="N", help="seed of everything random (default: 0)")
    add("--state", type=Path, metavar="FILE", help="file that keeps the state across restarts")


def _options(given: argparse.Namespace) -> Options:
    return Options(**{name: value for name, value in vars(given).items() if name != "port"})


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port; allowed: 0 to 65535")
    return int(text)


def _latency(text: str) -> str:
    try:
        latency.parse(text)
    except ValueError as bad:
        raise argparse.ArgumentTypeError(str(bad)) from None
    return text


def _amount(text: str) -> float:
    try:
        amount = float(text)
    except ValueError:
        amount = -1.0
    if not 0 <= amount < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not an amount; allowed: 0 and more")
    return amount


def _share(text: str) -> float:
    share = _amount(text)
    if share > 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share; allowed: 0 to 1")
    return share


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} would admit nothing; allowed: 1 and more")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
